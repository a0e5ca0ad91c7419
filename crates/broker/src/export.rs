mod cursor;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use audit::InvalidRecord;
use domain::{Clock, Timestamp};
use sinks::{Event, From, Sink, SinkError};
use store::{Store, StoreError};
use thiserror::Error;
use tokio::{
    select,
    sync::watch,
    time::{self, timeout},
};
use tokio_util::sync::CancellationToken;

use self::cursor::Cursor;
pub(crate) use self::cursor::Cursors;
use crate::refused::Refused;

/// Takes the log to one sink: reads a page, hands it over, moves the sink's cursor, and tries for
/// ever what fails.
///
/// It follows the log and is never waited for: a sink that is blocked costs the appends nothing.
pub(crate) struct Exporter {
    name: String,
    from: From,
    sink: Box<dyn Sink>,
    store: Arc<dyn Store>,
    cursor: Cursor,
    clock: Arc<dyn Clock>,
    growth: watch::Receiver<u64>,
    pace: Pace,
    way: Option<Way>,
    /// The index of the next record to send: for the gauge, which is set while a send hangs, too.
    next: Arc<AtomicU64>,
}

/// A sink, the name under which its cursor is kept, and where a new one begins.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) name: String,
    pub(crate) from: From,
    pub(crate) sink: Box<dyn Sink>,
}

/// How fast an exporter goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Records in one batch.
    pub(crate) page: u32,
    /// The cursor is moved no more often: moving it is a commit, between those of leases.
    pub(crate) save_every: Duration,
    /// How long to wait after a first failure. Doubled with each that follows.
    pub(crate) first_pause: Duration,
    /// The longest wait.
    pub(crate) longest_pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            page: 256,
            save_every: Duration::from_secs(1),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
        }
    }
}

/// How far a sink has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Way {
    /// The index of the next record to send.
    next: u64,
    /// The first that was sent over the connection that is open, if its receiver confirms nothing.
    unconfirmed: Option<u64>,
    /// Where the cursor stands, as far as is known here.
    saved: u64,
    saved_at: Duration,
}

/// So many records are sent again when a receiver that confirms nothing may have lost them: more than
/// the buffers between here and there hold.
const IN_FLIGHT: u64 = 4096;

/// What moving the cursor at the end of a turn may take.
const LAST_SAVE: Duration = Duration::from_secs(1);

#[derive(Debug, Error)]
enum ExportError {
    #[error("reading the log, or moving the cursor")]
    Store(#[from] StoreError),
    #[error("sending")]
    Sink(#[from] SinkError),
    #[error("record {0} is not one: verify the log")]
    NotARecord(u64, #[source] InvalidRecord),
    #[error("putting on record that the cursor was changed: {0}")]
    Log(Box<Refused>),
}

impl Exporter {
    pub(crate) fn new(
        Outlet { name, from, sink }: Outlet,
        cursors: Cursors,
        clock: Arc<dyn Clock>,
        growth: watch::Receiver<u64>,
        pace: Pace,
    ) -> Self {
        let (way, next) = (None, Arc::default());
        let (store, cursor) = (Arc::clone(&cursors.store), Cursor::of(&name, cursors));
        Self { name, from, sink, store, cursor, clock, growth, pace, way, next }
    }

    /// Exports until `stop`, while `drives` says that it is this broker's turn. Of several brokers only
    /// one should be told so; if two are, receivers get records twice, and miss none.
    pub(crate) async fn run(mut self, mut drives: watch::Receiver<bool>, stop: CancellationToken) {
        loop {
            select! {
                biased;
                () = stop.cancelled() => return,
                () = turn(&mut drives, true) => {}
            }
            self.take_turn(async {
                select! { () = stop.cancelled() => {}, () = turn(&mut drives, false) => {} }
            })
            .await;
        }
    }

    /// Exports until the turn is over, and moves the cursor to what has been sent.
    async fn take_turn(&mut self, over: impl Future<Output = ()>) {
        let mut lag = Lag {
            name: self.name.clone(),
            growth: self.growth.clone(),
            next: Arc::clone(&self.next),
        };
        select! {
            () = over => {}
            () = self.drive() => {}
            () = lag.report() => {}
        }
        // What was given up on the way counts as not sent.
        let saved = timeout(LAST_SAVE, self.save()).await;
        if !matches!(saved, Ok(Ok(()))) {
            tracing::warn!(sink = self.name, "the cursor was not moved: some is sent again");
        }
        lag.clear();
        self.way = None;
    }

    /// Goes on and on; given up by whoever waits for it.
    async fn drive(&mut self) {
        self.tell_success();
        let mut failures = 0_u32;
        loop {
            match self.step().await {
                Ok(()) if failures > 0 => {
                    tracing::info!(sink = self.name, "the sink takes records again");
                    failures = 0;
                }
                Ok(()) => {}
                Err(error) => {
                    metrics::counter!("strongroom_sink_failures_total", "sink" => self.name.clone())
                        .increment(1);
                    // Said once when it begins and once when it ends; the metric counts the rest.
                    if failures == 0 {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(sink = self.name, error, "the log does not go out");
                    }
                    self.fall_back();
                    time::sleep(self.pause(failures)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    /// Sends one batch, or waits until there is one.
    async fn step(&mut self) -> Result<(), ExportError> {
        let way = match self.way {
            Some(way) => way,
            None => self.begin().await?,
        };
        let known = *self.growth.borrow_and_update();
        let entries = if way.next < known {
            self.store.records(way.next, self.pace.page, None).await?
        } else {
            Vec::new()
        };
        let Some((first, last)) = entries.first().zip(entries.last()) else {
            return self.rest(way).await;
        };
        if first.index > way.next {
            let (sink, from, to) = (&self.name, way.next, first.index);
            tracing::warn!(sink, from, to, "records were pruned before they were sent");
        }
        let end = last.index + 1;
        // People go out as commitments: where records are sent to, no erasure reaches.
        let events = entries.iter().map(|entry| {
            Event::read(entry, |_| None)
                .map_err(|error| ExportError::NotARecord(entry.index, error))
        });
        let events = events.collect::<Result<Vec<_>, _>>()?;
        let unconfirmed = if self.sink.acknowledges() { None } else { Some(way.next) };
        // Before it is sent: when the sending fails, some of it may be there.
        let way = Way { unconfirmed: way.unconfirmed.or(unconfirmed), ..way };
        self.go(way);
        let refused = self.sink.send(&events).await?;
        self.go(Way { next: end, ..way });
        self.tell_success();
        self.count(events.len(), refused);
        if self.clock.elapsed().saturating_sub(way.saved_at) >= self.pace.save_every {
            self.save().await?;
        }
        Ok(())
    }

    /// Finds out where to begin.
    async fn begin(&mut self) -> Result<Way, ExportError> {
        let next = match self.cursor.read().await? {
            Some(cursor) if self.sink.acknowledges() => cursor,
            Some(cursor) => cursor.saturating_sub(IN_FLIGHT),
            None => {
                let start = match self.from {
                    From::Start => 0,
                    From::Now => self.store.head().await?.frontier.size(),
                };
                // At once: `now` must stay what it was, whatever comes in between.
                self.cursor.put(start).await?;
                start
            }
        };
        let way = Way { next, unconfirmed: None, saved: next, saved_at: self.clock.elapsed() };
        self.go(way);
        Ok(way)
    }

    /// Waits for the log to grow. A cursor that has not been moved yet is moved on the way.
    async fn rest(&mut self, way: Way) -> Result<(), ExportError> {
        if way.next <= way.saved {
            grown(&mut self.growth).await;
            return Ok(());
        }
        let since = self.clock.elapsed().saturating_sub(way.saved_at);
        let left = self.pace.save_every.saturating_sub(since);
        if timeout(left, grown(&mut self.growth)).await.is_err() {
            self.save().await?;
        }
        Ok(())
    }

    /// Moves the cursor to what has been sent.
    async fn save(&mut self) -> Result<(), ExportError> {
        let Some(way) = self.way.filter(|way| way.next > way.saved) else { return Ok(()) };
        self.cursor.put(way.next).await?;
        self.way = Some(Way { saved: way.next, saved_at: self.clock.elapsed(), ..way });
        Ok(())
    }

    /// After a failure: what may have been lost with the connection is sent again.
    fn fall_back(&mut self) {
        let Some(way) = self.way else { return };
        if let Some(first) = way.unconfirmed {
            let next = first.max(way.next.saturating_sub(IN_FLIGHT));
            self.go(Way { next, unconfirmed: None, ..way });
        }
    }

    fn go(&mut self, way: Way) {
        self.way = Some(way);
        self.next.store(way.next, Ordering::Relaxed);
        set_lag(&self.name, *self.growth.borrow(), way.next);
    }

    fn count(&self, sent: usize, refused: u64) {
        let sent = u64::try_from(sent).unwrap_or(u64::MAX);
        metrics::counter!("strongroom_sink_sent_total", "sink" => self.name.clone())
            .increment(sent);
        if refused > 0 {
            metrics::counter!("strongroom_sink_rejected_total", "sink" => self.name.clone())
                .increment(refused);
            tracing::error!(sink = self.name, refused, "the receiver refused records for good");
        }
    }

    fn tell_success(&self) {
        let now = seconds(self.clock.now());
        metrics::gauge!("strongroom_sink_last_success_seconds", "sink" => self.name.clone())
            .set(now);
    }

    /// Doubled with each failure, and between half of that and all of it, so that many exporters do
    /// not come back at once.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.pace.first_pause.saturating_mul(1 << failures.min(16));
        let mut random = [0; 2];
        // Without random bytes it is half of that, which is a pause, too.
        let _ = getrandom::fill(&mut random);
        let share = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
        doubled.min(self.pace.longest_pause).mul_f64(0.5 + 0.5 * share)
    }
}

/// How far behind a sink is, told as the log grows: while a send hangs, too.
struct Lag {
    name: String,
    growth: watch::Receiver<u64>,
    next: Arc<AtomicU64>,
}

impl Lag {
    async fn report(&mut self) {
        loop {
            grown(&mut self.growth).await;
            set_lag(&self.name, *self.growth.borrow(), self.next.load(Ordering::Relaxed));
        }
    }

    /// The broker that drives the sink tells from here on.
    fn clear(&self) {
        set_lag(&self.name, 0, 0);
    }
}

/// Returns when it is this broker's turn, or no longer. When nobody decides any more, never.
async fn turn(drives: &mut watch::Receiver<bool>, mine: bool) {
    if drives.wait_for(|drives| *drives == mine).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn grown(growth: &mut watch::Receiver<u64>) {
    if growth.changed().await.is_err() {
        // The log is closed, and so will this be.
        std::future::pending::<()>().await;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a lag of more than 2^53 records may be inexact")]
fn set_lag(name: &str, size: u64, next: u64) {
    metrics::gauge!("strongroom_sink_lag_records", "sink" => name.to_owned())
        .set(size.saturating_sub(next) as f64);
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
pub(crate) fn seconds(time: Timestamp) -> f64 {
    (time.as_millis() / 1000) as f64
}

#[cfg(test)]
mod tests;
