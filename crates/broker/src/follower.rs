use std::{sync::Arc, time::Duration};

use store::Store;
use tokio::{select, sync::watch, time};
use tokio_util::sync::CancellationToken;

use crate::{directory::Directory, healths::Healths, log::Log, refused::Why};

/// How often the database is asked for what other brokers have written.
pub(crate) const POLL: Duration = Duration::from_millis(200);

/// Learns of other brokers' records, and of which credentials rest, until `stop`: when the database tells of a change, and every
/// `poll` whatever it tells. This broker's own changes do not wait for it.
///
/// Leases do not depend on it being quick: one that was decided on an older state is refused by the
/// append and decided again. Watchers of revocations do.
pub(crate) async fn follow(
    store: Arc<dyn Store>,
    directory: Arc<Directory>,
    log: Log,
    healths: Arc<Healths>,
    poll: Duration,
    stop: CancellationToken,
) {
    let mut failing = false;
    let mut wakeups = store.wakeups();
    loop {
        select! {
            () = stop.cancelled() => return,
            () = told(&mut wakeups) => {}
            () = time::sleep(poll) => {}
        }
        // Said once when it begins and once when it ends, not five times a second.
        match look(&*store, &directory, &log, &healths).await {
            Ok(()) if failing => {
                tracing::info!("following the log again");
                failing = false;
            }
            Err(why) if !failing => {
                tracing::error!(%why, "cannot follow the log");
                failing = true;
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Returns when the database tells of a change, and never if it does not tell of any.
async fn told(wakeups: &mut Option<watch::Receiver<u64>>) {
    if let Some(wakeups) = wakeups
        && wakeups.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

async fn look(
    store: &dyn Store,
    directory: &Directory,
    log: &Log,
    healths: &Healths,
) -> Result<(), Why> {
    let known = log.size();
    let head = store.head().await?;
    log.saw(known, head.frontier.size());
    directory.catch_up(head.changed).await?;
    // Without other brokers there is nobody to hear of.
    if store.wakeups().is_some() {
        healths.catch_up().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
