//! The one way out. Every connection to a provider is made here, by proxy and broker alike: to the one
//! origin it was made for, at an address that was checked and is the address dialled.
//!
//! Nothing here follows a redirect, asks the environment for a proxy, or sends anything over plain HTTP
//! but to this machine and when that is switched on by name.

mod address;
mod client;
mod connector;
mod error;
mod place;
mod race;
mod resolve;
mod stream;
mod tls;

pub use address::AddressRules;
pub use client::{Bounds, Client};
pub use connector::{Connector, Exit};
pub use error::EgressError;
pub use resolve::{Resolve, SystemResolver};
pub use stream::Stream;
pub use tls::{RootsError, client_tls};
