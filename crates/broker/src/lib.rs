//! The broker: a gRPC service over mutual TLS that keeps provider credentials under a KMS-held root
//! key and lends them for minutes, sealed to one workload's session. No lease leaves before its
//! record is durable in the log.

mod access;
mod barred;
mod bootstrap;
mod broker;
mod caller;
mod config;
mod core;
mod custody;
mod directory;
mod export;
mod follower;
mod guard;
mod lending;
mod listener;
mod live;
mod log;
mod refused;
mod route;
mod services;
mod session;
mod signer;
mod status;
mod tally;
mod tiles;

pub use access::AccessError;
pub use broker::Broker;
pub use config::{
    Config, ConfigError, CustomEndpoints, Limits, LogConfig, ProviderOverride, TilesConfig,
};
