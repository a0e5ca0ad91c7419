use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use domain::Uid;
use sqlx::{
    ConnectOptions as _, Connection as _, Sqlite, SqliteConnection, SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    StoreError,
    backend::{Backend, Row, Value, bind},
    budgets::{lock_accounts, lock_allowance},
    health::{claim_probe, put_health},
    sequence::Sequence,
    shares::SqlShares,
    sql_store::{Budgeting, SqlStore},
    usage::{add_sums, keep_calls},
};

/// The store of one broker, in one file. A second process that opens the file is refused.
pub type SqliteStore = SqlStore<Sqlite>;

impl SqliteStore {
    /// Opens the file; makes it when it is not there, readable by its owner only.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| {
            StoreError::Misconfigured(format!("`{}` {what}: {error}", path.display()))
        };
        let lock = prepare(path).map_err(|error| wrong("cannot be made", &error))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => wrong("is in use", &"one process at a time can open it"),
            TryLockError::Error(error) => wrong("cannot be locked", &error),
        })?;
        let options = options().filename(path).journal_mode(SqliteJournalMode::Wal);
        let connection =
            Sqlite::connect(&options).await.map_err(|error| wrong("cannot be opened", &error))?;
        Self::start_on(options, connection, Some(lock)).await
    }

    /// A store that is gone when it is dropped, for tests.
    pub async fn in_memory() -> Result<Self, StoreError> {
        // A name that begins with `/` is one database for all connections of this process.
        let name = Uid::random().map_err(|error| StoreError::unavailable(error.into()))?;
        let options = options().filename(format!("/{name}")).vfs("memdb");
        let connection = Sqlite::connect(&options).await.map_err(StoreError::from_sqlx)?;
        let store = Self::start_on(options, connection, None).await?;
        // The database lives as long as some connection to it; this one stays open in the pool.
        store.keep_a_reader().await?;
        Ok(store)
    }

    /// A store of shares in a file of its own, made when it is not there. Several processes may use it.
    pub async fn open_shares(path: &Path) -> Result<SqlShares<Sqlite>, StoreError> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| {
            StoreError::Misconfigured(format!("`{}` {what}: {error}", path.display()))
        };
        prepare(path).map_err(|error| wrong("cannot be made", &error))?;
        let options = options().filename(path).journal_mode(SqliteJournalMode::Wal);
        let mut connection =
            Sqlite::connect(&options).await.map_err(|error| wrong("cannot be opened", &error))?;
        SHARE_MIGRATIONS.run(&mut connection).await.map_err(StoreError::migrating)?;
        let pool = readers(&options);
        // Before that one closes: the last of a file closes by syncing it, and locks others out meanwhile.
        pool.acquire().await.map(drop).map_err(StoreError::from_sqlx)?;
        connection.close().await.map_err(StoreError::from_sqlx)?;
        // What is deleted is overwritten in its page at once, and in the journal with this.
        Ok(SqlShares::new(pool, options, "PRAGMA wal_checkpoint(TRUNCATE)"))
    }

    /// A store of shares that is gone when it is dropped, for tests.
    pub async fn shares_in_memory() -> Result<SqlShares<Sqlite>, StoreError> {
        let name = Uid::random().map_err(|error| StoreError::unavailable(error.into()))?;
        let options = options().filename(format!("/{name}")).vfs("memdb");
        let mut connection = Sqlite::connect(&options).await.map_err(StoreError::from_sqlx)?;
        SHARE_MIGRATIONS.run(&mut connection).await.map_err(StoreError::migrating)?;
        let pool = readers(&options);
        // The database lives as long as some connection to it.
        pool.acquire().await.map(drop).map_err(StoreError::from_sqlx)?;
        Ok(SqlShares::new(pool, options, "PRAGMA wal_checkpoint(TRUNCATE)"))
    }

    async fn start_on(
        options: SqliteConnectOptions,
        mut connection: SqliteConnection,
        lock: Option<File>,
    ) -> Result<Self, StoreError> {
        MIGRATIONS.run(&mut connection).await.map_err(StoreError::migrating)?;
        let readers = readers(&options);
        Self::start(readers, options, connection, lock, Budgeting::OfTheLogsWriter).await
    }
}

impl Backend for Sqlite {
    const NOW: &'static str = "SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER) AS now";

    const LEAD: &'static str = "\
        INSERT INTO leader (one, holder, until) \
        VALUES (1, $1, $2 + CAST(round(unixepoch('subsec') * 1000) AS INTEGER)) \
        ON CONFLICT (one) DO UPDATE SET holder = excluded.holder, until = excluded.until \
        WHERE leader.holder = excluded.holder OR leader.until < excluded.until - $2 \
        OR leader.until > excluded.until";

    const PUT_HEALTH: &'static str =
        put_health!("CAST(round(unixepoch('subsec') * 1000) AS INTEGER)");

    const CLAIM_PROBE: &'static str =
        claim_probe!("CAST(round(unixepoch('subsec') * 1000) AS INTEGER)");
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const KEEP_CALLS: &'static str = keep_calls!("unhex(", ")", "json_each($1)");
    const ADD_SUMS: &'static str = add_sums!("json_each($1)");
    const ONE_WRITER: bool = true;
    // Who writes has the database alone.
    const LOCK_ALLOWANCE: &'static str = lock_allowance!("");
    const LOCK_ACCOUNTS: &'static str = lock_accounts!("");

    async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
        options.connect().await
    }

    async fn execute(
        connection: &mut SqliteConnection,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, sqlx::Error> {
        Ok(bind!(sqlx::query(sql), values).execute(connection).await?.rows_affected())
    }

    async fn fetch(
        connection: &mut SqliteConnection,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let rows = bind!(sqlx::query(sql), values).fetch_all(connection).await?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    async fn begin(connection: &mut SqliteConnection) -> Result<Option<Row>, sqlx::Error> {
        const SQL: &str = "\
            BEGIN IMMEDIATE; SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER) AS now";
        Ok(sqlx::query(SQL).fetch_all(connection).await?.into_iter().next().map(Row::Sqlite))
    }

    async fn lock(connection: &mut SqliteConnection) -> Result<Option<Row>, sqlx::Error> {
        // Each call to the driver is a trip to another thread: two statements share one.
        const SQL: &str = "\
            BEGIN IMMEDIATE; \
            SELECT size, time, frontier, changed, \
                CAST(round(unixepoch('subsec') * 1000) AS INTEGER) AS now \
            FROM head";
        Ok(sqlx::query(SQL).fetch_all(connection).await?.into_iter().next().map(Row::Sqlite))
    }

    async fn write(
        connection: &mut SqliteConnection,
        sequence: &Sequence,
    ) -> Result<(), sqlx::Error> {
        let frontier = sequence.frontier().to_bytes();
        let head: [Value<'_>; 4] = [
            sequence.frontier().size().into(),
            sequence.head.time.into(),
            frontier.as_slice().into(),
            sequence.head.changed.into(),
        ];
        for records in sequence.sealed.chunks(256) {
            let mut query = bind!(sqlx::query(statement(records.len())), &head);
            for record in records {
                query =
                    bind!(query, &[record.entry.index.into(), record.entry.body.as_slice().into()])
                        .bind(record.leaf.as_slice())
                        .bind(record.kind)
                        .bind(record.mutates)
                        .bind(record.tenant.as_deref())
                        .bind(record.lease_hash.as_deref())
                        .bind(record.expires_at)
                        .bind(sequence.batch.as_ref());
            }
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }

    async fn commit(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        sqlx::query("COMMIT").execute(connection).await.map(drop)
    }

    async fn rollback(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        match sqlx::query("ROLLBACK").execute(connection).await {
            // SQLITE_ERROR: some failures have ended the transaction already.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("1") => Ok(()),
            other => other.map(drop),
        }
    }
}

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");
static SHARE_MIGRATIONS: Migrator = sqlx::migrate!("migrations/shares/sqlite");

fn readers(options: &SqliteConnectOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_lazy_with(options.clone())
}

const READERS: u32 = 4;

/// How long to wait for a reader, and for locks, which are held for as long as the disk takes to sync.
const WAIT: Duration = Duration::from_secs(3);

/// What holds for every connection.
fn options() -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .create_if_missing(true)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(WAIT)
        // What is deleted is overwritten: a deleted envelope must not linger in a free page.
        .pragma("secure_delete", "ON")
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

/// Makes directory, database and lock file as far as they are not there. The database is made here
/// because `SQLite` would let others read it; the files beside it take on its mode.
fn prepare(path: &Path) -> std::io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut made = OpenOptions::new();
    made.create(true).truncate(false).read(true).write(true).mode(0o600);
    made.open(path)?;
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    made.open(PathBuf::from(lock))
}

/// One row of parameters, and powers of two of them.
macro_rules! rows {
    () => { "(?, ?, ?, ?, ?, ?, ?, ?, ?)" };
    (x2 $($rest:tt)*) => { concat!(rows!($($rest)*), ",", rows!($($rest)*)) };
}

/// Parameters that are not bound are NULL, so that a statement serves fewer records as well.
macro_rules! statement {
    ($($twice:tt)*) => {
        concat!(
            "UPDATE head SET size = ?, time = ?, frontier = ?, changed = ?; ",
            "INSERT INTO record (idx, body, leaf_hash, kind, mutates, tenant, lease_hash, ",
            "expires_at, batch) SELECT * FROM (VALUES ", rows!($($twice)*), ") ",
            "WHERE column1 IS NOT NULL"
        )
    };
}

/// A statement for so many records. There are nine, so that all of them stay prepared.
fn statement(records: usize) -> &'static str {
    match records {
        0..=1 => statement!(),
        2 => statement!(x2),
        3..=4 => statement!(x2 x2),
        5..=8 => statement!(x2 x2 x2),
        9..=16 => statement!(x2 x2 x2 x2),
        17..=32 => statement!(x2 x2 x2 x2 x2),
        33..=64 => statement!(x2 x2 x2 x2 x2 x2),
        65..=128 => statement!(x2 x2 x2 x2 x2 x2 x2),
        _ => statement!(x2 x2 x2 x2 x2 x2 x2 x2),
    }
}
