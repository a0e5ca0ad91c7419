mod store;

use std::{
    fmt,
    fs::File,
    sync::{Mutex, PoisonError},
};

use domain::Uid;
use sqlx::Pool;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    Legible, StoreError,
    backend::{Backend, Options, Row, Value},
    budgets::queue::{self, Queued},
    error::is_lost,
    mapping,
    writer::{Answer, Job, QUEUE, Writer},
};

/// Who carries out the transactions of budgets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Budgeting {
    /// The one who writes the log, since there can be one writer only.
    OfTheLogsWriter,
    /// Another one, on a connection of its own, so that the two do not wait for each other.
    ByItself,
}

/// The store over either database: a pool that reads, and one task that writes.
pub struct SqlStore<B: Backend> {
    readers: Pool<B>,
    writer: mpsc::Sender<Job>,
    /// What need not wait for the log, nor the log for it. The writer too, where only one can write.
    aside: mpsc::Sender<Job>,
    /// The way to the transactions of budgets.
    pub(crate) budgets: mpsc::Sender<Queued>,
    /// Who carries these out, when that is not the writer.
    counter: Option<mpsc::Sender<Job>>,
    /// The task that puts them together.
    batching: Mutex<JoinSet<()>>,
    task: Mutex<JoinSet<()>>,
    deployment: Uid,
    wakeups: Option<watch::Receiver<u64>>,
    /// The task that listens for other brokers' changes; it ends with this.
    listening: Mutex<JoinSet<()>>,
}

impl<B: Backend> SqlStore<B> {
    /// Takes over a connection whose tables are up to date. The lock, if there is one, is let go
    /// when the connection is closed.
    pub(crate) async fn start(
        readers: Pool<B>,
        options: Options<B>,
        mut connection: B::Connection,
        lock: Option<File>,
        budgeting: Budgeting,
    ) -> Result<Self, StoreError> {
        let deployment = deployment::<B>(&mut connection).await?;
        let (writer, jobs) = mpsc::channel(QUEUE);
        let mut task = JoinSet::new();
        let aside = if B::ONE_WRITER {
            writer.clone()
        } else {
            let (aside, jobs) = mpsc::channel(QUEUE);
            task.spawn(Writer::<B>::unconnected(options.clone()).run(jobs));
            aside
        };
        let counter = match budgeting {
            Budgeting::OfTheLogsWriter => None,
            Budgeting::ByItself => {
                let (counter, jobs) = mpsc::channel(QUEUE);
                task.spawn(Writer::<B>::unconnected(options.clone()).run(jobs));
                Some(counter)
            }
        };
        task.spawn(Writer::<B>::new(options, connection, lock).run(jobs));
        let (budgets, queue) = mpsc::channel(queue::QUEUE);
        let mut batching = JoinSet::new();
        let counts = counter.clone().unwrap_or_else(|| writer.clone());
        batching.spawn(queue::batch(queue, counts));
        Ok(Self {
            readers,
            writer,
            aside,
            budgets,
            counter,
            batching: Mutex::new(batching),
            task: Mutex::new(task),
            deployment,
            wakeups: None,
            listening: Mutex::default(),
        })
    }

    /// Tells of changes that the task hears of, and ends it with itself.
    pub(crate) fn listen(&mut self, wakeups: watch::Receiver<u64>, listening: JoinSet<()>) {
        self.wakeups = Some(wakeups);
        self.listening = Mutex::new(listening);
    }

    /// Connects one reader, unless one is connected.
    pub(crate) async fn keep_a_reader(&self) -> Result<(), StoreError> {
        self.readers.acquire().await.map(drop).map_err(StoreError::from_sqlx)
    }

    pub(crate) async fn fetch(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let mut connection = self.readers.acquire().await.map_err(StoreError::from_sqlx)?;
        let rows = B::fetch(&mut connection, sql, values).await;
        if rows.as_ref().is_err_and(is_lost) {
            drop(connection.detach());
        }
        rows.map_err(StoreError::from_sqlx)
    }

    pub(crate) async fn all<T>(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
        map: fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.fetch(sql, values).await?.iter().map(map).collect()
    }

    /// All rows of a table, as far as they can be read.
    pub(crate) async fn legible<T>(
        &self,
        sql: &'static str,
        map: fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Legible<T>, StoreError> {
        let mut found = Legible { rows: Vec::new(), illegible: Vec::new() };
        for row in self.fetch(sql, &[]).await? {
            match map(&row) {
                Ok(row) => found.rows.push(row),
                Err(StoreError::Corrupt(what)) => found.illegible.push(what),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    pub(crate) async fn one<T>(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
        map: fn(&Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.fetch(sql, values).await?.first().map(map).transpose()
    }

    pub(crate) async fn write<T>(
        &self,
        job: impl FnOnce(Answer<T>) -> Job,
    ) -> Result<T, StoreError> {
        hand(&self.writer, job).await
    }
}

impl<B: Backend> fmt::Debug for SqlStore<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore")
            .field("database", &B::NAME)
            .field("deployment", &self.deployment)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Drop for SqlStore<B> {
    fn drop(&mut self) {
        // Not aborted: the writer ends by itself once its work is done and nobody can send more.
        self.task.get_mut().unwrap_or_else(PoisonError::into_inner).detach_all();
        self.batching.get_mut().unwrap_or_else(PoisonError::into_inner).detach_all();
    }
}

/// Hands work to a writer and waits for its outcome.
async fn hand<T>(
    writer: &mpsc::Sender<Job>,
    job: impl FnOnce(Answer<T>) -> Job,
) -> Result<T, StoreError> {
    let (answer, outcome) = oneshot::channel();
    writer.send(job(answer)).await.map_err(|_| StoreError::not_taken_on())?;
    outcome.await.map_err(|_| StoreError::not_taken_on())?
}

/// The deployment's id. The first to open a new database makes it.
async fn deployment<B: Backend>(connection: &mut B::Connection) -> Result<Uid, StoreError> {
    const READ: &str = "SELECT deployment FROM head";
    const MAKE: &str = "\
        INSERT INTO head (one, deployment, size, time, frontier, changed) \
        VALUES (1, $1, 0, 0, $2, 0) ON CONFLICT (one) DO NOTHING";
    let rows = B::fetch(connection, READ, &[]).await.map_err(StoreError::from_sqlx)?;
    if let Some(row) = rows.first() {
        return mapping::deployment(row);
    }
    let uid = Uid::random().map_err(|error| StoreError::unavailable(error.into()))?;
    let empty = audit::Frontier::default().to_bytes();
    let values = [uid.as_ref().into(), empty.as_slice().into()];
    B::execute(connection, MAKE, &values).await.map_err(StoreError::from_sqlx)?;
    let rows = B::fetch(connection, READ, &[]).await.map_err(StoreError::from_sqlx)?;
    rows.first().map_or_else(|| Err(StoreError::Corrupt("head".to_owned())), mapping::deployment)
}
