//! What Strongroom keeps, behind one trait with two back ends: `SQLite` for one broker, `PostgreSQL`
//! for many. Every change of state and its record in the log are one transaction, under one locked
//! row that orders everything. Secrets arrive here as ciphertext only.

mod backend;
mod budgets;
mod change;
mod changes;
mod check;
mod config;
mod erasure;
mod error;
mod health;
mod keys;
mod mapping;
mod postgres;
mod prune;
mod rotation;
mod routing;
mod row;
mod sequence;
mod shares;
mod sql_store;
mod sqlite;
mod store;
mod tree;
mod usage;
mod virtual_key;
mod writer;

pub use budgets::{
    AllowanceRow, BudgetRow, BudgetStore, Counted, Draw, Drawn, Found, Granted, Reconcile,
    Reconciled, Report, Reported, Swept, write_limits,
};
pub use check::{CheckStore, CheckedRecords, Stored};
pub use config::{StoreConfig, check_config, open, open_shares};
pub use erasure::ErasureRow;
pub use error::StoreError;
pub use health::HealthRow;
pub use keys::{KeyStore, KeyWork, Place, Resealed, Stale, TenantKey};
pub use postgres::PostgresStore;
pub use rotation::write_rotation;
pub use routing::write_rules;
pub use row::{
    CredentialRow, KeyPurpose, KeyRow, Legible, PersonRow, PreviousKey, PriceRow, RowMac, SinkRow,
    TenantRow, TestRow, VersionRow, VirtualKeyRow, mac_version,
};
pub use shares::{Share, ShareStore, SqlShares};
pub use sqlite::SqliteStore;
pub use store::{Appended, Change, Head, Page, Pending, Store};
pub use tree::Tree;
pub use usage::{
    CallQuery, UsageBy, UsageFilter, UsageKey, UsageQuery, UsageRow, UsageSpent, UsageSum,
    quarter_of, quarter_start,
};
