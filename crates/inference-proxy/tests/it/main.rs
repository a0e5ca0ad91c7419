//! The proxy in process, between a real HTTP client and a scripted provider.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod bad_input;
mod budgets;
mod caller;
mod certificates;
mod config;
mod encoded;
mod explaining;
mod falling_back;
mod garbled;
mod harness;
mod hidden_errors;
mod http2;
mod leaking;
mod ledger;
mod limits;
mod metering;
mod passing;
mod places;
mod quirks;
mod readiness;
mod refusing;
mod steering;
mod streaming;
mod targets;
mod tls;
mod usage;
