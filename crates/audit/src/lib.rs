//! The log's records, Merkle tree, checkpoints and proofs, and their offline verification: no I/O
//! and no async. `docs/log-format.md` gives every byte; what a stranger verifies with another
//! program, this crate writes.

mod approvals;
mod base64;
mod bundle;
mod checkpoint;
mod cosigner;
mod custody;
mod disclosure;
mod draft;
mod erasures;
mod figures;
mod filter;
mod finding;
mod frontier;
mod hash;
mod keks;
mod key;
mod kind;
mod note;
mod plan;
mod policy;
mod proof;
mod pruned;
mod record;
mod standing;
mod tile;
mod tile_path;
mod tlog_proof;
mod verifier;
mod witness;

pub use approvals::{APPROVAL_LASTS, APPROVE, Approval, Approvals, Misstep, Step, request_sha256};
pub use bundle::{BUNDLE_WIDTH, Bundle, MalformedBundle, encode_bundle};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use cosigner::{CosignerKey, WitnessKey};
pub use custody::LONGEST_LEASE;
pub use disclosure::{Disclosure, Names, NotDisclosed};
pub use draft::{Entry, RecordDraft};
pub use figures::{amounts, proto_amounts, proto_spent, proto_unit, spending, unit};
pub use filter::{InvalidFilter, RecordFilter};
pub use finding::Finding;
pub use frontier::{Frontier, MalformedFrontier};
pub use hash::{Hash, empty_root, leaf_hash, node_hash, tree_root};
pub use key::{KeyError, SignerKey, VerifierKey};
pub use kind::{mutates, revocation};
pub use note::{Note, NoteError};
pub use plan::{Node, NotInTree, ProofPlan, peaks};
pub use policy::{MalformedPolicy, PolicyDocument};
pub use proof::{BadProof, verify_consistency, verify_inclusion};
pub use pruned::{MalformedStart, PrunedStart};
pub use record::{InvalidRecord, decode_record, proto_time, timestamp};
pub use strongroom_proto::v1::{
    Record,
    credential_test::Verdict,
    record::{Kind, Reason},
};
pub use tile::{HashTile, MalformedTile, TileFolder};
pub use tile_path::Resource;
pub use tlog_proof::{RecordProof, RecordProofError};
pub use verifier::{GivenUp, Pruned, Report, Verifier};
pub use witness::{AddCheckpoint, Conflict, Seen, Submission, Witness, WitnessRefusal};
