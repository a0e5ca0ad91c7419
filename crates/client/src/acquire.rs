use std::{
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use domain::{Clock, CredentialName, Failure};
use strongroom_proto::v1::{self, AcquireLeaseRequest, acquire_lease_request::Target};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::Instrument as _;

use crate::{
    ClientError, HeldLease, LeaseCache, LeaseError, LeaseKey, cache::Inner, convert,
    deadline::Moment, error::RETRY_AFTER, renewal::random_below,
};

type Outcome = Result<Arc<HeldLease>, LeaseError>;

/// One question to the broker, for which any number of callers may wait.
pub(crate) type Flight = watch::Receiver<Option<Outcome>>;

/// The broker's no, and until when it is repeated without asking.
pub(crate) struct Refusal {
    error: LeaseError,
    until: Duration,
}

impl LeaseCache {
    /// The cold path: waits for a question under way, or asks.
    pub(crate) async fn acquire(&self, key: &LeaseKey) -> Outcome {
        if self.inner.closed.load(Ordering::Acquire)
            || !self.inner.vitals.permit(&*self.inner.clock)
        {
            self.inner.meters.outages.increment(1);
            return Err(LeaseError::Unavailable { retry_after: RETRY_AFTER });
        }
        let mut flight = {
            let mut flights = self.inner.flights();
            // Looked at again under the lock: a flight may have landed in between.
            if let Some(lease) = self.inner.held(key) {
                self.inner.meters.hits.increment(1);
                return Ok(lease);
            }
            if let Some(error) = self.inner.refused(key) {
                self.inner.meters.refusals.increment(1);
                return Err(error);
            }
            if let Some(flight) = flights.get(key) {
                flight.clone()
            } else {
                let (landed, flight) = watch::channel(None);
                flights.insert(key.clone(), flight.clone());
                let landing = Landing { inner: Arc::clone(&self.inner), key: key.clone() };
                // A task of the cache's own: a caller that goes away does not end it for others.
                // In the span of the call that needs the lease: its trace goes on to the broker.
                self.tasks.spawn(fly(landing, landed).in_current_span());
                flight
            }
        };
        let outcome = flight.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
        outcome.unwrap_or(Err(LeaseError::Unavailable { retry_after: RETRY_AFTER }))
    }
}

/// An attempt at a call that has failed.
#[derive(Clone, Debug)]
pub struct FailedAttempt {
    /// The credential that the call went out with.
    pub credential: CredentialName,
    /// Its version.
    pub version: u64,
    /// What went wrong.
    pub failure: Failure,
    /// When it began, on the clock's `elapsed`.
    pub began: Duration,
}

impl FailedAttempt {
    pub(crate) fn message(&self, clock: &dyn Clock) -> v1::FailedAttempt {
        let began_ago = clock.elapsed().saturating_sub(self.began);
        let retry_after = if let Failure::RateLimited { retry_after } = self.failure {
            retry_after
        } else {
            None
        };
        v1::FailedAttempt {
            credential: self.credential.to_string(),
            failure: convert::failure(self.failure).into(),
            retry_after: retry_after.and_then(|it| it.try_into().ok()),
            began_ago: began_ago.try_into().ok(),
            credential_version: self.version,
        }
    }
}

impl LeaseCache {
    /// The lease to go on with when an attempt has failed and its lease [has a
    /// fallback](HeldLease::has_fallback): of the credential's other version, while it is being
    /// rotated, or of the next credential that the tenant's policy lists.
    /// `failed` are all attempts at this call so far, in order. Later calls with the key use the new
    /// lease too, until it ends; the broker ends it when the first credential is worth another try.
    pub async fn fall_back(&self, key: &LeaseKey, failed: &[FailedAttempt]) -> Outcome {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(LeaseError::Unavailable { retry_after: RETRY_AFTER });
        }
        self.inner.meters.misses.increment(1);
        self.inner.acquire_published(key, failed).await
    }
}

/// Takes a flight off the board however it ends.
struct Landing {
    inner: Arc<Inner>,
    key: LeaseKey,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.flights().remove(&self.key);
    }
}

async fn fly(landing: Landing, landed: watch::Sender<Option<Outcome>>) {
    let outcome = landing.inner.acquire_published(&landing.key, &[]).await;
    let meters = &landing.inner.meters;
    match &outcome {
        Ok(lease) => {
            lease.mark_used();
            meters.misses.increment(1);
        }
        Err(error @ LeaseError::Refused { .. }) => {
            landing.inner.remember_refusal(&landing.key, error);
            meters.refusals.increment(1);
        }
        Err(LeaseError::Unavailable { .. } | LeaseError::BadLease) => meters.outages.increment(1),
    }
    // Off the board before the answer: who comes now finds the cache filled.
    drop(landing);
    landed.send_replace(Some(outcome));
}

impl Inner {
    /// Asks the broker until a lease arrives that no revocation has overtaken.
    pub(crate) async fn acquire_published(
        &self,
        key: &LeaseKey,
        failed: &[FailedAttempt],
    ) -> Outcome {
        let spread = self.rush.spread(&*self.clock);
        if !spread.is_zero() {
            let millis = u32::try_from(spread.as_millis()).unwrap_or(u32::MAX);
            sleep(Duration::from_millis(random_below(millis).into())).await;
        }
        for _ in 0..ATTEMPTS {
            let epoch = self.ring().epoch();
            let lease = Arc::new(self.ask(key, failed).await?);
            if lease.is_live() && self.publish(key, &lease, epoch) {
                return Ok(lease);
            }
        }
        Err(LeaseError::Unavailable { retry_after: RETRY_AFTER })
    }

    async fn ask(&self, key: &LeaseKey, failed: &[FailedAttempt]) -> Result<HeldLease, LeaseError> {
        let asked = self.broker.in_session(|session| async move {
            let request = AcquireLeaseRequest {
                session_id: session.keys.id().to_vec().into(),
                target: Some(Target::VirtualKey(key.target())),
                ttl: None,
                dialect: convert::dialect(key.dialect).into(),
                request_id: String::new(),
                checkpoint: self.broker.checkpoints().note(),
                failed: failed.iter().map(|it| it.message(&*self.clock)).collect(),
            };
            let sent = Moment::now(&*self.clock);
            let wire = self.broker.leases().acquire_lease(request).await?.into_inner();
            self.broker.checkpoints().see(&wire.checkpoint);
            let (vitals, clock) = (Arc::clone(&self.vitals), Arc::clone(&self.clock));
            HeldLease::accept(wire, session, sent, vitals, clock).map_err(ClientError::BadAnswer)
        });
        // Room for opening a session and for the one repetition.
        let most = self.broker.timeout().saturating_mul(4);
        match timeout(most, asked).await {
            Ok(answer) => answer.map_err(LeaseError::from),
            Err(_) => Err(LeaseError::Unavailable { retry_after: RETRY_AFTER }),
        }
    }

    fn refused(&self, key: &LeaseKey) -> Option<LeaseError> {
        let refusal = self.refusals.get(key)?;
        (self.clock.elapsed() < refusal.until).then(|| refusal.error.clone())
    }

    fn remember_refusal(&self, key: &LeaseKey, error: &LeaseError) {
        if error.is_decision() {
            let until = self.clock.elapsed().saturating_add(REFUSAL_HOLDS);
            self.refusals.insert(key.clone(), Arc::new(Refusal { error: error.clone(), until }));
        }
    }

    fn flights(&self) -> MutexGuard<'_, std::collections::HashMap<LeaseKey, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const ATTEMPTS: usize = 3;
const REFUSAL_HOLDS: Duration = Duration::from_secs(1);
