use sha2::{Digest as _, Sha256};

use crate::Frontier;

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// The hash of a record: SHA-256(0x00 ‖ body), RFC 6962 section 2.1.
pub fn leaf_hash(body: &[u8]) -> Hash {
    Sha256::new_with_prefix([0x00]).chain_update(body).finalize().into()
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right), RFC 6962 section 2.1.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([0x01]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree of no leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The root of the tree of these leaf hashes.
pub fn tree_root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

/// Folds the roots of neighbouring subtrees, left to right and ever smaller, into one root.
pub(crate) fn fold(roots: &[Hash]) -> Option<Hash> {
    roots.iter().copied().rev().reduce(|right, left| node_hash(&left, &right))
}
