use std::ops::Range;

use audit::{Frontier, Hash, HashTile, Node, ProofPlan, peaks, tree_root};

use crate::{Store, StoreError};

/// The log's tree as it is stored: any proof of it with a few hundred hashes read, whatever the size.
///
/// The hashes are the database's word. Whoever builds on one compares the root that they lead to
/// with one that was signed.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a>(&'a dyn Store);

impl<'a> Tree<'a> {
    /// The tree in a store.
    pub fn of(store: &'a dyn Store) -> Self {
        Self(store)
    }

    /// The tree at a size, to be grown from there. What is not stored is `Corrupt`.
    pub async fn frontier(self, size: u64) -> Result<Frontier, StoreError> {
        let mut roots = Vec::new();
        for node in peaks(size) {
            roots.push(self.root(node).await?);
        }
        Frontier::from_peaks(size, roots).map_err(|_| missing())
    }

    /// Carries a plan out. The proof is of a tree that the log has reached, or the store is `Corrupt`.
    pub async fn prove(self, plan: &ProofPlan) -> Result<Vec<Hash>, StoreError> {
        let mut roots = Vec::new();
        for node in plan.nodes() {
            roots.push(self.root(node).await?);
        }
        let mut roots = roots.into_iter();
        plan.assemble(|_| roots.next().ok_or_else(missing))
    }

    /// The bytes of a tile that the log has reached.
    pub async fn tile(self, tile: HashTile) -> Result<Vec<u8>, StoreError> {
        let first = tile.first();
        let hashes = self.hashes(tile.height(), first..first.saturating_add(tile.width)).await?;
        Ok(hashes.into_flattened())
    }

    async fn root(self, node: Node) -> Result<Hash, StoreError> {
        let (level, range) = kept(node);
        Ok(tree_root(&self.hashes(level, range).await?))
    }

    async fn hashes(self, level: u32, range: Range<u64>) -> Result<Vec<Hash>, StoreError> {
        let count = range.end.saturating_sub(range.start);
        let hashes = match level {
            0 => self.0.leaf_hashes(range).await?,
            _ => self.0.node_hashes(level, range).await?,
        };
        if u64::try_from(hashes.len()) == Ok(count) { Ok(hashes) } else { Err(missing()) }
    }
}

/// The nodes of a height that is kept into whose hashes this node's unfolds; at most 128.
fn kept(node: Node) -> (u32, Range<u64>) {
    let above = node.level % 8;
    (node.level - above, node.index << above..(node.index + 1) << above)
}

fn missing() -> StoreError {
    StoreError::Corrupt("tree_node.hash".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(nodes: impl IntoIterator<Item = Node>) -> u64 {
        nodes.into_iter().map(kept).map(|(_, range)| range.end - range.start).sum()
    }

    #[test]
    fn no_proof_of_a_million_records_reads_more_than_three_tiles_of_hashes() {
        const SIZE: u64 = 1_000_000;
        const MOST: u64 = 3 * 256;
        let mut most = 0;
        for step in 0..10_000 {
            // A prime step, so that the indexes meet every remainder.
            let index = step * 99_991 % SIZE;
            most = most.max(reads(ProofPlan::inclusion(index, SIZE).unwrap().nodes()));
            most = most.max(reads(ProofPlan::consistency(index, SIZE).unwrap().nodes()));
            most = most.max(reads(peaks(index)));
        }
        assert!(most <= MOST, "{most} hashes");
        // The leaves alone would be half a million.
        assert!(most > 256, "{most} hashes");
    }

    #[test]
    fn a_node_unfolds_into_what_is_below_it() {
        for level in 0..24 {
            let node = Node { level, index: 5 };
            let (below, range) = kept(node);
            assert!(below % 8 == 0 && range.end - range.start <= 128);
            assert_eq!(node.range(), range.start << below..range.end << below);
        }
    }
}
