use std::sync::Arc;

use async_trait::async_trait;
use domain::Key;

use crate::{KeyContext, Kms, KmsError, KmsStatus, WrappedKey};

/// One root: the KMS that keys are taken from, and perhaps one in another place under which each is
/// wrapped as well, for the day on which the first is lost.
///
/// As a [`Kms`] it unwraps by the first and by nothing else: whoever wants the other one says so, with
/// [`Root::open_by_recovery`].
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) first: Arc<dyn Kms>,
    pub(crate) recovery: Option<Arc<dyn Kms>>,
}

impl Root {
    pub(crate) fn only(first: Arc<dyn Kms>) -> Self {
        Self { first, recovery: None }
    }

    /// Opens a key by the recovery root.
    pub(crate) async fn open_by_recovery(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<Key, KmsError> {
        let Parts { second, .. } = split(wrapped)?;
        let recovery = self.recovery.as_ref();
        let recovery =
            recovery.ok_or_else(|| KmsError::refused("no recovery root is configured"))?;
        let second = second
            .ok_or_else(|| KmsError::refused("the key was never wrapped under a recovery root"))?;
        recovery.unwrap(context, &second).await
    }
}

#[async_trait]
impl Kms for Root {
    async fn generate(&self, context: &KeyContext) -> Result<(Key, WrappedKey), KmsError> {
        let (key, first) = self.first.generate(context).await?;
        let wrapped = match &self.recovery {
            Some(recovery) => join(&first, &recovery.wrap(context, &key).await?)?,
            None => first,
        };
        Ok((key, wrapped))
    }

    async fn wrap(&self, context: &KeyContext, key: &Key) -> Result<WrappedKey, KmsError> {
        let first = self.first.wrap(context, key).await?;
        match &self.recovery {
            Some(recovery) => join(&first, &recovery.wrap(context, key).await?),
            None => Ok(first),
        }
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError> {
        self.first.unwrap(context, &split(wrapped)?.first).await
    }

    /// Under the first root's newest key, and under the recovery root that there is now. For that, the
    /// key is in this process's memory for a moment.
    async fn rewrap(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, KmsError> {
        let first = split(wrapped)?.first;
        let anew = self.first.rewrap(context, &first).await?;
        match &self.recovery {
            Some(recovery) => {
                let key = self.first.unwrap(context, &anew).await?;
                join(&anew, &recovery.wrap(context, &key).await?)
            }
            None => Ok(anew),
        }
    }

    async fn status(&self) -> KmsStatus {
        let first = self.first.status().await;
        let Some(recovery) = &self.recovery else { return first };
        let recovery = recovery.status().await;
        KmsStatus {
            key_ref: both(&first.key_ref, &recovery.key_ref),
            healthy: first.healthy && recovery.healthy,
        }
    }

    fn wrapped_by(&self, wrapped: &WrappedKey) -> Option<String> {
        let Parts { first, second } = split(wrapped).ok()?;
        let first = self.first.wrapped_by(&first)?;
        let Some(second) = second else { return Some(first) };
        let known = self.recovery.as_ref().and_then(|recovery| recovery.wrapped_by(&second));
        Some(both(&first, known.as_deref().unwrap_or("another")))
    }
}

/// What a key under two root keys is said to be under.
fn both(first: &str, second: &str) -> String {
    format!("{first} and {second}")
}

/// A wrapped key, by the roots that it is under.
struct Parts {
    first: WrappedKey,
    second: Option<WrappedKey>,
}

/// No other wrapped key begins like this.
const MAGIC: &[u8; 4] = b"SRD1";

/// `"SRD1" ‖ u16 length ‖ wrapped by the first ‖ wrapped by the recovery root`.
fn join(first: &WrappedKey, second: &WrappedKey) -> Result<WrappedKey, KmsError> {
    let length = u16::try_from(first.as_bytes().len()).map_err(KmsError::refused)?;
    let parts = [MAGIC.as_slice(), &length.to_be_bytes(), first.as_bytes(), second.as_bytes()];
    Ok(WrappedKey::from_bytes(parts.concat()))
}

/// What is under the first root.
pub(crate) fn first_of(wrapped: &WrappedKey) -> Result<WrappedKey, KmsError> {
    split(wrapped).map(|parts| parts.first)
}

fn split(wrapped: &WrappedKey) -> Result<Parts, KmsError> {
    let Some(rest) = wrapped.as_bytes().strip_prefix(MAGIC) else {
        return Ok(Parts { first: wrapped.clone(), second: None });
    };
    let (length, rest) = rest.split_first_chunk().ok_or(KmsError::Corrupt)?;
    let (first, second) =
        rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(KmsError::Corrupt)?;
    let part = |bytes: &[u8]| WrappedKey::from_bytes(bytes.to_vec());
    Ok(Parts { first: part(first), second: Some(part(second)) })
}
