//! TLS 1.3 with SPIFFE identities on both ends, reloaded without a restart.
//!
//! Both sides present an X.509-SVID and check the other's; there is no mode without certificates,
//! no session resumption and no early data. A server ends its open connections when the files that it
//! looks at come to say that their peer is no longer accepted.

mod bundle;
mod client;
mod connection;
mod error;
mod files;
mod identity;
mod incoming;
mod material;
mod open;
mod provider;
mod reload;
mod server;
mod source;
mod trust;
mod verifier;
mod workload;

pub use bundle::CaFiles;
pub use client::ClientTls;
pub use connection::TlsConnection;
pub use error::{HandshakeError, LoadError, Refusal, refused_by_peer};
pub use files::TlsFiles;
pub use identity::{Identity, SvidError};
pub use incoming::{Limits, OnFailure, incoming, incoming_with};
pub use server::ServerTls;
pub use source::TlsSource;
pub use trust::{InvalidTrustDomain, TrustDomains};
pub use workload::WorkloadApi;
