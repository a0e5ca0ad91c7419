use std::fmt;

use domain::{Fields, ProviderId, Uid};

/// What a stored secret is: rebuilt from what the caller asked for, never read from beside the
/// secret. A secret opens in the context it was sealed in and in no other.
#[derive(Clone, Debug)]
pub struct Context {
    /// Whose installation this is.
    pub deployment: Uid,
    /// Whose secret it is.
    pub tenant: Uid,
    /// Of which credential.
    pub credential: Uid,
    /// The provider it is for.
    pub provider: ProviderId,
    /// The credential's version.
    pub version: u64,
    /// What it is used for, a word of the caller's: `secret`.
    pub purpose: &'static str,
}

/// What a stored value is the value of. It opens under the same and under nothing else.
pub trait StoredAs {
    /// The bytes that the value is bound to.
    fn encode(&self) -> Vec<u8>;
}

/// What a person's stored name is: the commitment that records hold in its place.
#[derive(Clone, Copy, Debug)]
pub struct PersonContext {
    /// Whose installation this is.
    pub deployment: Uid,
    /// The tenant under whose key it is.
    pub tenant: Uid,
    /// What records hold.
    pub commitment: [u8; 32],
}

impl StoredAs for PersonContext {
    fn encode(&self) -> Vec<u8> {
        Fields::new("srev1 person ctx")
            .field(1, self.deployment)
            .field(2, self.tenant)
            .field(3, self.commitment)
            .finish()
    }
}

impl StoredAs for Context {
    fn encode(&self) -> Vec<u8> {
        Fields::new("srev1 ctx")
            .field(1, self.deployment)
            .field(2, self.tenant)
            .field(3, self.credential)
            .field(4, self.provider.as_str())
            .number(5, self.version)
            .field(6, self.purpose)
            .finish()
    }
}

/// What a wrapped key is. Opaque ids only: a KMS writes them into its own log in the clear.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct KeyContext {
    /// Whose installation this is.
    pub deployment: Uid,
    /// The tenant whose key it is; the deployment itself for a key of the broker's own.
    pub owner: Uid,
    /// The key.
    pub key: Uid,
    /// The key's version.
    pub version: u32,
    /// What the key is for.
    pub purpose: KeyPurpose,
}

impl KeyContext {
    pub(crate) fn encode(&self) -> Vec<u8> {
        Fields::new("srev1 key ctx")
            .field(1, self.deployment)
            .field(2, self.owner)
            .field(3, self.key)
            .number(4, self.version.into())
            .field(5, self.purpose.as_str())
            .finish()
    }
}

/// What a wrapped key is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyPurpose {
    /// It seals a tenant's secrets.
    Kek,
    /// It is under the hashes of virtual keys and lease ids.
    Pepper,
}

impl KeyPurpose {
    /// The word in the context.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kek => "kek",
            Self::Pepper => "pepper",
        }
    }
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
