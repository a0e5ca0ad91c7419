use std::sync::Arc;

use mtls::{Identity, ServerTls};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::{
    barred::Barred,
    caller::{Actor, Caller},
    core::Core,
    listener::Leaving,
    refused::{Refused, Why},
};

/// Whether the identity that opened a stream still holds: a stream can outlive what the guard saw
/// when it began.
#[derive(Debug)]
pub(crate) struct Live {
    tls: Arc<ServerTls>,
    barred: Arc<Barred>,
    identity: Arc<Identity>,
    actor: Arc<Actor>,
    /// When the stream's connection is to close, or the broker to stop.
    pub(crate) leaving: CancellationToken,
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
        let actor = request.extensions().get::<Caller>().map(|caller| Arc::clone(&caller.actor));
        let actor = actor.ok_or_else(unidentified)?;
        let Leaving(leaving) = request.extensions().get().cloned().ok_or_else(unidentified)?;
        let barred = Arc::clone(core.directory.barred());
        Ok(Self { tls: Arc::clone(tls), barred, identity, actor, leaving })
    }

    /// Ends the stream with an error when the certificate has ended or been revoked, or its identity
    /// blocked.
    pub(crate) fn check(&self) -> Result<(), Status> {
        self.tls.recheck(&self.identity).map_err(|_| unidentified())?;
        self.barred.admit(&self.actor).map_err(|why| Refused::from(why).into())
    }
}

fn unidentified() -> Status {
    Refused::from(Why::Unidentified).into()
}
