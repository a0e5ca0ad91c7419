use thiserror::Error;

use crate::{
    Hash, Node, empty_root,
    hash::{fold, node_hash},
};

/// What is needed of a tree to append to it: its size and the roots of its perfect subtrees, the
/// largest first. At most 64 hashes, whatever the size.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

/// Stored bytes that are not a frontier.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the stored tree head is malformed")]
pub struct MalformedFrontier;

impl Frontier {
    /// Reads what [`Frontier::to_bytes`] wrote, and nothing else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MalformedFrontier> {
        let (size, rest) = bytes.split_first_chunk::<8>().ok_or(MalformedFrontier)?;
        let size = u64::from_be_bytes(*size);
        let (peaks, rest) = rest.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(MalformedFrontier);
        }
        Self::from_peaks(size, peaks.to_vec())
    }

    /// The frontier of a tree of this size from the roots of its perfect subtrees, in the order of
    /// [`crate::peaks`]. Whether they are the right ones, only the root can tell.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Result<Self, MalformedFrontier> {
        if u64::try_from(peaks.len()) == Ok(size.count_ones().into()) {
            Ok(Self { size, peaks })
        } else {
            Err(MalformedFrontier)
        }
    }

    pub(crate) fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.push_with(leaf, |_, _| ());
    }

    /// Appends a leaf and tells of each perfect subtree that it completes, the smallest first.
    ///
    /// A log that stores these nodes proves anything with logarithmically many reads.
    pub fn push_with(&mut self, leaf: Hash, mut completed: impl FnMut(Node, Hash)) {
        let mut hash = leaf;
        let mut level = 0;
        while self.size >> level & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            level += 1;
            completed(Node { level, index: self.size >> level }, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree, RFC 6962 section 2.1.
    pub fn root(&self) -> Hash {
        fold(&self.peaks).unwrap_or_else(empty_root)
    }

    /// The bytes for a database: the size as eight bytes, big-endian, then the hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + 32 * self.peaks.len());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        for peak in &self.peaks {
            bytes.extend_from_slice(peak);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf_hash;

    /// The definition of RFC 6962 section 2.1, word for word.
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node_hash(&naive(left), &naive(right))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_definition_at_every_size() {
        let leaves: Vec<Hash> = (0..300_u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut frontier = Frontier::default();
        for size in 0..=leaves.len() {
            assert_eq!(frontier.root(), naive(&leaves[..size]), "size {size}");
            assert_eq!(Frontier::from_bytes(&frontier.to_bytes()), Ok(frontier.clone()));
            if let Some(leaf) = leaves.get(size) {
                frontier.push(*leaf);
            }
        }
    }

    #[test]
    fn each_completed_node_is_the_root_of_its_range() {
        let leaves: Vec<Hash> = (0..130_u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut frontier = Frontier::default();
        let mut seen = 0;
        for leaf in &leaves {
            frontier.push_with(*leaf, |node, hash| {
                let range = node.range();
                let place = |index| usize::try_from(index).unwrap();
                let (start, end) = (place(range.start), place(range.end));
                assert_eq!(hash, naive(&leaves[start..end]), "{node:?}");
                seen += 1;
            });
        }
        assert_eq!(seen, 65 + 32 + 16 + 8 + 4 + 2 + 1);
    }

    #[test]
    fn bytes_that_do_not_fit_the_size_are_refused() {
        let mut frontier = Frontier::default();
        for n in 0..3_u8 {
            frontier.push(leaf_hash(&[n]));
        }
        let bytes = frontier.to_bytes();
        for length in 0..bytes.len() {
            assert_eq!(Frontier::from_bytes(&bytes[..length]), Err(MalformedFrontier));
        }
        assert!(Frontier::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        assert!(Frontier::from_bytes(&[&bytes[..], &[0; 32]].concat()).is_err());
    }
}
