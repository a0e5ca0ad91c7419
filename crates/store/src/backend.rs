use domain::Timestamp;
use sqlx::{
    Database, Decode, Row as _, Type,
    postgres::{PgRow, Postgres},
    sqlite::{Sqlite, SqliteRow},
};

use crate::{StoreError, sequence::Sequence};

/// What differs between the two databases. All other SQL is written once, for both.
pub trait Backend: Database + Sized {
    /// Reads the database's clock, as `now`.
    const NOW: &'static str;

    /// Makes a holder (`$1`) the leader for so many milliseconds (`$2`), unless another one is.
    const LEAD: &'static str;

    /// Keeps how a credential fares.
    const PUT_HEALTH: &'static str;

    /// Claims the probe of a credential (`$1`) whose rest began at a time (`$2`), now (`$3`), if an
    /// older one was sent before another time (`$4`).
    const CLAIM_PROBE: &'static str;
    /// Begins a transaction that will write.
    const BEGIN: &'static str;

    /// Keeps the calls of a JSON array (`$1`) that are new, and gives their ids.
    const KEEP_CALLS: &'static str;

    /// Adds the rows of a JSON array (`$1`) to the sums of calls.
    const ADD_SUMS: &'static str;

    /// Whether only one connection can write at a time.
    const ONE_WRITER: bool;

    /// Opens a connection that meets every promise of durability.
    fn connect(
        options: &Options<Self>,
    ) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;

    /// Runs one statement and says how many rows it touched.
    fn execute(
        connection: &mut Self::Connection,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Runs one query.
    fn fetch(
        connection: &mut Self::Connection,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, sqlx::Error>> + Send;

    /// Begins a transaction, locks the head and reads it together with the database's time.
    fn lock(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<Option<Row>, sqlx::Error>> + Send;

    /// Writes the records and the new head.
    fn write(
        connection: &mut Self::Connection,
        sequence: &Sequence,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Commits. An error leaves the outcome open.
    fn commit(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Gives the transaction up.
    fn rollback(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// How a back end is reached.
pub(crate) type Options<B> = <<B as Database>::Connection as sqlx::Connection>::Options;

/// A value bound to a statement.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    Integer(Option<i64>),
    Flag(bool),
    Text(Option<&'a str>),
    Bytes(&'a [u8]),
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Self::Integer(Some(value.into()))
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Self::Integer(Some(value.as_millis()))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Some(value))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}

impl From<u64> for Value<'_> {
    /// No index, revision or count comes near 2^63.
    fn from(value: u64) -> Self {
        Self::Integer(Some(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

/// Binds values one after the other; the two drivers share no type to do this with.
macro_rules! bind {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match *value {
                $crate::backend::Value::Integer(value) => query.bind(value),
                $crate::backend::Value::Flag(value) => query.bind(value),
                $crate::backend::Value::Text(value) => query.bind(value),
                $crate::backend::Value::Bytes(value) => query.bind(value),
            };
        }
        query
    }};
}
pub(crate) use bind;

/// A row of either database.
pub enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The value of a column; what does not decode is corrupt, and the error names its place.
    pub(crate) fn read<T>(&self, table: &str, column: &str) -> Result<T, StoreError>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite>,
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let value = match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        };
        value.map_err(|_| StoreError::Corrupt(format!("{table}.{column}")))
    }
}
