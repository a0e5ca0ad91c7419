//! The broker: a gRPC service over mutual TLS that keeps provider credentials under a KMS-held root
//! key and lends them for minutes, sealed to one workload's session. No lease leaves before its
//! record is durable in the log.

mod access;
mod allowances;
mod approvals;
mod barred;
mod bootstrap;
mod broker;
mod caller;
mod canaries;
mod checkpoints;
mod config;
mod core;
mod custody;
mod directory;
mod endpoints;
mod erasing;
mod export;
mod flights;
mod follower;
mod give_up;
mod guard;
mod healths;
mod key_tests;
mod leadership;
mod lending;
mod listener;
mod live;
mod log;
mod outside;
mod people;
mod policy_file;
mod prepared;
mod prices;
mod recover;
mod refused;
mod rekeying;
mod root_key;
mod rotating;
mod route;
mod rows;
mod services;
mod session;
mod signer;
mod signing;
mod status;
mod sweeping;
mod tally;
mod tiles;
mod tokens;
mod usage;
mod usage_sweep;
mod virtual_key;
mod webhook;
mod witnesses;

pub use access::AccessError;
pub use broker::Broker;
pub use config::{
    AwsConfig, Config, ConfigError, CustomEndpoints, EgressConfig, KeyTests, Limits, LogConfig,
    ProviderOverride, TilesConfig, WitnessConfig,
};
pub use give_up::give_up_checkpoint;
pub use policy_file::admit_policy;
pub use prepared::check_config;
pub use recover::{Recovered, recover};
pub use root_key::add_root_key;
