use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use audit::{Kind, Record};
use prost_types::Timestamp;

use crate::session::OpenSession;

/// Who must not go on, as the log tells it: identities that are blocked, and sessions that were
/// revoked. The log is all that is kept of it, so a broker that starts reads it from there.
#[derive(Debug, Default)]
pub(crate) struct Barred {
    /// Looked at with every call, changed seldom.
    now: ArcSwap<Bars>,
    changing: Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Bars {
    identities: BTreeMap<String, Bar>,
    /// By SHA-256 of the session's public key.
    sessions: HashSet<Vec<u8>>,
}

/// The latest word on an identity.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    /// The record that blocked it last.
    pub(crate) log_index: u64,
    pub(crate) time: Option<Timestamp>,
    blocked: bool,
}

impl Barred {
    /// Takes a change in.
    pub(crate) fn apply(&self, record: &Record) {
        let kind = record.kind();
        if !matches!(kind, Kind::IdentityBlocked | Kind::IdentityUnblocked | Kind::SessionRevoked) {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bars = Bars::clone(&self.now.load());
        if kind == Kind::SessionRevoked {
            bars.sessions.insert(record.session_key_sha256.to_vec());
        } else if kind == Kind::IdentityBlocked {
            let (log_index, time) = (record.index, record.time);
            bars.identities.insert(record.subject.clone(), Bar { log_index, time, blocked: true });
        } else if let Some(bar) = bars.identities.get_mut(&record.subject) {
            bar.blocked = false;
        }
        self.now.store(Arc::new(bars));
    }

    /// Whether an identity is blocked.
    pub(crate) fn is_blocked(&self, identity: &str) -> bool {
        self.now.load().identities.get(identity).is_some_and(|bar| bar.blocked)
    }

    /// Whether a session has been revoked, or was opened before its identity was blocked.
    pub(crate) fn ends(&self, session: &OpenSession) -> bool {
        let bars = self.now.load();
        bars.sessions.contains(session.key_sha256.as_slice())
            || bars
                .identities
                .get(session.identity.as_str())
                .is_some_and(|bar| session.log_index < bar.log_index)
    }

    /// The identities that are blocked.
    pub(crate) fn blocked(&self) -> Vec<(String, Bar)> {
        let bars = self.now.load();
        let blocked = bars.identities.iter().filter(|(_, bar)| bar.blocked);
        blocked.map(|(identity, bar)| (identity.clone(), bar.clone())).collect()
    }

    /// The record that blocks an identity, if it is blocked.
    pub(crate) fn blocked_by(&self, identity: &str) -> Option<Bar> {
        self.now.load().identities.get(identity).filter(|bar| bar.blocked).cloned()
    }
}
