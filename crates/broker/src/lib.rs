//! The broker: a gRPC service over mutual TLS that keeps provider credentials under a KMS-held root
//! key and lends them for minutes, sealed to one workload's session. No lease leaves before its
//! record is durable in the log.

mod access;
mod barred;
mod bootstrap;
mod broker;
mod caller;
mod checkpoints;
mod config;
mod core;
mod custody;
mod directory;
mod export;
mod follower;
mod give_up;
mod guard;
mod healths;
mod leadership;
mod lending;
mod listener;
mod live;
mod log;
mod people;
mod refused;
mod rekeying;
mod root_key;
mod route;
mod services;
mod session;
mod signer;
mod signing;
mod status;
mod tally;
mod tiles;
mod witnesses;

pub use access::AccessError;
pub use broker::Broker;
pub use config::{
    Config, ConfigError, CustomEndpoints, Limits, LogConfig, ProviderOverride, TilesConfig,
    WitnessConfig,
};
pub use give_up::give_up_checkpoint;
pub use root_key::add_root_key;
