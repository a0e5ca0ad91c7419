use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use audit::{Kind, Record};
use prost_types::Timestamp;

use crate::{caller::Actor, refused::Why, session::OpenSession};

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
    /// By what records name them.
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
        let subject = subject(record);
        if kind == Kind::SessionRevoked {
            bars.sessions.insert(record.session_key_sha256.to_vec());
        } else if kind == Kind::IdentityBlocked {
            let (log_index, time) = (record.index, record.time);
            bars.identities.insert(subject, Bar { log_index, time, blocked: true });
        } else if let Some(bar) = bars.identities.get_mut(&subject) {
            bar.blocked = false;
        }
        self.now.store(Arc::new(bars));
    }

    /// Whether somebody is blocked.
    pub(crate) fn is_blocked(&self, actor: &Actor) -> bool {
        self.blocked_by(actor).is_some()
    }

    /// Refuses who is blocked.
    pub(crate) fn admit(&self, actor: &Actor) -> Result<(), Why> {
        if self.is_blocked(actor) { Err(Why::IdentityBlocked) } else { Ok(()) }
    }

    /// Whether a session has been revoked, or was opened before its holder was blocked.
    pub(crate) fn ends(&self, session: &OpenSession) -> bool {
        let bars = self.now.load();
        let mut of_holder = session.actor.names().filter_map(|name| bars.identities.get(name));
        bars.sessions.contains(session.key_sha256.as_slice())
            || of_holder.any(|bar| session.log_index < bar.log_index)
    }

    /// Who is blocked, as records name them.
    pub(crate) fn blocked(&self) -> Vec<(String, Bar)> {
        let bars = self.now.load();
        let blocked = bars.identities.iter().filter(|(_, bar)| bar.blocked);
        blocked.map(|(name, bar)| (name.clone(), bar.clone())).collect()
    }

    /// The record that blocks somebody, and the name that it blocks, if they are blocked.
    pub(crate) fn blocked_by(&self, actor: &Actor) -> Option<(String, Bar)> {
        let bars = self.now.load();
        actor.names().find_map(|name| {
            let bar = bars.identities.get(name).filter(|bar| bar.blocked)?;
            Some((name.to_owned(), bar.clone()))
        })
    }
}

/// How a record names its subject: the SPIFFE ID, or the commitment in hex.
fn subject(record: &Record) -> String {
    if record.subject.is_empty() {
        hex::encode(&record.subject_commitment)
    } else {
        record.subject.clone()
    }
}
