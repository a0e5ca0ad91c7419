use std::ops::Range;

use audit::{BUNDLE_WIDTH, Hash, InvalidRecord, Kind, RecordDraft};

use crate::{StoreError, backend::Backend, mapping};

/// Where the kept part of the log begins, as SQL for the two databases alike.
macro_rules! first_kept {
    () => {
        "(SELECT coalesce(max(bundle) + 1, 0) * 256 FROM pruned_bundle)"
    };
}
pub(crate) use first_kept;

/// Checks what can be checked without the database: whole bundles, and the record of just that.
pub(crate) fn check(before: u64, record: &RecordDraft) -> Result<(), StoreError> {
    let invalid = |field| StoreError::InvalidRecord(InvalidRecord::Field(field));
    if record.kind() != Kind::LogPruned {
        return Err(invalid("kind"));
    }
    if record.record().tree_size != before || !before.is_multiple_of(BUNDLE_WIDTH) {
        return Err(invalid("tree_size"));
    }
    Ok(())
}

/// Takes the bodies of records before an index out, in the transaction that is open, and keeps their
/// leaf hashes: with these everything that remains can be proved, and the tree be grown.
pub(crate) async fn prune<B: Backend>(
    connection: &mut B::Connection,
    before: u64,
    size: u64,
) -> Result<(), StoreError> {
    const FIRST: &str = concat!("SELECT ", first_kept!(), " AS found");
    const LEAVES: &str =
        "SELECT idx, leaf_hash FROM record WHERE idx >= $1 AND idx < $2 ORDER BY idx";
    const KEEP: &str = "INSERT INTO pruned_bundle (bundle, leaves) VALUES ($1, $2)";
    // Brokers replay the records of changes when they start.
    const TAKE: &str = "DELETE FROM record WHERE idx >= $1 AND idx < $2 AND NOT mutates";
    let failed = StoreError::from_sqlx;
    let rows = B::fetch(connection, FIRST, &[]).await.map_err(failed)?;
    let first = rows.first().map_or(Ok(0), mapping::count)?;
    if before <= first || before > size {
        return Err(StoreError::Changed("the log".to_owned()));
    }
    let range = [first.into(), before.into()];
    let rows = B::fetch(connection, LEAVES, &range).await.map_err(failed)?;
    let leaves = rows.iter().map(mapping::placed_leaf).collect::<Result<Vec<_>, _>>()?;
    if !leaves.iter().map(|(index, _)| *index).eq(first..before) {
        return Err(StoreError::Corrupt("record.idx".to_owned()));
    }
    let width = usize::try_from(BUNDLE_WIDTH).unwrap_or(usize::MAX);
    for (bundle, leaves) in (first / BUNDLE_WIDTH..).zip(leaves.chunks(width)) {
        let bytes: Vec<u8> = leaves.iter().flat_map(|(_, leaf)| *leaf).collect();
        let values = [bundle.into(), bytes.as_slice().into()];
        B::execute(connection, KEEP, &values).await.map_err(failed)?;
    }
    B::execute(connection, TAKE, &range).await.map(drop).map_err(failed)
}

/// Puts the leaves of pruned bundles, from `first` on, before those that are kept. A bundle that was
/// pruned between the two reads is in both, and counts once.
pub(crate) fn joined(
    bundles: &[(u64, Vec<Hash>)],
    kept: Vec<(u64, Hash)>,
    range: &Range<u64>,
) -> Vec<Hash> {
    let mut leaves = Vec::new();
    let mut end = range.start;
    for (bundle, hashes) in bundles {
        for (index, hash) in (bundle * BUNDLE_WIDTH..).zip(hashes) {
            if range.contains(&index) {
                leaves.push(*hash);
                end = index + 1;
            }
        }
    }
    leaves.extend(kept.into_iter().filter(|(index, _)| *index >= end).map(|(_, hash)| hash));
    leaves
}
