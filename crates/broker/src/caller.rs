use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use audit::{Kind, Record};
use bytes::Bytes;
use domain::SpiffeId;

use crate::{people::Called, refused::About};

/// Who calls what: made by the guard from the connection, never from what a request says.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) identity: SpiffeId,
    /// What records call it.
    pub(crate) called: Called,
    /// What the log knows it by.
    pub(crate) actor: Arc<Actor>,
    pub(crate) certificate_sha256: [u8; 32],
    /// `Service/Method`, as the contract spells it.
    pub(crate) method: &'static str,
    pub(crate) trace_id: Option<[u8; 16]>,
    /// Whether the call's refusal, if it is one, has been taken care of.
    pub(crate) recorded: Arc<AtomicBool>,
    call: Arc<Call>,
}

/// What is known of one call so far.
#[derive(Debug, Default)]
struct Call {
    stamped: AtomicBool,
    about: Mutex<About>,
}

impl Caller {
    pub(crate) fn new(
        identity: SpiffeId,
        called: Called,
        certificate_sha256: [u8; 32],
        method: &'static str,
        trace_id: Option<[u8; 16]>,
    ) -> Self {
        let (recorded, call) = (Arc::default(), Arc::default());
        let actor = Arc::new(Actor::of(&identity, called));
        Self { identity, called, actor, certificate_sha256, method, trace_id, recorded, call }
    }

    /// Adds to a record who did it, and by which call.
    pub(crate) fn stamp(&self, record: Record) -> Record {
        self.is_recorded();
        self.template(record)
    }

    /// Takes note that a record of the call has been made.
    pub(crate) fn is_recorded(&self) {
        self.call.stamped.store(true, Ordering::Relaxed);
    }

    /// As [`Self::stamp`], for records that may turn out not to be made.
    pub(crate) fn template(&self, record: Record) -> Record {
        Record {
            actor: if self.called == Called::ById {
                self.identity.to_string()
            } else {
                String::new()
            },
            actor_commitment: commitment(self.called),
            certificate_sha256: self.certificate_sha256.to_vec().into(),
            method: self.method.to_owned(),
            trace_id: self.trace_id.map(|id| id.to_vec()).unwrap_or_default().into(),
            ..record
        }
    }

    /// Whether a record of the call has been made.
    pub(crate) fn is_on_record(&self) -> bool {
        self.call.stamped.load(Ordering::Relaxed)
    }

    /// Takes note of what the call is about, for a record that nothing else tells of it.
    pub(crate) fn concerns(&self, about: About) {
        *self.call.about.lock().unwrap_or_else(PoisonError::into_inner) = about;
    }

    /// The record of a call that changed nothing.
    pub(crate) fn read(&self) -> Record {
        let about = self.call.about.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.stamp(about.name_in(Record { kind: Kind::Read.into(), ..Record::default() }))
    }
}

/// Whom a call is by, in the forms that records know: who is a person now may have been none when
/// they were blocked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Actor {
    id: String,
    commitment: Option<String>,
}

impl Actor {
    /// An identity that records call so.
    pub(crate) fn of(identity: &SpiffeId, called: Called) -> Self {
        let commitment = match called {
            Called::By(commitment) => Some(hex::encode(commitment)),
            Called::ById | Called::ByNothing => None,
        };
        Self { id: identity.to_string(), commitment }
    }

    /// What a record may call them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        [Some(&*self.id), self.commitment.as_deref()].into_iter().flatten()
    }
}

fn commitment(called: Called) -> Bytes {
    match called {
        Called::By(commitment) => commitment.to_vec().into(),
        Called::ById | Called::ByNothing => Bytes::new(),
    }
}
