//! The stored format, the keys above it, and the KMS back ends: how a secret rests. A KMS wraps a
//! tenant's key (a [`Kek`]), the key seals the tenant's secrets, each under a key of its own, and a
//! [`Keyring`] keeps unwrapped keys for minutes. `docs/storage-format.md` gives the exact bytes.

mod aws;
mod breaker;
mod config;
mod context;
mod derive;
mod error;
mod header;
mod kek;
mod keyring;
mod keyset;
mod kms;
mod local;
mod pkcs11;
mod private_file;
mod root;
mod roots;
mod row_key;
mod share;
mod transit;
#[cfg(test)]
mod vectors;

pub use aws::AwsKms;
pub use config::{
    AwsConfig, KmsConfig, Pkcs11Config, RootConfig, TokenKey, TransitConfig, TransitLogin,
};
pub use context::{Context, KeyContext, KeyPurpose, PersonContext, StoredAs};
pub use error::{DoesNotOpen, KeyFileError, KmsError, KmsOpenError, SealError};
pub use header::key_reference;
pub use kek::{Kek, LONGEST_SECRET};
pub use keyring::{Keyring, KeyringCounts, KeyringSettings};
pub use kms::{Kms, KmsStatus, WrappedKey};
pub use local::LocalKms;
pub use pkcs11::Pkcs11Kms;
pub use roots::Roots;
pub use row_key::RowKey;
pub use share::tenant_key;
pub use transit::TransitKms;
