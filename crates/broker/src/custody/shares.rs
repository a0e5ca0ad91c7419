use std::sync::Arc;

use async_trait::async_trait;
use domain::{Key, RootName, Uid};
use envelope::{KeyContext, KeyPurpose, Kms, KmsError, KmsStatus, Roots, WrappedKey, tenant_key};
use store::{CredentialRow, Share, ShareStore, StoreError, VersionRow};

use super::Custody;
use crate::refused::Why;

/// The root keys, for keys that are made of two halves: what comes out of it is a tenant's key, of what the
/// KMS unwrapped and of the tenant's share.
#[derive(Debug)]
pub(super) struct SharedRoots {
    pub(super) roots: Arc<Roots>,
    pub(super) shares: Arc<dyn ShareStore>,
}

/// A stored version of a secret, with the share of its credential.
#[derive(Debug)]
pub(crate) struct StoredVersion {
    pub(crate) row: VersionRow,
    pub(super) share: Key,
}

impl SharedRoots {
    async fn whole(&self, context: &KeyContext, unwrapped: Key) -> Result<Key, KmsError> {
        match context.purpose {
            KeyPurpose::Kek => {
                let share =
                    self.shares.share(context.owner).await.map_err(|error| of_shares(&error))?;
                match share {
                    Share::Held(share) => Ok(tenant_key(&unwrapped, context.owner, &share)),
                    Share::Destroyed(_) => Err(KmsError::refused(
                        "the tenant was erased: the share of its key is destroyed".to_owned(),
                    )),
                    Share::Unknown => Err(KmsError::refused(
                        "the store of shares has none for this tenant: [shares.store] is not the \
                         one that it was put into"
                            .to_owned(),
                    )),
                }
            }
            // The deployment's own, which nobody erases.
            KeyPurpose::Pepper => Ok(unwrapped),
        }
    }
}

#[async_trait]
impl Kms for SharedRoots {
    async fn generate(&self, context: &KeyContext) -> Result<(Key, WrappedKey), KmsError> {
        let (key, wrapped) = self.roots.generate(context).await?;
        Ok((self.whole(context, key).await?, wrapped))
    }

    async fn wrap(&self, _context: &KeyContext, _key: &Key) -> Result<WrappedKey, KmsError> {
        Err(KmsError::refused("what is wrapped is a half, by the roots themselves"))
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError> {
        let key = self.roots.unwrap(context, wrapped).await?;
        self.whole(context, key).await
    }

    async fn rewrap(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, KmsError> {
        self.roots.rewrap(context, wrapped).await
    }

    async fn status(&self) -> KmsStatus {
        self.roots.status().await
    }

    fn wrapped_by(&self, wrapped: &WrappedKey) -> Option<String> {
        self.roots.wrapped_by(wrapped)
    }

    fn root_of(&self, wrapped: &WrappedKey) -> Option<RootName> {
        self.roots.root_of(wrapped)
    }
}

impl Custody {
    /// Forgets a tenant's key, in all versions.
    pub(crate) fn forget(&self, key: Uid) {
        self.keyring.invalidate(key);
    }

    /// Shares of keys.
    pub(crate) fn shares(&self) -> &dyn ShareStore {
        &*self.shares
    }

    /// Makes the share of a new credential, before its secret is sealed.
    pub(crate) async fn new_share(&self, credential: Uid) -> Result<(), Why> {
        new_share(&*self.shares, credential).await.map(drop)
    }

    /// A stored version's ciphertext, with what opens it beside the tenant's key.
    pub(crate) async fn version(
        &self,
        row: &CredentialRow,
        version: u64,
    ) -> Result<StoredVersion, Why> {
        let lost = || Why::Corrupt(format!("{} has lost version {version}", row.name()));
        let found = self.store.version(row.uid, version).await?.ok_or_else(lost)?;
        let share = share_of(&*self.shares, row.uid).await?;
        Ok(StoredVersion { row: found, share })
    }
}

/// Makes a share, durable before anything is sealed with it.
pub(super) async fn new_share(shares: &dyn ShareStore, id: Uid) -> Result<Key, Why> {
    let share = Key::random()?;
    shares.put_share(id, &share).await?;
    Ok(share)
}

/// The share of a credential.
pub(super) async fn share_of(shares: &dyn ShareStore, credential: Uid) -> Result<Key, Why> {
    match shares.share(credential).await? {
        Share::Held(share) => Ok(share),
        Share::Destroyed(_) => Err(Why::Erased),
        Share::Unknown => Err(Why::Corrupt(format!("credential {credential} has lost its share"))),
    }
}

fn of_shares(error: &StoreError) -> KmsError {
    if let StoreError::Unavailable(_) = error {
        KmsError::unavailable("the store of shares does not answer")
    } else {
        KmsError::refused(format!("the store of shares: {error}"))
    }
}
