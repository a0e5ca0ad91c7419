use std::{collections::BTreeMap, ops::Range};

use async_trait::async_trait;
use audit::{Entry, Hash, Kind, Record, leaf_hash, mutates, timestamp};
use domain::{Timestamp, Uid};

use crate::{
    Store as _, StoreError,
    backend::{Backend, Row},
    mapping::{self, Columns},
    prune::first_kept,
    sql_store::SqlStore,
};

/// What has to be read of the log's own tables to see whether they are as they were written.
#[async_trait]
pub trait CheckStore {
    /// What is stored once, as it is now.
    async fn stored(&self) -> Result<Stored, StoreError>;

    /// Rows that nobody finds by whose they are, because that is not there: the table and an id of
    /// the row's, some of each table.
    async fn strays(&self) -> Result<Vec<(&'static str, Vec<u8>)>, StoreError>;

    /// Looks at a range of records: whether each hashes to its leaf, and whether what the database finds it
    /// by is what it says.
    async fn check_records(&self, range: Range<u64>) -> Result<CheckedRecords, StoreError>;
}

/// What is stored once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// The deployment's id.
    pub deployment: Uid,
    /// The newest checkpoint, and the size that it is kept under.
    pub checkpoint: Option<(u64, String)>,
}

/// What was seen of a range of records.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckedRecords {
    /// The leaf hashes, of the bodies as far as these are kept, up to the first record that is not there.
    pub leaves: Vec<Hash>,
    /// Columns that do not say what their record says.
    pub wrong: Vec<(u64, &'static str)>,
    /// Access rules that records name.
    pub policies: Vec<Hash>,
    /// The time of the last record that is kept, if one is.
    pub last: Option<Timestamp>,
}

/// A table, and the query of its rows whose owner is not there.
macro_rules! strays {
    ($table:literal, $id:literal, $owner:literal $(, $also:literal)?) => {
        (
            $table,
            concat!(
                "SELECT ", $id, " AS id FROM ", $table, " AS it WHERE NOT EXISTS (SELECT 1 FROM ",
                $owner, " AS owner WHERE owner.uid = it.", $owner, "_uid" $(, $also)?, ") LIMIT 100"
            ),
        )
    };
}

/// Whom each row says that it belongs to, twice where it says so twice.
const STRAYS: [(&str, &str); 7] = [
    strays!("wrapped_key", "uid", "tenant"),
    strays!("person", "commitment", "tenant"),
    strays!("credential", "uid", "tenant", " AND owner.id = it.tenant"),
    strays!("credential_version", "credential_uid", "credential"),
    strays!("credential_test", "credential_uid", "credential"),
    strays!("virtual_key", "tenant_uid", "tenant", " AND owner.id = it.tenant"),
    strays!("budget", "uid", "tenant", " AND owner.id = it.tenant"),
];

#[async_trait]
impl<B: Backend> CheckStore for SqlStore<B> {
    async fn stored(&self) -> Result<Stored, StoreError> {
        let found = self.one("SELECT deployment FROM head", &[], mapping::deployment).await?;
        let deployment = found.ok_or_else(|| StoreError::Corrupt("head.deployment".to_owned()))?;
        let kept = |row: &Row| {
            Ok((Columns { row, table: "checkpoint" }.number("size")?, mapping::note(row)?))
        };
        let checkpoint = self.one("SELECT size, note FROM checkpoint", &[], kept).await?;
        Ok(Stored { deployment, checkpoint })
    }

    async fn strays(&self) -> Result<Vec<(&'static str, Vec<u8>)>, StoreError> {
        let mut strays = Vec::new();
        for (table, sql) in STRAYS {
            for row in self.fetch(sql, &[]).await? {
                strays.push((table, Columns { row: &row, table }.bytes("id")?));
            }
        }
        Ok(strays)
    }

    async fn check_records(&self, range: Range<u64>) -> Result<CheckedRecords, StoreError> {
        const SQL: &str = "SELECT * FROM record WHERE idx >= $1 AND idx < $2 ORDER BY idx";
        const FIRST: &str = concat!("SELECT ", first_kept!(), " AS found");
        let mut rows = BTreeMap::new();
        for row in self.fetch(SQL, &[range.start.into(), range.end.into()]).await? {
            let index: u64 = Columns { row: &row, table: "record" }.number("idx")?;
            rows.insert(index, row);
        }
        let mut checked = CheckedRecords::default();
        // Read after the rows: what was pruned in between is read as such.
        let kept = self.one(FIRST, &[], mapping::count).await?.unwrap_or_default();
        let pruned = self.leaf_hashes(range.start..range.end.min(kept.max(range.start))).await?;
        for index in range.clone() {
            let place = usize::try_from(index - range.start).unwrap_or(usize::MAX);
            let said = pruned.get(place).copied();
            let leaf = match rows.get(&index) {
                Some(row) => {
                    let leaf = check(row, index, &mut checked)?;
                    if said.is_some_and(|said| said != leaf) {
                        checked.wrong.push((index, "pruned_bundle.leaves"));
                    }
                    leaf
                }
                None => match said {
                    Some(said) => said,
                    None => break,
                },
            };
            checked.leaves.push(leaf);
        }
        Ok(checked)
    }
}

/// Looks at one record, and gives the leaf hash of its body.
fn check(row: &Row, index: u64, checked: &mut CheckedRecords) -> Result<Hash, StoreError> {
    let of = Columns { row, table: "record" };
    let body = of.bytes("body")?;
    let leaf = leaf_hash(&body);
    let Ok(record) = (Entry { index, body }).record() else {
        checked.wrong.push((index, "record.body"));
        return Ok(leaf);
    };
    for (column, right) in columns(&of, &record, &leaf)? {
        if !right {
            checked.wrong.push((index, column));
        }
    }
    checked.policies.extend(Hash::try_from(&*record.policy_sha256).ok());
    checked.last = record.time.as_ref().and_then(timestamp).or(checked.last);
    Ok(leaf)
}

/// Each column that finds a record, and whether it is what the record says.
fn columns(
    of: &Columns<'_>,
    record: &Record,
    leaf: &Hash,
) -> Result<[(&'static str, bool); 6], StoreError> {
    let kind = record.kind();
    let is_lease = matches!(kind, Kind::LeaseGranted | Kind::LeaseRenewed);
    let ends = record.lease_expire_time.as_ref().filter(|_| is_lease);
    let ends = ends.and_then(timestamp).map(Timestamp::as_millis);
    let tenant = (!record.tenant.is_empty()).then(|| record.tenant.clone());
    let lease_hash = (!record.lease_hash.is_empty()).then(|| record.lease_hash.to_vec());
    let stored_hash: Option<Vec<u8>> = of.row.read("record", "lease_hash")?;
    let stored_kind: i64 = of.number("kind")?;
    Ok([
        ("record.leaf_hash", of.bytes("leaf_hash")? == leaf),
        ("record.kind", stored_kind == i64::from(record.kind)),
        ("record.mutates", of.flag("mutates")? == mutates(kind)),
        ("record.tenant", of.optional_text("tenant")? == tenant),
        ("record.lease_hash", stored_hash == lease_hash),
        ("record.expires_at", of.optional_time("expires_at")?.map(Timestamp::as_millis) == ends),
    ])
}
