use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use audit::{Entry, Record, RecordDraft};
use domain::{Settled, TenantId, Timestamp, Uid};
use store::{Appended, Change, Pending, Reconcile, Reconciled, Store, Swept};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{caller::Caller, refused::Why};

/// The way into the log. What was in hand while the last commit ran goes into the next one together:
/// many records for the price of one commit, and no timer.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    store: Arc<dyn Store>,
    queue: mpsc::Sender<Queued>,
    size: Arc<watch::Sender<u64>>,
    state: Arc<State>,
    deadline: Duration,
    /// Names this process in every record that it writes.
    broker: Uid,
}

/// Why nothing more may be appended.
#[derive(Debug, Default)]
struct State {
    /// The broker has stopped, or is about to say so in its last record.
    closed: AtomicBool,
    /// The database has lost records that were durable: it is not the log that was.
    broken: AtomicBool,
}

struct Queued {
    pending: Pending,
    answer: oneshot::Sender<Appended>,
}

/// On what a record depends.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    /// The place in the log as of which its writer knew the state.
    pub(crate) as_of: u64,
    /// Whose state that was.
    pub(crate) tenants: Vec<TenantId>,
}

/// Records that may wait for a commit. At more, calls are refused at once.
const QUEUE: usize = 4096;

/// The most records in one commit.
const BATCH: usize = 256;

impl Log {
    /// Starts the task that commits. It ends when every `Log` is gone and the queue is empty.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        size: u64,
        deadline: Duration,
        broker: Uid,
        tasks: &TaskTracker,
    ) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE);
        let size = Arc::new(watch::Sender::new(size));
        let state = Arc::new(State::default());
        tasks.spawn(commit_all(Arc::clone(&store), queued, Arc::clone(&size), Arc::clone(&state)));
        Self { store, queue, size, state, deadline, broker }
    }

    /// Appends a record, unless what it depends on has changed. On `Recorded` it is durable.
    ///
    /// Refused as `LogUnavailable` when the queue is full or the commit takes longer than the
    /// deadline; the commit itself goes on, so the record may still appear: a grant that was never
    /// delivered is harmless.
    pub(crate) async fn append(
        &self,
        record: Record,
        basis: Option<Basis>,
    ) -> Result<Appended, Why> {
        self.check_open()?;
        self.wait(self.enqueue(record, basis)?).await
    }

    /// As [`Self::append`], for a record that is all there is of a change. Not bounded by the deadline, as
    /// little as [`Self::apply`]: who is told that it failed must not find that it counts.
    pub(crate) async fn append_change(
        &self,
        record: Record,
        basis: Option<Basis>,
    ) -> Result<Appended, Why> {
        self.check_open()?;
        self.enqueue(record, basis)?.await.map_err(|_| Why::LogUnavailable)
    }

    /// As [`Self::append_change`], of what depends on no state.
    pub(crate) async fn record_change(&self, record: Record) -> Result<Entry, Why> {
        recorded(self.append_change(record, None).await?)
    }

    fn enqueue(
        &self,
        record: Record,
        basis: Option<Basis>,
    ) -> Result<oneshot::Receiver<Appended>, Why> {
        let (as_of, tenants) =
            basis.map_or((None, Vec::new()), |basis| (Some(basis.as_of), basis.tenants));
        let pending = Pending { record: self.draft(record)?, as_of, tenants };
        let (answer, appended) = oneshot::channel();
        self.queue.try_send(Queued { pending, answer }).map_err(|_| Why::LogUnavailable)?;
        Ok(appended)
    }

    async fn wait(&self, appended: oneshot::Receiver<Appended>) -> Result<Appended, Why> {
        match timeout(self.deadline, appended).await {
            Ok(Ok(appended)) => Ok(appended),
            Ok(Err(_)) | Err(_) => Err(Why::LogUnavailable),
        }
    }

    /// Puts a refusal in line without waiting for it; false when there is no room. Refusals get half
    /// of the line at most, so that a flood of them does not stop leases.
    pub(crate) fn note_refusal(&self, record: Record) -> bool {
        self.room_for_refusals() && self.check_open().is_ok() && self.enqueue(record, None).is_ok()
    }

    /// Records a refusal, if there is room for one.
    pub(crate) async fn record_refusal(&self, record: Record) -> Result<(), Why> {
        if self.room_for_refusals() {
            self.record(record).await.map(drop)
        } else {
            Err(Why::LogUnavailable)
        }
    }

    fn room_for_refusals(&self) -> bool {
        self.queue.capacity() > QUEUE / 2
    }

    /// Appends the last record. Whatever still comes is refused. Not bounded by the deadline: no call
    /// waits for it.
    pub(crate) async fn close(&self, last: Record) -> Result<(), Why> {
        self.state.closed.store(true, Ordering::Release);
        self.enqueue(last, None)?.await.map(drop).map_err(|_| Why::LogUnavailable)
    }

    /// Whether the database still holds every record that was durable.
    pub(crate) fn is_whole(&self) -> bool {
        !self.state.broken.load(Ordering::Acquire)
    }

    fn check_open(&self) -> Result<(), Why> {
        if self.is_whole() && !self.state.closed.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(Why::LogUnavailable)
        }
    }

    /// Appends a record that depends on no state.
    pub(crate) async fn record(&self, record: Record) -> Result<Entry, Why> {
        recorded(self.append(record, None).await?)
    }

    /// Changes state and appends the record of it, both or neither. Not bounded by the deadline: a
    /// change must not be given up while its outcome is open.
    pub(crate) async fn apply(&self, change: &Change, record: Record) -> Result<Entry, Why> {
        self.check_open()?;
        let known = self.size();
        let entry = self.store.apply(change, &self.draft(record)?).await?;
        self.state.check(known, entry.index);
        self.check_open()?;
        self.grew(entry.index + 1);
        Ok(entry)
    }

    /// As [`Self::apply`], with the record before it that an approval is used up by that, unless something
    /// has changed since `used` was decided. There is no change where the record is all that is kept.
    pub(crate) async fn apply_approved(
        &self,
        (used, as_of): (Record, u64),
        change: Option<&Change>,
        record: Record,
    ) -> Result<Appended, Why> {
        self.check_open()?;
        let known = self.size();
        let used = Pending { record: self.draft(used)?, as_of: Some(as_of), tenants: Vec::new() };
        let done = self.store.apply_approved(&used, change, &self.draft(record)?).await?;
        if let Appended::Recorded(entry) = &done {
            self.state.check(known, entry.index);
            self.check_open()?;
            self.grew(entry.index + 1);
        }
        Ok(done)
    }

    /// Takes old records out and appends the record of it, both or neither.
    pub(crate) async fn prune(&self, before: u64, record: Record) -> Result<Entry, Why> {
        self.check_open()?;
        let known = self.size();
        let entry = self.store.prune(before, &self.draft(record)?).await?;
        self.state.check(known, entry.index);
        self.check_open()?;
        self.grew(entry.index + 1);
        Ok(entry)
    }

    /// Does what time has made due, with its records.
    pub(crate) async fn sweep(&self, at: Option<Timestamp>) -> Result<Swept, Why> {
        self.check_open()?;
        let known = self.size();
        let swept = self.store.sweep(self.broker, at).await?;
        if let (Some(first), Some(last)) = (swept.entries.first(), swept.entries.last()) {
            self.state.check(known, first.index);
            self.check_open()?;
            self.grew(last.index + 1);
        }
        Ok(swept)
    }

    /// Settles allowances of which nothing was known, each with its record, or none.
    pub(crate) async fn reconcile(
        &self,
        caller: &Caller,
        reconcile: Reconcile,
    ) -> Result<Vec<Reconciled>, Why> {
        self.check_open()?;
        let known = self.size();
        let broker = self.broker.as_bytes().to_vec().into();
        let record = caller.template(Record { broker, ..reconcile.record });
        let done = self.store.reconcile(Reconcile { record, ..reconcile }).await?;
        if done.contains(&Reconciled::Settled(Settled::Now)) {
            caller.is_recorded();
        }
        let head = self.store.head().await?;
        self.saw(known, head.frontier.size());
        self.check_open()?;
        Ok(done)
    }

    /// What records call this process.
    pub(crate) fn broker(&self) -> Uid {
        self.broker
    }

    /// How many records this broker knows to be durable.
    pub(crate) fn size(&self) -> u64 {
        *self.size.borrow()
    }

    /// Tells of every growth that this broker learns of.
    pub(crate) fn growth(&self) -> watch::Receiver<u64> {
        self.size.subscribe()
    }

    /// Takes note of a size seen in the database, where other brokers append too.
    pub(crate) fn saw(&self, known: u64, size: u64) {
        self.state.check(known, size);
        self.grew(size);
    }

    fn draft(&self, record: Record) -> Result<RecordDraft, Why> {
        let record = Record { broker: self.broker.as_bytes().to_vec().into(), ..record };
        RecordDraft::new(record).map_err(|error| Why::Internal(format!("invalid record: {error}")))
    }

    fn grew(&self, size: u64) {
        grew(&self.size, size);
    }
}

impl State {
    /// A new record, or the end of the log, lies at or after every size known before. If not, the
    /// database was restored or failed over with a loss: leases decided on what it lost must not go
    /// on, and nothing mends that but a person.
    fn check(&self, known: u64, found: u64) {
        if found < known && !self.broken.swap(true, Ordering::AcqRel) {
            tracing::error!(
                known,
                found,
                "the database has lost records; nothing is lent any more"
            );
        }
    }
}

fn recorded(appended: Appended) -> Result<Entry, Why> {
    match appended {
        Appended::Recorded(entry) => Ok(entry),
        Appended::Stale { .. } => Err(Why::Internal("an unconditional record was stale".into())),
    }
}

fn grew(known: &watch::Sender<u64>, size: u64) {
    known.send_if_modified(|known| {
        let grew = size > *known;
        *known = size.max(*known);
        grew
    });
}

async fn commit_all(
    store: Arc<dyn Store>,
    mut queue: mpsc::Receiver<Queued>,
    size: Arc<watch::Sender<u64>>,
    state: Arc<State>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let (pending, answers): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|queued| (queued.pending, queued.answer)).unzip();
        metrics::histogram!("strongroom_log_batch_records")
            .record(u32::try_from(pending.len()).unwrap_or(u32::MAX));
        let known = *size.borrow();
        match store.append(&pending).await {
            Ok(appended) => {
                let first = appended.iter().find_map(|appended| match appended {
                    Appended::Recorded(entry) => Some(entry.index),
                    Appended::Stale { .. } => None,
                });
                state.check(known, first.unwrap_or(known));
                if state.broken.load(Ordering::Acquire) {
                    // Dropping the answers tells every caller that nothing may leave.
                    continue;
                }
                let end = appended.iter().rev().find_map(|appended| match appended {
                    Appended::Recorded(entry) => Some(entry.index + 1),
                    Appended::Stale { .. } => None,
                });
                // The size is told before the answers, so that who gets an answer finds the record.
                grew(&size, end.unwrap_or(0));
                for (answer, appended) in answers.into_iter().zip(appended) {
                    // Nobody listens any more when the deadline has passed; the record stays.
                    let _ = answer.send(appended);
                }
            }
            Err(error) => {
                metrics::counter!("strongroom_log_append_failures_total").increment(1);
                tracing::error!(error = &error as &dyn std::error::Error, "records not written");
                // Dropping the answers tells every caller that nothing may leave.
            }
        }
    }
}
