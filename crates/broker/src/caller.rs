use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use audit::{Kind, Record};
use domain::SpiffeId;

use crate::refused::About;

/// Who calls what: made by the guard from the connection, never from what a request says.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) identity: SpiffeId,
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
        certificate_sha256: [u8; 32],
        method: &'static str,
        trace_id: Option<[u8; 16]>,
    ) -> Self {
        let (recorded, call) = (Arc::default(), Arc::default());
        Self { identity, certificate_sha256, method, trace_id, recorded, call }
    }

    /// Adds to a record who did it, and by which call.
    pub(crate) fn stamp(&self, record: Record) -> Record {
        self.call.stamped.store(true, Ordering::Relaxed);
        Record {
            actor: self.identity.as_str().to_owned(),
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
