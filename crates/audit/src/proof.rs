use thiserror::Error;

use crate::{Hash, empty_root, node_hash};

/// A proof that proves nothing: for other data, another place or another tree, or malformed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the proof does not hold")]
pub struct BadProof;

/// Whether the leaf stands at `index` in the tree of `size` leaves with this root, by the algorithm
/// of RFC 9162 section 2.1.3.2.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), BadProof> {
    if index >= size {
        return Err(BadProof);
    }
    let (mut place, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(BadProof);
        }
        if place & 1 == 1 || place == last {
            hash = node_hash(sibling, &hash);
            // An edge without a right sibling is not in the path: climb past it.
            if place & 1 == 0 {
                let climb = place.trailing_zeros().min(63);
                place >>= climb;
                last >>= climb;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(BadProof) }
}

/// Whether the tree of `old_size` leaves is the beginning of that of `new_size`, by the algorithm of
/// RFC 9162 section 2.1.4.2.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), BadProof> {
    if old_size == 0 || old_size >= new_size {
        let same = old_size == new_size && old_root == new_root;
        let grown = old_size == 0 && new_size > 0 && *old_root == empty_root();
        return if proof.is_empty() && (same || grown) { Ok(()) } else { Err(BadProof) };
    }
    // When the old tree is perfect, its root begins the path and is left out of the proof.
    let (first, path) = if old_size.is_power_of_two() {
        (old_root, proof)
    } else {
        proof.split_first().ok_or(BadProof)?
    };
    let (mut place, mut last) = (old_size - 1, new_size - 1);
    let climb = place.trailing_ones();
    place >>= climb;
    last >>= climb;
    let (mut old, mut new) = (*first, *first);
    for sibling in path {
        if last == 0 {
            return Err(BadProof);
        }
        if place & 1 == 1 || place == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            if place & 1 == 0 {
                let climb = place.trailing_zeros().min(63);
                place >>= climb;
                last >>= climb;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    if last == 0 && old == *old_root && new == *new_root { Ok(()) } else { Err(BadProof) }
}
