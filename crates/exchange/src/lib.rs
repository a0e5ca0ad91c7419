//! Makes the provider's own short-lived token of a credential that lives long, so that the end of a
//! lease is true at the provider too: AWS roles and access keys, Google service accounts, applications
//! in Entra, and keys made by an admin key. It also finds out whether a credential works at all.
//!
//! Where tokens are asked for stands in the catalogue of providers and never in a secret. Nothing here
//! is stored: tokens are held in memory while they serve, and wiped.

mod answer;
mod aws;
mod cache;
mod courier;
mod encode;
mod entra;
mod error;
mod google;
mod keys;
mod minter;
mod order;
mod rooms;
mod slot;
mod token;
mod trial;

pub use aws::{AwsIdentity, AwsKeys};
pub use cache::{CredentialVersion, Exchange};
pub use courier::Courier;
pub use error::ExchangeError;
pub use minter::Minter;
pub use order::Order;
pub use slot::Leftover;
pub use token::Token;
pub use trial::{Finding, Obstacle, Trial};
