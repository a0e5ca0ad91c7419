use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::{CredentialName, Failure};
use strongroom_proto::v1;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{FailedAttempt, LeaseCache, LeaseError, LeaseKey, cache::Inner};

/// Failures that the broker has not heard of yet.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    waiting: Mutex<HashMap<CredentialName, Vec<(LeaseKey, FailedAttempt)>>>,
    some: Notify,
}

impl LeaseCache {
    /// Tells of a failed call whose lease [has no fallback](crate::HeldLease::has_fallback), or that
    /// cannot be repeated. The broker hears of it soon, together with others. Until a provider that named a time wants to be asked
    /// again, the lease is refused as if the broker had; a lease of a credential that is no good any
    /// more is dropped, so that the next call asks the broker.
    pub fn report(&self, key: &LeaseKey, failed: FailedAttempt) {
        match failed.failure {
            Failure::CredentialRefused | Failure::NoQuota => self.forget(key),
            Failure::RateLimited { retry_after: Some(wait) } => {
                let held = self.inner.leases.get(key);
                match held.filter(|it| *it.credential() == failed.credential) {
                    // Only this call could not be repeated; the next may go elsewhere.
                    Some(lease) if lease.has_fallback() => self.forget(key),
                    Some(lease) => {
                        let wait = wait.min(LONGEST_PAUSE);
                        lease.pause(self.inner.clock.elapsed().saturating_add(wait));
                    }
                    None => {}
                }
            }
            Failure::RateLimited { retry_after: None }
            | Failure::NotAllowed
            | Failure::ProviderTrouble
            | Failure::TimedOut
            | Failure::Unreachable
            | Failure::SecretInAnswer => {}
            Failure::CallersFault | Failure::Unusable => return,
        }
        self.inner.reports.add(key, failed);
    }
}

impl Reports {
    /// Of one credential only the first few are kept: they say all that there is to say.
    fn add(&self, key: &LeaseKey, failed: FailedAttempt) {
        let mut waiting = self.waiting();
        let full = waiting.len() >= MOST_CREDENTIALS && !waiting.contains_key(&failed.credential);
        if full {
            return;
        }
        let of = waiting.entry(failed.credential.clone()).or_default();
        if of.len() < MOST_OF_ONE {
            of.push((key.clone(), failed));
        }
        self.some.notify_one();
    }

    fn take(&self) -> Vec<(LeaseKey, FailedAttempt)> {
        std::mem::take(&mut *self.waiting()).into_values().flatten().collect()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<CredentialName, Vec<(LeaseKey, FailedAttempt)>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the broker of failures, many at a time, for as long as it is polled. What it cannot be told is
/// dropped, for it would be old news, unless it is a matter of record.
pub(crate) async fn report_failures(inner: Arc<Inner>) {
    loop {
        inner.reports.some.notified().await;
        let mut reports = inner.reports.take();
        while !reports.is_empty() {
            let later = reports.split_off(reports.len().min(MOST_AT_ONCE));
            inner.tell(reports).await;
            reports = later;
        }
        sleep(REST).await;
    }
}

impl Inner {
    async fn tell(&self, reports: Vec<(LeaseKey, FailedAttempt)>) {
        let report = |(key, failed): &(LeaseKey, FailedAttempt)| v1::FailureReport {
            virtual_key_id: key.virtual_key.to_string(),
            key_sha256: key.digest.as_bytes().to_vec().into(),
            attempt: Some(failed.message(&*self.clock)),
        };
        let told = self.broker.in_session(|session| {
            let request = v1::ReportFailuresRequest {
                session_id: session.keys.id().to_vec().into(),
                reports: reports.iter().map(report).collect(),
            };
            async move { Ok(self.broker.leases().report_failures(request).await?) }
        });
        match timeout(self.broker.timeout().saturating_mul(4), told).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => {
                tracing::debug!(%error, "failures were not reported");
                if !matches!(LeaseError::from(error), LeaseError::Unavailable { .. }) {
                    return;
                }
            }
            Err(_) => tracing::debug!("the broker did not take reports of failures in time"),
        }
        // What is a matter of record is no old news, however late.
        for (key, failed) in reports {
            if failed.failure == Failure::SecretInAnswer {
                self.reports.add(&key, failed);
            }
        }
    }
}

const MOST_CREDENTIALS: usize = 1000;
/// A row of three makes a credential rest, whatever fails.
const MOST_OF_ONE: usize = 4;
/// The broker takes no more in one call.
const MOST_AT_ONCE: usize = 100;
/// Between two calls that tell of failures.
const REST: Duration = Duration::from_millis(500);
/// A provider may say more, but by then a call finds out.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
