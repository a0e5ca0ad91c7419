use std::{sync::Arc, time::Duration};

use domain::Timestamp;
use store::Store;
use tokio::{select, sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::{config::UsageConfig, refused::Why};

/// Takes out what is older than it is to be kept, for as long as this broker leads.
pub(crate) async fn sweep(
    store: Arc<dyn Store>,
    keep: UsageConfig,
    leads: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    loop {
        if *leads.borrow() {
            match forget(&*store, keep, &stop).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "usage that was old enough has been taken out"),
                Err(why) => tracing::warn!(%why, "old usage stays for now"),
            }
        }
        select! {
            () = stop.cancelled() => return,
            () = time::sleep(SWEEP) => {}
        }
    }
}

/// Takes out all that is older now; says how many rows.
pub(crate) async fn forget(
    store: &dyn Store,
    keep: UsageConfig,
    stop: &CancellationToken,
) -> Result<u64, Why> {
    let now = store.now().await?.as_millis();
    let before = |keep: Duration| {
        let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(now.saturating_sub(keep))
    };
    let mut all = 0;
    loop {
        match store.forget_usage(before(keep.keep_calls), before(keep.keep_sums)).await? {
            0 => return Ok(all),
            rows => all += rows,
        }
        // Others have their turn in between.
        select! {
            () = stop.cancelled() => return Ok(all),
            () = time::sleep(PAUSE) => {}
        }
    }
}

const SWEEP: Duration = Duration::from_mins(10);
const PAUSE: Duration = Duration::from_millis(20);
