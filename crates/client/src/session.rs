use std::{fmt, future::Future, sync::Arc};

use sealing::{ClientKeys, SessionId};
use sha2::{Digest as _, Sha256};
use strongroom_proto::v1::OpenSessionRequest;
use tokio::sync::Mutex;
use tonic::Status;

use crate::{Broker, ClientError, Problem};

/// A session with the broker: the keys both ends derived, and what the broker calls this process.
pub(crate) struct OpenSession {
    pub(crate) keys: sealing::Session,
    pub(crate) identity: String,
    /// SHA-256 of this process's public key: what records and revocations call the session.
    pub(crate) key_sha256: [u8; 32],
}

/// The session of now. One per process and broker; opened on first use, by one caller at a time.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Option<Arc<OpenSession>>>);

impl Broker {
    /// Runs a call within the session. When the broker no longer knows the session, as after its
    /// restart, another is opened and the call is made once more.
    pub(crate) async fn in_session<T, F>(
        &self,
        call: impl Fn(Arc<OpenSession>) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let session = self.sessions().current(self, None).await?;
        match call(Arc::clone(&session)).await {
            Err(ClientError::Call(status)) if is_unknown_session(&status) => {
                call(self.sessions().current(self, Some(&session)).await?).await
            }
            result => result,
        }
    }
}

impl Sessions {
    /// The open session, or another one when there is none or it is the `stale` one.
    async fn current(
        &self,
        broker: &Broker,
        stale: Option<&Arc<OpenSession>>,
    ) -> Result<Arc<OpenSession>, ClientError> {
        // Held across the call on purpose: callers that come meanwhile wait for its result.
        let mut current = self.0.lock().await;
        match &*current {
            Some(open) if stale.is_none_or(|stale| !Arc::ptr_eq(stale, open)) => {
                Ok(Arc::clone(open))
            }
            _ => {
                *current = None;
                let open = Arc::new(open(broker).await?);
                Ok(Arc::clone(current.insert(open)))
            }
        }
    }
}

impl fmt::Debug for OpenSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenSession").field("identity", &self.identity).finish_non_exhaustive()
    }
}

pub(crate) fn is_unknown_session(status: &Status) -> bool {
    Problem::from_status(status).reason == "NO_SUCH_SESSION"
}

async fn open(broker: &Broker) -> Result<OpenSession, ClientError> {
    let keys = ClientKeys::generate().map_err(|_| ClientError::NoRandomness)?;
    let key_sha256 = Sha256::digest(keys.public_key()).into();
    let request = OpenSessionRequest { public_key: keys.public_key().to_vec().into() };
    let answer = broker.leases().open_session(request).await?.into_inner();
    broker.checkpoints().learn_key(&answer.verifier_key)?;
    let id: SessionId = (&*answer.session_id)
        .try_into()
        .map_err(|_| ClientError::BadAnswer("a session's ID has 16 bytes"))?;
    let session = keys
        .open(&answer.encapsulated_key, id)
        .map_err(|_| ClientError::BadAnswer("the session's encapsulated key is malformed"))?;
    Ok(OpenSession { keys: session, identity: answer.identity, key_sha256 })
}
