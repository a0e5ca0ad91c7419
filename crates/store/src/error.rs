use std::{io, sync::Arc};

use sqlx::{error::DatabaseError, migrate::MigrateError};
use thiserror::Error;

/// What went wrong, by what the caller can do about it.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// Something with this name exists already.
    #[error("`{0}` already exists")]
    Exists(String),
    /// The row has changed since it was read: read it again and decide anew. Also when it is gone.
    #[error("`{0}` has changed since it was read")]
    Changed(String),
    /// The database did not answer, is locked, read-only or full. Nothing was changed; trying again
    /// may help.
    #[error("the database is unavailable")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// A number would become larger than a column holds; nothing was changed. Trying again does not
    /// help.
    #[error("a sum would be larger than the database can hold")]
    TooLarge,
    /// A row does not read as what was written. Trying again does not help.
    #[error("`{0}` in the database is corrupt")]
    Corrupt(String),
    /// A record that may not stand in the log, or not in this way: a change's record goes in with
    /// the change, all others without one. Trying again does not help.
    #[error("the record is not valid")]
    InvalidRecord(#[source] audit::InvalidRecord),
    /// The database cannot be opened with this configuration.
    #[error("{0}")]
    Misconfigured(String),
}

impl StoreError {
    /// What a statement's failure means when it says nothing about the row that was meant.
    pub(crate) fn from_sqlx(error: sqlx::Error) -> Self {
        if let sqlx::Error::ColumnDecode { index: column, .. }
        | sqlx::Error::ColumnNotFound(column) = error
        {
            return Self::Corrupt(column);
        }
        match error.as_database_error().and_then(DatabaseError::code).as_deref() {
            // SQLITE_CORRUPT and SQLITE_NOTADB; data_corrupted.
            Some("11" | "26" | "XX001") => Self::Corrupt("a page".to_owned()),
            // SQLITE_CORRUPT_INDEX; index_corrupted.
            Some("779" | "XX002") => Self::Corrupt("an index".to_owned()),
            // invalid_authorization_specification, invalid_password, invalid_catalog_name.
            Some("28000" | "28P01" | "3D000") => {
                Self::Misconfigured("the database refuses the login".to_owned())
            }
            // SQLITE_CONSTRAINT_DATATYPE; numeric_value_out_of_range.
            Some("3091" | "22003") => Self::TooLarge,
            // What is left asks for another try: locked, read-only, full, gone, overloaded.
            Some(_) | None => Self::unanswered(error),
        }
    }

    /// What the failure of a statement that writes one named thing means.
    pub(crate) fn writing(error: sqlx::Error, name: &str) -> Self {
        match error.as_database_error() {
            Some(database) if database.is_unique_violation() => Self::Exists(name.to_owned()),
            // Whose it was to be is gone.
            Some(database) if database.is_foreign_key_violation() => Self::Changed(name.to_owned()),
            Some(_) | None => Self::from_sqlx(error),
        }
    }

    /// What a failure to bring the tables up to date means.
    pub(crate) fn migrating(error: MigrateError) -> Self {
        if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
            return Self::from_sqlx(error);
        }
        Self::Misconfigured(format!("the database's tables are not this program's: {error}"))
    }

    /// `Unavailable`, for stores that are not databases.
    pub fn unavailable(reason: io::Error) -> Self {
        Self::unanswered(sqlx::Error::Io(reason))
    }

    /// `Unavailable`, whatever it says of the row that was meant.
    pub(crate) fn unanswered(error: sqlx::Error) -> Self {
        Self::Unavailable(Arc::new(error))
    }

    /// The writer did not take the work on.
    pub(crate) fn not_taken_on() -> Self {
        let reason = "the writer is closed, or failed with what came before";
        Self::unavailable(io::Error::new(io::ErrorKind::NotConnected, reason))
    }
}

/// Whether the connection is of no more use, whatever the state of the database.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    // Class 57P: the server ends the session, as when it restarts.
    let ended = |error: &dyn DatabaseError| error.code().is_some_and(|it| it.starts_with("57P"));
    error.as_database_error().is_some_and(ended)
        || matches!(
            error,
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed
        )
}

/// Whether [`timed_out`] made this error.
pub(crate) fn is_timeout(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// The error of a database that is silent.
pub(crate) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database does not answer"))
}
