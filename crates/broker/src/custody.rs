mod own;
mod rotation;
mod shares;

use std::sync::Arc;

use audit::{Disclosure, Kind, Record};
use domain::{Clock, Fields, Key, Permit, Secret, TenantId, Timestamp, Uid};
use envelope::{
    Context, Kek, KeyContext, Keyring, KeyringSettings, Kms as _, PersonContext, Roots, WrappedKey,
    tenant_key,
};
use store::{
    BudgetRow, CredentialRow, KeyPurpose, KeyRow, PersonRow, RowMac, ShareStore, Store, TenantRow,
    TestRow, VirtualKeyRow, mac_version, write_limits, write_rotation, write_rules,
};

use self::shares::{SharedRoots, new_share, share_of};
pub(crate) use self::{
    own::{OwnRow, Passed},
    shares::StoredVersion,
};
use crate::refused::Why;

/// Opens and seals what is stored: the one place in the broker where stored ciphertext becomes a
/// secret, and where rows are checked against their MAC.
#[derive(Debug)]
pub(crate) struct Custody {
    deployment: Uid,
    store: Arc<dyn Store>,
    roots: Arc<Roots>,
    /// Halves of all keys above secrets: what is destroyed there opens nowhere any more.
    shares: Arc<dyn ShareStore>,
    keyring: Keyring,
}

/// A tenant, with its keys as they were read at some time: newer versions are looked up.
#[derive(Clone, Copy)]
pub(crate) struct Holder<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) uid: Uid,
    pub(crate) keys: &'a [KeyRow],
}

/// The key that a person's name is sealed under.
pub(crate) struct PersonKey {
    pub(crate) tenant_uid: Uid,
    pub(crate) kek: Arc<Kek>,
}

impl Custody {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        roots: Arc<Roots>,
        shares: Arc<dyn ShareStore>,
        (clock, settings): (Arc<dyn Clock>, KeyringSettings),
    ) -> Self {
        let halves = SharedRoots { roots: Arc::clone(&roots), shares: Arc::clone(&shares) };
        let keyring = Keyring::new(Arc::new(halves), clock, settings);
        Self { deployment: store.deployment(), store, roots, shares, keyring }
    }

    /// A new key for a new tenant, wrapped under the tenant's root.
    pub(crate) async fn new_key(
        &self,
        (tenant, uid): (&TenantId, Uid),
        purpose: KeyPurpose,
        now: Timestamp,
    ) -> Result<(Key, KeyRow), Why> {
        let mut row = KeyRow {
            uid: Uid::random()?,
            tenant_uid: uid,
            purpose,
            version: 1,
            wrapped: Vec::new(),
            request_id: None,
            created_at: now,
        };
        let key = self.generate(tenant, &mut row).await?;
        let key = match purpose {
            KeyPurpose::Kek => tenant_key(&key, uid, &new_share(&*self.shares, uid).await?),
            KeyPurpose::Pepper => key,
        };
        Ok((key, row))
    }

    /// Makes a key, and wraps it under the tenant's root.
    async fn generate(&self, tenant: &TenantId, row: &mut KeyRow) -> Result<Key, Why> {
        let root = self.roots.of(tenant);
        let made = self.roots.generate_under(root, &self.key_context(row)).await;
        let (key, wrapped) = made?;
        row.wrapped = wrapped.as_bytes().to_vec();
        Ok(key)
    }

    /// Makes a new key usable before it has been read back from the store.
    pub(crate) fn kek_of(key: Key, row: &KeyRow) -> Kek {
        Kek::new(row.uid, row.version, key)
    }

    /// Unwraps a key that is kept for as long as the broker runs.
    pub(crate) async fn unwrap(&self, row: &KeyRow) -> Result<Key, Why> {
        let wrapped = WrappedKey::from_bytes(row.wrapped.clone());
        Ok(self.roots.unwrap(&self.key_context(row), &wrapped).await?)
    }

    /// Refuses keys that are under a root of somebody else's. To be called with each tenant that is
    /// read, before its keys are used.
    pub(crate) fn check_roots(&self, tenant: &TenantId, keys: &[KeyRow]) -> Result<(), Why> {
        for row in keys {
            self.roots.check(tenant, &WrappedKey::from_bytes(row.wrapped.clone()))?;
        }
        Ok(())
    }

    /// The key of a tenant that encrypts, cached. Never one that is past its time: nothing is written
    /// while the KMS is out of reach.
    pub(crate) async fn kek(&self, keys: &[KeyRow]) -> Result<Arc<Kek>, Why> {
        let newest = keys.first().ok_or_else(|| Why::Corrupt("a tenant without a key".into()))?;
        let wrapped = WrappedKey::from_bytes(newest.wrapped.clone());
        Ok(self.keyring.kek(&self.key_context(newest), &wrapped).await?)
    }

    /// Seals a secret for storage.
    pub(crate) async fn seal(
        &self,
        kek: &Kek,
        row: &CredentialRow,
        version: u64,
        secret: &Secret,
    ) -> Result<Vec<u8>, Why> {
        let share = share_of(&*self.shares, row.uid).await?;
        kek.for_credential(row.uid, &share)
            .seal(&self.context(row, version), secret)
            .map_err(|error| Why::Internal(format!("sealing for storage: {error}")))
    }

    /// Opens a stored version. Asks for a permit, so that no path leads here past the policy.
    pub(crate) async fn open(
        &self,
        _permit: &Permit,
        keys: &[KeyRow],
        row: &CredentialRow,
        version: &StoredVersion,
    ) -> Result<(Secret, Arc<Kek>), Why> {
        self.opened(keys, row, version).await
    }

    /// Opens a stored version for what the broker itself does at the provider: it goes into no answer.
    pub(crate) async fn open_here(
        &self,
        keys: &[KeyRow],
        row: &CredentialRow,
        version: &StoredVersion,
    ) -> Result<Secret, Why> {
        self.opened(keys, row, version).await.map(|(secret, _)| secret)
    }

    async fn opened(
        &self,
        keys: &[KeyRow],
        row: &CredentialRow,
        StoredVersion { row: version, share }: &StoredVersion,
    ) -> Result<(Secret, Arc<Kek>), Why> {
        let corrupt =
            || Why::Corrupt(format!("version {} of {} does not open", version.version, row.name()));
        let holder = Holder { tenant: &row.tenant, uid: row.tenant_uid, keys };
        let kek = self.kek_behind(holder, &version.envelope).await?.ok_or_else(corrupt)?;
        let context = self.context(row, version.version);
        let of_it = kek.for_credential(row.uid, share);
        let secret = of_it.open(&context, &version.envelope).map_err(|_| corrupt())?;
        Ok((secret, kek))
    }

    /// Seals a person's name, with the salt of its commitment.
    pub(crate) fn seal_person(
        &self,
        kek: &Kek,
        tenant: Uid,
        name: &Disclosure,
    ) -> Result<Vec<u8>, Why> {
        let context = self.person_context(tenant, *name.commitment());
        let value = Secret::new([name.salt(), name.value().as_bytes()].concat());
        kek.seal(&context, &value)
            .map_err(|error| Why::Internal(format!("sealing a name: {error}")))
    }

    /// Opens a person's name.
    pub(crate) async fn open_person(
        &self,
        keys: &[KeyRow],
        row: &PersonRow,
    ) -> Result<Disclosure, Why> {
        let corrupt = || Why::Corrupt("a person's name does not open".into());
        let key = envelope::key_reference(&row.sealed).and_then(|named| key_of(keys, named));
        let kek = self.kek_of_row(key.ok_or_else(corrupt)?).await?;
        let context = self.person_context(row.tenant_uid, row.commitment);
        let value = kek.open(&context, &row.sealed).map_err(|_| corrupt())?;
        let (salt, name) = value.expose().split_at_checked(32).ok_or_else(corrupt)?;
        let name = std::str::from_utf8(name).map_err(|_| corrupt())?;
        Disclosure::check(&row.commitment, salt, name).map_err(|_| corrupt())
    }

    /// Checks a row's MAC under the version of the tenant's key that it names.
    pub(crate) async fn verify(&self, of: Holder<'_>, row: &impl Sealed) -> Result<(), Why> {
        let version = mac_version(row.mac());
        let Some(newest) = of.keys.first() else {
            return Err(Why::Corrupt("a tenant without a key".into()));
        };
        match self.kek_named(of, (newest.uid, version)).await? {
            Some(kek) => row.verify(&kek),
            None => Err(Why::Corrupt(format!("{} is under no key of its tenant", row.called()))),
        }
    }

    /// The key that something stored is sealed under, if it is the tenant's.
    async fn kek_behind(&self, of: Holder<'_>, stored: &[u8]) -> Result<Option<Arc<Kek>>, Why> {
        match envelope::key_reference(stored) {
            Some(named) => self.kek_named(of, named).await,
            None => Ok(None),
        }
    }

    async fn kek_named(&self, of: Holder<'_>, named: (Uid, u32)) -> Result<Option<Arc<Kek>>, Why> {
        if let Some(key) = key_of(of.keys, named) {
            return self.kek_of_row(key).await.map(Some);
        }
        // A version that came after these were read.
        let keys = self.store.keys(of.uid, KeyPurpose::Kek).await?;
        self.check_roots(of.tenant, &keys)?;
        match key_of(&keys, named) {
            Some(key) => self.kek_of_row(key).await.map(Some),
            None => Ok(None),
        }
    }

    fn person_context(&self, tenant: Uid, commitment: [u8; 32]) -> PersonContext {
        PersonContext { deployment: self.deployment, tenant, commitment }
    }

    /// A key that opens and verifies. It may be past its time while the KMS is out of reach, as far as
    /// the configuration lets it.
    async fn kek_of_row(&self, row: &KeyRow) -> Result<Arc<Kek>, Why> {
        let wrapped = WrappedKey::from_bytes(row.wrapped.clone());
        Ok(self.keyring.kek_or_overdue(&self.key_context(row), &wrapped).await?)
    }

    fn key_context(&self, row: &KeyRow) -> KeyContext {
        KeyContext {
            deployment: self.deployment,
            owner: row.tenant_uid,
            key: row.uid,
            version: row.version,
            purpose: match row.purpose {
                KeyPurpose::Kek => envelope::KeyPurpose::Kek,
                KeyPurpose::Pepper => envelope::KeyPurpose::Pepper,
            },
        }
    }

    /// Rebuilt from the row that was asked for, never read from the envelope.
    fn context(&self, row: &CredentialRow, version: u64) -> Context {
        Context {
            deployment: self.deployment,
            tenant: row.tenant_uid,
            credential: row.uid,
            provider: row.provider.clone(),
            version,
            purpose: "secret",
        }
    }
}

fn key_of(keys: &[KeyRow], (uid, version): (Uid, u32)) -> Option<&KeyRow> {
    keys.iter().find(|key| key.uid == uid && key.version == version)
}

/// The record of a new tenant.
pub(crate) fn tenant_created(row: &TenantRow, kek: &KeyRow) -> Record {
    Record {
        kind: Kind::TenantCreated.into(),
        tenant: row.id.to_string(),
        revision: row.revision,
        kek_id: kek.uid.as_bytes().to_vec().into(),
        kek_version: kek.version,
        ..Record::default()
    }
}

/// A row whose every column is under a MAC, so that nobody who can write to the database un-revokes
/// a key or sends one elsewhere.
pub(crate) trait Sealed {
    /// The columns, but for the MAC.
    fn columns(&self) -> Vec<u8>;

    /// The MAC column.
    fn mac(&self) -> &RowMac;

    /// What the row is called in an error.
    fn called(&self) -> String;

    /// The MAC over the columns, with the version of the key.
    fn mac_under(&self, kek: &Kek) -> RowMac {
        let mut mac = [0; 36];
        let (version, hmac) = mac.split_at_mut(4);
        version.copy_from_slice(&kek.reference().1.to_be_bytes());
        hmac.copy_from_slice(&kek.row_mac(&self.columns()));
        mac
    }

    /// Checks the MAC under the version of the key that it names: [`Custody::verify`] finds that.
    fn verify(&self, kek: &Kek) -> Result<(), Why> {
        let hmac = self.mac().last_chunk::<32>();
        let genuine = hmac.is_some_and(|hmac| kek.row_is_genuine(&self.columns(), hmac));
        if genuine && mac_version(self.mac()) == kek.reference().1 {
            Ok(())
        } else {
            Err(Why::Corrupt(format!("{} was changed past the broker", self.called())))
        }
    }
}

impl Sealed for TenantRow {
    fn columns(&self) -> Vec<u8> {
        Fields::new("strongroom tenant row v1")
            .field(1, self.uid)
            .field(2, self.id.as_str())
            .field(3, &self.display_name)
            .field(4, self.preferred_provider.as_ref().map_or("", |provider| provider.as_str()))
            .field(5, self.on_missing.as_str())
            .number(6, self.revision)
            .field(7, self.request_id.as_ref().map_or("", |id| id.as_str()))
            .field(8, self.created_at.as_millis().to_be_bytes())
            .field(9, self.updated_at.as_millis().to_be_bytes())
            .field(10, [u8::from(self.suspended)])
            .field(11, write_rules(&self.rules))
            .finish()
    }

    fn mac(&self) -> &RowMac {
        &self.row_mac
    }

    fn called(&self) -> String {
        self.id.resource()
    }
}

impl Sealed for CredentialRow {
    fn columns(&self) -> Vec<u8> {
        Fields::new("strongroom credential row v1")
            .field(1, self.uid)
            .field(2, self.tenant_uid)
            .field(3, self.tenant.as_str())
            .field(4, self.id.as_str())
            .field(5, self.provider.as_str())
            .field(6, [u8::from(self.enabled)])
            .field(7, self.priority.to_be_bytes())
            .field(8, self.base_url.as_deref().unwrap_or_default())
            .field(9, list(self.models.iter().map(String::as_str)))
            .field(10, &self.last_four)
            .number(11, self.current_version)
            .number(12, self.revision)
            .field(13, self.created_at.as_millis().to_be_bytes())
            .field(14, self.updated_at.as_millis().to_be_bytes())
            .field(15, &self.kind)
            .field(16, list(self.settings.iter().flat_map(|(name, value)| [&**name, value])))
            .field(20, write_rotation(self.rotation.as_ref()))
            .finish()
    }

    fn mac(&self) -> &RowMac {
        &self.row_mac
    }

    fn called(&self) -> String {
        self.name().to_string()
    }
}

impl Sealed for TestRow {
    fn columns(&self) -> Vec<u8> {
        Fields::new("strongroom credential test row v1")
            .field(1, self.credential_uid)
            .number(2, self.version)
            .field(3, &self.verdict)
            .field(4, self.tested_at.as_millis().to_be_bytes())
            .finish()
    }

    fn mac(&self) -> &RowMac {
        &self.row_mac
    }

    fn called(&self) -> String {
        format!("the test of credential {}", self.credential_uid)
    }
}

impl Sealed for VirtualKeyRow {
    fn columns(&self) -> Vec<u8> {
        let expires_at = self.terms.expires_at.map(|at| at.as_millis().to_be_bytes().to_vec());
        let count = |most: Option<u64>| most.map(|most| most.to_be_bytes().to_vec());
        let terms = &self.terms;
        let networks: Vec<_> = terms.networks.iter().map(ToString::to_string).collect();
        let labels = terms.labels.iter().flat_map(|(name, text)| [name.as_str(), text.as_str()]);
        let previous = self.previous.iter();
        let previous: Vec<u8> = previous
            .flat_map(|it| [&it.verifier[..], &it.ends_at.as_millis().to_be_bytes()].concat())
            .collect();
        Fields::new("strongroom virtual key row v1")
            .field(1, self.id.as_str())
            .field(2, self.tenant_uid)
            .field(3, self.tenant.as_str())
            .field(4, &self.display_name)
            .field(5, self.verifier)
            .field(6, list(terms.scope.providers.iter().map(domain::ProviderId::as_str)))
            .field(7, list(terms.scope.models.iter().map(domain::ModelPattern::as_str)))
            .field(8, expires_at.unwrap_or_default())
            .field(9, [u8::from(self.revoked)])
            .number(10, self.revision)
            .field(11, self.created_at.as_millis().to_be_bytes())
            .field(12, self.updated_at.as_millis().to_be_bytes())
            .field(13, list(terms.endpoints.iter().map(|kind| kind.as_str())))
            .field(14, list(networks.iter().map(String::as_str)))
            .field(15, list(labels))
            .field(16, terms.owner.as_ref().map_or("", |owner| owner.as_str()))
            .field(17, self.group.as_ref().map_or("", |group| group.as_str()))
            .field(18, count(self.rates.requests_per_minute).unwrap_or_default())
            .field(19, count(self.rates.tokens_per_minute).unwrap_or_default())
            .field(20, count(self.rates.concurrent).unwrap_or_default())
            .field(21, [u8::from(self.blocked)])
            .field(22, previous)
            .finish()
    }

    fn mac(&self) -> &RowMac {
        &self.row_mac
    }

    fn called(&self) -> String {
        format!("virtual key {}", self.id)
    }
}

impl Sealed for BudgetRow {
    fn columns(&self) -> Vec<u8> {
        let budget = &self.budget;
        Fields::new("strongroom budget row v1")
            .field(1, budget.id)
            .field(2, self.tenant_uid)
            .field(3, self.tenant.as_str())
            .field(4, self.id.as_str())
            .field(5, budget.holder.to_string())
            .field(6, budget.period.to_string())
            .field(7, budget.mode.as_str())
            .field(8, write_limits(&budget.limits))
            .field(9, &budget.alerts)
            .number(10, self.revision)
            .field(11, self.request_id.as_ref().map_or("", |id| id.as_str()))
            .field(12, self.created_at.as_millis().to_be_bytes())
            .field(13, self.updated_at.as_millis().to_be_bytes())
            .finish()
    }

    fn mac(&self) -> &RowMac {
        &self.row_mac
    }

    fn called(&self) -> String {
        self.name().to_string()
    }
}

/// A list as one field: each item with its length before it.
fn list<'a>(items: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        bytes.extend_from_slice(&u32::try_from(item.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(item.as_bytes());
    }
    bytes
}
