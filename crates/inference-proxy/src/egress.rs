//! The one way out. Every connection to a provider is made here, to the one origin it was made for,
//! at an address that was checked and is the address dialled.

mod address;
mod connector;
mod resolve;
mod stream;
mod tls;
mod upstream;

pub(crate) use address::AddressRules;
pub(crate) use connector::{EgressError, Exit};
pub(crate) use resolve::{Resolve, SystemResolver};
pub use tls::RootsError;
pub(crate) use tls::client_tls;
pub(crate) use upstream::{Upstream, Upstreams};
