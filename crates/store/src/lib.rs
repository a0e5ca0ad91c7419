//! What Strongroom keeps, behind one trait with two back ends: `SQLite` for one broker, `PostgreSQL`
//! for many. Every change of state and its record in the log are one transaction, under one locked
//! row that orders everything. Secrets arrive here as ciphertext only.

mod backend;
mod change;
mod changes;
mod config;
mod error;
mod keys;
mod mapping;
mod postgres;
mod prune;
mod routing;
mod row;
mod sequence;
mod sql_store;
mod sqlite;
mod store;
mod tree;
mod writer;

pub use config::{StoreConfig, open};
pub use error::StoreError;
pub use keys::{KeyStore, KeyWork, Place, Resealed, Stale, TenantKey};
pub use postgres::PostgresStore;
pub use routing::write_rules;
pub use row::{
    CredentialRow, KeyPurpose, KeyRow, PersonRow, RowMac, TenantRow, VersionRow, VirtualKeyRow,
    mac_version,
};
pub use sqlite::SqliteStore;
pub use store::{Appended, Change, Head, Page, Pending, Store};
pub use tree::Tree;
