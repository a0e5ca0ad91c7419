use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use audit::{Kind, Record};
use domain::{Clock, CredentialName, Failure, LONGEST_TTL, Permit, Secret, Uid};
use envelope::Kek;
use exchange::{
    AwsIdentity, Courier, CredentialVersion, Exchange, ExchangeError, Leftover, Minter, Order,
    Token,
};
use providers::{CredentialKind, Minting, Provider, Settings, Verdict};
use store::CredentialRow;
use tokio::{sync::Notify, time};
use tokio_util::sync::CancellationToken;

use crate::{core::Core, custody::StoredVersion, directory::Tenant, refused::Why, route::Failed};

/// The providers' own short-lived tokens that are lent in the place of stored secrets. The log says
/// which of them are over, whichever broker ended their credential.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) exchange: Exchange,
    pub(crate) minter: Arc<Minter>,
    /// Keys at providers that are over before their time.
    leftovers: Mutex<Vec<(CredentialName, Leftover)>>,
    more: Notify,
}

/// What a lease carries.
#[derive(Debug)]
pub(crate) enum Lendable {
    /// The stored secret.
    Stored(Secret),
    /// What was made of it.
    Made(Arc<Token>),
}

/// What is known of a credential beside its secret, in the words of the catalogue.
pub(crate) struct Described<'a> {
    pub(crate) provider: &'a Provider,
    pub(crate) kind: CredentialKind,
    pub(crate) settings: Settings,
}

impl Tokens {
    pub(crate) fn new(
        courier: Arc<dyn Courier>,
        clock: &Arc<dyn Clock>,
        aws: Option<Arc<dyn AwsIdentity>>,
    ) -> Self {
        let minter = Arc::new(Minter::new(courier, Arc::clone(clock), aws));
        let exchange = Exchange::new(Arc::clone(&minter), Arc::clone(clock));
        Self { exchange, minter, leftovers: Mutex::default(), more: Notify::new() }
    }

    /// Drops what was made of the versions of a credential that are over by the record.
    pub(crate) fn apply(&self, record: &Record) {
        let current = record.credential_version;
        let is_over = |version: u64| {
            let kind = record.kind();
            let by_a_newer =
                matches!(kind, Kind::CredentialRotated | Kind::CredentialRotationFinished);
            (by_a_newer && version < current)
                || (kind == Kind::CredentialRotationRolledBack && version >= current)
                || matches!(
                    kind,
                    Kind::CredentialDisabled | Kind::CredentialDeleted | Kind::CredentialShredded
                )
        };
        let Ok(uid) = <[u8; 16]>::try_from(&*record.credential_uid) else { return };
        let Ok(name) = record.credential.parse::<CredentialName>() else { return };
        let left = self.exchange.forget(Uid::from_bytes(uid), is_over);
        if !left.is_empty() {
            let mut leftovers = self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
            leftovers.extend(left.into_iter().map(|left| (name.clone(), left)));
            self.more.notify_one();
        }
    }

    fn take_leftovers(&self) -> Vec<(CredentialName, Leftover)> {
        std::mem::take(&mut *self.leftovers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lendable {
    /// What goes on calls.
    pub(crate) fn secret(&self) -> &Secret {
        match self {
            Self::Stored(secret) => secret,
            Self::Made(token) => token.secret(),
        }
    }

    /// How long a lease of it may be.
    pub(crate) fn lasts(&self, clock: &dyn Clock) -> Duration {
        match self {
            Self::Stored(_) => LONGEST_TTL,
            Self::Made(token) => token.lendable_for(clock),
        }
    }
}

impl Core {
    /// A credential in the words of the catalogue.
    pub(crate) fn described(&self, row: &CredentialRow) -> Result<Described<'_>, Why> {
        let unknown = || Why::NoSuchProvider(row.provider.to_string());
        let provider = self.catalogue.provider(&row.provider).ok_or_else(unknown)?;
        let kind = row.kind.parse().map_err(|()| {
            Why::Corrupt(format!("the kind of {} is none that there is", row.name()))
        })?;
        let settings = row.settings.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        Ok(Described { provider, kind, settings })
    }

    /// Opens a stored version of a credential, and makes of it what is lent. With a tenant whose policy
    /// lists another credential, one that does not open or of which no token can be had is passed over.
    pub(crate) async fn opened(
        &self,
        (permit, instead): (&Permit, Option<&Arc<Tenant>>),
        owner: &Tenant,
        row: &CredentialRow,
        version: &StoredVersion,
    ) -> Result<Result<(Lendable, Arc<Kek>), Failed>, Why> {
        let of = (row, version.row.version);
        let (secret, kek) = match self.custody.open(permit, &owner.keys, row, version).await {
            Ok(opened) => opened,
            Err(why) => return self.unopened(instead, of, why).await.map(Err),
        };
        match (self.lendable(row, version.row.version, secret).await, instead) {
            (Ok(lendable), _) => Ok(Ok((lendable, kek))),
            (Err(why), Some(tenant)) if !why.is_outdated() => {
                self.pass_over(tenant, of, why).await.map(Err)
            }
            (Err(why), Some(_) | None) => Err(why),
        }
    }

    /// What is lent of a stored secret: itself, or for kinds that are exchanged the token that is made
    /// of it. One that is at hand costs no call.
    async fn lendable(
        &self,
        row: &CredentialRow,
        version: u64,
        secret: Secret,
    ) -> Result<Lendable, Why> {
        let Some((minting, settings)) = self.minting(row)? else {
            return Ok(Lendable::Stored(secret));
        };
        let of = CredentialVersion { credential: row.uid, version };
        let order = Order { minting, settings, secret, lifetime: LIFETIME };
        let failed = |error| Why::NotExchanged { provider: row.provider.clone(), error };
        let token = self.tokens.exchange.token(&of, order).await.map_err(failed)?;
        if token.lendable_for(&*self.clock).is_zero() {
            return Err(failed(ExchangeError::Unreadable));
        }
        Ok(Lendable::Made(token))
    }

    fn minting(&self, row: &CredentialRow) -> Result<Option<(Minting, Settings)>, Why> {
        let Described { provider, kind, settings } = self.described(row)?;
        let minting = provider.minting(kind, &settings);
        let minting = minting.map_err(|none| Why::InvalidField(none.to_string()))?;
        Ok(minting.map(|minting| (minting, settings)))
    }

    /// What becomes of a call whose credential does not open: with a tenant whose policy lists another
    /// one, that is lent instead.
    pub(crate) async fn unopened(
        &self,
        instead: Option<&Arc<Tenant>>,
        of: (&CredentialRow, u64),
        why: Why,
    ) -> Result<Failed, Why> {
        match instead {
            Some(tenant) => self.pass_over(tenant, of, why).await,
            None => Err(why),
        }
    }

    /// Takes note that a credential for which the policy lists another does not open, or that no token
    /// could be had of it; what has another reason is refused as it is.
    async fn pass_over(
        &self,
        tenant: &Arc<Tenant>,
        (row, version): (&CredentialRow, u64),
        why: Why,
    ) -> Result<Failed, Why> {
        let (credential, begun) = (row.name(), self.clock.now());
        let failure = if let Why::NotExchanged { error, .. } = &why {
            failure(error)
        } else if why.is_unusable() {
            // No call is refused, so that nothing else says it before the rows are checked.
            let reason = why.reason().as_str_name();
            tracing::error!(%credential, version, reason, ?why, "passed over: it does not open");
            metrics::counter!("strongroom_credentials_unusable_total", "reason" => reason)
                .increment(1);
            Failure::Unusable
        } else {
            return Err(why);
        };
        let failed = Failed { credential, version, failure, begun };
        self.note_failures(tenant, std::slice::from_ref(&failed)).await?;
        Ok(failed)
    }

    /// What is needed to delete what was made of a version, if something was.
    pub(crate) async fn order_of(
        &self,
        tenant: &Tenant,
        row: &CredentialRow,
        version: &StoredVersion,
    ) -> Result<Option<Order>, Why> {
        let Some((minting, settings)) = self.minting(row)? else { return Ok(None) };
        let secret = self.custody.open_here(&tenant.keys, row, version).await?;
        Ok(Some(Order { minting, settings, secret, lifetime: LIFETIME }))
    }

    /// Deletes at their providers the keys of what was rotated or disabled. Those of a credential that
    /// is gone end by themselves.
    pub(crate) async fn clear_leftovers(&self) -> Result<(), Why> {
        for (name, left) in self.tokens.take_leftovers() {
            let tenant = self.directory.tenant(&name.tenant).await?;
            let held = tenant.as_ref().and_then(|tenant| tenant.credential(&name.credential));
            let (Some(tenant), Some(held)) = (&tenant, held) else { continue };
            if held.row.uid != left.of.credential {
                continue;
            }
            if self.store.version(held.row.uid, left.of.version).await?.is_none() {
                continue;
            }
            let version = self.custody.version(&held.row, left.of.version).await?;
            if let Some(order) = self.order_of(tenant, &held.row, &version).await? {
                self.tokens.exchange.discard(vec![left], order);
            }
        }
        Ok(())
    }
}

/// Wipes tokens that have ended, and deletes keys that are over before their time, until `stop`.
pub(crate) async fn look_after(core: Arc<Core>, stop: CancellationToken) {
    let mut ticks = time::interval(SWEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => core.tokens.exchange.sweep(),
            () = core.tokens.more.notified() => {
                if let Err(why) = core.clear_leftovers().await {
                    tracing::warn!(%why, "keys that are over stay at their provider to their end");
                }
            }
        }
    }
}

/// What it means for the choice of another credential that no token could be had.
fn failure(error: &ExchangeError) -> Failure {
    match (error, error.verdict()) {
        (ExchangeError::Limited { .. }, _) => {
            Failure::RateLimited { retry_after: Some(error.retry_after()) }
        }
        (_, Verdict::Invalid | Verdict::WrongKind) => Failure::CredentialRefused,
        (_, Verdict::NoQuota) => Failure::NoQuota,
        (_, Verdict::RegionOrPermission | Verdict::NoModelAccess) => Failure::NotAllowed,
        (_, Verdict::Valid | Verdict::Unreachable | Verdict::Unverifiable) => {
            Failure::ProviderTrouble
        }
    }
}

/// How long a token should live: long enough to outlast an identity provider's bad quarter of an hour.
const LIFETIME: Duration = Duration::from_hours(1);
const SWEEP: Duration = Duration::from_mins(1);
