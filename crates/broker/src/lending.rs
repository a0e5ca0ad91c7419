use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use audit::{Kind, Record, proto_time};
use domain::{
    CredentialName, Dialect, LONGEST_TTL, LeaseId, Permit, Scope, TenantId, Timestamp, Uid,
    VirtualKeyDigest, VirtualKeyId, granted_ttl,
};
use envelope::Kek;
use moka::{policy::EvictionPolicy, sync::Cache};
use sealing::SessionId;
use store::{Appended, CredentialRow};
use strongroom_proto::v1;
use tokio::sync::Mutex;

use self::{granted::Granted, turn::Turn};
use crate::{
    access::InForce,
    allowances::Wish,
    caller::Caller,
    core::Core,
    directory::Tenant,
    log::Basis,
    refused::{About, Refused, Why},
    route::{Decided, Failed, Wanted},
    session::OpenSession,
    tokens::Lendable,
    virtual_key::Shown,
};

mod granted;
mod told;
mod turn;

pub(crate) use told::{proto_source, settings};

/// What a lease is asked for: parsed, but not yet held against any state.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) target: Target,
    pub(crate) dialect: Dialect,
    pub(crate) ttl: Option<Duration>,
    pub(crate) request_id: String,
    /// The attempts at the call that have failed.
    pub(crate) failed: Vec<Failed>,
    /// What the call may spend.
    pub(crate) allowance: Option<Wish>,
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
    sealed_at: Timestamp,
    /// The latest record of it, for the record of its release.
    pub(crate) record: Record,
    expires_at: Timestamp,
}

/// What a decision came to, as of one place in the log.
struct Decision {
    /// The access policy that allowed it.
    policy: Arc<InForce>,
    route: Decided,
    /// The version of the credential.
    version: u64,
    tenant: Arc<Tenant>,
    virtual_key: Option<Shown>,
    longest: Duration,
    price_version: String,
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
    /// The order is the promise: decide, open, exchange if need be, record, and only when the record is
    /// durable, seal.
    pub(crate) async fn lend(
        &self,
        caller: &Caller,
        session: &OpenSession,
        mut ask: Ask,
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
            let attempt = match self.attempt(caller, session, &ask, &turn, as_of).await {
                Err(refused) if refused.why.is_outdated() => self
                    .gone(refused.why, as_of)
                    .await
                    .map_err(|why| Refused::about(why, &refused.about)),
                attempt => attempt,
            };
            match attempt.map_err(|refused| refused.within(&about))? {
                Attempt::Lent(mut lease) => {
                    // A checkpoint may have turned up since, that the log does not continue.
                    self.checkpoints.check().map_err(|why| Refused::about(why, &about))?;
                    lease.checkpoint = self.checkpoints.note();
                    return Ok(*lease);
                }
                Attempt::Stale(changed) => self.directory.catch_up(changed).await?,
                Attempt::PassedOver(failed) => ask.failed.push(failed),
            }
        }
        Err(Refused::about(Why::LogUnavailable, &about))
    }

    async fn attempt(
        &self,
        caller: &Caller,
        session: &OpenSession,
        ask: &Ask,
        turn: &Turn<'_>,
        as_of: u64,
    ) -> Result<Attempt, Refused> {
        let &Turn { id, loan, renewals, .. } = turn;
        self.check_bars(caller, session)?;
        let hash = loan.map_or_else(|| id.hash(&self.pepper), |loan| loan.hash);
        let decision = self.decision(caller, ask).await?;
        // Another caller shows whether it works again; whoever comes now is told where else to go.
        if loan.is_none() && !self.claim(&decision.route).await? {
            return Ok(Attempt::Stale(as_of));
        }
        let row = &decision.route.held()?.row;
        if loan.is_some_and(|loan| !self.goes_on(loan, row)) {
            return Err(Why::LeaseEnded.into());
        }
        let permit = self.access.permit(caller, &decision.tenant.row.id)?;
        let opened = self.open_chosen(&decision, (&permit, loan.is_none()), as_of).await?;
        let (lendable, kek) = match opened {
            Ok(opened) => opened,
            Err(other) => return Ok(other),
        };

        // Given back unless the lease that it is for is recorded and sealed.
        let hold = self.hold_for(caller, ask, loan.is_none()).await?;
        let ttl = granted_ttl(ask.ttl, self.longest(&decision, &lendable));
        let (now, expires_at) = self.lasting(ttl);
        let record = caller.stamp(Record {
            session_key_sha256: session.key_sha256.to_vec().into(),
            kind: if loan.is_some() { Kind::LeaseRenewed } else { Kind::LeaseGranted }.into(),
            lease_hash: hash.to_vec().into(),
            lease_expire_time: Some(proto_time(expires_at)),
            lease_renewals: renewals,
            request_id: ask.request_id.clone(),
            ..decision.record(&kek)?
        });
        let entry = match Box::pin(self.record_loan(&decision, record.clone(), as_of)).await? {
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
                credential_version: decision.version,
                sealed_at: now,
                record,
                expires_at,
            }),
        );
        self.canaries.lent(row, decision.version);
        let granted = Granted { id, hash, renewals, ttl, expires_at, entry };
        // The record is durable: from here on the secret may leave.
        let lease = granted.seal(session, &decision, lendable.secret())?;
        Ok(Attempt::Lent(Box::new(hold.on(lease))))
    }

    /// Opens the credential that was chosen and makes of it what is lent, or says what follows when that
    /// cannot be. In the place of one that is renewed no other is lent.
    async fn open_chosen(
        &self,
        decision: &Decision,
        (permit, is_new): (&Permit, bool),
        as_of: u64,
    ) -> Result<Result<(Lendable, Arc<Kek>), Attempt>, Refused> {
        let (route, version) = (&decision.route, decision.version);
        let held = route.held()?;
        let instead = (is_new && route.has_fallback).then_some(&decision.tenant);
        let opened = match held.version(&self.custody, version).await {
            Ok(stored) => self.opened((permit, instead), &route.owner, &held.row, stored).await,
            Err(why) => match self.gone(why, as_of).await {
                Ok(stale) => return Ok(Err(stale)),
                Err(why) => self.unopened(instead, (&held.row, version), why).await.map(Err),
            },
        };
        let opened = opened.map_err(|why| decision.refused(why))?;
        Ok(opened.map_err(Attempt::PassedOver))
    }

    /// Records a lease, unless what decided it has changed: the state, or the access policy.
    async fn record_loan(
        &self,
        decision: &Decision,
        record: Record,
        as_of: u64,
    ) -> Result<Appended, Why> {
        let Some(_policy) = self.access.hold(&decision.policy).await else {
            return Ok(Appended::Stale { changed: as_of });
        };
        self.log.append(record, Some(decision.basis(as_of))).await
    }

    /// Now, and the end of what begins now.
    fn lasting(&self, ttl: Duration) -> (Timestamp, Timestamp) {
        let now = self.clock.now();
        (now, now + ttl)
    }

    /// What is gone because it was changed a moment ago, perhaps elsewhere, is no fault.
    async fn gone(&self, why: Why, as_of: u64) -> Result<Attempt, Why> {
        let changed = self.store.head().await?.changed;
        if changed > as_of { Ok(Attempt::Stale(changed)) } else { Err(why) }
    }

    /// How long a lease may last: within the policy, and no longer than what it rests on.
    fn longest(&self, decision: &Decision, lendable: &Lendable) -> Duration {
        // No lease outlives the value of the key that asked for it.
        let key_ends = decision.virtual_key.as_ref().and_then(|key| key.ends_at);
        let ends = [key_ends, decision.route.until].into_iter().flatten().min();
        let left = ends.map_or(LONGEST_TTL, |end| end.since(self.clock.now()));
        decision.longest.min(left).min(lendable.lasts(&*self.clock))
    }

    /// Whether a lease can be renewed with what was decided now. While a rotation runs, it may be with
    /// the other version.
    fn goes_on(&self, loan: &Loan, row: &CredentialRow) -> bool {
        let is_lent = row.lent_versions().any(|version| version == loan.credential_version);
        loan.credential == row.uid
            && is_lent
            && loan.expires_at > self.clock.now()
            && !self.directory.lease_ended(&loan.hash)
    }

    /// Asked anew as of each place in the log: a bar may be what made the last attempt stale.
    pub(crate) fn check_bars(&self, caller: &Caller, session: &OpenSession) -> Result<(), Why> {
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
        self.healths.succeeded(loan.credential, loan.sealed_at).await;
        let released = loan.released.lock().await;
        if *released {
            return Err(Why::LeaseEnded.into());
        }
        let ask = Ask {
            ttl,
            request_id: String::new(),
            failed: vec![],
            allowance: None,
            ..loan.ask.clone()
        };
        self.lend(caller, session, ask, Some((id, &loan))).await
    }

    async fn decision(&self, caller: &Caller, ask: &Ask) -> Result<Decision, Why> {
        let &Ask { ref target, dialect, ref failed, .. } = ask;
        let (policy, open) = (self.access.in_force(), Scope::default());
        let (tenant, mut route, virtual_key) = match target {
            Target::VirtualKey { id, digest, model, provider } => {
                let key = self.check_virtual_key(id, digest).await?;
                let tenant = self.tenant(caller, &key.row.tenant).await?;
                let wanted = Wanted { model, provider, dialect, scope: &key.row.terms.scope };
                let route = self.decide(&tenant, wanted, failed).await?;
                (tenant, route, Some(key))
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
        let row = &route.held()?.row;
        let has_failed = |version| failed.iter().any(|failed| failed.is_of(row, version));
        let version = self.canaries.choose(row, has_failed);
        let has_other = row.lent_versions().any(|other| other != version && !has_failed(other));
        let longest = self
            .access
            .permit(caller, &tenant.row.id)?
            .longest_lease(&row.provider)
            .ok_or_else(|| self.access.refusal(caller))?;
        route.has_fallback |= has_other;
        let price_version = self.directory.prices().version(Some(&tenant.row.id));
        Ok(Decision { policy, route, version, tenant, virtual_key, longest, price_version })
    }
}

impl Decision {
    /// Refuses because of the credential that was chosen.
    fn refused(&self, why: Why) -> Refused {
        let row = self.route.held().ok().map(|held| &held.row);
        let about = About {
            tenant: Some(self.tenant.row.id.clone()),
            credential: row.map(CredentialRow::name),
            virtual_key: None,
            provider: row.map(|row| row.provider.clone()),
        };
        Refused::about(why, &about)
    }

    /// What must not have changed for it to hold.
    fn basis(&self, as_of: u64) -> Basis {
        let tenants = vec![self.tenant.row.id.clone(), self.route.owner.row.id.clone()];
        Basis { as_of, tenants }
    }

    /// What a record of the lease says of whom it serves, and with what.
    fn record(&self, kek: &Kek) -> Result<Record, Why> {
        let row = &self.route.held()?.row;
        let (kek_id, kek_version) = kek.reference();
        let virtual_key = self.virtual_key.as_ref().map(|key| key.row.id.to_string());
        Ok(Record {
            tenant: self.tenant.row.id.to_string(),
            credential: row.name().to_string(),
            credential_uid: row.uid.as_bytes().to_vec().into(),
            credential_version: self.version,
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

enum Attempt {
    Lent(Box<v1::Lease>),
    /// State changed between the decision and the record: decide again as of then.
    Stale(u64),
    /// The credential cannot be opened, or no token be had of it, and the policy lists another.
    PassedOver(Failed),
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

#[cfg(test)]
mod tests;
