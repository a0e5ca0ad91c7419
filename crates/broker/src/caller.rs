use std::sync::{Arc, atomic::AtomicBool};

use audit::Record;
use domain::SpiffeId;

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
}

impl Caller {
    /// Adds to a record who did it, and by which call.
    pub(crate) fn stamp(&self, record: Record) -> Record {
        Record {
            actor: self.identity.as_str().to_owned(),
            certificate_sha256: self.certificate_sha256.to_vec().into(),
            method: self.method.to_owned(),
            trace_id: self.trace_id.map(|id| id.to_vec()).unwrap_or_default().into(),
            ..record
        }
    }
}
