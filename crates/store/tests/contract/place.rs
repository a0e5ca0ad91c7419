use std::sync::Arc;

use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use store::{PostgresStore, ShareStore, SqliteStore, Store};
use tempfile::TempDir;

/// Where the store of one test lies.
pub(crate) enum Place {
    File(TempDir),
    Server(String),
}

/// Something beside the store that holds its head locked.
pub(crate) enum Intruder {
    File(SqliteConnection),
    Server(PgConnection),
}

impl Place {
    pub(crate) fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    /// A schema of its own, if there is a server.
    pub(crate) async fn server() -> Option<Self> {
        let url = server_url()?;
        Some(Self::Server(PostgresStore::new_schema(&url).await.unwrap()))
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::File(directory) => {
                format!("sqlite://{}", directory.path().join("strongroom.db").display())
            }
            Self::Server(url) => url.clone(),
        }
    }

    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        match self {
            Self::File(directory) => {
                let path = directory.path().join("strongroom.db");
                Arc::new(SqliteStore::open(&path).await.unwrap())
            }
            Self::Server(url) => Arc::new(PostgresStore::connect(url, 4).await.unwrap()),
        }
    }

    /// The store of shares of one test, which has no other store then.
    pub(crate) async fn open_shares(&self) -> Arc<dyn ShareStore> {
        match self {
            Self::File(directory) => {
                let path = directory.path().join("shares.db");
                Arc::new(SqliteStore::open_shares(&path).await.unwrap())
            }
            Self::Server(url) => Arc::new(PostgresStore::connect_shares(url, 4).await.unwrap()),
        }
    }

    /// Another broker's store of the same place; the same one where one process at a time may open it.
    pub(crate) async fn beside(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        match self {
            Self::File(_) => Arc::clone(store),
            Self::Server(_) => self.open().await,
        }
    }

    /// Does to the database what no store would.
    pub(crate) async fn tamper(&self, sql: &'static str) {
        match self {
            Self::File(_) => {
                let mut connection = SqliteConnection::connect(&self.url()).await.unwrap();
                connection.execute(sql).await.unwrap();
                connection.close().await.unwrap();
            }
            Self::Server(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                connection.execute(sql).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// How many bytes the log takes up, without what is free.
    pub(crate) async fn stored(&self) -> i64 {
        const FILE: &str = "\
            SELECT (page_count - freelist_count) * page_size FROM pragma_page_count(), \
                pragma_freelist_count(), pragma_page_size()";
        // The sum of rows: what other tests are reading keeps dead ones from being vacuumed.
        const SERVER: &str = "\
            SELECT (SELECT sum(pg_column_size(record.*)) FROM record)::bigint \
                + (SELECT coalesce(sum(octet_length(leaves)), 0) FROM pruned_bundle)::bigint";
        match self {
            Self::File(_) => {
                let mut connection = SqliteConnection::connect(&self.url()).await.unwrap();
                sqlx::query_scalar(FILE).fetch_one(&mut connection).await.unwrap()
            }
            Self::Server(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::query_scalar(SERVER).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    /// Locks the head from outside.
    pub(crate) async fn intrude(&self) -> Intruder {
        match self {
            Self::File(_) => {
                let mut connection = SqliteConnection::connect(&self.url()).await.unwrap();
                connection.execute("BEGIN IMMEDIATE").await.unwrap();
                Intruder::File(connection)
            }
            Self::Server(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                connection.execute("BEGIN").await.unwrap();
                connection.execute("SELECT * FROM head FOR UPDATE").await.unwrap();
                Intruder::Server(connection)
            }
        }
    }
}

impl Intruder {
    pub(crate) async fn leave(self) {
        match self {
            Self::File(connection) => connection.close().await.unwrap(),
            Self::Server(connection) => connection.close().await.unwrap(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "which server to test with is a matter of the test run"
)]
pub(crate) fn server_url() -> Option<String> {
    std::env::var("TEST_POSTGRES_URL").ok()
}
