use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use domain::{Failure, Health, PROBE_ANSWERS, Readiness, Rest, Timestamp, Uid};
use store::{CredentialRow, HealthRow, Store, StoreError};

/// How credentials have fared lately, by what proxies report.
///
/// It is held in memory, and told to other brokers through the database when a rest begins or ends, so
/// that a lease that nothing is wrong with costs no write. While the database does not answer, this
/// broker goes on with what it knows.
#[derive(Debug)]
pub(crate) struct Healths {
    known: Mutex<HashMap<Uid, Known>>,
    store: Arc<dyn Store>,
    /// The latest change in the database that was seen, by its clock.
    seen: AtomicI64,
    /// Whether the database was told the last time; said once, not with each failure.
    is_cut_off: AtomicBool,
}

/// What is known of one credential.
#[derive(Clone, Debug)]
struct Known {
    /// The credential's revision that fared so: what was changed deserves a try.
    revision: u64,
    health: Health,
    /// When the last rest began, also after its end.
    since: Timestamp,
    /// When the last call began that has failed.
    failing: Timestamp,
}

/// So many credentials at most are remembered; what works is forgotten first.
const MOST: usize = 100_000;

/// What was written so long before the latest change may have been committed after it.
const LATE: Duration = Duration::from_secs(2);

/// Whatever rests has failed since.
const REACH: Duration = Duration::from_hours(2);

impl Healths {
    /// Nothing is known yet.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            known: Mutex::default(),
            store,
            seen: AtomicI64::new(i64::MIN),
            is_cut_off: AtomicBool::new(false),
        }
    }

    /// Whether a lease of the credential may be granted now; and the same for when no other one stands
    /// in for it.
    pub(crate) fn readiness(
        &self,
        credential: &CredentialRow,
        now: Timestamp,
    ) -> (Readiness, Readiness) {
        let known = self.lock();
        let known = known.get(&credential.uid).filter(|it| it.revision >= credential.revision);
        known.map_or_else(Default::default, |it| {
            (it.health.readiness(now), it.health.readiness_alone(now))
        })
    }

    /// Claims the one lease, of those that all brokers grant, that is to show whether a credential works
    /// again.
    pub(crate) async fn claim(&self, credential: Uid, now: Timestamp) -> bool {
        let since = {
            let mut known = self.lock();
            let Some(known) = known.get_mut(&credential) else { return false };
            if !known.health.claim_probe(now) {
                return false;
            }
            known.since
        };
        let lost = Timestamp::from_millis(now.as_millis().saturating_sub(millis(PROBE_ANSWERS)));
        let claimed = self.store.claim_probe(credential, since, now, lost).await;
        match self.heard(claimed) {
            Some(true) | None => true,
            // Another broker came first, or knows more.
            Some(false) => {
                let row = self.store.health(credential).await;
                match self.heard(row).flatten() {
                    Some(row) => self.adopt(row),
                    None => self.forget(credential),
                }
                false
            }
        }
    }

    /// A call that began at `begun` has failed. One that began before the credential's last change says
    /// nothing of what it is now.
    pub(crate) async fn failed(
        &self,
        credential: &CredentialRow,
        failure: Failure,
        begun: Timestamp,
        now: Timestamp,
    ) {
        if begun < credential.updated_at {
            return;
        }
        let told = {
            let mut all = self.lock();
            if all.len() >= MOST {
                all.retain(|_, known| known.health.rest().is_some());
            }
            if all.len() >= MOST && !all.contains_key(&credential.uid) {
                return;
            }
            let known =
                all.entry(credential.uid).or_insert_with(|| Known::new(credential.revision));
            if known.revision < credential.revision {
                *known = Known::new(credential.revision);
            }
            let before = known.health.rest().cloned();
            known.health.failed(failure, begun, now);
            known.failing = known.failing.max(begun);
            known.told_after(credential.uid, before.as_ref())
        };
        self.tell(told).await;
    }

    /// A lease of the credential that was sealed at `begun` is renewed: calls went out with it, and
    /// nothing was heard of failures since.
    pub(crate) async fn succeeded(&self, credential: Uid, begun: Timestamp) {
        let told = {
            let mut all = self.lock();
            let Some(known) = all.get_mut(&credential).filter(|it| begun > it.failing) else {
                return;
            };
            let before = known.health.rest().cloned();
            known.health.succeeded(begun);
            let told = known.told_after(credential, before.as_ref());
            if told.is_none() && known.health == Health::default() {
                all.remove(&credential);
            }
            told
        };
        self.tell(told).await;
    }

    /// Learns what other brokers have told, unless there are none.
    pub(crate) async fn catch_up(&self) -> Result<(), StoreError> {
        let seen = self.seen.load(Relaxed);
        let from = if seen == i64::MIN {
            self.store.now().await?.as_millis().saturating_sub(millis(REACH))
        } else {
            seen.saturating_sub(millis(LATE))
        };
        for row in self.store.healths(Timestamp::from_millis(from)).await? {
            self.seen.fetch_max(row.changed_at.as_millis(), Relaxed);
            self.adopt(row);
        }
        self.seen.fetch_max(from, Relaxed);
        Ok(())
    }

    fn adopt(&self, row: HealthRow) {
        let mut all = self.lock();
        let room = all.len() < MOST;
        match all.get_mut(&row.credential_uid) {
            Some(known) if known.is_older_than(&row) => known.adopt(row),
            None if room && row.health.rest().is_some() => {
                let mut known = Known::new(row.revision);
                let credential = row.credential_uid;
                known.adopt(row);
                all.insert(credential, known);
            }
            Some(_) | None => {}
        }
    }

    fn forget(&self, credential: Uid) {
        self.lock().remove(&credential);
    }

    async fn tell(&self, told: Option<HealthRow>) {
        let Some(row) = told else { return };
        match self.store.put_health(&row).await {
            // Deleted meanwhile.
            Err(StoreError::Changed(_)) => self.forget(row.credential_uid),
            told => drop(self.heard(told)),
        }
    }

    /// What the database said, if it said something.
    fn heard<T>(&self, answer: Result<T, StoreError>) -> Option<T> {
        let was_cut_off = self.is_cut_off.swap(answer.is_err(), Relaxed);
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                if !was_cut_off {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "other brokers do not learn which credentials rest");
                }
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uid, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    const fn new(revision: u64) -> Self {
        let long_ago = Timestamp::from_millis(i64::MIN);
        Self { revision, health: Health::of(0, None), since: long_ago, failing: long_ago }
    }

    /// What others are to hear, if a rest has begun or ended, or its probe is over.
    fn told_after(&mut self, credential: Uid, before: Option<&Rest>) -> Option<HealthRow> {
        let rest = self.health.rest();
        if rest == before {
            return None;
        }
        self.since = rest.map_or(self.since, |rest| rest.since);
        Some(HealthRow {
            credential_uid: credential,
            revision: self.revision,
            since: self.since,
            health: self.health.clone(),
            changed_at: self.since,
        })
    }

    /// Whether a row of another broker says more. Of the same rest, the end says more than a probe, and
    /// that more than its beginning.
    fn is_older_than(&self, row: &HealthRow) -> bool {
        let probe = |health: &Health| health.rest().map(|rest| rest.probe);
        if (self.revision, self.since) != (row.revision, row.since) {
            return (self.revision, self.since) < (row.revision, row.since);
        }
        match (probe(&self.health), probe(&row.health)) {
            (Some(_), None) => true,
            (Some(mine), Some(other)) => mine < other,
            (None, Some(_) | None) => false,
        }
    }

    fn adopt(&mut self, row: HealthRow) {
        self.revision = row.revision;
        self.since = row.since;
        self.failing = self.failing.max(row.since);
        self.health = row.health;
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
