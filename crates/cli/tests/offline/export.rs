//! An export made by hand, of the bytes that a broker would write.

use std::{fs, path::PathBuf};

use audit::{
    Bundle, Checkpoint, CosignerKey, Hash, HashTile, Kind, Note, ProofPlan, PrunedStart, Record,
    RecordDraft, RecordProof, SignerKey, TileFolder, encode_bundle, leaf_hash, tree_root,
};
use domain::Timestamp;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

pub(crate) struct Log {
    pub(crate) directory: TempDir,
    pub(crate) granted: u64,
    key: SignerKey,
    bodies: Vec<Vec<u8>>,
}

impl Log {
    /// A broker that runs by some rules, a session and one credential, then leases of it.
    pub(crate) fn new(size: u64) -> Self {
        Self::by(&rules(300), size)
    }

    /// A broker that runs by these rules, a session and one credential, then leases of it.
    pub(crate) fn by(rules: &[u8], size: u64) -> Self {
        let log = Self {
            directory: TempDir::new().unwrap(),
            granted: size.saturating_sub(FIRST_LEASE),
            key: SignerKey::generate("test.internal/log").unwrap(),
            bodies: (0..size).map(|index| body(index, rules)).collect(),
        };
        log.write();
        let file = log.rules_file(rules);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, rules).unwrap();
        log
    }

    /// The export of a log whose first 256 records were pruned, and, apart, one that has them.
    pub(crate) fn pruned() -> (Self, TempDir) {
        let mut log = Self::new(300);
        let root = tree_root(&leaves(&log.bodies[..256]));
        let record = Record {
            kind: Kind::LogPruned.into(),
            tree_size: 256,
            tree_root: root.to_vec().into(),
            ..Record::default()
        };
        let time = Timestamp::from_millis(1_700_000_100_000);
        log.bodies.push(RecordDraft::new(record).unwrap().seal_at(300, time).body);
        fs::remove_dir_all(log.directory.path().join("tile")).unwrap();
        log.write();
        let archive = TempDir::new().unwrap();
        write(&archive, &log.bodies[..280], &log.key);
        // As a mirror prunes: tiles above the lowest level stay.
        for pruned in ["tile/entries/000", "tile/0/000"] {
            fs::remove_file(log.directory.path().join(pruned)).unwrap();
        }
        let start = PrunedStart::from_path(256, &[root]).unwrap();
        fs::write(log.directory.path().join("pruned"), start.encode()).unwrap();
        (log, archive)
    }

    /// Where the rules lie that the log names.
    pub(crate) fn rules_file(&self, rules: &[u8]) -> PathBuf {
        let policies = self.directory.path().join("policies");
        policies.join(format!("{}.json", hex::encode(Sha256::digest(rules))))
    }

    pub(crate) fn vkey(&self) -> String {
        self.key.verifier().to_string()
    }

    /// Has the checkpoint cosigned by a witness, whose key this gives.
    pub(crate) fn cosign(&self) -> String {
        let path = self.directory.path().join("checkpoint");
        let text = fs::read_to_string(&path).unwrap();
        let witness = CosignerKey::generate("witness.internal").unwrap();
        let line = Note::parse(&text).unwrap().cosign(&witness, 1_700_000_000);
        fs::write(path, format!("{text}{line}")).unwrap();
        witness.witness().to_string()
    }

    /// Signs the log's beginning as if it were all of it.
    pub(crate) fn cut_to(&self, size: usize) {
        let (kept, _) = self.bodies.split_at(size);
        write(&self.directory, kept, &self.key);
    }

    pub(crate) fn write_proof(&self, index: u64) -> PathBuf {
        let leaves: Vec<Hash> = self.bodies.iter().map(|body| leaf_hash(body)).collect();
        let size = u64::try_from(leaves.len()).unwrap();
        let plan = ProofPlan::inclusion(index, size).unwrap();
        let hashes = plan
            .assemble(|node| {
                let range = node.range();
                let (from, to) = (usize::try_from(range.start), usize::try_from(range.end));
                Ok::<_, ()>(tree_root(&leaves[from.unwrap()..to.unwrap()]))
            })
            .unwrap();
        let checkpoint = Checkpoint::sign(size, &tree_root(&leaves), &self.key).unwrap();
        let proof = RecordProof { index, hashes, checkpoint };
        let path = self.directory.path().join("proof");
        fs::write(&path, proof.encode()).unwrap();
        let body = &self.bodies[usize::try_from(index).unwrap()];
        fs::write(self.directory.path().join("proof.record"), body).unwrap();
        path
    }

    fn write(&self) {
        write(&self.directory, &self.bodies, &self.key);
    }
}

fn leaves(bodies: &[Vec<u8>]) -> Vec<Hash> {
    bodies.iter().map(|body| leaf_hash(body)).collect()
}

fn write(directory: &TempDir, bodies: &[Vec<u8>], key: &SignerKey) {
    let size = u64::try_from(bodies.len()).unwrap();
    for bundle in Bundle::covering(size) {
        let first = usize::try_from(bundle.first_entry()).unwrap();
        let width = usize::try_from(bundle.width).unwrap();
        let path = directory.path().join(bundle.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, encode_bundle(&bodies[first..first + width]).unwrap()).unwrap();
    }
    let leaves = leaves(bodies);
    write_tiles(directory, &leaves);
    let checkpoint = Checkpoint::sign(size, &tree_root(&leaves), key).unwrap();
    fs::write(directory.path().join("checkpoint"), checkpoint).unwrap();
}

fn write_tiles(directory: &TempDir, leaves: &[Hash]) {
    let mut folder = TileFolder::default();
    let keep = |tile: HashTile, bytes: &[u8]| {
        let path = directory.path().join(tile.path());
        fs::create_dir_all(path.parent().unwrap())?;
        fs::write(path, bytes)
    };
    for leaf in leaves {
        folder.push(*leaf, keep).unwrap();
    }
    folder.finish(keep).unwrap();
}

/// Rules that let the proxy borrow for acme, for this many seconds.
pub(crate) fn rules(longest: u64) -> Vec<u8> {
    let rule = serde_json::json!({
        "identities": [PROXY],
        "methods": ["Leases/*"],
        "tenants": ["acme"],
        "providers": ["openai"],
        "longest_lease_seconds": longest,
    });
    serde_json::json!({ "rules": [rule] }).to_string().into_bytes()
}

fn body(index: u64, rules: &[u8]) -> Vec<u8> {
    let time = Timestamp::from_millis(1_700_000_000_000 + i64::try_from(index).unwrap());
    let record = match index {
        0 => of_kind(Kind::BrokerStarted),
        1 => Record {
            policy_sha256: Sha256::digest(rules).to_vec().into(),
            ..of_kind(Kind::PolicyLoaded)
        },
        2 => Record {
            actor: PROXY.into(),
            session_key_sha256: vec![3; 32].into(),
            ..of_kind(Kind::SessionOpened)
        },
        3 => of_credential(Kind::CredentialCreated),
        FIRST_LEASE.. => lease(index, time),
    };
    RecordDraft::new(record).unwrap().seal_at(index, time).body
}

fn of_kind(kind: Kind) -> Record {
    Record { kind: kind.into(), broker: vec![6; 16].into(), ..Record::default() }
}

fn of_credential(kind: Kind) -> Record {
    Record {
        actor: PROXY.into(),
        tenant: "acme".into(),
        credential: "tenants/acme/credentials/openai".into(),
        credential_uid: vec![7; 16].into(),
        credential_version: 1,
        revision: 1,
        provider: "openai".into(),
        ..of_kind(kind)
    }
}

fn lease(index: u64, time: Timestamp) -> Record {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&index.to_be_bytes());
    let ends = Timestamp::from_millis(time.as_millis() + 60_000);
    Record {
        lease_hash: hash.to_vec().into(),
        lease_expire_time: Some(audit::proto_time(ends)),
        source: 1,
        virtual_key: "aaaaaaaaaaaaaaaa".into(),
        method: "Leases/AcquireLease".into(),
        session_key_sha256: vec![3; 32].into(),
        ..of_credential(Kind::LeaseGranted)
    }
}

const PROXY: &str = "spiffe://test.internal/inference-proxy";

/// The index of the first lease.
pub(crate) const FIRST_LEASE: u64 = 4;
