use std::{fmt, time::Duration};

use async_trait::async_trait;
use domain::{Key, RootName};

use crate::{KeyContext, KmsError};

/// How long a call may take, all tries together: well within the deadline of whoever waits for a lease.
pub(crate) const DEADLINE: Duration = Duration::from_millis(1_700);

/// How long one try may take.
pub(crate) const ATTEMPT: Duration = Duration::from_millis(800);

/// Wraps keys under a root key that never leaves it. A wrapped key unwraps in its own context only.
#[async_trait]
pub trait Kms: fmt::Debug + Send + Sync {
    /// Makes a new random key, and wraps it.
    async fn generate(&self, context: &KeyContext) -> Result<(Key, WrappedKey), KmsError>;

    /// Wraps a key that another KMS has made.
    async fn wrap(&self, context: &KeyContext, key: &Key) -> Result<WrappedKey, KmsError>;

    /// Unwraps a key.
    async fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError>;

    /// Wraps the same key under the newest root key.
    async fn rewrap(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, KmsError>;

    /// Under which root key new keys are wrapped, and whether that works now.
    async fn status(&self) -> KmsStatus;

    /// Under which root key this one is wrapped; when that is not [`KmsStatus::key_ref`], it is due
    /// for [`Kms::rewrap`]. `None` when it cannot have been wrapped by this kind of KMS.
    fn wrapped_by(&self, wrapped: &WrappedKey) -> Option<String>;

    /// Which root this key is under, when there are several: trouble with one is not trouble with
    /// the others. `None` is the deployment's own.
    fn root_of(&self, _wrapped: &WrappedKey) -> Option<RootName> {
        None
    }
}

/// What a KMS says about itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KmsStatus {
    /// Names the root key under which new keys are wrapped.
    pub key_ref: String,
    /// Whether it wraps and unwraps now.
    pub healthy: bool,
}

/// A key wrapped by a KMS, to be stored as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WrappedKey(Vec<u8>);

impl WrappedKey {
    /// Takes stored bytes over. Whether they unwrap, the KMS says.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
