//! What is true of each provider: where calls go and what proves that they may, which models are
//! whose, what may pass through, how keys are tested, and what answers mean.
//!
//! The facts are data, one file a provider in `data/`; adding a provider whose secret goes into one
//! header is adding a file and naming it in `catalogue.rs`. Nothing here does I/O.

mod answer;
mod catalogue;
mod endpoint;
mod facts;
mod key;
mod key_test;
mod kind;
mod mint;
mod native;
mod no_target;
mod operation;
mod provider;
mod quirk;
mod rewrite;
mod secret;
mod settings;
mod steer;
mod target;
mod usage;
mod verdict;

pub use answer::{Answer, retry_after};
pub use catalogue::{Catalogue, CatalogueError};
pub use endpoint::Endpoint;
pub use key::KeyHint;
pub use key_test::KeyTest;
pub use kind::{CredentialForm, CredentialKind};
pub use mint::{Mint, MintFacts, Minting};
pub use native::{NativeCall, NativePath};
pub use no_target::NoTarget;
pub use operation::Operation;
pub use provider::Provider;
pub use quirk::Quirk;
pub use rewrite::Rewrite;
pub use secret::{ServiceAccountFile, UnusableSecret};
pub use settings::{SettingForm, Settings};
pub use steer::Steer;
pub use target::{Ask, Call, Proof, Target};
pub use usage::{Framing, StreamUsage, UsagePointers, UsageShape};
pub use verdict::Verdict;
