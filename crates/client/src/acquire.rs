use std::{
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use strongroom_proto::v1::{AcquireLeaseRequest, acquire_lease_request::Target};
use tokio::{sync::watch, time::timeout};
use tracing::Instrument as _;

use crate::{
    ClientError, HeldLease, LeaseCache, LeaseError, LeaseKey, cache::Inner, convert,
    deadline::Moment, error::RETRY_AFTER,
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
    let outcome = landing.inner.acquire_published(&landing.key).await;
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
    pub(crate) async fn acquire_published(&self, key: &LeaseKey) -> Outcome {
        for _ in 0..ATTEMPTS {
            let epoch = self.ring().epoch();
            let lease = Arc::new(self.ask(key).await?);
            if lease.is_live() && self.publish(key, &lease, epoch) {
                return Ok(lease);
            }
        }
        Err(LeaseError::Unavailable { retry_after: RETRY_AFTER })
    }

    async fn ask(&self, key: &LeaseKey) -> Result<HeldLease, LeaseError> {
        let asked = self.broker.in_session(|session| async move {
            let request = AcquireLeaseRequest {
                session_id: session.keys.id().to_vec().into(),
                target: Some(Target::VirtualKey(key.target())),
                ttl: None,
                dialect: convert::dialect(key.dialect).into(),
                request_id: String::new(),
                checkpoint: self.broker.checkpoints().note(),
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
