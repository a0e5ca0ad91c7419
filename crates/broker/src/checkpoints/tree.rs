use audit::{Checkpoint, Frontier, Hash, ProofPlan, verify_consistency};
use store::{Store, StoreError, Tree};

/// The log's tree at a size, from the hashes that are stored and not from what the head says; `None`
/// when the log does not reach that far, or not all of it is there any more.
pub(crate) async fn at(store: &dyn Store, size: u64) -> Result<Option<Frontier>, StoreError> {
    there(Tree::of(store).frontier(size).await)
}

/// Whether the log's tree at a size, with this root, is the continuation of a checkpoint: proved, so
/// that nothing is taken on the word of the stored hashes. `None` as of [`at`].
pub(crate) async fn continues(
    store: &dyn Store,
    earlier: &Checkpoint,
    (size, root): (u64, &Hash),
) -> Result<Option<bool>, StoreError> {
    // Which there is no proof of: nothing precedes everything.
    if earlier.size == 0 {
        return Ok(Some(true));
    }
    let Ok(plan) = ProofPlan::consistency(earlier.size, size) else { return Ok(Some(false)) };
    let Some(proof) = there(Tree::of(store).prove(&plan).await)? else { return Ok(None) };
    let proved = verify_consistency(earlier.size, &earlier.root, size, root, &proof);
    Ok(Some(proved.is_ok()))
}

fn there<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Corrupt(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
