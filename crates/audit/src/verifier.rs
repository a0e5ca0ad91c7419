use std::collections::{BTreeMap, BTreeSet};

use domain::Timestamp;

use crate::{
    Bundle, Checkpoint, CheckpointError, Disclosure, Finding, Frontier, Hash, Kind, PolicyDocument,
    PrunedStart, Record, VerifierKey, custody::Custody, leaf_hash, record::decode_with,
    standing::Standing,
};

/// Verifies a whole log against a signed checkpoint, record by record, with nothing but the log's
/// key. It reads no files: whoever has the records gives them to it, in order.
#[derive(Debug)]
pub struct Verifier {
    key: VerifierKey,
    checkpoint: Checkpoint,
    /// Checkpoints of the same log that the auditor has from before, the largest first.
    earlier: Vec<Checkpoint>,
    /// Those of them that the log does not continue, the smallest first.
    unmatched: Vec<Checkpoint>,
    /// Where the log says that a checkpoint was given up.
    given_up: BTreeMap<(u64, Hash), u64>,
    frontier: Frontier,
    custody: Custody,
    standing: Standing,
    first_time: Option<Timestamp>,
    last_time: Option<Timestamp>,
    kinds: BTreeMap<Kind, u64>,
    /// Set when the records do not begin at index 0.
    pruned: Option<Missing>,
    /// Why this is not the log that was signed. Nothing is read after it.
    forged: Option<Finding>,
    /// The first thing that must not have happened. It counts once the root has been compared.
    misconduct: Option<Finding>,
    scratch: Vec<u8>,
}

/// The part that is not there.
#[derive(Debug)]
struct Missing {
    size: u64,
    root: Hash,
    recorded_at: Option<u64>,
    earlier: usize,
}

/// What could not be checked of a pruned log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pruned {
    /// The first record that is there: those before it were not checked.
    pub before: u64,
    /// The record that says so.
    pub index: u64,
    /// How many earlier checkpoints lie in the part that was pruned, and were not compared.
    pub earlier: usize,
}

/// What a verified log holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Which log it is.
    pub origin: String,
    /// Set when its beginning was pruned; all that is told below is then of the rest.
    pub pruned: Option<Pruned>,
    /// How many records there are.
    pub size: u64,
    /// The root that was signed, and that the records have.
    pub root: Hash,
    /// How many records there are of each kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// How many leases were granted.
    pub leases: u64,
    /// When the first record was appended.
    pub first_time: Option<Timestamp>,
    /// When the last record was appended.
    pub last_time: Option<Timestamp>,
    /// The expected earlier checkpoints that the log does not continue because an operator gave them
    /// up, as the log itself says: their records are lost, and whoever reads this should know why.
    pub given_up: Vec<GivenUp>,
    /// Access rules, by SHA-256, that brokers decided by and that were not given: the leases of
    /// those brokers are not held against any.
    pub unknown_policies: BTreeSet<Hash>,
    /// How many leases, and parts in approved calls, are of people whose names were not given, so that no
    /// rules are held against them.
    pub unnamed: u64,
}

/// An earlier checkpoint whose loss is on record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GivenUp {
    /// The index of the record that says so.
    pub index: u64,
    /// How many records were signed.
    pub size: u64,
    /// The root that was signed.
    pub root: Hash,
}

impl Verifier {
    /// Begins with a checkpoint that the key signed.
    pub fn open(key: &VerifierKey, checkpoint: &str) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::verify(checkpoint, key)?;
        Ok(Self {
            key: key.clone(),
            checkpoint,
            earlier: Vec::new(),
            unmatched: Vec::new(),
            given_up: BTreeMap::new(),
            frontier: Frontier::default(),
            custody: Custody::default(),
            standing: Standing::default(),
            first_time: None,
            last_time: None,
            kinds: BTreeMap::new(),
            pruned: None,
            forged: None,
            misconduct: None,
            scratch: Vec::new(),
        })
    }

    /// Begins with a checkpoint that the key signed, where the log's beginning was pruned. What lies
    /// there cannot be checked; leases, credentials, sessions and brokers from there are taken to be
    /// as the first record tells that names them.
    pub fn open_pruned(
        key: &VerifierKey,
        checkpoint: &str,
        start: &PrunedStart,
    ) -> Result<Self, CheckpointError> {
        let frontier = start.frontier().clone();
        let (size, root) = (frontier.size(), frontier.root());
        let pruned = Some(Missing { size, root, recorded_at: None, earlier: 0 });
        let (custody, standing) = (Custody::after_pruning(), Standing::after_pruning());
        Ok(Self { frontier, custody, standing, pruned, ..Self::open(key, checkpoint)? })
    }

    /// Also holds the log to a checkpoint that it signed before: it must be the beginning of this
    /// one, or the log must say that exactly this checkpoint was given up. To be called before the
    /// first record.
    pub fn expect_earlier(&mut self, checkpoint: &str) -> Result<(), CheckpointError> {
        let checkpoint = Checkpoint::verify(checkpoint, &self.key)?;
        if let Some(missing) = self.pruned.as_mut().filter(|it| checkpoint.size < it.size) {
            missing.earlier += 1;
            return Ok(());
        }
        self.earlier.push(checkpoint);
        self.earlier.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.size));
        Ok(())
    }

    /// Takes access rules that records may name: leases are held against those of their time. To be
    /// called before the first record.
    pub fn know_policy(&mut self, document: PolicyDocument) {
        self.standing.know(document);
    }

    /// Takes the name of a person whom records may name by a commitment.
    pub fn know_name(&mut self, name: Disclosure) {
        self.standing.know_name(name);
    }

    /// What the log was signed as.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The files of an export that hold the records, in the order in which they are to be pushed.
    pub fn bundles(&self) -> impl Iterator<Item = Bundle> + use<> {
        let first = self.pruned.as_ref().map_or(0, |missing| missing.size);
        Bundle::covering(self.checkpoint.size).filter(move |it| it.first_entry() >= first)
    }

    /// Takes the next record. An error says that this is not the log that was signed, and is final;
    /// records of what must not have happened are told by [`Verifier::finish`], when it is certain
    /// that the log wrote them.
    pub fn push(&mut self, body: &[u8]) -> Result<(), Finding> {
        if let Some(finding) = self.forged {
            return Err(finding);
        }
        self.take(body).inspect_err(|finding| self.forged = Some(*finding))
    }

    /// Compares the root, and says what the log holds or the first thing that is wrong with it.
    pub fn finish(mut self) -> Result<Report, Finding> {
        if let Some(finding) = self.forged {
            return Err(finding);
        }
        let size = self.frontier.size();
        if size < self.checkpoint.size {
            return Err(Finding::Truncated { index: size });
        }
        let root = self.frontier.root();
        if root != self.checkpoint.root {
            return Err(Finding::RootMismatch { size });
        }
        self.compare_earlier();
        let given_up = self.excuse_unmatched()?;
        let pruned = self.pruned.as_ref().map(Missing::on_record).transpose()?;
        if let Some(finding) = self.misconduct {
            return Err(finding);
        }
        Ok(Report {
            pruned,
            origin: self.checkpoint.origin,
            size,
            root,
            leases: self.kinds.get(&Kind::LeaseGranted).copied().unwrap_or(0),
            kinds: self.kinds,
            first_time: self.first_time,
            last_time: self.last_time,
            given_up,
            unknown_policies: self.standing.unknown_policies().clone(),
            unnamed: self.standing.unnamed(),
        })
    }

    fn take(&mut self, body: &[u8]) -> Result<(), Finding> {
        let index = self.frontier.size();
        if index >= self.checkpoint.size {
            return Err(Finding::BeyondCheckpoint { index });
        }
        self.compare_earlier();
        let checked = decode_with(body, &mut self.scratch)
            .map_err(|source| Finding::Malformed { index, source })?;
        if checked.record.index != index {
            return Err(Finding::OutOfPlace { index, found: checked.record.index });
        }
        if self.last_time.is_some_and(|last| checked.time < last) {
            return Err(Finding::TimeWentBack { index });
        }
        self.first_time.get_or_insert(checked.time);
        self.last_time = Some(checked.time);
        *self.kinds.entry(checked.kind).or_default() += 1;
        if checked.kind == Kind::CheckpointGivenUp
            && let Ok(root) = checked.record.tree_root.as_ref().try_into()
        {
            self.given_up.entry((checked.record.tree_size, root)).or_insert(index);
        }
        if self.misconduct.is_none() {
            let custody = self.custody.follow(&checked);
            self.misconduct = custody.and_then(|()| self.standing.follow(&checked)).err();
        }
        if let Some(missing) = &mut self.pruned {
            missing.look_at(&checked.record);
        }
        self.frontier.push(leaf_hash(body));
        Ok(())
    }

    fn compare_earlier(&mut self) {
        let size = self.frontier.size();
        while let Some(earlier) = self.earlier.pop_if(|earlier| earlier.size == size) {
            if earlier.root != self.frontier.root() {
                // Not yet a fork: a later record may say that it was given up.
                self.unmatched.push(earlier);
            }
        }
    }

    /// Every checkpoint that the log does not continue must have been given up, exactly.
    fn excuse_unmatched(&mut self) -> Result<Vec<GivenUp>, Finding> {
        // What is left is larger than the log: it was cut back.
        let larger = self.earlier.drain(..).rev();
        let unmatched = self.unmatched.drain(..).chain(larger);
        unmatched
            .map(|Checkpoint { size, root, .. }| {
                let index = self.given_up.get(&(size, root)).copied();
                let index = index.ok_or(Finding::Forked { size })?;
                Ok(GivenUp { index, size, root })
            })
            .collect()
    }
}

impl Missing {
    fn look_at(&mut self, record: &Record) {
        let says = record.kind() == Kind::LogPruned
            && record.tree_size == self.size
            && *record.tree_root == self.root;
        if says {
            self.recorded_at.get_or_insert(record.index);
        }
    }

    fn on_record(&self) -> Result<Pruned, Finding> {
        let index = self.recorded_at.ok_or(Finding::PruningNotOnRecord { size: self.size })?;
        Ok(Pruned { before: self.size, index, earlier: self.earlier })
    }
}
