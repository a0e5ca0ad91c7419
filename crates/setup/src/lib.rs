//! Lays out a deployment: PKI, keys and configuration.
//!
//! What it writes is complete and private from the first moment: directories of mode 0700, secret
//! files of mode 0600, and a directory that appears under its name only when everything is in it.

mod error;
mod files;
mod layout;
mod pki;

pub use error::SetupError;
pub use layout::Layout;
pub use pki::{Pki, Svid};
