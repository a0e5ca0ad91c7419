use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::{Clock, LONGEST_TTL};
use moka::sync::Cache;
use serde::Deserialize;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use crate::{
    Broker, HeldLease, LeaseError, LeaseKey, OnStreamLoss, Outage, WatchState,
    acquire::{Flight, Refusal},
    meters::Meters,
    renewal::{self, Due},
    reports::{self, Reports},
    ring::Ring,
    rush::Rush,
    tasks::Tasks,
    watch::{self, Vitals},
};

/// How a [`LeaseCache`] behaves.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseCacheConfig {
    /// How many leases are held; 10 000 when absent. The least used make room for others.
    pub max_entries: u64,
    /// What happens to leases while the revocation stream is lost; `available` when absent.
    pub on_stream_loss: OnStreamLoss,
}

impl Default for LeaseCacheConfig {
    fn default() -> Self {
        Self { max_entries: 10_000, on_stream_loss: OnStreamLoss::default() }
    }
}

/// The leases of this process: one call to the broker per key, then none until the lease is about to
/// end or is revoked. Clones share everything; the background tasks end with the last one.
///
/// A revoked lease is dropped when the revocation arrives, usually well under a second after it was
/// made. While the revocation stream is lost, `available` uses leases to their end, which is five
/// minutes at most; `strict` stops five seconds after the broker was last heard.
#[derive(Clone)]
pub struct LeaseCache {
    pub(crate) inner: Arc<Inner>,
    pub(crate) tasks: Arc<Tasks>,
}

/// What the background tasks share. It does not own them, so that they can end with the cache.
pub(crate) struct Inner {
    pub(crate) broker: Broker,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leases: Cache<LeaseKey, Arc<HeldLease>>,
    pub(crate) refusals: Cache<LeaseKey, Arc<Refusal>>,
    pub(crate) flights: Mutex<HashMap<LeaseKey, Flight>>,
    /// Held while a lease is put in or revocations are applied, so that neither misses the other.
    pub(crate) ring: Mutex<Ring>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) meters: Meters,
    pub(crate) due: mpsc::UnboundedSender<Due>,
    pub(crate) closed: AtomicBool,
    pub(crate) rush: Rush,
    pub(crate) reports: Reports,
}

impl LeaseCache {
    /// An empty cache. Opens the revocation stream at once, in the background, so it must be called
    /// inside a tokio runtime.
    pub fn new(broker: Broker, config: LeaseCacheConfig, clock: Arc<dyn Clock>) -> Self {
        let (due, scheduled) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            broker,
            clock,
            // A lease's own deadline decides; this only frees what nobody asks for any more.
            leases: Cache::builder()
                .max_capacity(config.max_entries)
                .time_to_live(LONGEST_TTL)
                .build(),
            refusals: Cache::builder()
                .max_capacity(config.max_entries)
                .time_to_live(LONGEST_TTL)
                .build(),
            flights: Mutex::default(),
            ring: Mutex::new(Ring::new(REMEMBERED_REVOCATIONS)),
            vitals: Arc::new(Vitals::new(config.on_stream_loss)),
            meters: Meters::new(),
            due,
            closed: AtomicBool::new(false),
            rush: Rush::default(),
            reports: Reports::default(),
        });
        let tasks = Tasks::default();
        tasks.spawn(watch::watch(Arc::clone(&inner)));
        tasks.spawn(renewal::renew_when_due(Arc::clone(&inner), scheduled));
        tasks.spawn(reports::report_failures(Arc::clone(&inner)));
        Self { inner, tasks: Arc::new(tasks) }
    }

    /// A live lease: the one at hand without waiting, or else one from the broker, asked for once
    /// however many callers want it.
    pub async fn lease(&self, key: &LeaseKey) -> Result<Arc<HeldLease>, LeaseError> {
        match self.inner.held(key) {
            Some(lease) => {
                self.inner.meters.hits.increment(1);
                match lease.pause_left() {
                    None => Ok(lease),
                    Some(left) => Err(LeaseError::limited(left)),
                }
            }
            None => self.acquire(key).await,
        }
    }

    /// Drops what is known of a key, such as after its credential was refused by the provider. The
    /// next call asks the broker.
    pub fn forget(&self, key: &LeaseKey) {
        self.inner.leases.invalidate(key);
        self.inner.refusals.invalidate(key);
    }

    /// Whether revocations arrive.
    pub fn watch_state(&self) -> WatchState {
        self.inner.vitals.state()
    }

    /// Why no call can be served, if that is so. Without I/O: what the revocation stream and the leases at
    /// hand say.
    pub fn outage(&self) -> Option<Outage> {
        let has_lease = || self.inner.leases.iter().any(|(_, lease)| lease.is_live());
        self.inner.vitals.outage(&*self.inner.clock, has_lease)
    }

    /// Gives every lease back, as far as that is possible within a second, and lends no more.
    pub async fn shutdown(&self) {
        self.inner.closed.store(true, Ordering::Release);
        self.tasks.end();
        let mut releases = JoinSet::new();
        for (_, lease) in &self.inner.leases {
            lease.drop_now();
            releases.spawn(release(self.inner.broker.clone(), lease));
        }
        self.inner.leases.invalidate_all();
        let done = timeout(RELEASE_WITHIN, async { while releases.join_next().await.is_some() {} });
        if done.await.is_err() {
            tracing::debug!("not every lease was released; the rest end by themselves");
        }
    }
}

impl Inner {
    /// The warm path: one look into the cache, no lock of ours, no I/O.
    pub(crate) fn held(&self, key: &LeaseKey) -> Option<Arc<HeldLease>> {
        let lease = self.leases.get(key)?;
        if lease.is_live() {
            lease.mark_used();
            Some(lease)
        } else {
            None
        }
    }

    /// Puts a lease in, unless it was revoked while it was on its way.
    pub(crate) fn publish(&self, key: &LeaseKey, lease: &Arc<HeldLease>, epoch: u64) -> bool {
        let ring = self.ring();
        if ring.epoch() != epoch || ring.overtakes(&**lease) {
            self.meters.overtaken.increment(1);
            return false;
        }
        self.leases.insert(key.clone(), Arc::clone(lease));
        drop(ring);
        // The renewing task ends only with the cache.
        let _ = self.due.send(Due::first(key.clone(), lease));
        true
    }

    /// Takes every lease out for which this holds. The ring must be locked by the caller.
    pub(crate) fn drop_leases(&self, is_ended: impl Fn(&HeldLease) -> bool) {
        let mut ended = 0;
        for (key, lease) in &self.leases {
            if is_ended(&lease) {
                lease.drop_now();
                self.leases.invalidate(&*key);
                self.meters.revoked.increment(1);
                ended += 1;
            }
        }
        self.rush.note(ended, &*self.clock);
    }

    pub(crate) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LeaseCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseCache")
            .field("held", &self.inner.leases.entry_count())
            .field("watch", &self.watch_state())
            .finish_non_exhaustive()
    }
}

async fn release(broker: Broker, lease: Arc<HeldLease>) {
    let request = strongroom_proto::v1::ReleaseLeaseRequest {
        session_id: lease.session().keys.id().to_vec().into(),
        lease_id: lease.id().as_bytes().to_vec().into(),
    };
    if let Err(status) = broker.leases().release_lease(request).await {
        tracing::debug!(code = ?status.code(), "a lease was not released; it ends by itself");
    }
}

const REMEMBERED_REVOCATIONS: usize = 4096;
const RELEASE_WITHIN: Duration = Duration::from_secs(1);
