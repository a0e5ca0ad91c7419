use domain::{
    CredentialId, CredentialName, GroupId, KeyTerms, OnMissing, ProviderId, RateLimits, RequestId,
    Rotation, RoutingRules, TenantId, Timestamp, Uid, VirtualKeyId, VirtualKeyName,
};

/// A MAC over a row: the version of the tenant's key that made it, in four bytes, and the HMAC.
pub type RowMac = [u8; 36];

/// Which version of the tenant's key a row's MAC says it is under.
pub fn mac_version(mac: &RowMac) -> u32 {
    mac.first_chunk().map_or(0, |version| u32::from_be_bytes(*version))
}

/// A tenant as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TenantRow {
    /// The permanent id.
    pub uid: Uid,
    /// The name, unique.
    pub id: TenantId,
    /// A name for people.
    pub display_name: String,
    /// Where calls go that nothing else decides.
    pub preferred_provider: Option<ProviderId>,
    /// What happens when a credential is missing.
    pub on_missing: OnMissing,
    /// The lists of its routing policy.
    pub rules: RoutingRules,
    /// Whether nothing is lent for it.
    pub suspended: bool,
    /// Rises by 1 with each change, from 1.
    pub revision: u64,
    /// The request that made it, so that it can be repeated.
    pub request_id: Option<RequestId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The MAC over all of the above.
    pub row_mac: RowMac,
}

/// Rows of a table, of which one that was changed past the broker must not hide the others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Legible<T> {
    /// Those that can be read.
    pub rows: Vec<T>,
    /// Of each of the others, the column that cannot.
    pub illegible: Vec<String>,
}

/// How far a sink has come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SinkRow {
    /// The sink's name.
    pub name: String,
    /// The index of the first record that it has not acknowledged.
    pub next_index: u64,
    /// The MAC over the other columns, under a key of the deployment's own.
    pub row_mac: [u8; 32],
}

/// What a wrapped key is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyPurpose {
    /// A tenant's key-encryption key.
    Kek,
    /// The key of HMACs over virtual keys and lease IDs; the platform tenant owns it.
    Pepper,
}

/// A key wrapped by the KMS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyRow {
    /// The permanent id, the same for all versions of a key.
    pub uid: Uid,
    /// The tenant that owns it.
    pub tenant_uid: Uid,
    /// What it is for.
    pub purpose: KeyPurpose,
    /// Of the keys for one purpose of one tenant, the highest version encrypts.
    pub version: u32,
    /// The key as the KMS wrapped it.
    pub wrapped: Vec<u8>,
    /// The request that made it, so that it can be repeated.
    pub request_id: Option<RequestId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A person of whom records hold a commitment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PersonRow {
    /// Finds the person by SPIFFE ID, without telling it.
    pub handle: [u8; 32],
    /// What records hold.
    pub commitment: [u8; 32],
    /// The tenant under whose key the name is sealed.
    pub tenant_uid: Uid,
    /// The name and the commitment's salt, sealed.
    pub sealed: Vec<u8>,
    /// The MAC over all of the above.
    pub row_mac: [u8; 32],
}

/// A credential as it is kept, without its secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CredentialRow {
    /// The permanent id: a name can be used again after a deletion, this cannot.
    pub uid: Uid,
    /// Whose it is.
    pub tenant_uid: Uid,
    /// The tenant's name, which never changes.
    pub tenant: TenantId,
    /// The name, unique for the tenant.
    pub id: CredentialId,
    /// Where its calls go.
    pub provider: ProviderId,
    /// What kind of secret it has, a word of `providers`.
    pub kind: String,
    /// What it says beside its secret, by name and in the order of the names.
    pub settings: Vec<(String, String)>,
    /// Whether it may be leased.
    pub enabled: bool,
    /// Lower numbers are tried first.
    pub priority: i32,
    /// The address of a `custom` endpoint.
    pub base_url: Option<String>,
    /// The models of a `custom` endpoint.
    pub models: Vec<String>,
    /// For people to recognize it by.
    pub last_four: String,
    /// The version that is leased.
    pub current_version: u64,
    /// The rotation that runs, or the last that did.
    pub rotation: Option<Rotation>,
    /// Rises by 1 with each change, from 1.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The MAC over all of the above.
    pub row_mac: RowMac,
}

impl CredentialRow {
    /// The resource name.
    pub fn name(&self) -> CredentialName {
        CredentialName { tenant: self.tenant.clone(), credential: self.id.clone() }
    }

    /// The rotation, while it runs.
    pub fn live_rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref().filter(|rotation| rotation.is_live())
    }

    /// The versions that may be lent: the current one, and beside it another while a rotation runs.
    pub fn lent_versions(&self) -> impl Iterator<Item = u64> {
        let spare = self.rotation.as_ref().and_then(Rotation::spare);
        [Some(self.current_version), spare].into_iter().flatten()
    }

    /// The number of the next new version: no number is used twice, not even that of a version that a
    /// rotation dropped.
    pub fn next_version(&self) -> u64 {
        let highest = self.rotation.as_ref().map_or(0, |rotation| rotation.candidate);
        self.current_version.max(highest).saturating_add(1)
    }
}

/// One version of a credential's secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VersionRow {
    /// Of which credential.
    pub credential_uid: Uid,
    /// From 1.
    pub version: u64,
    /// The stored format: see `docs/storage-format.md`.
    pub envelope: Vec<u8>,
    /// The request that made it, so that it can be repeated.
    pub request_id: Option<RequestId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What the last test of a credential has shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TestRow {
    /// Of which credential.
    pub credential_uid: Uid,
    /// Which version was tested.
    pub version: u64,
    /// What was found, a word of `providers`.
    pub verdict: String,
    /// When.
    pub tested_at: Timestamp,
    /// The MAC over all of the above.
    pub row_mac: RowMac,
}

/// A virtual key as it is kept: never the key itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VirtualKeyRow {
    /// The id inside the key, unique.
    pub id: VirtualKeyId,
    /// Whose it is.
    pub tenant_uid: Uid,
    /// The tenant's name, which never changes.
    pub tenant: TenantId,
    /// A name for people.
    pub display_name: String,
    /// The HMAC that a presented key must match.
    pub verifier: [u8; 32],
    /// Values from before rotations, the latest first. One whose time is up may still be here.
    pub previous: Vec<PreviousKey>,
    /// What it is for, from where and until when, and whose it is.
    pub terms: KeyTerms,
    /// The keys that it shares budgets with.
    pub group: Option<GroupId>,
    /// How fast it may be used.
    pub rates: RateLimits,
    /// Refused until that is lifted.
    pub blocked: bool,
    /// Refused for good.
    pub revoked: bool,
    /// Rises by 1 with each change, from 1.
    pub revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The MAC over all of the above.
    pub row_mac: RowMac,
}

/// A document of prices: list prices, or one tenant's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PriceRow {
    /// Whose they are; none for list prices.
    pub tenant: Option<TenantId>,
    /// Rises by 1 with each document, from 1, for each tenant and for list prices.
    pub revision: u64,
    /// The SHA-256 of the document, by which the record names it.
    pub sha256: [u8; 32],
    /// The document.
    pub document: Vec<u8>,
    /// When it was put in.
    pub created_at: Timestamp,
}

impl VirtualKeyRow {
    /// The resource name.
    pub fn name(&self) -> VirtualKeyName {
        VirtualKeyName { tenant: self.tenant.clone(), id: self.id.clone() }
    }
}

/// What is kept of a virtual key's value from before a rotation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PreviousKey {
    /// The HMAC that it must match.
    pub verifier: [u8; 32],
    /// The first moment at which it is refused.
    pub ends_at: Timestamp,
}
