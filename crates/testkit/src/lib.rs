//! For tests only: a test PKI, stores and KMSs that fail on cue, a scripted upstream, and stand-ins for
//! the providers.

mod kms;
mod sdk;
mod server;
mod shares;
mod stand_in;
mod store;
mod token_service;
mod upstream;

pub use self::kms::{FailingKms, KmsFailure};
pub use self::sdk::call_with_sdk;
pub use self::server::Server;
pub use self::shares::FailingShares;
pub use self::stand_in::{Answered, SAID, StandIn};
pub use self::store::{FailingStore, Fault, Operation};
pub use self::token_service::TokenService;
pub use upstream::{Seen, StreamHandle, Upstream};
