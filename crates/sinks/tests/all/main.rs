//! What other systems are given, and what becomes of it on the way.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod collector;
mod files;
mod forms;
mod given;
mod pki;
mod receiver;
mod syslog;
