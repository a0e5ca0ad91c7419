use std::sync::Arc;

use mtls::{Identity, ServerTls};
use tonic::{Request, Status};

use crate::refused::{Refused, Why};

/// Whether the identity that opened a stream still holds: a stream can outlive what the guard saw
/// when it began.
#[derive(Debug)]
pub(crate) struct Live {
    tls: Arc<ServerTls>,
    identity: Arc<Identity>,
}

impl Live {
    /// The identity behind a request.
    pub(crate) fn of<M>(request: &Request<M>, tls: &Arc<ServerTls>) -> Result<Self, Status> {
        let identity = request.extensions().get::<Arc<Identity>>().cloned();
        let identity = identity.ok_or_else(unidentified)?;
        Ok(Self { tls: Arc::clone(tls), identity })
    }

    /// Ends the stream with an error when the certificate has ended or been revoked.
    pub(crate) fn check(&self) -> Result<(), Status> {
        self.tls.recheck(&self.identity).map_err(|_| unidentified())
    }
}

fn unidentified() -> Status {
    Refused::from(Why::Unidentified).into()
}
