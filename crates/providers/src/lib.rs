//! What is true of each provider: endpoints, headers, model names, allowed paths.
//!
//! The facts are data, one file a provider in `data/`; adding a provider whose secret goes into one
//! header is adding a file and naming it in `catalogue.rs`.

mod catalogue;
mod endpoint;
mod facts;
mod key;
mod native;
mod provider;

pub use catalogue::{Catalogue, CatalogueError};
pub use endpoint::Endpoint;
pub use key::KeyHint;
pub use native::{NativeCall, NativePath};
pub use provider::Provider;
