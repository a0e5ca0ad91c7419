use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use domain::{Key, RootName, TenantId};

use crate::{
    KeyContext, Kms, KmsConfig, KmsError, KmsOpenError, KmsStatus, RootConfig, WrappedKey,
    key_reference, local,
    root::{self, Root},
};

/// All root keys of a deployment: the deployment's own, and those that tenants brought. A wrapped key
/// says which root it is under, and no other is asked.
///
/// As a [`Kms`] it wraps under the deployment's own root and unwraps under any.
#[derive(Debug)]
pub struct Roots {
    own: Root,
    named: BTreeMap<RootName, Root>,
    tenants: BTreeMap<TenantId, RootName>,
}

impl Roots {
    /// The deployment's own root and no other.
    pub fn only(own: Arc<dyn Kms>) -> Self {
        Self { own: Root::only(own), named: BTreeMap::new(), tenants: BTreeMap::new() }
    }

    /// Opens all that a configuration names.
    pub async fn open(
        own: &KmsConfig,
        recovery: Option<&KmsConfig>,
        others: &[RootConfig],
    ) -> Result<Self, KmsOpenError> {
        // Boxed: opening some of them takes a lot of stack, and whoever waits would carry it.
        let mut roots = Self::only(Box::pin(own.open()).await?);
        if let Some(recovery) = recovery {
            let second = Box::pin(recovery.open()).await?;
            warn_if_one("[kms_recovery]", (own, &*roots.own.first), (recovery, &*second)).await;
            roots = roots.with_recovery(None, second)?;
        }
        for RootConfig { name, tenants, kms, recovery } in others {
            let first = Box::pin(kms.open()).await?;
            if let Some(recovery) = recovery {
                let second = Box::pin(recovery.open()).await?;
                let place = "[kms_roots.recovery]";
                warn_if_one(place, (kms, &*first), (recovery, &*second)).await;
                roots = roots.with(name, tenants, first)?.with_recovery(Some(name), second)?;
            } else {
                roots = roots.with(name, tenants, first)?;
            }
        }
        Ok(roots)
    }

    /// Whether a configuration can be meant: what can be said without opening anything.
    pub fn check_config(others: &[RootConfig]) -> Result<(), KmsOpenError> {
        let (mut names, mut assigned) = (BTreeSet::new(), BTreeMap::new());
        for RootConfig { name, tenants, .. } in others {
            if !names.insert(name) {
                return Err(twice(name));
            }
            assign(&mut assigned, name, tenants)?;
        }
        Ok(())
    }

    /// Adds a root for the keys of these tenants. A name stands for one root, and a tenant has one.
    pub fn with(
        mut self,
        name: &RootName,
        tenants: &[TenantId],
        kms: Arc<dyn Kms>,
    ) -> Result<Self, KmsOpenError> {
        if self.named.insert(name.clone(), Root::only(kms)).is_some() {
            return Err(twice(name));
        }
        assign(&mut self.tenants, name, tenants)?;
        Ok(self)
    }

    /// Has every key under a root wrapped under this one as well, from now on and by rewrapping. Without
    /// a name it is for the deployment's own root.
    pub fn with_recovery(
        mut self,
        name: Option<&RootName>,
        kms: Arc<dyn Kms>,
    ) -> Result<Self, KmsOpenError> {
        let root = match name {
            None => Some(&mut self.own),
            Some(name) => self.named.get_mut(name),
        };
        let unknown = || KmsOpenError::Configuration("no such root has been added".to_owned());
        root.ok_or_else(unknown)?.recovery = Some(kms);
        Ok(self)
    }

    /// Whether the keys under a root are under a recovery root as well.
    pub fn has_recovery(&self, name: Option<&RootName>) -> bool {
        self.root(name).is_ok_and(|root| root.recovery.is_some())
    }

    /// Opens a key by the recovery root of the root that it is under.
    pub async fn open_by_recovery(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<Key, KmsError> {
        let (root, wrapped) = split(wrapped)?;
        self.root(root.as_ref())?.open_by_recovery(context, &wrapped).await
    }

    /// Opens a key by its recovery root and wraps it under the root key that is configured in the place
    /// of the lost one, and under the recovery root anew.
    pub async fn recover(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, KmsError> {
        let (name, wrapped) = split(wrapped)?;
        let root = self.root(name.as_ref())?;
        let key = root.open_by_recovery(context, &wrapped).await?;
        Ok(join(name.as_ref(), root.wrap(context, &key).await?))
    }

    /// The root that new keys of the tenant are wrapped under; `None` is the deployment's own.
    pub fn of(&self, tenant: &TenantId) -> Option<&RootName> {
        self.tenants.get(tenant)
    }

    /// Whether this may be a key of the tenant's: it is under the tenant's root, or under the
    /// deployment's own from before the tenant had one.
    ///
    /// To be asked before a key is used. Whoever holds a tenant's root key can wrap a key of their own
    /// choice under it, and must not be able to pass it off as another tenant's.
    pub fn check(&self, tenant: &TenantId, wrapped: &WrappedKey) -> Result<(), KmsError> {
        let (Some(root), _) = split(wrapped)? else { return Ok(()) };
        if self.of(tenant) == Some(&root) {
            return Ok(());
        }
        Err(KmsError::refused(format!(
            "a key of tenant `{tenant}` is under root `{root}`, for which [[kms_roots]] does not name \
             the tenant"
        )))
    }

    /// Makes a new random key, and wraps it under this root; under the deployment's own without one.
    pub async fn generate_under(
        &self,
        root: Option<&RootName>,
        context: &KeyContext,
    ) -> Result<(Key, WrappedKey), KmsError> {
        let (key, wrapped) = self.root(root)?.generate(context).await?;
        Ok((key, join(root, wrapped)))
    }

    /// What a root says about itself.
    pub async fn status_of(&self, root: Option<&RootName>) -> Result<KmsStatus, KmsError> {
        Ok(self.root(root)?.status().await)
    }

    /// The roots that have a name.
    pub fn names(&self) -> impl Iterator<Item = &RootName> {
        self.named.keys()
    }

    fn root(&self, name: Option<&RootName>) -> Result<&Root, KmsError> {
        let Some(name) = name else { return Ok(&self.own) };
        self.named.get(name).ok_or_else(|| {
            KmsError::refused(format!("no root `{name}` is configured: add it to [[kms_roots]]"))
        })
    }
}

#[async_trait]
impl Kms for Roots {
    async fn generate(&self, context: &KeyContext) -> Result<(Key, WrappedKey), KmsError> {
        self.generate_under(None, context).await
    }

    async fn wrap(&self, context: &KeyContext, key: &Key) -> Result<WrappedKey, KmsError> {
        self.own.wrap(context, key).await
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError> {
        let (root, wrapped) = split(wrapped)?;
        self.root(root.as_ref())?.unwrap(context, &wrapped).await
    }

    /// Under the newest key of the same root.
    async fn rewrap(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, KmsError> {
        let (root, wrapped) = split(wrapped)?;
        let rewrapped = self.root(root.as_ref())?.rewrap(context, &wrapped).await?;
        Ok(join(root.as_ref(), rewrapped))
    }

    /// That of the deployment's own root.
    async fn status(&self) -> KmsStatus {
        self.own.status().await
    }

    fn wrapped_by(&self, wrapped: &WrappedKey) -> Option<String> {
        let (root, wrapped) = split(wrapped).ok()?;
        self.root(root.as_ref()).ok()?.wrapped_by(&wrapped)
    }

    fn root_of(&self, wrapped: &WrappedKey) -> Option<RootName> {
        let (root, _) = split(wrapped).ok()?;
        root.filter(|name| self.named.contains_key(name))
    }
}

/// A second root that is the first helps nobody. It may be meant for a while, in the course of a recovery.
async fn warn_if_one(
    place: &str,
    (config, first): (&KmsConfig, &dyn Kms),
    (recovery, second): (&KmsConfig, &dyn Kms),
) {
    // Of a file, what is in it counts, in whatever version.
    let same_file = match (config, recovery) {
        (KmsConfig::Local { .. }, KmsConfig::Local { .. }) => {
            let set = |key_ref: String| key_ref.rsplit_once('/').map(|(set, _)| set.to_owned());
            set(first.status().await.key_ref) == set(second.status().await.key_ref)
        }
        _ => config.names_key_of(recovery),
    };
    if same_file {
        tracing::warn!(
            "{place} is the root key that it should stand in for: when that is lost, so is this one; give \
             it another key, elsewhere"
        );
    }
}

fn assign(
    assigned: &mut BTreeMap<TenantId, RootName>,
    name: &RootName,
    tenants: &[TenantId],
) -> Result<(), KmsOpenError> {
    for tenant in tenants {
        if *tenant == TenantId::platform() {
            let why = "the platform's own keys are under [kms]: take `platform` out of \
                       [[kms_roots]]";
            return Err(KmsOpenError::Configuration(why.to_owned()));
        }
        if assigned.insert(tenant.clone(), name.clone()).is_some() {
            let why = format!("[[kms_roots]] names tenant `{tenant}` more than once");
            return Err(KmsOpenError::Configuration(why));
        }
    }
    Ok(())
}

fn twice(name: &RootName) -> KmsOpenError {
    KmsOpenError::Configuration(format!("two of [[kms_roots]] are called `{name}`"))
}

/// No other wrapped key begins like this.
const MAGIC: &[u8; 4] = b"SRR1";

/// `"SRR1" ‖ u8 length ‖ root name ‖ wrapped key`; just the wrapped key under the deployment's own.
fn join(root: Option<&RootName>, wrapped: WrappedKey) -> WrappedKey {
    let Some(name) = root else { return wrapped };
    // A name has 63 bytes at the most.
    let length = u8::try_from(name.as_str().len()).unwrap_or(u8::MAX);
    let parts = [MAGIC.as_slice(), &[length], name.as_str().as_bytes(), wrapped.as_bytes()];
    WrappedKey::from_bytes(parts.concat())
}

impl WrappedKey {
    /// The root key in a file that it is under, as a status has it, whether that file is here or not.
    /// Nothing of what another kind of KMS has wrapped.
    pub fn local_key(&self) -> Option<String> {
        let (_, wrapped) = split(self).ok()?;
        let first = root::first_of(&wrapped).ok()?;
        key_reference(first.as_bytes()).map(local::key_ref)
    }
}

fn split(wrapped: &WrappedKey) -> Result<(Option<RootName>, WrappedKey), KmsError> {
    let Some(rest) = wrapped.as_bytes().strip_prefix(MAGIC) else {
        return Ok((None, wrapped.clone()));
    };
    let (name, rest) = rest
        .split_first()
        .and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)))
        .ok_or(KmsError::Corrupt)?;
    let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
    Ok((Some(name.ok_or(KmsError::Corrupt)?), WrappedKey::from_bytes(rest.to_vec())))
}
