use domain::{
    CredentialId, CredentialName, OnMissing, ProviderId, RequestId, RoutingRules, Scope, TenantId,
    Timestamp, Uid, VirtualKeyId,
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
    /// What it may reach.
    pub scope: Scope,
    /// From then on it is refused.
    pub expires_at: Option<Timestamp>,
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
