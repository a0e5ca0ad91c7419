use audit::{Entry, Frontier, Hash, Kind, Node, RecordDraft, mutates, timestamp};
use domain::{TenantId, Timestamp, Uid};

use crate::{Appended, Head, Pending, changes::Changes};

/// Gives records their places and times while the head is locked.
pub struct Sequence {
    pub(crate) first: u64,
    pub(crate) head: Head,
    pub(crate) batch: Uid,
    pub(crate) sealed: Vec<Sealed>,
    /// The subtrees that are complete now and are to be kept.
    pub(crate) nodes: Vec<(Node, Hash)>,
    /// Decides what is stale; unless they are read, every change counts as everyone's.
    pub(crate) changes: Changes,
}

/// A record and what the database finds it by.
pub(crate) struct Sealed {
    pub(crate) entry: Entry,
    pub(crate) leaf: Hash,
    pub(crate) kind: i64,
    pub(crate) mutates: bool,
    pub(crate) tenant: Option<String>,
    pub(crate) lease_hash: Option<Vec<u8>>,
    pub(crate) expires_at: Option<i64>,
}

impl Sequence {
    /// Goes on after `head`, at the database's time, but never before the last record: the clocks
    /// of replicas and their leap seconds cannot reorder the log.
    pub(crate) fn after(head: Head, now: Timestamp, batch: Uid) -> Self {
        let first = head.frontier.size();
        let head = Head { time: head.time.max(now), ..head };
        Self {
            first,
            head,
            batch,
            sealed: Vec::new(),
            nodes: Vec::new(),
            changes: Changes::unknown(first),
        }
    }

    /// Appends a record unless it is stale.
    pub(crate) fn append(&mut self, pending: Pending) -> Appended {
        match pending.as_of {
            Some(as_of) if self.is_stale(as_of, &pending.tenants) => {
                Appended::Stale { changed: self.head.changed }
            }
            Some(_) | None => Appended::Recorded(self.record(pending.record)),
        }
    }

    fn is_stale(&self, as_of: u64, tenants: &[TenantId]) -> bool {
        // Nobody knows records that are not committed, so that a log that ends before what its
        // writer knows was put back to an earlier state.
        if as_of > self.first {
            return true;
        }
        as_of < self.head.changed && (tenants.is_empty() || self.changes.touch(tenants, as_of))
    }

    /// Appends a record.
    pub(crate) fn record(&mut self, draft: RecordDraft) -> Entry {
        let kind = draft.kind();
        let record = draft.record();
        let is_lease = matches!(kind, Kind::LeaseGranted | Kind::LeaseRenewed);
        let expires_at = record.lease_expire_time.as_ref().filter(|_| is_lease);
        let expires_at = expires_at.and_then(timestamp).map(Timestamp::as_millis);
        let tenant = (!record.tenant.is_empty()).then(|| record.tenant.clone());
        let lease_hash = (!record.lease_hash.is_empty()).then(|| record.lease_hash.to_vec());

        let index = self.head.frontier.size();
        let entry = draft.seal_at(index, self.head.time);
        let leaf = entry.leaf_hash();
        self.head.frontier.push_with(leaf, |node, hash| {
            if node.level % NODE_STEP == 0 {
                self.nodes.push((node, hash));
            }
        });
        if mutates(kind) {
            self.head.changed = index + 1;
            self.changes.add(index, tenant.as_deref());
        }
        self.sealed.push(Sealed {
            entry: entry.clone(),
            leaf,
            kind: i64::from(i32::from(kind)),
            mutates: mutates(kind),
            tenant,
            lease_hash,
            expires_at,
        });
        entry
    }

    /// The tree with all that was appended.
    pub(crate) fn frontier(&self) -> &Frontier {
        &self.head.frontier
    }
}

/// Every so many levels, the hashes of complete subtrees are kept.
const NODE_STEP: u32 = 8;

#[cfg(test)]
mod tests {
    use audit::{Record, leaf_hash, tree_root};

    use super::*;

    fn sequence() -> Sequence {
        let head =
            Head { frontier: Frontier::default(), time: Timestamp::from_millis(5_000), changed: 0 };
        Sequence::after(head, Timestamp::from_millis(4_000), Uid::from_bytes([1; 16]))
    }

    fn draft(kind: Kind) -> RecordDraft {
        let lease_hash = vec![7; 32].into();
        RecordDraft::new(Record { kind: kind.into(), lease_hash, ..Record::default() }).unwrap()
    }

    #[test]
    fn a_clock_that_went_back_does_not_take_the_log_back() {
        let mut sequence = sequence();
        let entry = sequence.record(draft(Kind::LeaseReleased));
        let time = timestamp(&entry.record().unwrap().time.unwrap());
        assert_eq!(time, Some(Timestamp::from_millis(5_000)));
    }

    fn pending(kind: Kind, as_of: Option<u64>, tenants: &[&str]) -> Pending {
        let tenants = tenants.iter().map(|tenant| tenant.parse().unwrap()).collect();
        Pending { record: draft(kind), as_of, tenants }
    }

    #[test]
    fn a_revocation_makes_what_follows_in_its_batch_stale() {
        let mut sequence = sequence();
        let released = |tenants| pending(Kind::LeaseReleased, Some(0), tenants);
        assert!(matches!(sequence.append(released(&[])), Appended::Recorded(_)));
        sequence.append(pending(Kind::LeaseRevoked, None, &[]));
        // The revocation names no tenant, so that it may be anyone's.
        for tenants in [&[][..], &["a"]] {
            assert!(matches!(sequence.append(released(tenants)), Appended::Stale { changed: 2 }));
        }
        let independent = pending(Kind::LeaseReleased, None, &["a"]);
        assert!(matches!(sequence.append(independent), Appended::Recorded(_)));

        let leaves: Vec<_> =
            sequence.sealed.iter().map(|sealed| leaf_hash(&sealed.entry.body)).collect();
        assert_eq!(leaves.len(), 3);
        assert_eq!(sequence.frontier().root(), tree_root(&leaves));
    }

    #[test]
    fn a_change_that_was_not_looked_at_counts_as_everyones() {
        let mut frontier = Frontier::default();
        frontier.push(leaf_hash(b"a change"));
        let time = Timestamp::from_millis(1);
        let head = Head { frontier, time, changed: 1 };
        let mut sequence = Sequence::after(head, time, Uid::from_bytes([1; 16]));
        let mut append = |as_of| sequence.append(pending(Kind::LeaseReleased, as_of, &["a"]));
        assert!(matches!(append(Some(0)), Appended::Stale { changed: 1 }));
        assert!(matches!(append(Some(1)), Appended::Recorded(_)));
    }
}
