use std::{sync::Arc, time::Duration};

use domain::{Clock, SpiffeId, Timestamp};
use moka::{policy::EvictionPolicy, sync::Cache};
use sealing::{BoxId, Session, SessionId};
use sha2::{Digest as _, Sha256};

use crate::{
    caller::{Actor, Caller},
    refused::Why,
};

/// The sessions of this broker's callers, in memory only.
#[derive(Debug)]
pub(crate) struct Sessions {
    open: Cache<SessionId, Arc<OpenSession>>,
    /// Boxes whose secret was stored: the same one again is refused.
    used_boxes: Cache<(SessionId, BoxId), ()>,
    clock: Arc<dyn Clock>,
}

/// A session and whose it is.
#[derive(Debug)]
pub(crate) struct OpenSession {
    pub(crate) session: Session,
    pub(crate) identity: SpiffeId,
    /// What the log knows its holder by.
    pub(crate) actor: Arc<Actor>,
    /// SHA-256 of the caller's public key, for the record.
    pub(crate) key_sha256: [u8; 32],
    pub(crate) expires_at: Timestamp,
    /// The record that tells of its opening.
    pub(crate) log_index: u64,
}

/// A session lives this long; a caller opens another then.
const LIFE: Duration = Duration::from_hours(24);

impl Sessions {
    pub(crate) fn new(most: u64, clock: Arc<dyn Clock>) -> Self {
        let open = Cache::builder()
            .max_capacity(most)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(LIFE)
            .build();
        let used_boxes = Cache::builder().max_capacity(most).time_to_live(LIFE).build();
        Self { open, used_boxes, clock }
    }

    /// Whether a box's secret was stored before.
    pub(crate) fn is_used(&self, session: SessionId, id: BoxId) -> bool {
        self.used_boxes.contains_key(&(session, id))
    }

    /// Takes note that a box's secret is stored.
    pub(crate) fn use_up(&self, session: SessionId, id: BoxId) {
        self.used_boxes.insert((session, id), ());
    }

    /// Makes a session; gives it and the encapsulated key for the caller. It can be used once it is
    /// on record and [kept](Self::keep).
    pub(crate) fn establish(
        &self,
        caller: &Caller,
        public_key: &[u8],
    ) -> Result<(OpenSession, [u8; 32]), Why> {
        let mut id: SessionId = [0; 16];
        getrandom::fill(&mut id)?;
        let (encapsulated_key, session) =
            Session::establish(public_key, id).map_err(|_| Why::PublicKeyMalformed)?;
        let made = OpenSession {
            session,
            identity: caller.identity.clone(),
            actor: Arc::clone(&caller.actor),
            key_sha256: Sha256::digest(public_key).into(),
            expires_at: self.clock.now() + LIFE,
            log_index: 0,
        };
        Ok((made, encapsulated_key))
    }

    /// Lets a session be used from now on.
    pub(crate) fn keep(&self, session: OpenSession) -> Arc<OpenSession> {
        let session = Arc::new(session);
        self.open.insert(session.session.id(), Arc::clone(&session));
        session
    }

    /// The caller's session. Another identity's looks like none at all.
    pub(crate) fn of(&self, caller: &Caller, id: &[u8]) -> Result<Arc<OpenSession>, Why> {
        let id = SessionId::try_from(id).map_err(|_| Why::NoSuchSession)?;
        self.open
            .get(&id)
            .filter(|open| open.identity == caller.identity && open.expires_at > self.clock.now())
            .ok_or(Why::NoSuchSession)
    }
}
