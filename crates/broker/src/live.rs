use std::sync::Arc;

use mtls::{Identity, ServerTls};
use tonic::{Request, Status};

use crate::{
    barred::Barred,
    core::Core,
    refused::{Refused, Why},
};

/// Whether the identity that opened a stream still holds: a stream can outlive what the guard saw
/// when it began.
#[derive(Debug)]
pub(crate) struct Live {
    tls: Arc<ServerTls>,
    barred: Arc<Barred>,
    identity: Arc<Identity>,
}

impl Live {
    /// The identity behind a request.
    pub(crate) fn of<M>(
        request: &Request<M>,
        tls: &Arc<ServerTls>,
        core: &Core,
    ) -> Result<Self, Status> {
        let identity = request.extensions().get::<Arc<Identity>>().cloned();
        let identity = identity.ok_or_else(unidentified)?;
        let barred = Arc::clone(core.directory.barred());
        Ok(Self { tls: Arc::clone(tls), barred, identity })
    }

    /// Ends the stream with an error when the certificate has ended or been revoked, or its identity
    /// blocked.
    pub(crate) fn check(&self) -> Result<(), Status> {
        self.tls.recheck(&self.identity).map_err(|_| unidentified())?;
        if self.barred.is_blocked(self.identity.spiffe_id.as_str()) {
            return Err(Refused::from(Why::IdentityBlocked).into());
        }
        Ok(())
    }
}

fn unidentified() -> Status {
    Refused::from(Why::Unidentified).into()
}
