use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{
    Clock, CredentialName, KeyTerms, LeaseId, Origin, ProviderId, Secret, Source, TenantId,
    Timestamp, VirtualKeyName,
};
use http::{HeaderName, HeaderValue, Uri};
use sealing::LeaseContext;
use strongroom_proto::v1;

use crate::{
    UnsealError, convert,
    deadline::{Deadline, Moment},
    ring::Lent,
    session::OpenSession,
    watch::Vitals,
};

/// A lease in this process: what it says, and its secret as ciphertext.
///
/// Everything it says is part of what the broker sealed, so the secret of a lease that was changed on
/// the way does not open.
pub struct HeldLease {
    wire: v1::Lease,
    id: LeaseId,
    tenant: TenantId,
    credential: CredentialName,
    provider: ProviderId,
    source: Source,
    origins: Vec<Origin>,
    base_uri: Uri,
    header_name: HeaderName,
    expire_time: Timestamp,
    ttl: Duration,
    virtual_key: Option<VirtualKeyName>,
    settings: Vec<(String, String)>,
    key_terms: KeyTerms,
    session: Arc<OpenSession>,
    deadline: Deadline,
    vitals: Arc<Vitals>,
    clock: Arc<dyn Clock>,
    dropped: AtomicBool,
    used: AtomicBool,
    /// Until when the provider wants no calls, in milliseconds on the clock's `elapsed`; 0 for never.
    paused_until: AtomicU64,
}

impl HeldLease {
    /// Reads what the broker answered to a request sent at `sent`, or says what is wrong with it.
    pub(crate) fn accept(
        wire: v1::Lease,
        session: Arc<OpenSession>,
        sent: Moment,
        vitals: Arc<Vitals>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, &'static str> {
        let id: [u8; 16] = (&*wire.lease_id).try_into().map_err(|_| "a lease's ID has 16 bytes")?;
        if wire.lease_hash.is_empty() || wire.sealed_secret.is_empty() {
            return Err("a lease has a hash and a secret");
        }
        let origins: Vec<Origin> = parse_each(&wire.origins).ok_or("an origin is malformed")?;
        let base = Origin::of_url(&wire.base_url).map_err(|_| "the base URL is malformed")?;
        if !origins.contains(&base) {
            return Err("the base URL is not of one of the origins");
        }
        HeaderValue::from_str(&wire.header_prefix)
            .map_err(|_| "the header's prefix is malformed")?;
        let virtual_key = match &*wire.virtual_key {
            "" => None,
            name => Some(name.parse().map_err(|_| "the virtual key's name is malformed")?),
        };
        let ttl = wire.ttl.and_then(convert::duration).ok_or("the lease has no valid ttl")?;
        let expire_time = wire.expire_time.and_then(convert::timestamp);
        Ok(Self {
            id: LeaseId::from_bytes(id),
            tenant: TenantId::from_resource(&wire.tenant).map_err(|_| "the tenant is malformed")?,
            credential: wire.credential.parse().map_err(|_| "the credential is malformed")?,
            provider: wire.provider.parse().map_err(|_| "the provider is malformed")?,
            source: convert::source(wire.source()).ok_or("the lease has no source")?,
            origins,
            base_uri: wire.base_url.parse().map_err(|_| "the base URL is malformed")?,
            header_name: header_name(&wire)?,
            expire_time: expire_time.ok_or("the lease has no valid end")?,
            ttl,
            virtual_key,
            settings: settings(&wire.settings)?,
            key_terms: KeyTerms::of_places(&wire.endpoints, &wire.networks)
                .map_err(|_| "an endpoint or a network of the lease is malformed")?,
            session,
            deadline: Deadline::new(sent, ttl),
            vitals,
            clock,
            dropped: AtomicBool::new(false),
            used: AtomicBool::new(false),
            paused_until: AtomicU64::new(0),
            wire,
        })
    }

    /// Whether the lease may be used now: its time is not up, it is not revoked, and, in strict mode,
    /// the revocation stream was heard of lately.
    pub fn is_live(&self) -> bool {
        !self.dropped.load(Ordering::Acquire)
            && self.vitals.permit(&*self.clock)
            && self.deadline.is_ahead(&*self.clock)
    }

    /// The secret in the clear, for as long as the caller keeps it. Never of a lease that has ended.
    pub fn unseal(&self) -> Result<Secret, UnsealError> {
        if !self.is_live() {
            return Err(UnsealError::Ended);
        }
        self.session
            .keys
            .unseal_lease(&self.context(), &self.wire.sealed_secret)
            .map_err(|_| UnsealError::Broken)
    }

    /// What records, lists and revocations call this lease.
    pub fn lease_hash(&self) -> &[u8] {
        &self.wire.lease_hash
    }

    /// For whom the call is. Differs from the credential's tenant when that is managed.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The credential that is lent.
    pub fn credential(&self) -> &CredentialName {
        &self.credential
    }

    /// The credential's version.
    pub fn credential_version(&self) -> u64 {
        self.wire.credential_version
    }

    /// The provider.
    pub fn provider(&self) -> &ProviderId {
        &self.provider
    }

    /// Whose credential it is.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The only places to which the secret may be sent; never empty.
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// The provider's address for the dialect, of one of the origins. Paths are appended to it.
    pub fn base_url(&self) -> &str {
        &self.wire.base_url
    }

    /// The same address, parsed.
    pub fn base_uri(&self) -> &Uri {
        &self.base_uri
    }

    /// The header that carries the secret.
    pub fn header_name(&self) -> &HeaderName {
        &self.header_name
    }

    /// What stands before the secret in that header, such as `Bearer `.
    pub fn header_prefix(&self) -> &str {
        &self.wire.header_prefix
    }

    /// How often it was renewed.
    pub fn renewals(&self) -> u32 {
        self.wire.renewals
    }

    /// When it ends by the broker's clock. [`is_live`](Self::is_live) is what counts here.
    pub fn expire_time(&self) -> Timestamp {
        self.expire_time
    }

    /// The index of the record in the log that names this lease.
    pub fn log_index(&self) -> u64 {
        self.wire.log_index
    }

    /// The model as the provider knows it; empty for calls that name none.
    pub fn model(&self) -> &str {
        &self.wire.model
    }

    /// The kind of the credential, by the names of `docs/providers.md`.
    pub fn credential_kind(&self) -> &str {
        &self.wire.credential_kind
    }

    /// What the credential says beside its secret: region, project and the like, by name.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// The address that stands in the place of the provider's own, if there is one.
    pub fn address(&self) -> Option<&str> {
        Some(&*self.wire.address).filter(|address| !address.is_empty())
    }

    /// Whether there is another credential, or another version of it, for when this one fails.
    pub fn has_fallback(&self) -> bool {
        self.wire.has_fallback
    }

    /// The kinds of calls that the virtual key is for, and the networks that it may be used from; its
    /// other terms the broker has seen to. Whoever serves applications holds each call against them.
    pub fn key_terms(&self) -> &KeyTerms {
        &self.key_terms
    }

    /// Why this credential was chosen, in a word for people.
    pub fn because(&self) -> &str {
        &self.wire.because
    }

    /// The prices by which calls under the lease are priced.
    pub fn price_version(&self) -> &str {
        &self.wire.price_version
    }

    /// The virtual key it was acquired by.
    pub fn virtual_key(&self) -> Option<&VirtualKeyName> {
        self.virtual_key.as_ref()
    }

    pub(crate) fn id(&self) -> LeaseId {
        self.id
    }

    pub(crate) fn session(&self) -> &Arc<OpenSession> {
        &self.session
    }

    pub(crate) fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// Ends the lease for everyone who holds it.
    pub(crate) fn drop_now(&self) {
        self.dropped.store(true, Ordering::Release);
    }

    /// Lets calls wait until then, on the clock's `elapsed`.
    pub(crate) fn pause(&self, until: Duration) {
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.paused_until.fetch_max(until, Ordering::Relaxed);
    }

    /// How long calls are to wait yet, if they are.
    pub(crate) fn pause_left(&self) -> Option<Duration> {
        let until = self.paused_until.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let left = Duration::from_millis(until).saturating_sub(self.clock.elapsed());
        Some(left).filter(|left| !left.is_zero())
    }

    pub(crate) fn mark_used(&self) {
        // Reading first keeps the line shared between cores while it is already set.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    fn context(&self) -> LeaseContext<'_> {
        LeaseContext {
            lease_id: self.id,
            lease_hash: &self.wire.lease_hash,
            renewals: self.wire.renewals,
            tenant: &self.wire.tenant,
            credential: &self.wire.credential,
            credential_version: self.wire.credential_version,
            provider: &self.wire.provider,
            source: self.source,
            origins: &self.wire.origins,
            base_url: &self.wire.base_url,
            header_name: &self.wire.header_name,
            header_prefix: &self.wire.header_prefix,
            expire_time: self.expire_time,
            ttl: self.ttl,
            log_index: self.wire.log_index,
            identity: &self.session.identity,
            virtual_key: &self.wire.virtual_key,
            model: &self.wire.model,
            credential_kind: &self.wire.credential_kind,
            settings: &self.settings,
            address: &self.wire.address,
            has_fallback: self.wire.has_fallback,
            because: &self.wire.because,
            price_version: &self.wire.price_version,
            endpoints: &self.wire.endpoints,
            networks: &self.wire.networks,
        }
    }
}

/// The header that carries the secret. An endpoint that asks for no secret has none, and then the name
/// stands for nothing.
fn header_name(wire: &v1::Lease) -> Result<HeaderName, &'static str> {
    if wire.header_name.is_empty() && wire.credential_kind == "none" {
        return Ok(http::header::AUTHORIZATION);
    }
    wire.header_name.parse().map_err(|_| "the header is malformed")
}

fn settings(wire: &[v1::Setting]) -> Result<Vec<(String, String)>, &'static str> {
    if !wire.windows(2).all(|pair| matches!(pair, [a, b] if a.name < b.name)) {
        return Err("the settings are not in the order of their names");
    }
    Ok(wire.iter().map(|it| (it.name.clone(), it.value.clone())).collect())
}

impl Lent for HeldLease {
    fn log_index(&self) -> u64 {
        self.wire.log_index
    }

    fn lease_hash(&self) -> &[u8] {
        &self.wire.lease_hash
    }

    fn credential(&self) -> &str {
        &self.wire.credential
    }

    fn tenant(&self) -> &str {
        &self.wire.tenant
    }

    fn virtual_key(&self) -> &str {
        &self.wire.virtual_key
    }

    fn credential_version(&self) -> u64 {
        self.wire.credential_version
    }

    fn identity(&self) -> &str {
        &self.session.identity
    }

    fn session_key_sha256(&self) -> &[u8] {
        &self.session.key_sha256
    }
}

impl fmt::Debug for HeldLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldLease")
            .field("credential", &self.wire.credential)
            .field("credential_version", &self.wire.credential_version)
            .field("log_index", &self.wire.log_index)
            .field("renewals", &self.wire.renewals)
            .finish_non_exhaustive()
    }
}

fn parse_each(origins: &[String]) -> Option<Vec<Origin>> {
    origins.iter().map(|origin| origin.parse().ok()).collect()
}
