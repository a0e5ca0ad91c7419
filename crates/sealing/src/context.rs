use std::time::Duration;

use domain::{Fields, LeaseId, Source, Timestamp};

/// Everything a workload is told about a lease. All of it is authenticated: whoever changes a word on
/// the way makes the secret unreadable.
///
/// Both ends fill it from the `Lease` message, as sent and as received.
#[derive(Clone, Copy, Debug)]
pub struct LeaseContext<'a> {
    /// The lease.
    pub lease_id: LeaseId,
    /// What records and revocations call the lease.
    pub lease_hash: &'a [u8],
    /// How often it was renewed. The broker never seals twice with one ID and one number.
    pub renewals: u32,
    /// `tenants/{tenant}`: for whom the call is.
    pub tenant: &'a str,
    /// `tenants/{tenant}/credentials/{credential}`.
    pub credential: &'a str,
    /// The credential's version.
    pub credential_version: u64,
    /// The provider's slug.
    pub provider: &'a str,
    /// Whose credential it is.
    pub source: Source,
    /// The only places to which the secret may be sent.
    pub origins: &'a [String],
    /// The provider's address for the dialect.
    pub base_url: &'a str,
    /// The header that carries the secret.
    pub header_name: &'a str,
    /// What stands before the secret in that header.
    pub header_prefix: &'a str,
    /// When the lease ends.
    pub expire_time: Timestamp,
    /// The time left, counted in whole milliseconds.
    pub ttl: Duration,
    /// The index of the record that names this lease.
    pub log_index: u64,
    /// The SPIFFE ID of the workload, as the broker sees it.
    pub identity: &'a str,
    /// `tenants/{tenant}/virtualKeys/{id}`, or empty.
    pub virtual_key: &'a str,
    /// The model as the provider knows it, or empty.
    pub model: &'a str,
    /// The kind of the credential.
    pub credential_kind: &'a str,
    /// What the credential says beside its secret, by name.
    pub settings: &'a [(String, String)],
    /// The address in the place of the provider's, or empty.
    pub address: &'a str,
    /// Whether another credential is listed for when this one fails.
    pub has_fallback: bool,
    /// Why this credential.
    pub because: &'a str,
    /// The prices by which calls under it are priced.
    pub price_version: &'a str,
    /// The kinds of calls that the virtual key is for; empty for all.
    pub endpoints: &'a [String],
    /// The networks that the virtual key may be used from; empty for all.
    pub networks: &'a [String],
}

impl LeaseContext<'_> {
    pub(crate) fn associated_data(&self) -> Vec<u8> {
        let origins = joined(self.origins.iter().map(String::as_str));
        let settings = self.settings.iter().flat_map(|(name, value)| [name.as_str(), value]);
        Fields::new("strongroom lease v1")
            .field(1, self.lease_id.as_bytes())
            .field(2, self.lease_hash)
            .number(3, self.renewals.into())
            .field(4, self.tenant)
            .field(5, self.credential)
            .number(6, self.credential_version)
            .field(7, self.provider)
            .field(8, self.source.as_str())
            .field(9, origins)
            .field(10, self.base_url)
            .field(11, self.header_name)
            .field(12, self.header_prefix)
            .field(13, self.expire_time.as_millis().to_be_bytes())
            .number(14, u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX))
            .number(15, self.log_index)
            .field(16, self.identity)
            .field(17, self.virtual_key)
            .field(18, self.model)
            .field(19, self.credential_kind)
            .field(20, joined(settings))
            .field(21, self.address)
            .field(22, [u8::from(self.has_fallback)])
            .field(23, self.because)
            .field(24, joined(self.endpoints.iter().map(String::as_str)))
            .field(25, joined(self.networks.iter().map(String::as_str)))
            .field(26, self.price_version)
            .finish()
    }

    pub(crate) fn key_info(&self) -> Vec<u8> {
        Fields::new("strongroom lease key v1")
            .field(1, self.lease_id.as_bytes())
            .field(2, self.credential)
            .number(3, self.credential_version)
            .number(4, self.renewals.into())
            .finish()
    }
}

/// Names one ingest box: 16 random bytes. One ID seals one secret, ever.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct BoxId([u8; 16]);

impl BoxId {
    /// A new one from the operating system's random source.
    ///
    /// # Errors
    /// When that source fails; there is nothing to fall back to.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The one with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// What a secret on its way in is for. A box opens for nothing else.
#[derive(Clone, Copy, Debug)]
pub struct BoxContext<'a> {
    /// The box.
    pub box_id: BoxId,
    /// `tenants/{tenant}/credentials/{credential}`: what is created or rotated.
    pub credential: &'a str,
    /// The provider's slug.
    pub provider: &'a str,
    /// The SPIFFE ID of the sender, as the broker sees it.
    pub identity: &'a str,
}

impl BoxContext<'_> {
    pub(crate) fn associated_data(&self) -> Vec<u8> {
        Fields::new("strongroom ingest v1")
            .field(1, self.box_id.as_bytes())
            .field(2, self.credential)
            .field(3, self.provider)
            .field(4, self.identity)
            .finish()
    }

    pub(crate) fn key_info(&self) -> Vec<u8> {
        Fields::new("strongroom ingest key v1")
            .field(1, self.box_id.as_bytes())
            .field(2, self.credential)
            .finish()
    }
}

/// Texts as one field: each with its length before it.
fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    for text in texts {
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}
