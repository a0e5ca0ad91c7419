mod pace;
mod slot;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{Clock, RootName, Uid};
use moka::future::Cache;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{pace::Pace, slot::Slot};
use crate::{Kek, KeyContext, Kms, KmsError, WrappedKey, breaker::Breaker, kms::DEADLINE};

/// Unwrapped keys, for minutes: what spares the KMS a call for each lease, and a lease the KMS.
///
/// A key is used up to the hard limit and no longer, whatever the KMS does, unless a grace for outages is
/// set; ten seconds before, use
/// of the key renews it in the background. Any number of callers that miss one key make one call.
#[derive(Debug)]
pub struct Keyring {
    shared: Arc<Shared>,
    slots: Cache<KeyContext, Arc<Slot>>,
    /// Owns the background renewals: they end with the keyring.
    renewals: Mutex<JoinSet<()>>,
    ttl: Duration,
    grace: Duration,
}

/// How long a keyring keeps its keys, and how often it asks for them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyringSettings {
    /// The hard limit; 60 s to an hour, others are raised or lowered to these.
    pub ttl: Duration,
    /// How long beyond that a key may open what is stored, while its KMS does not answer at all; 15
    /// minutes at the most. A KMS that says no ends it at once.
    pub outage_grace: Duration,
    /// How many keys, at most.
    pub capacity: u64,
    /// How many calls a second, at most: what is a fair share of the KMS's quota for this process.
    pub calls_per_second: u32,
}

impl Default for KeyringSettings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_mins(5),
            outage_grace: Duration::ZERO,
            capacity: 10_000,
            calls_per_second: 500,
        }
    }
}

/// What a keyring has done since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KeyringCounts {
    /// Keys given without asking the KMS.
    pub hits: u64,
    /// Calls of the KMS.
    pub calls: u64,
    /// Calls that the KMS did not answer or refused.
    pub failures: u64,
    /// Background renewals begun.
    pub renewals: u64,
    /// How often the breaker opened.
    pub breaker_opened: u64,
    /// Keys given past their time, because the KMS did not answer.
    pub overdue: u64,
}

impl Keyring {
    /// An empty keyring over the KMS.
    pub fn new(kms: Arc<dyn Kms>, clock: Arc<dyn Clock>, settings: KeyringSettings) -> Self {
        let ttl = settings.ttl.clamp(Duration::from_mins(1), Duration::from_hours(1));
        let slots =
            Cache::builder().max_capacity(settings.capacity).time_to_idle(IDLE.min(ttl)).build();
        let shared = Shared {
            kms,
            clock,
            breakers: Mutex::default(),
            calls: AtomicU64::default(),
            failures: AtomicU64::default(),
            hits: AtomicU64::default(),
            renewals: AtomicU64::default(),
            breaker_opened: AtomicU64::default(),
            overdue: AtomicU64::default(),
            pace: Pace::new(settings.calls_per_second),
        };
        let grace = settings.outage_grace.min(LONGEST_GRACE);
        Self { shared: Arc::new(shared), slots, renewals: Mutex::default(), ttl, grace }
    }

    /// The key that `wrapped` is in this context. The KMS is asked only when the keyring lacks it.
    pub async fn kek(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<Arc<Kek>, KmsError> {
        let slot = self.slots.get_with_by_ref(context, async { Arc::default() }).await;
        let now = self.shared.clock.elapsed();
        if let Some((kek, age)) = slot.current(now, self.ttl, self.grace) {
            self.shared.hits.fetch_add(1, Ordering::Relaxed);
            if age + RENEW_EARLY >= self.ttl && slot.begin_renewal(now) {
                self.renew(slot, *context, wrapped.clone());
            }
            return Ok(kek);
        }
        slot.load(&self.shared, context, wrapped, (self.ttl, self.grace)).await
    }

    /// As [`Keyring::kek`], or the key that was there before, past its time, while its KMS does not answer
    /// and the grace for that is not over. For opening and verifying only.
    pub async fn kek_or_overdue(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<Arc<Kek>, KmsError> {
        let failure = match self.kek(context, wrapped).await {
            Err(failure @ KmsError::Unavailable(_)) if !self.grace.is_zero() => failure,
            answer => return answer,
        };
        let slot = self.slots.get(context).await;
        let now = self.shared.clock.elapsed();
        let kek = slot.and_then(|slot| slot.overdue(now, self.ttl + self.grace)).ok_or(failure)?;
        self.shared.overdue.fetch_add(1, Ordering::Relaxed);
        Ok(kek)
    }

    /// Forgets all versions of a key. A load that has begun before does not bring it back.
    pub fn invalidate(&self, key: Uid) {
        for (context, slot) in &self.slots {
            if context.key == key {
                slot.invalidate();
            }
        }
    }

    /// Forgets everything, as when the root key was changed or disabled.
    pub fn invalidate_all(&self) {
        for (_, slot) in &self.slots {
            slot.invalidate();
        }
    }

    /// What has been done so far.
    pub fn counts(&self) -> KeyringCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        KeyringCounts {
            hits: count(&self.shared.hits),
            calls: count(&self.shared.calls),
            failures: count(&self.shared.failures),
            renewals: count(&self.shared.renewals),
            breaker_opened: count(&self.shared.breaker_opened),
            overdue: count(&self.shared.overdue),
        }
    }

    fn renew(&self, slot: Arc<Slot>, context: KeyContext, wrapped: WrappedKey) {
        let shared = Arc::clone(&self.shared);
        shared.renewals.fetch_add(1, Ordering::Relaxed);
        let mut renewals = self.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        while renewals.try_join_next().is_some() {}
        renewals.spawn(async move {
            if let Err(error) = slot.renew(&shared, &context, &wrapped).await {
                tracing::warn!(key = %context.key, %error, "a key in use was not renewed");
            }
        });
    }
}

const IDLE: Duration = Duration::from_mins(2);
const LONGEST_GRACE: Duration = Duration::from_mins(15);
const RENEW_EARLY: Duration = Duration::from_secs(10);

/// How long a KMS may take, whatever it is: a little more than any kind gives itself.
const ANSWER: Duration = DEADLINE.saturating_add(Duration::from_millis(200));

/// What loads share, also those in the background.
#[derive(Debug)]
struct Shared {
    kms: Arc<dyn Kms>,
    clock: Arc<dyn Clock>,
    /// One for each root: a tenant's KMS that does not answer is no reason to spare ours.
    breakers: Mutex<HashMap<Option<RootName>, Arc<Breaker>>>,
    hits: AtomicU64,
    calls: AtomicU64,
    failures: AtomicU64,
    renewals: AtomicU64,
    breaker_opened: AtomicU64,
    overdue: AtomicU64,
    pace: Pace,
}

impl Shared {
    async fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Kek, KmsError> {
        let breaker = self.breaker(wrapped);
        if !breaker.admits(self.clock.elapsed()) {
            return Err(KmsError::unavailable("it did not answer lately, and is spared"));
        }
        let Some(wait) = self.pace.turn(self.clock.elapsed()) else {
            let why =
                "more keys are asked for at once than limits.kms_calls_per_second lets through";
            return Err(KmsError::unavailable(why));
        };
        if !wait.is_zero() {
            sleep(wait).await;
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        // Each kind of KMS keeps its own deadline. This holds whatever is behind the trait.
        let outcome = timeout(ANSWER, self.kms.unwrap(context, wrapped)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(KmsError::unavailable("it does not answer")));
        match &outcome {
            Ok(_) | Err(KmsError::Refused(_) | KmsError::Corrupt) => breaker.answered(),
            Err(KmsError::Unavailable(_)) => {
                if breaker.failed(self.clock.elapsed()) {
                    self.breaker_opened.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if outcome.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        outcome.map(|key| Kek::new(context.key, context.version, key))
    }

    /// There are as many as the KMS knows roots: a name that it does not know is `None` too.
    fn breaker(&self, wrapped: &WrappedKey) -> Arc<Breaker> {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(breakers.entry(self.kms.root_of(wrapped)).or_default())
    }
}
