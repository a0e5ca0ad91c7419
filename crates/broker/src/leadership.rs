use std::{sync::Arc, time::Duration};

use domain::{Clock, Uid};
use store::Store;
use tokio::{select, sync::watch, time};
use tokio_util::sync::CancellationToken;

/// Stands for the lead among the brokers of one database until `stop`, then gives it up.
///
/// Who leads spares the others work that one can do for all; nothing is wrong when two do it, so this
/// broker may believe for a moment what is no longer so.
pub(crate) async fn stand(
    store: Arc<dyn Store>,
    holder: Uid,
    clock: Arc<dyn Clock>,
    leads: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut ends = Duration::ZERO;
    metrics::gauge!("strongroom_leads").set(0.0);
    loop {
        // Counted from before the question, so that this broker's term ends before another's begins.
        let asked = clock.elapsed();
        match time::timeout(TERM, store.lead(holder, TERM)).await {
            Ok(Ok(true)) => ends = asked + TERM,
            Ok(Ok(false)) => ends = Duration::ZERO,
            Ok(Err(_)) | Err(_) => {}
        }
        tell(&leads, clock.elapsed() < ends);
        let pause = if *leads.borrow() { RENEW } else { TRY_AGAIN };
        select! {
            () = stop.cancelled() => break,
            () = time::sleep(pause) => {}
        }
    }
    if leads.send_replace(false) {
        // Without it the others wait for the term's end, which is no harm.
        let _ = time::timeout(TERM, store.resign(holder)).await;
    }
}

/// Waits for the next time to do what is the leader's: after so long, and again while another broker leads.
/// False once it is to stop.
pub(crate) async fn next_turn(
    every: Duration,
    leads: &watch::Receiver<bool>,
    stop: &CancellationToken,
) -> bool {
    loop {
        select! {
            () = stop.cancelled() => return false,
            () = time::sleep(every) => {}
        }
        if *leads.borrow() {
            return true;
        }
    }
}

fn tell(leads: &watch::Sender<bool>, now: bool) {
    let changed = leads.send_if_modified(|leads| std::mem::replace(leads, now) != now);
    if changed {
        metrics::gauge!("strongroom_leads").set(f64::from(u8::from(now)));
        tracing::info!(leads = now, "which broker signs the log");
    }
}

/// How long the lead lasts without a word from who has it.
const TERM: Duration = Duration::from_secs(2);
const RENEW: Duration = Duration::from_millis(600);
const TRY_AGAIN: Duration = Duration::from_millis(400);
