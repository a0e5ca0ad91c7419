use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use audit::{Kind, Reason, Record};
use tokio::{select, time};
use tokio_util::sync::CancellationToken;

use crate::log::Log;

/// Refusals that anyone can cause at any rate, before they are known: failed handshakes, and calls
/// for which there is no place. They are counted, and once a second each kind of them becomes one
/// record that says how many there were, so that a flood cannot fill the log.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<(Reason, String), u32>>);

const PERIOD: Duration = Duration::from_secs(1);

impl Tally {
    /// Counts a refusal; `place` says where: a method, or `Handshake/` and a reason.
    pub(crate) fn count(&self, reason: Reason, place: String) {
        let mut counts = self.counts();
        let count = counts.entry((reason, place)).or_default();
        *count = count.saturating_add(1);
    }

    /// Puts what was counted on record once a second, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, log: Log, stop: CancellationToken) {
        loop {
            select! {
                () = stop.cancelled() => return,
                () = time::sleep(PERIOD) => self.record(&log).await,
            }
        }
    }

    /// Puts what was counted on record now.
    pub(crate) async fn record(&self, log: &Log) {
        let counts = mem::take(&mut *self.counts());
        for ((reason, place), count) in counts {
            let record = Record {
                kind: Kind::Refused.into(),
                reason: reason.into(),
                method: place.clone(),
                count,
                ..Record::default()
            };
            if log.record_refusal(record).await.is_err() {
                // They are told of when the log can be written again.
                let mut counts = self.counts();
                let kept = counts.entry((reason, place)).or_default();
                *kept = kept.saturating_add(count);
            }
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Reason, String), u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
