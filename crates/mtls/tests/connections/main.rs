//! Connections over loopback: good ones, refused ones, and those that see their files change.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agent;
mod bundles;
mod ends;
mod handshake;
mod incoming;
mod open;
mod pki;
mod raw;
mod reload;
