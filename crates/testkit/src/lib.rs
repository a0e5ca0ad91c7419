//! For tests only: a test PKI, stores and KMSs that fail on cue, a scripted upstream.

mod kms;
mod store;
mod upstream;

pub use self::kms::{FailingKms, KmsFailure};
pub use self::store::{FailingStore, Fault, Operation};
pub use upstream::{Seen, StreamHandle, Upstream};
