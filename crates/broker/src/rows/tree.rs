use audit::{Frontier, Hash, Node, Reason};
use domain::Timestamp;
use store::Store;

use super::RowFinding;
use crate::refused::Why;

/// A walk over the log from its beginning, record by record, that rebuilds the tree on its way.
#[derive(Debug, Default)]
pub(super) struct Walk {
    frontier: Frontier,
    /// When the last record was written, if that is known.
    last: Option<Timestamp>,
}

/// What a step of a walk has seen.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) findings: Vec<RowFinding>,
    /// Access rules that records name.
    pub(super) policies: Vec<Hash>,
    /// Whether the walk cannot go on: a record is not there.
    pub(super) ended: bool,
}

/// Records looked at in one step.
const STEP: u64 = 512;

impl Walk {
    pub(super) fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(super) fn last(&self) -> Option<Timestamp> {
        self.last
    }

    pub(super) fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Looks at the next records, up to a size of the log and no further.
    pub(super) async fn step(&mut self, store: &dyn Store, size: u64) -> Result<Step, Why> {
        let from = self.size();
        let end = size.min(from.saturating_add(STEP));
        let checked = store.check_records(from..end).await?;
        let mut step = Step { policies: checked.policies, ..Step::default() };
        for (index, column) in checked.wrong {
            step.findings.push(RowFinding::of_log(Reason::RowChanged, column, index));
        }
        self.last = checked.last;
        let mut complete: Vec<(Node, Hash)> = Vec::new();
        for leaf in &checked.leaves {
            self.frontier.push_with(*leaf, |node, hash| {
                if node.level > 0 && node.level % 8 == 0 {
                    complete.push((node, hash));
                }
            });
        }
        for (node, hash) in complete {
            let kept = store.node_hashes(node.level, node.index..node.index + 1).await?;
            let reason = match kept.first() {
                Some(kept) if *kept == hash => continue,
                Some(_) => Reason::RowChanged,
                None => Reason::RowMissing,
            };
            step.findings.push(RowFinding::of_log(reason, "tree_node.hash", node.range().start));
        }
        if self.size() < end {
            let missing = RowFinding::of_log(Reason::RowMissing, "record.idx", self.size());
            step.findings.push(missing);
            step.ended = true;
        }
        Ok(step)
    }
}
