//! The broker as its clients and its operators meet it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test, what cannot go on has failed")]

mod approvals;
mod complete;
mod config;
mod connections;
mod failures;
mod families;
mod harness;
mod hostile;
mod lending;
mod people;
mod policy;
mod process;
mod records;
mod recovery;
mod roles;
mod root_key;
mod schedule;
mod several;
mod sinks;
mod tiles;
mod virtual_keys;
mod webhooks;
mod witnesses;
