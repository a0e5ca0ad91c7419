use std::{fs, path::PathBuf, sync::Arc};

use audit::{
    AddCheckpoint, Checkpoint, CosignerKey, Hash, Node, ProofPlan, SignerKey, leaf_hash, tree_root,
};
use domain::SystemClock;
use tempfile::TempDir;
use witness::{Desk, WitnessError, write_private};

/// The files of a witness that knows one log.
pub(crate) struct Given {
    pub(crate) folder: TempDir,
    pub(crate) witness: CosignerKey,
}

impl Given {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let witness = CosignerKey::generate("witness.internal").unwrap();
        write_private(&folder.path().join("witness.key"), &witness.to_text()).unwrap();
        fs::write(folder.path().join("log.pub"), format!("{}\n", log().verifier())).unwrap();
        Self { folder, witness }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn open(&self) -> Result<Desk, WitnessError> {
        let logs = [self.path("log.pub")];
        Desk::open(&self.path("witness.key"), &logs, &self.path("state"), Arc::new(SystemClock))
    }
}

pub(crate) fn log() -> SignerKey {
    SignerKey::from_seed("strongroom.test/log", &[7; 32]).unwrap()
}

/// A history that differs from others of its kind from some record on.
pub(crate) struct History {
    leaves: Vec<Hash>,
}

impl History {
    pub(crate) fn new(fork: u64) -> Self {
        let leaf = |n: u64| leaf_hash(format!("{n} {}", n >= fork).as_bytes());
        Self { leaves: (0..64).map(leaf).collect() }
    }

    fn root(&self, start: u64, end: u64) -> Hash {
        let place = |index| usize::try_from(index).unwrap();
        tree_root(self.leaves.get(place(start)..place(end)).unwrap())
    }

    pub(crate) fn note(&self, size: u64) -> String {
        Checkpoint::sign(size, &self.root(0, size), &log()).unwrap()
    }

    pub(crate) fn request(&self, old_size: u64, size: u64) -> String {
        let plan = ProofPlan::consistency(old_size, size).unwrap();
        let source = |node: Node| Ok::<_, ()>(self.root(node.range().start, node.range().end));
        let proof = plan.assemble(source).unwrap();
        AddCheckpoint { old_size, proof, note: self.note(size) }.encode()
    }
}
