use std::{sync::Arc, time::Duration};

use audit::{proto_amounts, proto_time, proto_unit};
use domain::{
    Account, AccountKey, Amounts, BudgetHolder, Exhausted, LONGEST_TTL, Mode, Timestamp, Uid, Unit,
    VirtualKeyId,
};
use sha2::{Digest as _, Sha256};
use store::{Counted, Draw, Drawn, Granted, Store, VirtualKeyRow};
use strongroom_proto::v1;

use crate::{
    caller::Caller,
    core::Core,
    directory::Tenant,
    lending::{Ask, Target},
    people::Called,
    refused::{Reached, Why},
};

/// What a caller wants to spend by itself.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    id: Uid,
    need: Amounts,
    wanted: Amounts,
}

/// An allowance whose holder has not heard of it yet: unless it is kept, it is given back.
#[derive(Debug)]
pub(crate) struct Hold {
    /// What to undo: the allowance, and the attempt at it.
    undo: Option<(Arc<dyn Store>, Uid, Uid)>,
    allowance: Option<v1::Allowance>,
}

/// How often an allowance is drawn anew because a budget changed under it.
const ATTEMPTS: usize = 4;

/// The most of any unit that one allowance is about: a thousand times less than an account can hold,
/// so that sums of them are never cut off.
const MOST: u64 = 1 << 53;

impl Wish {
    /// Reads a request.
    pub(crate) fn of(request: &v1::AllowanceRequest) -> Result<Self, Why> {
        let read = |told: Option<&v1::Amounts>| {
            let amounts = told.map(audit::amounts).unwrap_or_default();
            let fits = Unit::ALL.iter().all(|unit| amounts.of(*unit) <= MOST);
            fits.then_some(amounts).ok_or_else(|| {
                Why::InvalidField("an allowance is of 2^53 of each unit at most".into())
            })
        };
        Ok(Self {
            id: allowance_id(&request.allowance_id)?,
            need: read(request.need.as_ref())?,
            wanted: read(request.wanted.as_ref())?,
        })
    }

    /// Its id.
    pub(crate) fn id(&self) -> Uid {
        self.id
    }
}

impl Hold {
    fn nothing() -> Self {
        Self { undo: None, allowance: None }
    }

    /// Hands the allowance to its holder.
    pub(crate) fn keep(mut self) -> Option<v1::Allowance> {
        self.undo = None;
        self.allowance.take()
    }

    /// Hands the allowance to its holder, with the lease that is recorded now.
    pub(crate) fn on(self, lease: v1::Lease) -> v1::Lease {
        v1::Lease { allowance: self.keep(), ..lease }
    }

    /// How much it is.
    pub(crate) fn granted(&self) -> Option<v1::Amounts> {
        self.allowance.as_ref().and_then(|allowance| allowance.granted)
    }

    /// Whether some limit counts what is spent in it.
    pub(crate) fn is_limited(&self) -> bool {
        self.allowance.as_ref().is_some_and(|allowance| !allowance.limited.is_empty())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some((store, id, attempt)) = self.undo.take() {
            store.undo(id, attempt);
        }
    }
}

impl Core {
    /// Reserves what a new lease may spend. A renewal spends what was drawn before.
    pub(crate) async fn hold_for(
        &self,
        caller: &Caller,
        ask: &Ask,
        is_new: bool,
    ) -> Result<Hold, Why> {
        match (&ask.target, &ask.allowance) {
            (Target::VirtualKey { id, .. }, wish) if is_new => {
                self.hold(caller, id, wish.as_ref()).await
            }
            (Target::VirtualKey { .. }, _) | (_, None) => Ok(Hold::nothing()),
            (_, Some(_)) => Err(Why::InvalidField("an allowance goes with a virtual key".into())),
        }
    }

    /// Reserves what calls with a virtual key may spend. The key has been checked.
    pub(crate) async fn hold(
        &self,
        caller: &Caller,
        id: &VirtualKeyId,
        wish: Option<&Wish>,
    ) -> Result<Hold, Why> {
        for _ in 0..ATTEMPTS {
            let key = self.directory.virtual_key(id).await?.ok_or(Why::VirtualKeyRefused)?;
            let tenant = self.directory.tenant(&key.tenant).await?.ok_or(Why::NoSuchTenant)?;
            let budgets = counted(&tenant, &key);
            let Some(wish) = wish else {
                return if budgets.is_empty() { Ok(Hold::nothing()) } else { Err(untold()) };
            };
            if budgets.is_empty() {
                return Ok(unlimited(wish, self.clock.now()));
            }
            let attempt = Uid::random()?;
            // From here on, whoever stops waiting leaves nothing behind.
            let undo = Some((Arc::clone(&self.store), wish.id, attempt));
            let mut hold = Hold { undo, allowance: None };
            let draw = Draw {
                id: wish.id,
                attempt,
                tenant: key.tenant.clone(),
                virtual_key: id.clone(),
                holder: holder(caller),
                budgets,
                need: wish.need,
                wanted: wish.wanted,
                lasts: LONGEST_TTL,
                ends_at: key.terms.expires_at,
                at: None,
            };
            match self.store.draw(&draw).await? {
                Drawn::Granted(granted) => {
                    tell_over(&granted.over, &tenant);
                    hold.allowance = Some(message(wish.id, &granted, &tenant));
                    return Ok(hold);
                }
                Drawn::Exhausted(exhausted) => {
                    hold.undo = None;
                    return Err(reached(&exhausted, &tenant, self.clock.now()));
                }
                Drawn::Taken => {
                    hold.undo = None;
                    return Err(Why::InvalidField(
                        "allowance_id is another's; take 16 random bytes".into(),
                    ));
                }
                Drawn::Stale => {
                    let head = self.store.head().await?;
                    self.directory.catch_up(head.changed).await?;
                }
            }
        }
        Err(Why::LogUnavailable)
    }
}

/// Counts what hard budgets would have refused.
fn tell_over(over: &[AccountKey], tenant: &Tenant) {
    let is_over = |row: &&store::BudgetRow| over.iter().any(|key| key.budget == row.budget.id);
    for row in tenant.budgets.iter().filter(is_over) {
        let (tenant, budget) = (row.tenant.to_string(), row.id.to_string());
        metrics::counter!("strongroom_budget_would_refuse_total", "tenant" => tenant,
            "budget" => budget)
        .increment(1);
    }
}

/// What allowances know their holder by: as records do.
pub(crate) fn holder(caller: &Caller) -> String {
    match caller.called {
        Called::By(commitment) => format!("sha256:{}", hex::encode(commitment)),
        Called::ById | Called::ByNothing => caller.identity.to_string(),
    }
}

/// Reads the id of an allowance.
pub(crate) fn allowance_id(bytes: &[u8]) -> Result<Uid, Why> {
    Uid::try_from(bytes).map_err(|_| Why::InvalidField("an allowance's id is 16 bytes".into()))
}

/// All that counts what calls with a key spend: budgets, and the key's own rate limits.
fn counted(tenant: &Tenant, key: &VirtualKeyRow) -> Vec<Counted> {
    let covers = |row: &&store::BudgetRow| row.budget.holder.covers(&key.id, key.group.as_ref());
    let budgets = tenant.budgets.iter().filter(covers);
    let budgets = budgets.map(|row| Counted { budget: row.budget.clone(), revision: row.revision });
    let rates = key.rates.budget(rates_id(&key.id), BudgetHolder::VirtualKey(key.id.clone()));
    let rates = rates.map(|budget| Counted { budget, revision: key.revision });
    budgets.chain(rates).collect()
}

/// Rate limits are no budget that somebody made, so their id comes from the key's.
fn rates_id(key: &VirtualKeyId) -> Uid {
    let digest = Sha256::new_with_prefix("strongroom rate limits v1\n").chain_update(key.as_str());
    let digest: [u8; 32] = digest.finalize().into();
    let mut id = [0; 16];
    for (byte, of) in id.iter_mut().zip(digest) {
        *byte = of;
    }
    Uid::from_bytes(id)
}

fn untold() -> Why {
    Why::InvalidField(
        "this virtual key has a budget or a rate limit: say in `allowance` what the call may come to"
            .into(),
    )
}

fn unlimited(wish: &Wish, now: Timestamp) -> Hold {
    let allowance = v1::Allowance {
        allowance_id: wish.id.as_bytes().to_vec().into(),
        granted: Some(proto_amounts(&wish.need)),
        limited: Vec::new(),
        ttl: prost_types::Duration::try_from(LONGEST_TTL).ok(),
        expire_time: Some(proto_time(now + LONGEST_TTL)),
        limits: Vec::new(),
    };
    Hold { undo: None, allowance: Some(allowance) }
}

fn message(id: Uid, granted: &Granted, tenant: &Tenant) -> v1::Allowance {
    let now = granted.now;
    let left = granted.expires_at.since(now);
    let mut limited: Vec<Unit> = granted.accounts.iter().map(|(key, _)| key.unit).collect();
    limited.sort_unstable();
    limited.dedup();
    v1::Allowance {
        allowance_id: id.as_bytes().to_vec().into(),
        granted: Some(proto_amounts(&granted.granted)),
        limited: limited.into_iter().map(|unit| proto_unit(unit).into()).collect(),
        ttl: prost_types::Duration::try_from(left).ok(),
        expire_time: Some(proto_time(granted.expires_at)),
        limits: granted.accounts.iter().map(|(key, it)| view(key, it, tenant, now)).collect(),
    }
}

fn view(key: &AccountKey, account: &Account, tenant: &Tenant, now: Timestamp) -> v1::LimitView {
    let row = tenant.budgets.iter().find(|row| row.budget.id == key.budget);
    let renews_at = match row.map(|row| &row.budget.period) {
        Some(period) if period.rolling().is_none() => period.window(now).end,
        Some(_) | None => account.next_room(),
    };
    let renews_after = renews_at.map(|at| at.since(now));
    let left = if account.mode == Mode::Shadow { account.cap } else { account.room() };
    v1::LimitView {
        unit: proto_unit(key.unit).into(),
        cap: account.cap,
        left,
        renews_after: renews_after.and_then(|after| prost_types::Duration::try_from(after).ok()),
        budget: row.map(|row| row.name().to_string()).unwrap_or_default(),
        is_rate: row.is_none(),
    }
}

fn reached(exhausted: &Exhausted, tenant: &Tenant, now: Timestamp) -> Why {
    let row = tenant.budgets.iter().find(|row| row.budget.id == exhausted.budget);
    // A moment that has come already by this broker's clock has not by the database's.
    let wait = |at: Timestamp| at.since(now).max(Duration::from_millis(100));
    Why::LimitReached(Box::new(Reached {
        budget: row.map(store::BudgetRow::name),
        unit: exhausted.unit,
        cap: exhausted.cap,
        left: exhausted.left,
        renews_at: exhausted.renews_at,
        retry_after: exhausted.renews_at.map(wait),
    }))
}
