//! The proxy in process, between a real HTTP client and a scripted provider.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod config;
mod harness;
mod limits;
mod passing;
mod refusing;
mod streaming;
