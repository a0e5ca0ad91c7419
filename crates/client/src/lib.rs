//! The Rust SDK of Strongroom: a channel to the broker over mutual TLS, one HPKE session per process,
//! credentials sealed before they leave, and a cache of leases that a revocation empties at once.
//!
//! What budgets leave to this process is in [`Purses`]: slices from which calls are reserved without asking,
//! and what they came to, told in batches.
//!
//! Leases are held as ciphertext; plaintext exists only while a caller holds what
//! [`HeldLease::unseal`] returned. Nothing here depends on a telemetry setup: counters go through
//! the `metrics` facade, and trace headers through [`Broker::with_metadata`].

mod acquire;
mod broker;
mod cache;
mod checkpoints;
mod config;
mod convert;
mod deadline;
mod error;
mod held;
mod ingest;
mod lease_key;
mod meters;
mod problem;
mod purse;
mod purses;
mod refusals;
mod renewal;
mod reports;
mod ring;
mod rush;
mod session;
mod slice;
mod tasks;
mod till;
mod transport;
mod watch;

pub use acquire::FailedAttempt;
pub use broker::Broker;
pub use cache::{LeaseCache, LeaseCacheConfig};
pub use config::ClientConfig;
pub use error::{ClientError, LeaseError, UnsealError};
pub use held::HeldLease;
pub use lease_key::LeaseKey;
pub use problem::Problem;
pub use purse::{Held, LimitState};
pub use purses::Purses;
pub use till::{PurseKey, Till};
pub use transport::{Outgoing, Transport};
pub use watch::{OnStreamLoss, Outage, WatchState};
