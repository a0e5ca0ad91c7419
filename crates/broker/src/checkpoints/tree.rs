use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use audit::Frontier;
use store::{Store, StoreError};

/// The log's tree, grown from leaf hashes and not from what the head says, and remembered at earlier
/// sizes so that an older checkpoint is looked at without reading the log from its beginning.
#[derive(Debug)]
pub(crate) struct Tree {
    store: Arc<dyn Store>,
    marks: BTreeMap<u64, Frontier>,
    /// The sizes of the latest marks that are not at a multiple of [`STEP`], the oldest first.
    recent: VecDeque<u64>,
}

/// The tree at one size, with the marks that were passed on the way there.
#[derive(Debug)]
pub(crate) struct Grown {
    pub(crate) end: Frontier,
    passed: Vec<Frontier>,
}

/// Leaf hashes read at a time. Marks at its multiples stay.
const STEP: u64 = 65_536;

/// Marks at other sizes: what was signed within the last minutes, which is what clients echo.
const RECENT: usize = 512;

impl Tree {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, marks: BTreeMap::new(), recent: VecDeque::new() }
    }

    /// Reads the tree at a size; `None` when the log does not reach that far.
    pub(crate) async fn at(&self, size: u64) -> Result<Option<Grown>, StoreError> {
        let mark = self.marks.range(..=size).next_back();
        let mut end = mark.map(|(_, frontier)| frontier.clone()).unwrap_or_default();
        let mut passed = Vec::new();
        while end.size() < size {
            let next = (end.size() / STEP + 1) * STEP;
            let hashes = self.store.leaf_hashes(end.size()..size.min(next)).await?;
            if hashes.is_empty() {
                return Ok(None);
            }
            for hash in hashes {
                end.push(hash);
            }
            if end.size() == next {
                passed.push(end.clone());
            }
        }
        Ok(Some(Grown { end, passed }))
    }

    /// Remembers a tree that was found to be the one that was signed.
    pub(crate) fn keep(&mut self, grown: Grown) {
        for frontier in grown.passed {
            self.marks.insert(frontier.size(), frontier);
        }
        let size = grown.end.size();
        if self.marks.insert(size, grown.end).is_none() && !size.is_multiple_of(STEP) {
            self.recent.push_back(size);
        }
        while self.recent.len() > RECENT {
            if let Some(oldest) = self.recent.pop_front() {
                self.marks.remove(&oldest);
            }
        }
    }
}
