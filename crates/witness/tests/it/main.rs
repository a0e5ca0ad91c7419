//! A witness as logs and its auditors meet it.
#![expect(clippy::unwrap_used, reason = "in a test, what cannot go on has failed")]

mod desk;
mod given;
mod http;
