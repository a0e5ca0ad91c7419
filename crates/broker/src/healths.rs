use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use domain::{Failure, Health, Readiness, Timestamp, Uid};

/// How the credentials of tenants with several of them have fared lately, by what proxies report.
/// Only what a tenant's policy has another credential for is reported.
#[derive(Debug, Default)]
pub(crate) struct Healths(Mutex<HashMap<Uid, Health>>);

/// So many credentials at most are remembered; what works is forgotten first.
const MOST: usize = 100_000;

impl Healths {
    /// Whether a lease of the credential may be granted now.
    pub(crate) fn readiness(&self, credential: Uid, now: Timestamp) -> Readiness {
        self.lock().get(&credential).map_or(Readiness::Ready, |health| health.readiness(now))
    }

    /// Claims the one lease that is to show whether a credential works again.
    pub(crate) fn claim(&self, credential: Uid, now: Timestamp) -> bool {
        self.lock().get_mut(&credential).is_some_and(|health| health.claim_probe(now))
    }

    /// A call that began at `begun` has failed.
    pub(crate) fn failed(
        &self,
        credential: Uid,
        failure: Failure,
        begun: Timestamp,
        now: Timestamp,
    ) {
        let mut healths = self.lock();
        if healths.len() >= MOST {
            healths.retain(|_, health| *health != Health::default());
        }
        if healths.len() < MOST {
            healths.entry(credential).or_default().failed(failure, begun, now);
        }
    }

    /// A lease of the credential is renewed: calls went out with it and did not come back as failed.
    pub(crate) fn succeeded(&self, credential: Uid, begun: Timestamp) {
        let mut healths = self.lock();
        if let Some(health) = healths.get_mut(&credential) {
            health.succeeded(begun);
            if *health == Health::default() {
                healths.remove(&credential);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uid, Health>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_failed_rests_and_one_lease_shows_whether_it_works_again() {
        let (healths, uid) = (Healths::default(), Uid::from_bytes([1; 16]));
        let at = |seconds: i64| Timestamp::from_millis(1000 * seconds);
        let limited = Failure::RateLimited { retry_after: Some(Duration::from_secs(10)) };
        assert_eq!(healths.readiness(uid, at(0)), Readiness::Ready);
        healths.failed(uid, limited, at(1), at(2));
        assert!(matches!(healths.readiness(uid, at(3)), Readiness::Resting { .. }));
        assert_eq!(healths.readiness(uid, at(12)), Readiness::Probe);
        assert!(healths.claim(uid, at(12)));
        assert!(!healths.claim(uid, at(12)));
        healths.succeeded(uid, at(13));
        assert_eq!(healths.readiness(uid, at(13)), Readiness::Ready);
    }
}
