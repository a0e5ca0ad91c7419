use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::{Amounts, Clock};
use metrics::{Counter, counter};
use strongroom_proto::v1::{AllowanceRequest, NotAccepted, Settlement, UsageRecord};
use tokio::{
    sync::{Notify, OwnedMutexGuard, oneshot},
    time::{sleep, timeout},
};
use tracing::Instrument as _;

use crate::{
    Held, LeaseError, LimitState, PurseKey, Till, convert::wire_amounts, error::RETRY_AFTER,
    purse::Purse, slice::SliceId, tasks::Tasks,
};

/// What this process may spend for its virtual keys without asking for each call, and what it has yet
/// to tell: settlements of slices, and records of calls. Clones share everything.
///
/// A call reserves its worst case in a slice that the broker granted. When none has room, the broker is
/// asked for another, once however many calls wait. What came of calls is told in batches in the
/// background, again and again until it is taken. When the broker cannot be asked, calls that fit into
/// the slices at hand go on until these end.
#[derive(Clone)]
pub struct Purses {
    inner: Arc<Inner>,
    tasks: Arc<Tasks>,
}

/// What the background task shares. It does not own the task, which so can end.
struct Inner {
    till: Arc<dyn Till>,
    clock: Arc<dyn Clock>,
    purses: Mutex<HashMap<PurseKey, Arc<Purse>>>,
    usage: Mutex<VecDeque<UsageRecord>>,
    /// Held while something is told, so that nothing older is told after something newer.
    telling: tokio::sync::Mutex<()>,
    many: Notify,
    closed: AtomicBool,
    dropped: Counter,
    contradicted: Counter,
}

impl Purses {
    /// Empty purses at this till. Must be called inside a tokio runtime.
    pub fn new(till: Arc<dyn Till>, clock: Arc<dyn Clock>) -> Self {
        let inner = Arc::new(Inner {
            till,
            clock,
            purses: Mutex::default(),
            usage: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
            many: Notify::new(),
            closed: AtomicBool::new(false),
            dropped: counter!("strongroom_client_usage_records_dropped_total"),
            contradicted: counter!("strongroom_client_settlements_refused_total"),
        });
        let tasks = Tasks::default();
        tasks.spawn(tell_for_ever(Arc::clone(&inner)));
        Self { inner, tasks: Arc::new(tasks) }
    }

    /// Reserves what a call may come to at the most, for a key of which something is limited. `as_of`
    /// is when the call's lease was asked for, on the clock's `elapsed`: nothing begins in slices that
    /// were drawn before, for the budgets may have changed in between.
    pub async fn reserve(
        &self,
        key: &PurseKey,
        need: &Amounts,
        as_of: Duration,
    ) -> Result<Held, LeaseError> {
        let purse = self.inner.purse(key);
        if let Some(held) = purse.begin(need, as_of, self.inner.clock.elapsed()) {
            return Ok(held);
        }
        let _waits = purse.wait();
        self.draw(&purse, need, as_of).await
    }

    async fn draw(
        &self,
        purse: &Arc<Purse>,
        need: &Amounts,
        as_of: Duration,
    ) -> Result<Held, LeaseError> {
        let turn = Arc::clone(&purse.turn).lock_owned().await;
        let now = self.inner.clock.elapsed();
        if let Some(held) = purse.begin(need, as_of, now) {
            return Ok(held);
        }
        if let Some(error) = purse.refused(need, now) {
            return Err(error);
        }
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(LeaseError::Unavailable { retry_after: RETRY_AFTER });
        }
        // In a task of its own: a caller that goes away must not leave a granted slice unheard of.
        let (inner, purse, need) = (Arc::clone(&self.inner), Arc::clone(purse), *need);
        let (deliver, delivered) = oneshot::channel();
        let asking = async move {
            let drawn = inner.draw(&purse, &need, as_of, turn).await;
            // When nobody waits any more, it comes back and is dropped.
            drop(deliver.send(drawn.map(|held| Undelivered(Some(held)))));
        };
        self.tasks.spawn(asking.in_current_span());
        let drawn = delivered.await.ok().transpose()?;
        let held = drawn.and_then(|mut drawn| drawn.0.take());
        held.ok_or(LeaseError::Unavailable { retry_after: RETRY_AFTER })
    }

    /// How the limits of a key stand, as far as this process knows.
    pub fn states(&self, key: &PurseKey) -> Vec<LimitState> {
        let purse = self.inner.purses().get(key).cloned();
        purse.map(|purse| purse.limits(self.inner.clock.elapsed())).unwrap_or_default()
    }

    /// Takes a record of a call, to be told with others. When the broker has been away for so long that
    /// no more are kept, it is dropped and counted; budgets do not depend on it.
    pub fn note(&self, record: UsageRecord) {
        let mut usage = self.inner.usage();
        if usage.len() >= MOST_KEPT {
            self.inner.dropped.increment(1);
            return;
        }
        usage.push_back(record);
        let is_batch = usage.len() == BATCH;
        drop(usage);
        if is_batch {
            self.inner.many.notify_one();
        }
    }

    /// Gives everything back and tells what is left to tell, as far as that is possible within this
    /// time. Nothing is reserved any more.
    pub async fn shutdown(&self, within: Duration) {
        self.inner.closed.store(true, Ordering::Release);
        self.tasks.end();
        let all = async {
            for purse in self.inner.all() {
                purse.give_back();
            }
            while let Ok(true) = self.inner.tell().await {}
        };
        if timeout(within, all).await.is_err() {
            tracing::warn!("not everything was settled; what is left expires at the broker");
        }
    }
}

/// What is held for a call that may have gone away: then it was never made.
struct Undelivered(Option<Held>);

impl Drop for Undelivered {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.release();
        }
    }
}

impl Inner {
    /// Asks for a slice and begins a call in it. When the answer is no, what lies about in other slices
    /// is given back first, for that may be just what was missing.
    async fn draw(
        &self,
        purse: &Arc<Purse>,
        need: &Amounts,
        as_of: Duration,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Held, LeaseError> {
        let mut asked = self.clock.elapsed();
        let wanted = purse.wanted(need, asked);
        let mut drawn = self.draw_once(purse, need, &wanted, as_of).await;
        if drawn.as_ref().is_err_and(LeaseError::is_limit) && purse.give_back() {
            self.tell().await.ok();
            asked = self.clock.elapsed();
            drawn = self.draw_once(purse, need, need, as_of).await;
        }
        if let Err(error) = &drawn
            && error.is_limit()
        {
            purse.refuse(error, asked, self.clock.elapsed());
        }
        drop(turn);
        drawn
    }

    async fn draw_once(
        &self,
        purse: &Arc<Purse>,
        need: &Amounts,
        wanted: &Amounts,
        as_of: Duration,
    ) -> Result<Held, LeaseError> {
        let mut id: SliceId = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|_| LeaseError::Unavailable { retry_after: RETRY_AFTER })?;
        let sent = self.clock.elapsed();
        purse.asking(id, sent);
        let request = AllowanceRequest {
            allowance_id: id.to_vec().into(),
            need: Some(wire_amounts(need)),
            wanted: Some(wire_amounts(wanted)),
        };
        match self.till.draw(&purse.key, request).await {
            Ok(granted) => {
                let now = self.clock.elapsed();
                purse.put(id, &granted, wanted, (sent, now));
                let held = purse.begin(need, as_of, now);
                // A broker that grants less than the need breaks the contract.
                held.ok_or(LeaseError::Unavailable { retry_after: RETRY_AFTER })
            }
            Err(error) => {
                if !matches!(error, LeaseError::Unavailable { .. }) {
                    purse.answered(&id);
                }
                Err(error)
            }
        }
    }

    /// Tells one batch of what there is to tell; whether there was any.
    async fn tell(&self) -> Result<bool, LeaseError> {
        let _telling = self.telling.lock().await;
        let now = self.clock.elapsed();
        let mut settlements: Vec<Settlement> = Vec::new();
        let mut told_by: Vec<Arc<Purse>> = Vec::new();
        for purse in self.all() {
            for report in purse.reports(now) {
                settlements.push(report);
                told_by.push(Arc::clone(&purse));
            }
            if settlements.len() >= BATCH {
                break;
            }
        }
        settlements.truncate(BATCH);
        let usage: Vec<UsageRecord> = {
            let mut queue = self.usage();
            let count = queue.len().min(BATCH);
            queue.drain(..count).collect()
        };
        if settlements.is_empty() && usage.is_empty() {
            self.forget_empty(now);
            return Ok(false);
        }
        match self.till.settle(&settlements, &usage).await {
            Ok(not_accepted) => {
                self.note_not_accepted(&not_accepted);
                let now = self.clock.elapsed();
                for (told, purse) in settlements.iter().zip(&told_by) {
                    purse.taken(&told.allowance_id, told.sequence, now);
                }
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(%error, "usage could not be told to the broker; it is told again");
                let mut queue = self.usage();
                for record in usage.into_iter().rev() {
                    queue.push_front(record);
                }
                Err(error)
            }
        }
    }

    fn note_not_accepted(&self, not_accepted: &[NotAccepted]) {
        for refused in not_accepted {
            self.contradicted.increment(1);
            let (reason, sequence) = (&*refused.reason, refused.sequence);
            tracing::error!(reason, sequence, "the broker did not take a settlement or a record");
        }
    }

    /// Asks again for slices whose grant may have got lost, so that they can be given back.
    async fn look_for_lost_answers(&self) {
        let now = self.clock.elapsed();
        for purse in self.all() {
            for id in purse.lost_answers(now) {
                let none = Amounts::default();
                let request = AllowanceRequest {
                    allowance_id: id.to_vec().into(),
                    need: Some(wire_amounts(&none)),
                    wanted: Some(wire_amounts(&none)),
                };
                match self.till.draw(&purse.key, request).await {
                    // It is drawn at no time, so no call begins in it, and it is given back.
                    Ok(granted) => purse.put(id, &granted, &none, (Duration::ZERO, now)),
                    Err(LeaseError::Unavailable { .. }) => return,
                    Err(LeaseError::Refused { .. } | LeaseError::BadLease) => purse.answered(&id),
                }
            }
        }
    }

    fn purse(&self, key: &PurseKey) -> Arc<Purse> {
        let mut purses = self.purses();
        if let Some(purse) = purses.get(key) {
            return Arc::clone(purse);
        }
        let purse = Arc::new(Purse::new(key.clone()));
        purses.insert(key.clone(), Arc::clone(&purse));
        purse
    }

    fn all(&self) -> Vec<Arc<Purse>> {
        self.purses().values().cloned().collect()
    }

    fn forget_empty(&self, now: Duration) {
        // Whoever is about to use one has a clone of it.
        self.purses().retain(|_, purse| Arc::strong_count(purse) > 1 || !purse.is_empty(now));
    }

    fn purses(&self) -> MutexGuard<'_, HashMap<PurseKey, Arc<Purse>>> {
        self.purses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usage(&self) -> MutexGuard<'_, VecDeque<UsageRecord>> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn tell_for_ever(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = sleep(TELL_EVERY) => {}
            () = inner.many.notified() => {}
        }
        if inner.tell().await.is_err() {
            sleep(RETRY_AFTER).await;
            continue;
        }
        inner.look_for_lost_answers().await;
    }
}

impl fmt::Debug for Purses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purses").field("held", &self.inner.purses().len()).finish_non_exhaustive()
    }
}

/// As many as one call takes.
const BATCH: usize = 1000;
/// Some minutes of a busy proxy's calls.
const MOST_KEPT: usize = 100_000;
const TELL_EVERY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
