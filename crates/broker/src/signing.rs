use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use audit::{Kind, Reason, Record};
use domain::Timestamp;
use store::Store;
use tokio::{sync::watch, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{checkpoints::Trouble, core::Core, leadership, signer::Signer};

/// The tasks that sign, apart from the others because they end after them.
pub(crate) struct Signing {
    signer_stops: CancellationToken,
    signer: TaskTracker,
    lead_ends: CancellationToken,
    lead: TaskTracker,
}

impl Signing {
    pub(crate) fn start(core: &Core, signer: Signer, leads: watch::Sender<bool>) -> Self {
        let signing = Self {
            signer_stops: CancellationToken::new(),
            signer: TaskTracker::new(),
            lead_ends: CancellationToken::new(),
            lead: TaskTracker::new(),
        };
        signing.signer.spawn(signer.run(leads.subscribe(), signing.signer_stops.clone()));
        let (store, clock) = (Arc::clone(&core.store), Arc::clone(&core.clock));
        let ends = signing.lead_ends.clone();
        signing.lead.spawn(leadership::stand(store, core.log.broker(), clock, leads, ends));
        signing
    }

    /// Signs a last checkpoint, if this broker leads, and gives the lead up after it.
    pub(crate) async fn end(self) {
        for (ends, task) in [(self.signer_stops, self.signer), (self.lead_ends, self.lead)] {
            ends.cancel();
            task.close();
            task.wait().await;
        }
    }
}

/// Refuses a database whose clock is behind the log: every time in the log would be wrong from here
/// on, and leases would seem to have been granted before their revocation.
pub(crate) async fn check_clock(store: &dyn Store) -> anyhow::Result<()> {
    let last = store.head().await.context("reading the log")?.time;
    let now = store.now().await.context("reading the database's clock")?;
    compare_clocks(last, now)
}

fn compare_clocks(last: Timestamp, now: Timestamp) -> anyhow::Result<()> {
    let behind = last.since(now);
    if behind > CLOCK_TOLERANCE {
        anyhow::bail!(
            "the database's clock is {} s behind the last record of the log; set the clock of the \
             database's machine right, or wait until it has passed that time, then start again",
            behind.as_secs()
        );
    }
    Ok(())
}

/// After how long a record that could not be written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// How far a clock may have been put back, as at a failover to another machine.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);

/// Puts it on record when a checkpoint turns up that the log does not continue.
pub(crate) async fn record_trouble(core: Arc<Core>, stop: CancellationToken) {
    let mut trouble = core.checkpoints.trouble();
    let found = tokio::select! {
        () = stop.cancelled() => return,
        found = trouble.wait_for(Option::is_some) => found.ok().and_then(|found| found.clone()),
    };
    let Some(found) = found else { return };
    let reason = match &found {
        Trouble::Behind { .. } => Reason::LogBehindCheckpoint,
        Trouble::Forked { .. } => Reason::LogForked,
    };
    let record = Record {
        kind: Kind::Finding.into(),
        reason: reason.into(),
        tree_size: found.signed().size,
        tree_root: found.signed().root.to_vec().into(),
        ..Record::default()
    };
    let recorded = async {
        while let Err(why) = core.log.record_change(record.clone()).await {
            tracing::warn!(%why, "a finding is not on record yet");
            time::sleep(TRY_AGAIN).await;
        }
    };
    tokio::select! { () = stop.cancelled() => {}, () = recorded => {} }
}

#[cfg(test)]
mod tests {
    use audit::RecordDraft;
    use store::{Pending, SqliteStore};

    use super::*;

    #[tokio::test]
    async fn a_clock_behind_the_log_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("db")).await.unwrap();
        let record = Record { kind: Kind::BrokerStopped.into(), ..Record::default() };
        let record = RecordDraft::new(record).unwrap();
        let pending = Pending { record, as_of: None, tenants: Vec::new() };
        store.append(&[pending]).await.unwrap();
        check_clock(&store).await.unwrap();
        let last = store.head().await.unwrap().time;
        let at =
            |seconds: u64| Timestamp::from_millis(last.as_millis()) + Duration::from_secs(seconds);
        assert!(compare_clocks(last, at(10)).is_ok());
        assert!(compare_clocks(at(10), last).is_ok());
        let said = compare_clocks(at(15), last).unwrap_err().to_string();
        assert!(said.contains("15 s behind the last record"), "{said}");
    }
}
