mod small;

use std::{fs::File, time::Duration};

use audit::{Entry, Hash, InvalidRecord, Kind, RecordDraft, mutates};
use domain::{Timestamp, Uid};
use sqlx::Connection as _;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Appended, Change, Head, HealthRow, KeyWork, Pending, PersonRow, Reconcile, Reconciled,
    Resealed, SinkRow, StoreError, Swept, UsageRow,
    backend::{Backend, Options, Row, Value},
    budgets::{BudgetDone, BudgetWork, carry_out as carry_out_budgets, sweep},
    change::carry_out,
    changes::Changes,
    error::{is_lost, is_timeout},
    mapping, prune,
    sequence::Sequence,
};

/// Work for the writer, with the way back for its outcome.
pub(crate) enum Job {
    Append(Vec<Pending>, Answer<Vec<Appended>>),
    Apply(Box<(Change, RecordDraft)>, Answer<Entry>),
    ApplyApproved(Box<Approved>, Answer<Appended>),
    Prune(Box<(u64, RecordDraft)>, Answer<Entry>),
    Budgets(Vec<BudgetWork>, Answer<Vec<BudgetDone>>),
    Reconcile(Box<Reconcile>, Answer<Vec<Reconciled>>),
    Sweep(Uid, Option<Timestamp>, Answer<Swept>),
    PutPolicy(Hash, Vec<u8>, Answer<()>),
    PutProposal(Hash, Vec<u8>, [Timestamp; 2], Answer<()>),
    PutPerson(Box<PersonRow>, Answer<()>),
    Reseal(Vec<Resealed>, Answer<u64>),
    EndKeyWork(Box<KeyWork>, Answer<()>),
    PutCheckpoint(u64, String, Answer<()>),
    DropCheckpoint(u64, Answer<()>),
    Lead(Uid, Duration, Answer<bool>),
    Resign(Uid, Answer<()>),
    PutSink(SinkRow, Answer<()>),
    PutHealth(Box<HealthRow>, Answer<()>),
    ClaimProbe(Uid, [Timestamp; 3], Answer<bool>),
    CountUsage(Vec<UsageRow>, Answer<Vec<bool>>),
    ForgetUsage(Timestamp, Timestamp, Answer<u64>),
    Close,
}

/// What a second person has approved, with the record that this is done.
pub(crate) struct Approved {
    pub(crate) used: Pending,
    pub(crate) change: Option<Change>,
    pub(crate) record: RecordDraft,
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// How much work may wait. Its callers batch, so there is seldom more than one.
pub(crate) const QUEUE: usize = 256;

/// The only one in this process that writes. It runs in a task of its own, so that a caller who
/// stops waiting never cancels a commit: a cancelled commit has an unknown outcome.
pub(crate) struct Writer<B: Backend> {
    options: Options<B>,
    pub(crate) connection: Option<B::Connection>,
    /// Kept until the connection is closed.
    _lock: Option<File>,
}

/// What one transaction does.
enum Work {
    Append(Vec<Pending>),
    Apply(Box<(Change, RecordDraft)>),
    ApplyApproved(Box<Approved>),
    Prune(Box<(u64, RecordDraft)>),
    Reconcile(Box<Reconcile>),
    Sweep(Uid, Option<Timestamp>),
}

/// What a transaction has done, up to the commit.
#[derive(Default)]
struct Carried {
    appended: Vec<Appended>,
    reconciled: Vec<Reconciled>,
    /// Whether rows have changed, so that there is something to commit without a record too.
    changed: bool,
    more: bool,
}

impl<B: Backend> Writer<B> {
    pub(crate) fn new(options: Options<B>, connection: B::Connection, lock: Option<File>) -> Self {
        Self { options, connection: Some(connection), _lock: lock }
    }

    /// A writer beside the log's, which connects when there is work for it.
    pub(crate) fn unconnected(options: Options<B>) -> Self {
        Self { options, connection: None, _lock: None }
    }

    /// Works until it is told to close or nobody is left to send work.
    pub(crate) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            let failed = match job {
                Job::Append(batch, answer) => tell(answer, self.append(batch).await),
                Job::Apply(change, answer) => tell(answer, self.apply(change).await),
                Job::ApplyApproved(work, answer) => tell(answer, self.apply_approved(work).await),
                Job::Prune(work, answer) => tell(answer, self.prune(work).await),
                Job::Budgets(works, answer) => tell(answer, self.budgets(&works).await),
                Job::Reconcile(work, answer) => tell(answer, self.reconcile(work).await),
                Job::Sweep(broker, at, answer) => tell(answer, self.sweep(broker, at).await),
                Job::PutPolicy(sha256, document, answer) => {
                    tell(answer, self.put_policy(&sha256, &document).await)
                }
                Job::PutProposal(sha256, request, times, answer) => {
                    tell(answer, self.put_proposal(&sha256, &request, times).await)
                }
                Job::PutPerson(row, answer) => tell(answer, self.put_person(&row).await),
                Job::Reseal(rows, answer) => tell(answer, self.reseal(&rows).await),
                Job::EndKeyWork(work, answer) => tell(answer, self.end_key_work(&work).await),
                Job::PutCheckpoint(size, note, answer) => {
                    tell(answer, self.put_checkpoint(size, &note).await)
                }
                Job::DropCheckpoint(size, answer) => tell(answer, self.drop_checkpoint(size).await),
                Job::Lead(holder, term, answer) => tell(answer, self.lead(holder, term).await),
                Job::Resign(holder, answer) => tell(answer, self.resign(holder).await),
                Job::PutSink(row, answer) => tell(answer, self.put_sink(&row).await),
                Job::PutHealth(row, answer) => tell(answer, self.put_health(&row).await),
                Job::ClaimProbe(credential, times, answer) => {
                    tell(answer, self.claim_probe(credential, times).await)
                }

                Job::CountUsage(calls, answer) => tell(answer, self.count_usage(&calls).await),
                Job::ForgetUsage(calls_before, sums_before, answer) => {
                    tell(answer, self.forget_usage(calls_before, sums_before).await)
                }
                Job::Close => break,
            };
            // What waits behind a dead database would wait in vain, each for as long again.
            if failed && refuse_waiting(&mut jobs) {
                break;
            }
        }
        // From here on senders learn that nobody takes their work on.
        drop(jobs);
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the database did not close");
        }
    }

    async fn append(&mut self, batch: Vec<Pending>) -> Result<Vec<Appended>, StoreError> {
        let misplaced =
            |kind| kind == Kind::CredentialTested || (mutates(kind) && !is_its_own_state(kind));
        if batch.iter().any(|pending| misplaced(pending.record.kind())) {
            return Err(StoreError::InvalidRecord(InvalidRecord::Field("kind")));
        }
        Ok(self.transact(Work::Append(batch)).await?.appended)
    }

    async fn apply(&mut self, change: Box<(Change, RecordDraft)>) -> Result<Entry, StoreError> {
        let (of_test, kind) = (matches!(change.0, Change::KeepTest(_)), change.1.kind());
        if of_test != (kind == Kind::CredentialTested) || !(of_test || mutates(kind)) {
            return Err(StoreError::InvalidRecord(InvalidRecord::Field("kind")));
        }
        self.transact_one(Work::Apply(change)).await
    }

    async fn apply_approved(&mut self, work: Box<Approved>) -> Result<Appended, StoreError> {
        let invalid = || StoreError::InvalidRecord(InvalidRecord::Field("kind"));
        let kind = work.record.kind();
        let fits = mutates(kind) && work.change.is_none() == is_its_own_state(kind);
        if work.used.record.kind() != Kind::ApprovalUsed || !fits {
            return Err(invalid());
        }
        let mut carried = self.transact(Work::ApplyApproved(work)).await?;
        carried.appended.pop().ok_or_else(invalid)
    }

    async fn prune(&mut self, work: Box<(u64, RecordDraft)>) -> Result<Entry, StoreError> {
        self.transact_one(Work::Prune(work)).await
    }

    async fn transact_one(&mut self, work: Work) -> Result<Entry, StoreError> {
        match self.transact(work).await?.appended.pop() {
            Some(Appended::Recorded(entry)) => Ok(entry),
            // A change without a record is never committed.
            Some(Appended::Stale { .. }) | None => {
                Err(StoreError::InvalidRecord(InvalidRecord::Field("kind")))
            }
        }
    }

    async fn reconcile(&mut self, work: Box<Reconcile>) -> Result<Vec<Reconciled>, StoreError> {
        Ok(self.transact(Work::Reconcile(work)).await?.reconciled)
    }

    async fn sweep(&mut self, broker: Uid, at: Option<Timestamp>) -> Result<Swept, StoreError> {
        let Carried { appended, more, .. } = self.transact(Work::Sweep(broker, at)).await?;
        let recorded = appended.into_iter().filter_map(|appended| match appended {
            Appended::Recorded(entry) => Some(entry),
            Appended::Stale { .. } => None,
        });
        Ok(Swept { entries: recorded.collect(), more })
    }

    /// Carries budgets' work out. All of it may be done again without counting twice, so what was
    /// lost on the way is.
    async fn budgets(&mut self, works: &[BudgetWork]) -> Result<Vec<BudgetDone>, StoreError> {
        for _ in 1..BUDGET_TRIES {
            match self.try_budgets(works).await {
                Err(StoreError::Unavailable(error)) if may_repeat(&error) => {}
                done => return done,
            }
        }
        self.try_budgets(works).await
    }

    async fn try_budgets(&mut self, works: &[BudgetWork]) -> Result<Vec<BudgetDone>, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => B::connect(&self.options).await.map_err(StoreError::from_sqlx)?,
        };
        let carried = async {
            let begun = B::begin(&mut connection).await.map_err(StoreError::from_sqlx)?;
            let now = begun.as_ref().map(mapping::now).transpose()?;
            let now = now.ok_or_else(|| StoreError::Corrupt("now".to_owned()))?;
            carry_out_budgets::<B>(&mut connection, works, now).await
        };
        let done = carried.await;
        match done {
            Ok(done) => {
                // A connection whose commit has no answer is dropped.
                B::commit(&mut connection).await.map_err(StoreError::unanswered)?;
                self.connection = Some(connection);
                Ok(done)
            }
            Err(error) => {
                self.give_up(connection).await;
                Err(error)
            }
        }
    }

    async fn connected(&mut self) -> Result<B::Connection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => B::connect(&self.options).await.map_err(StoreError::from_sqlx),
        }
    }

    /// Runs one statement outside the log's transactions and says how many rows it touched.
    pub(crate) async fn execute(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, StoreError> {
        let mut connection = self.connected().await?;
        let done = B::execute(&mut connection, sql, values).await;
        if !done.as_ref().is_err_and(is_lost) {
            self.connection = Some(connection);
        }
        done.map_err(StoreError::from_sqlx)
    }

    async fn transact(&mut self, work: Work) -> Result<Carried, StoreError> {
        let batch = Uid::random().map_err(|error| StoreError::unavailable(error.into()))?;
        let (mut connection, head, now) = self.begin().await?;
        let mut sequence = Sequence::after(head, now, batch);
        match carry::<B>(&mut connection, &mut sequence, work).await {
            Ok(carried) if sequence.sealed.is_empty() && !carried.changed => {
                self.give_up(connection).await;
                Ok(carried)
            }
            Ok(carried) => match B::commit(&mut connection).await {
                Ok(()) => {
                    self.connection = Some(connection);
                    Ok(carried)
                }
                Err(error) => {
                    drop(connection);
                    self.settle(&sequence, error).await.map(|()| carried)
                }
            },
            Err(error) => {
                self.give_up(connection).await;
                Err(error)
            }
        }
    }

    /// Begins a transaction that holds the head. A connection that was lost while nothing was under
    /// way says little of the database, so it is replaced once.
    pub(crate) async fn begin(&mut self) -> Result<(B::Connection, Head, Timestamp), StoreError> {
        if let Some(mut connection) = self.connection.take() {
            match B::lock(&mut connection).await {
                Ok(row) => return self.locked(connection, row.as_ref()).await,
                Err(error) if is_lost(&error) && !is_timeout(&error) => {}
                Err(error) => {
                    self.give_up(connection).await;
                    return Err(StoreError::from_sqlx(error));
                }
            }
        }
        let mut connection = B::connect(&self.options).await.map_err(StoreError::from_sqlx)?;
        match B::lock(&mut connection).await {
            Ok(row) => self.locked(connection, row.as_ref()).await,
            Err(error) => {
                self.give_up(connection).await;
                Err(StoreError::from_sqlx(error))
            }
        }
    }

    async fn locked(
        &mut self,
        connection: B::Connection,
        row: Option<&Row>,
    ) -> Result<(B::Connection, Head, Timestamp), StoreError> {
        let read = row
            .ok_or_else(|| StoreError::Corrupt("head".to_owned()))
            .and_then(|row| Ok((mapping::head(row)?, mapping::now(row)?)));
        match read {
            Ok((head, now)) => Ok((connection, head, now)),
            Err(error) => {
                self.give_up(connection).await;
                Err(error)
            }
        }
    }

    /// Rolls back and keeps the connection if that works.
    pub(crate) async fn give_up(&mut self, mut connection: B::Connection) {
        if B::rollback(&mut connection).await.is_ok() {
            self.connection = Some(connection);
        }
    }

    /// Finds out whether a commit whose answer was lost took place.
    ///
    /// The head is locked for it: the lost transaction holds that lock until it has ended one way or
    /// the other, so that what is not found then never comes.
    async fn settle(&mut self, sequence: &Sequence, lost: sqlx::Error) -> Result<(), StoreError> {
        const SQL: &str = "\
            SELECT count(*) AS found FROM record WHERE idx >= $1 AND idx < $2 AND batch = $3";
        // What left no record is found by nothing, and is done again when it is due.
        if sequence.sealed.is_empty() {
            self.connection = None;
            return Err(StoreError::unanswered(lost));
        }
        tracing::warn!(error = &lost as &dyn std::error::Error, "a commit's answer was lost");
        self.connection = None;
        let (mut connection, _, _) = self.begin().await?;
        let end = sequence.frontier().size();
        let values = [sequence.first.into(), end.into(), Value::Bytes(sequence.batch.as_ref())];
        let found = B::fetch(&mut connection, SQL, &values).await;
        self.give_up(connection).await;
        match found.map_err(StoreError::from_sqlx)?.first().map(mapping::count) {
            Some(Ok(found)) if found == end - sequence.first => Ok(()),
            Some(Ok(_)) | None => Err(StoreError::unanswered(lost)),
            Some(Err(error)) => Err(error),
        }
    }
}

/// Whether the record of a change is all that is kept of it.
fn is_its_own_state(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::LeaseRevoked
            | Kind::SessionRevoked
            | Kind::IdentityBlocked
            | Kind::IdentityUnblocked
            | Kind::CheckpointGivenUp
            | Kind::ApprovalRequested
            | Kind::ApprovalGiven
            | Kind::ApprovalDeclined
            | Kind::PolicyAdmitted
    )
}

/// Does the work in the transaction that is open, up to the commit.
async fn carry<B: Backend>(
    connection: &mut B::Connection,
    sequence: &mut Sequence,
    work: Work,
) -> Result<Carried, StoreError> {
    let mut carried = Carried::default();
    carried.appended = match work {
        Work::Append(batch) => {
            sequence.changes = Changes::read::<B>(connection, &sequence.head, &batch).await?;
            batch.into_iter().map(|pending| sequence.append(pending)).collect()
        }
        Work::Apply(change) => {
            let (change, record) = *change;
            carry_out::<B>(connection, &change).await?;
            vec![Appended::Recorded(sequence.record(record))]
        }
        Work::ApplyApproved(work) => {
            let Approved { used, change, record } = *work;
            match sequence.append(used) {
                stale @ Appended::Stale { .. } => vec![stale],
                Appended::Recorded(_) => {
                    if let Some(change) = change {
                        carry_out::<B>(connection, &change).await?;
                    }
                    vec![Appended::Recorded(sequence.record(record))]
                }
            }
        }
        Work::Prune(work) => {
            let (before, record) = *work;
            prune::prune::<B>(connection, before, sequence.first).await?;
            vec![Appended::Recorded(sequence.record(record))]
        }
        Work::Reconcile(work) => {
            let now = work.at.unwrap_or(sequence.head.time);
            let (reconciled, records) = sweep::reconcile::<B>(connection, &work, now).await?;
            carried.reconciled = reconciled;
            records.into_iter().map(|it| Appended::Recorded(sequence.record(it))).collect()
        }
        Work::Sweep(broker, at) => {
            let now = at.unwrap_or(sequence.head.time);
            let due = sweep::sweep::<B>(connection, broker, now).await?;
            (carried.changed, carried.more) = (due.changed, due.more);
            due.records.into_iter().map(|it| Appended::Recorded(sequence.record(it))).collect()
        }
    };
    if !sequence.sealed.is_empty() {
        B::write(connection, sequence).await.map_err(StoreError::from_sqlx)?;
        write_nodes::<B>(connection, sequence).await.map_err(StoreError::from_sqlx)?;
    }
    Ok(carried)
}

/// How often budgets' work is begun before it is given up.
const BUDGET_TRIES: usize = 3;

/// Whether a transaction failed in a way that says nothing against doing it again: its connection
/// was lost, or another's transaction was in the way.
fn may_repeat(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // serialization_failure, deadlock_detected, unique_violation.
    let in_the_way = code.is_some_and(|code| matches!(&*code, "40001" | "40P01" | "23505"));
    in_the_way || (is_lost(error) && !is_timeout(error))
}

/// There is one for every 256 records, so that most transactions write none.
async fn write_nodes<B: Backend>(
    connection: &mut B::Connection,
    sequence: &Sequence,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "INSERT INTO tree_node (level, idx, hash) VALUES ($1, $2, $3)";
    for (node, hash) in &sequence.nodes {
        let values = [node.level.into(), node.index.into(), hash.as_slice().into()];
        B::execute(connection, SQL, &values).await?;
    }
    Ok(())
}

/// Hands the outcome over and says whether the database was unavailable.
fn tell<T>(answer: Answer<T>, outcome: Result<T, StoreError>) -> bool {
    let failed = matches!(outcome, Err(StoreError::Unavailable(_)));
    // Whoever asked may have stopped waiting; what was done stays done.
    let _ = answer.send(outcome);
    failed
}

/// Refuses all that waits now, by dropping the ways back, and says whether to close.
fn refuse_waiting(jobs: &mut mpsc::Receiver<Job>) -> bool {
    let mut close = false;
    for _ in 0..jobs.len() {
        close |= matches!(jobs.try_recv(), Ok(Job::Close));
    }
    close
}
