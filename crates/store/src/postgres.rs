use std::{str::FromStr as _, time::Duration};

use domain::Uid;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool,
    Postgres,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    StoreError,
    backend::{Backend, Row, Value, bind},
    budgets::{lock_accounts, lock_allowance},
    error::timed_out,
    health::{claim_probe, put_health},
    sequence::Sequence,
    shares::SqlShares,
    sql_store::{Budgeting, SqlStore},
    usage::{add_sums, keep_calls},
};

/// The store of many brokers.
pub type PostgresStore = SqlStore<Postgres>;

impl PostgresStore {
    /// Connects, with at most so many connections; one of them writes, one counts usage, one what is
    /// spent, one listens for other brokers' changes, and there are at least five.
    ///
    /// The URL may hold a password and appears in no error.
    pub async fn connect(url: &str, connections: u32) -> Result<Self, StoreError> {
        let options = options(url)?
            .application_name("strongroom")
            .options([
                ("lock_timeout", "1500"),
                // A broker that is gone must not hold the head.
                ("idle_in_transaction_session_timeout", "5000"),
            ])
            .disable_statement_logging();
        let mut connection = Postgres::connect(&options).await.map_err(StoreError::from_sqlx)?;
        MIGRATIONS.run(&mut connection).await.map_err(StoreError::migrating)?;
        let readers = PgPoolOptions::new()
            .max_connections(connections.saturating_sub(4).max(1))
            .acquire_timeout(WAIT)
            // Not for the writer: a timeout that ends a commit's wait for a standby lets records be
            // seen that a failover then loses.
            .connect_lazy_with(options.clone().options([("statement_timeout", "2000")]));
        let mut store =
            Self::start(readers, options.clone(), connection, None, Budgeting::ByItself).await?;
        let (count, wakeups) = watch::channel(0);
        let mut listening = JoinSet::new();
        listening.spawn(listen(options, count));
        store.listen(wakeups, listening);
        Ok(store)
    }

    /// A store of shares. The URL may hold a password and appears in no error.
    pub async fn connect_shares(
        url: &str,
        connections: u32,
    ) -> Result<SqlShares<Postgres>, StoreError> {
        let options = options(url)?
            .application_name("strongroom-shares")
            .options([("lock_timeout", "1500")])
            .disable_statement_logging();
        let mut connection = Postgres::connect(&options).await.map_err(StoreError::from_sqlx)?;
        SHARE_MIGRATIONS.run(&mut connection).await.map_err(StoreError::migrating)?;
        let readers = PgPoolOptions::new()
            .max_connections(connections.max(1))
            .acquire_timeout(WAIT)
            .connect_lazy_with(options.clone().options([("statement_timeout", "2000")]));
        // Takes dead rows out of the table. What the journal has of them goes with its segments.
        Ok(SqlShares::new(readers, options, "VACUUM share"))
    }

    /// Makes a schema on a server and gives the URL of a store in it, for tests.
    pub async fn new_schema(url: &str) -> Result<String, StoreError> {
        let name = Uid::random().map_err(|error| StoreError::unavailable(error.into()))?;
        let sql = AssertSqlSafe(format!("CREATE SCHEMA test_{name}"));
        let made = async { PgConnection::connect(url).await?.execute(sql).await };
        made.await.map_err(StoreError::from_sqlx)?;
        let separator = if url.contains('?') { '&' } else { '?' };
        Ok(format!("{url}{separator}options[search_path]=test_{name}"))
    }
}

/// Reads a URL, of which nothing appears in an error.
pub(crate) fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    PgConnectOptions::from_str(url)
        .map_err(|_| StoreError::Misconfigured("the PostgreSQL URL does not parse".to_owned()))
}

impl Backend for Postgres {
    const NOW: &'static str =
        "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now";

    const LEAD: &'static str = "\
        INSERT INTO leader (one, holder, until) \
        VALUES (1, $1, $2 + floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) \
        ON CONFLICT (one) DO UPDATE SET holder = excluded.holder, until = excluded.until \
        WHERE leader.holder = excluded.holder OR leader.until < excluded.until - $2 \
        OR leader.until > excluded.until";

    const PUT_HEALTH: &'static str =
        put_health!("floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint");

    const CLAIM_PROBE: &'static str =
        claim_probe!("floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint");
    const BEGIN: &'static str = "BEGIN";
    const KEEP_CALLS: &'static str = keep_calls!(
        "decode(",
        ", 'hex')",
        "jsonb_array_elements(CAST($1 AS JSONB)) AS rows (value)"
    );
    const ADD_SUMS: &'static str =
        add_sums!("jsonb_array_elements(CAST($1 AS JSONB)) AS rows (value)");
    const ONE_WRITER: bool = false;
    const LOCK_ALLOWANCE: &'static str = lock_allowance!(" FOR UPDATE");
    const LOCK_ACCOUNTS: &'static str = lock_accounts!(" FOR UPDATE");

    async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
        // A database may have a weaker setting of its own; a stronger one is left alone.
        const SQL: &str = "\
            SELECT set_config('synchronous_commit', 'on', false) \
            WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";
        within(WAIT, async {
            let mut connection = options.connect().await?;
            sqlx::query(SQL).execute(&mut connection).await?;
            Ok(connection)
        })
        .await
    }

    async fn execute(
        connection: &mut PgConnection,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<u64, sqlx::Error> {
        let done = within(WAIT, bind!(sqlx::query(sql), values).execute(connection)).await?;
        Ok(done.rows_affected())
    }

    async fn fetch(
        connection: &mut PgConnection,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, sqlx::Error> {
        let rows = within(WAIT, bind!(sqlx::query(sql), values).fetch_all(connection)).await?;
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }

    async fn begin(connection: &mut PgConnection) -> Result<Option<Row>, sqlx::Error> {
        within(WAIT, async {
            sqlx::query("BEGIN").execute(&mut *connection).await?;
            Ok(sqlx::query(Self::NOW).fetch_optional(connection).await?.map(Row::Postgres))
        })
        .await
    }

    async fn lock(connection: &mut PgConnection) -> Result<Option<Row>, sqlx::Error> {
        const SQL: &str = "\
            SELECT size, time, frontier, changed, \
                floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now \
            FROM head FOR UPDATE";
        within(WAIT, async {
            sqlx::query("BEGIN").execute(&mut *connection).await?;
            Ok(sqlx::query(SQL).fetch_optional(connection).await?.map(Row::Postgres))
        })
        .await
    }

    async fn write(connection: &mut PgConnection, sequence: &Sequence) -> Result<(), sqlx::Error> {
        const SQL: &str = "\
            WITH moved AS (UPDATE head SET size = $1, time = $2, frontier = $3, changed = $4) \
            INSERT INTO record (idx, batch, body, leaf_hash, kind, mutates, tenant, lease_hash, \
                expires_at) \
            SELECT $5 + place - 1, $6, body, leaf_hash, kind, mutates, tenant, lease_hash, \
                expires_at \
            FROM unnest($7::bytea[], $8::bytea[], $9::bigint[], $10::boolean[], $11::text[], \
                $12::bytea[], $13::bigint[]) WITH ORDINALITY \
                AS new (body, leaf_hash, kind, mutates, tenant, lease_hash, expires_at, place)";
        let frontier = sequence.frontier().to_bytes();
        let head: [Value<'_>; 6] = [
            sequence.frontier().size().into(),
            sequence.head.time.into(),
            frontier.as_slice().into(),
            sequence.head.changed.into(),
            sequence.first.into(),
            sequence.batch.as_ref().into(),
        ];
        let new = || sequence.sealed.iter();
        let query = bind!(sqlx::query(SQL), &head)
            .bind(new().map(|record| record.entry.body.as_slice()).collect::<Vec<_>>())
            .bind(new().map(|record| record.leaf.as_slice()).collect::<Vec<_>>())
            .bind(new().map(|record| record.kind).collect::<Vec<_>>())
            .bind(new().map(|record| record.mutates).collect::<Vec<_>>())
            .bind(new().map(|record| record.tenant.as_deref()).collect::<Vec<_>>())
            .bind(new().map(|record| record.lease_hash.as_deref()).collect::<Vec<_>>())
            .bind(new().map(|record| record.expires_at).collect::<Vec<_>>());
        within(WAIT, query.execute(&mut *connection)).await?;
        // Told when this commits, and only then. Not for grants, which nobody waits for: such
        // transactions commit one at a time, server-wide.
        if sequence.sealed.iter().any(|record| record.mutates) {
            within(WAIT, sqlx::raw_sql(NOTIFY).execute(connection)).await?;
        }
        Ok(())
    }

    async fn commit(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        within(WAIT_FOR_COMMIT, sqlx::raw_sql("COMMIT").execute(connection)).await.map(drop)
    }

    async fn rollback(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        within(WAIT, sqlx::raw_sql("ROLLBACK").execute(connection)).await.map(drop)
    }
}

/// Where changes are told of. One for all deployments on a server's database: to be woken once too
/// often costs one read.
const CHANNEL: &str = "strongroom_changes";
const NOTIFY: &str = "NOTIFY strongroom_changes";

/// Counts what other brokers tell of, for as long as it is polled. What is missed while the
/// connection is lost, whoever polls the log finds.
async fn listen(options: PgConnectOptions, count: watch::Sender<u64>) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(WAIT)
        .connect_lazy_with(options);
    loop {
        if let Err(error) = hear(&pool, &count).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "not listening for changes");
        }
        // After a loss too, because something may have been missed.
        count.send_modify(|count| *count += 1);
        sleep(LISTEN_AGAIN).await;
    }
}

async fn hear(pool: &PgPool, count: &watch::Sender<u64>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    // What was told before this is not heard any more.
    count.send_modify(|count| *count += 1);
    while listener.try_recv().await?.is_some() {
        count.send_modify(|count| *count += 1);
    }
    Ok(())
}

/// How long after a loss to listen again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");
static SHARE_MIGRATIONS: Migrator = sqlx::migrate!("migrations/shares/postgres");

const WAIT: Duration = Duration::from_secs(2);

/// A standby may be slow. After this the connection counts as lost, which does not end the commit:
/// the outcome is looked up as for any lost connection.
const WAIT_FOR_COMMIT: Duration = Duration::from_secs(10);

/// Gives up on a server that is silent. The connection must not be used any more then: the answer
/// may still come.
async fn within<T>(
    wait: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>> + Send,
) -> Result<T, sqlx::Error> {
    timeout(wait, answer).await.unwrap_or_else(|_| Err(timed_out()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_weaker_synchronous_commit_is_raised_and_a_stronger_one_kept() {
        #[expect(clippy::disallowed_methods, reason = "the test run names the server")]
        let Ok(url) = std::env::var("TEST_POSTGRES_URL") else { return };
        for (set, expected) in [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")] {
            let options = PgConnectOptions::from_str(&url).unwrap();
            let options = options.options([("synchronous_commit", set)]);
            let mut connection = Postgres::connect(&options).await.unwrap();
            let found: String = sqlx::query_scalar("SHOW synchronous_commit")
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(found, expected);
        }
    }
}
