use std::ops::Range;

use thiserror::Error;

use crate::{Hash, hash::fold};

/// A perfect subtree: the leaves from `index << level` on, `1 << level` of them.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Node {
    /// Its height; a leaf has 0.
    pub level: u32,
    /// Its place among those of its height.
    pub index: u64,
}

impl Node {
    /// The leaves below it.
    pub fn range(self) -> Range<u64> {
        self.index << self.level..(self.index + 1) << self.level
    }
}

/// A proof was asked for something that the tree does not hold.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the tree does not reach that far")]
pub struct NotInTree;

/// Which nodes make up a proof. Naming them and reading them are two steps, so that a store can
/// fetch them in one query and no I/O happens here.
///
/// A proof over a tree of `n` leaves needs `2 log n` nodes or fewer. Every one of them is perfect
/// and never changes, so a store may keep any of them ([`crate::Frontier::push_with`]) and compute
/// the others from leaf hashes ([`crate::tree_root`] over [`Node::range`]).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProofPlan {
    /// One item for each hash of the proof, in its order: the nodes that fold into it.
    hashes: Vec<Vec<Node>>,
}

impl ProofPlan {
    /// Plans the audit path of a leaf, RFC 6962 section 2.1.1.
    pub fn inclusion(index: u64, size: u64) -> Result<Self, NotInTree> {
        if index >= size {
            return Err(NotInTree);
        }
        let (mut tree, mut path) = (0..size, Vec::new());
        while tree.end - tree.start > 1 {
            let (left, right) = halves(&tree);
            let (inside, sibling) = if index < right.start { (left, right) } else { (right, left) };
            path.push(perfect(sibling));
            tree = inside;
        }
        path.reverse();
        Ok(Self { hashes: path })
    }

    /// Plans a consistency proof, RFC 6962 section 2.1.2. It is empty when the sizes are equal, or
    /// the old one is 0: then there is nothing to prove.
    pub fn consistency(old_size: u64, new_size: u64) -> Result<Self, NotInTree> {
        if old_size > new_size {
            return Err(NotInTree);
        }
        let mut hashes = Vec::new();
        if old_size == 0 || old_size == new_size {
            return Ok(Self { hashes });
        }
        let (mut tree, mut known) = (0..new_size, true);
        while tree.end != old_size {
            let (left, right) = halves(&tree);
            if old_size <= right.start {
                hashes.push(perfect(right));
                tree = left;
            } else {
                hashes.push(perfect(left));
                tree = right;
                known = false;
            }
        }
        // The verifier has the old root already unless the walk left its left edge.
        if !known {
            hashes.push(perfect(tree));
        }
        hashes.reverse();
        Ok(Self { hashes })
    }

    /// Plans the root of the tree of a size: of its one hash, and of none for the empty tree.
    pub fn root(size: u64) -> Self {
        Self { hashes: if size == 0 { Vec::new() } else { vec![perfect(0..size)] } }
    }

    /// The nodes that are needed, each once.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + '_ {
        self.hashes.iter().flatten().copied()
    }

    /// Makes the proof, asking `source` for each node in the order of [`ProofPlan::nodes`].
    pub fn assemble<E>(
        &self,
        mut source: impl FnMut(Node) -> Result<Hash, E>,
    ) -> Result<Vec<Hash>, E> {
        let mut proof = Vec::with_capacity(self.hashes.len());
        for nodes in &self.hashes {
            let roots = nodes.iter().map(|node| source(*node)).collect::<Result<Vec<_>, E>>()?;
            proof.extend(fold(&roots));
        }
        Ok(proof)
    }
}

/// The perfect subtrees that a tree of this size consists of, the largest first: those whose roots a
/// [`crate::Frontier`] holds.
pub fn peaks(size: u64) -> Vec<Node> {
    perfect(0..size)
}

/// Splits a tree of two leaves or more where RFC 6962 does: at the largest power of two below its
/// size.
fn halves(tree: &Range<u64>) -> (Range<u64>, Range<u64>) {
    let middle = tree.start + (1 << (tree.end - tree.start - 1).ilog2());
    (tree.start..middle, middle..tree.end)
}

/// The perfect subtrees of a subtree, left to right. Every subtree of an RFC 6962 tree begins at a
/// multiple of a power of two that is no smaller than its size, so the largest fits first.
fn perfect(mut tree: Range<u64>) -> Vec<Node> {
    let mut nodes = Vec::new();
    while tree.start < tree.end {
        let level = (tree.end - tree.start).ilog2();
        nodes.push(Node { level, index: tree.start >> level });
        tree.start += 1 << level;
    }
    nodes
}
