use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use audit::{Entry, Kind, Record, proto_time};
use domain::{
    CredentialName, Dialect, LONGEST_TTL, LeaseId, Scope, Source, TenantId, Timestamp, Uid,
    VirtualKeyDigest, VirtualKeyId, VirtualKeyName, granted_ttl,
};
use envelope::Kek;
use moka::{policy::EvictionPolicy, sync::Cache};
use sealing::{LeaseContext, SessionId};
use store::{Appended, CredentialRow, VirtualKeyRow};
use strongroom_proto::v1;
use tokio::sync::Mutex;

use crate::{
    caller::Caller,
    core::Core,
    directory::Tenant,
    log::Basis,
    refused::{About, Refused, Why},
    route::{Decided, Failed, Wanted},
    session::OpenSession,
};

/// What a lease is asked for: parsed, but not yet held against any state.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) target: Target,
    pub(crate) dialect: Dialect,
    pub(crate) ttl: Option<Duration>,
    pub(crate) request_id: String,
    /// The attempts at the call that have failed.
    pub(crate) failed: Vec<Failed>,
}

/// For whom.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// An application, by its virtual key and the model it names.
    VirtualKey { id: VirtualKeyId, digest: VirtualKeyDigest, model: String, provider: String },
    /// A platform service, by tenant and provider.
    Provider { tenant: TenantId, provider: String },
    /// A platform service, by credential.
    Credential(CredentialName),
}

/// The leases that this broker's sessions hold: what is needed to renew or release one.
#[derive(Debug)]
pub(crate) struct Lent(Cache<LeaseId, Arc<Loan>>);

/// One lease.
#[derive(Debug)]
pub(crate) struct Loan {
    pub(crate) session: SessionId,
    pub(crate) hash: [u8; 32],
    ask: Ask,
    /// How many renewals were begun. Each takes a number of its own, because the seal's key is
    /// derived from it and must not seal twice.
    renewals: Arc<AtomicU32>,
    /// Whether the holder has given it back; held while it is renewed, so that no renewal is recorded
    /// after the release.
    pub(crate) released: Arc<Mutex<bool>>,
    credential: Uid,
    credential_version: u64,
    /// The latest record of it, for the record of its release.
    pub(crate) record: Record,
    expires_at: Timestamp,
}

/// What a decision came to, as of one place in the log.
struct Decision {
    route: Decided,
    tenant: Arc<Tenant>,
    virtual_key: Option<VirtualKeyName>,
    longest: Duration,
    /// When the virtual key ends: no lease outlives the key that asked for it.
    key_ends: Option<Timestamp>,
}

/// How often a lease is decided anew because state changed under it.
const ATTEMPTS: usize = 8;

/// Leases in memory; the oldest can no longer be renewed beyond that.
const LOANS: u64 = 1_000_000;

impl Lent {
    pub(crate) fn new() -> Self {
        let lent = Cache::builder().max_capacity(LOANS).eviction_policy(EvictionPolicy::lru());
        Self(lent.time_to_live(LONGEST_TTL).build())
    }

    /// The lease of a session. Another session's looks like none at all.
    pub(crate) fn of(&self, session: &OpenSession, id: LeaseId) -> Result<Arc<Loan>, Why> {
        let loan = self.0.get(&id).ok_or(Why::NoSuchLease)?;
        if loan.session == session.session.id() { Ok(loan) } else { Err(Why::NoSuchLease) }
    }

    /// Forgets a lease.
    pub(crate) fn forget(&self, id: LeaseId) {
        self.0.invalidate(&id);
    }
}

impl Core {
    /// Lends a credential. `renewed` is the lease that this one continues.
    ///
    /// The order is the promise: decide, open, record, and only when the record is durable, seal.
    pub(crate) async fn lend(
        &self,
        caller: &Caller,
        session: &OpenSession,
        ask: Ask,
        renewed: Option<(LeaseId, &Loan)>,
    ) -> Result<v1::Lease, Refused> {
        let about = ask.target.about();
        self.checkpoints.check().map_err(|why| Refused::about(why, &about))?;
        let turn = Turn::take(renewed)?;
        if !ask.failed.is_empty() {
            let noted = self.note_report(caller, session, &ask).await;
            noted.map_err(|why| Refused::about(why, &about))?;
        }
        for _ in 0..ATTEMPTS {
            let as_of = self.directory.as_of();
            let attempt = self.attempt(caller, session, &ask, &turn, as_of).await;
            match attempt.map_err(|why| Refused::about(why, &about))? {
                Attempt::Lent(mut lease) => {
                    // A checkpoint may have turned up since, that the log does not continue.
                    self.checkpoints.check().map_err(|why| Refused::about(why, &about))?;
                    lease.checkpoint = self.checkpoints.note();
                    return Ok(*lease);
                }
                Attempt::Stale(changed) => self.directory.catch_up(changed).await?,
            }
        }
        Err(Refused::about(Why::LogUnavailable, &about))
    }

    /// Takes note of the attempts that failed: once for each request, however often it is decided.
    async fn note_report(
        &self,
        caller: &Caller,
        session: &OpenSession,
        ask: &Ask,
    ) -> Result<(), Why> {
        self.check_bars(caller, session)?;
        let tenant = match &ask.target {
            Target::VirtualKey { id, digest, .. } => {
                self.check_virtual_key(id, digest).await?.tenant.clone()
            }
            Target::Provider { tenant, .. } => tenant.clone(),
            // One that the caller names has no other in its place.
            Target::Credential(_) => return Ok(()),
        };
        let tenant = self.tenant(caller, &tenant).await?;
        self.note_failures(&tenant, &ask.failed).await
    }

    async fn attempt(
        &self,
        caller: &Caller,
        session: &OpenSession,
        ask: &Ask,
        turn: &Turn<'_>,
        as_of: u64,
    ) -> Result<Attempt, Why> {
        let &Turn { id, loan, renewals, .. } = turn;
        self.check_bars(caller, session)?;
        let hash = loan.map_or_else(|| id.hash(&self.pepper), |loan| loan.hash);
        let decision = self.decision(caller, ask).await?;
        // Another caller shows whether it works again; whoever comes now is told where else to go.
        if loan.is_none() && !self.claim(&decision.route)? {
            return Ok(Attempt::Stale(as_of));
        }
        let row = &decision.route.held()?.row;
        if loan.is_some_and(|loan| !self.goes_on(loan, row)) {
            return Err(Why::LeaseEnded);
        }
        let permit = self.access.permit(caller, &decision.tenant.row.id)?;
        let version = match decision.route.held()?.version(&self.custody).await {
            Ok(version) => version,
            // Gone because it was deleted a moment ago, elsewhere, is not corrupt.
            Err(why) => {
                let changed = self.store.head().await?.changed;
                return if changed > as_of { Ok(Attempt::Stale(changed)) } else { Err(why) };
            }
        };
        let keys = &decision.route.owner.keys;
        let (secret, kek) = self.custody.open(&permit, keys, row, version).await?;

        let now = self.clock.now();
        let ends = [decision.key_ends, decision.route.until].into_iter().flatten().min();
        let left = ends.map_or(LONGEST_TTL, |end| end.since(now));
        let ttl = granted_ttl(ask.ttl, decision.longest.min(left));
        let expires_at = now + ttl;
        let record = caller.stamp(Record {
            session_key_sha256: session.key_sha256.to_vec().into(),
            kind: if loan.is_some() { Kind::LeaseRenewed } else { Kind::LeaseGranted }.into(),
            lease_hash: hash.to_vec().into(),
            lease_expire_time: Some(proto_time(expires_at)),
            lease_renewals: renewals,
            request_id: ask.request_id.clone(),
            ..decision.record(&kek)?
        });
        let tenants = vec![decision.tenant.row.id.clone(), decision.route.owner.row.id.clone()];
        let basis = Basis { as_of, tenants };
        let entry = match self.log.append(record.clone(), Some(basis)).await? {
            Appended::Recorded(entry) => entry,
            Appended::Stale { changed } => return Ok(Attempt::Stale(changed)),
        };
        self.lent.0.insert(
            id,
            Arc::new(Loan {
                session: session.session.id(),
                hash,
                ask: ask.clone(),
                renewals: Arc::clone(&turn.begun),
                released: loan.map(|loan| Arc::clone(&loan.released)).unwrap_or_default(),
                credential: row.uid,
                credential_version: row.current_version,
                record,
                expires_at,
            }),
        );
        let granted = Granted { id, hash, renewals, ttl, expires_at, entry };
        // The record is durable: from here on the secret may leave.
        granted.seal(session, &decision, &secret).map(|lease| Attempt::Lent(Box::new(lease)))
    }

    /// Whether a lease can be renewed with what was decided now.
    fn goes_on(&self, loan: &Loan, row: &CredentialRow) -> bool {
        let same = loan.credential == row.uid && loan.credential_version == row.current_version;
        same && loan.expires_at > self.clock.now() && !self.directory.lease_ended(&loan.hash)
    }

    /// Asked anew as of each place in the log: a bar may be what made the last attempt stale.
    fn check_bars(&self, caller: &Caller, session: &OpenSession) -> Result<(), Why> {
        let barred = self.directory.barred();
        barred.admit(&caller.actor)?;
        if barred.ends(session) { Err(Why::NoSuchSession) } else { Ok(()) }
    }

    /// Extends a lease that has not ended. Everything is decided again, and the credential must come
    /// out the same.
    pub(crate) async fn renew(
        &self,
        caller: &Caller,
        session: &OpenSession,
        id: LeaseId,
        ttl: Option<Duration>,
    ) -> Result<v1::Lease, Refused> {
        let loan = self.lent.of(session, id)?;
        self.healths.succeeded(loan.credential, self.clock.now());
        let released = loan.released.lock().await;
        if *released {
            return Err(Why::LeaseEnded.into());
        }
        let ask = Ask { ttl, request_id: String::new(), failed: vec![], ..loan.ask.clone() };
        self.lend(caller, session, ask, Some((id, &loan))).await
    }

    /// Checks a presented virtual key. An unknown id costs the same work as a wrong key, and every
    /// way of being wrong gives the same answer.
    pub(crate) async fn check_virtual_key(
        &self,
        id: &VirtualKeyId,
        digest: &VirtualKeyDigest,
    ) -> Result<Arc<VirtualKeyRow>, Why> {
        let row = self.directory.virtual_key(id).await?;
        let stored = row.as_ref().map_or([0; 32], |row| row.verifier);
        let genuine = digest.verify(&self.pepper, id, &stored);
        let now = self.clock.now();
        row.filter(|row| genuine && !row.revoked && row.expires_at.is_none_or(|end| end > now))
            .ok_or(Why::VirtualKeyRefused)
    }

    async fn decision(&self, caller: &Caller, ask: &Ask) -> Result<Decision, Why> {
        let &Ask { ref target, dialect, ref failed, .. } = ask;
        let open = Scope::default();
        let mut key_ends = None;
        let (tenant, route, virtual_key) = match target {
            Target::VirtualKey { id, digest, model, provider } => {
                let key = self.check_virtual_key(id, digest).await?;
                key_ends = key.expires_at;
                let tenant = self.tenant(caller, &key.tenant).await?;
                let wanted = Wanted { model, provider, dialect, scope: &key.scope };
                let route = self.decide(&tenant, wanted, failed).await?;
                let name = VirtualKeyName { tenant: key.tenant.clone(), id: id.clone() };
                (tenant, route, Some(name))
            }
            Target::Provider { tenant, provider } => {
                let tenant = self.tenant(caller, tenant).await?;
                let wanted = Wanted { model: "", provider, dialect, scope: &open };
                let route = self.decide(&tenant, wanted, failed).await?;
                (tenant, route, None)
            }
            Target::Credential(name) => {
                let tenant = self.tenant(caller, &name.tenant).await?;
                let route = self.decide_named(&tenant, name, dialect)?;
                (tenant, route, None)
            }
        };
        if tenant.row.suspended || route.owner.row.suspended {
            return Err(Why::TenantSuspended);
        }
        let provider = &route.held()?.row.provider;
        let longest = self
            .access
            .permit(caller, &tenant.row.id)?
            .longest_lease(provider)
            .ok_or(Why::NotPermitted)?;
        Ok(Decision { route, tenant, virtual_key, longest, key_ends })
    }
}

impl Decision {
    /// What a record of the lease says of whom it serves, and with what.
    fn record(&self, kek: &Kek) -> Result<Record, Why> {
        let row = &self.route.held()?.row;
        let (kek_id, kek_version) = kek.reference();
        let virtual_key = self.virtual_key.as_ref().map(|name| name.id.to_string());
        Ok(Record {
            tenant: self.tenant.row.id.to_string(),
            credential: row.name().to_string(),
            credential_uid: row.uid.as_bytes().to_vec().into(),
            credential_version: row.current_version,
            revision: row.revision,
            provider: row.provider.to_string(),
            source: proto_source(self.route.source).into(),
            virtual_key: virtual_key.unwrap_or_default(),
            because: self.route.because.clone(),
            kek_id: kek_id.as_bytes().to_vec().into(),
            kek_version,
            kek_overdue: kek.is_overdue(),
            ..Record::default()
        })
    }
}

/// Which seal of which lease this is.
struct Turn<'a> {
    id: LeaseId,
    loan: Option<&'a Loan>,
    renewals: u32,
    begun: Arc<AtomicU32>,
}

impl<'a> Turn<'a> {
    fn take(renewed: Option<(LeaseId, &'a Loan)>) -> Result<Self, Why> {
        let Some((id, loan)) = renewed else {
            let begun = Arc::default();
            return Ok(Self { id: LeaseId::random()?, loan: None, renewals: 0, begun });
        };
        let begun = Arc::clone(&loan.renewals);
        // At the end of the numbers the lease ends; the first one to seal took 0.
        let before = begun.fetch_update(Relaxed, Relaxed, |before| before.checked_add(1));
        let renewals = before.map_err(|_| Why::LeaseEnded)? + 1;
        Ok(Self { id, loan: Some(loan), renewals, begun })
    }
}

enum Attempt {
    Lent(Box<v1::Lease>),
    /// State changed between the decision and the record: decide again as of then.
    Stale(u64),
}

/// A lease whose record is durable.
struct Granted {
    id: LeaseId,
    hash: [u8; 32],
    renewals: u32,
    ttl: Duration,
    expires_at: Timestamp,
    entry: Entry,
}

impl Granted {
    /// Seals the secret to the session, with everything that the lease says bound into the seal.
    fn seal(
        &self,
        session: &OpenSession,
        decision: &Decision,
        secret: &domain::Secret,
    ) -> Result<v1::Lease, Why> {
        let route = &decision.route;
        let row = &route.held()?.row;
        let (tenant, credential) = (decision.tenant.row.id.resource(), row.name().to_string());
        let origins = vec![route.origin.to_string()];
        let virtual_key =
            decision.virtual_key.as_ref().map(ToString::to_string).unwrap_or_default();
        let context = LeaseContext {
            lease_id: self.id,
            lease_hash: &self.hash,
            renewals: self.renewals,
            tenant: &tenant,
            credential: &credential,
            credential_version: row.current_version,
            provider: row.provider.as_str(),
            source: route.source,
            origins: &origins,
            base_url: &route.endpoint.base_url,
            header_name: route.endpoint.header_name.as_str(),
            header_prefix: &route.endpoint.header_prefix,
            expire_time: self.expires_at,
            ttl: self.ttl,
            log_index: self.entry.index,
            identity: session.identity.as_str(),
            virtual_key: &virtual_key,
            model: &route.model,
            credential_kind: &row.kind,
            settings: &row.settings,
            address: route.address.as_deref().unwrap_or_default(),
            has_fallback: route.has_fallback,
            because: &route.because,
        };
        let sealed = session.session.seal_lease(&context, secret);
        let sealed = sealed.map_err(|error| Why::Internal(format!("sealing a lease: {error}")))?;
        Ok(v1::Lease {
            lease_id: self.id.as_bytes().to_vec().into(),
            lease_hash: self.hash.to_vec().into(),
            credential_version: row.current_version,
            provider: row.provider.to_string(),
            source: proto_source(route.source).into(),
            base_url: route.endpoint.base_url.clone(),
            header_name: route.endpoint.header_name.as_str().to_owned(),
            header_prefix: route.endpoint.header_prefix.clone(),
            sealed_secret: sealed.into(),
            renewals: self.renewals,
            expire_time: Some(proto_time(self.expires_at)),
            ttl: prost_types::Duration::try_from(self.ttl).ok(),
            log_index: self.entry.index,
            model: route.model.clone(),
            credential,
            tenant,
            origins,
            virtual_key,
            checkpoint: String::new(),
            credential_kind: row.kind.clone(),
            settings: settings(row),
            address: route.address.clone().unwrap_or_default(),
            has_fallback: route.has_fallback,
            because: route.because.clone(),
        })
    }
}

/// What a credential says beside its secret.
pub(crate) fn settings(row: &CredentialRow) -> Vec<v1::Setting> {
    let setting =
        |(name, value): &(String, String)| v1::Setting { name: name.clone(), value: value.clone() };
    row.settings.iter().map(setting).collect()
}

impl Target {
    /// What it names, for the record of a refusal.
    fn about(&self) -> About {
        match self {
            Self::VirtualKey { id, .. } => {
                About { virtual_key: Some(id.clone()), ..About::default() }
            }
            Self::Provider { tenant, .. } => {
                About { tenant: Some(tenant.clone()), ..About::default() }
            }
            Self::Credential(name) => About {
                tenant: Some(name.tenant.clone()),
                credential: Some(name.clone()),
                ..About::default()
            },
        }
    }
}

pub(crate) fn proto_source(source: Source) -> v1::Source {
    match source {
        Source::Byok => v1::Source::Byok,
        Source::Managed => v1::Source::Managed,
        Source::Custom => v1::Source::Custom,
        Source::Keyless => v1::Source::Keyless,
    }
}

#[cfg(test)]
mod tests;
