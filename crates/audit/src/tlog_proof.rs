use std::fmt::Write as _;

use thiserror::Error;

use crate::{
    Checkpoint, CheckpointError, Hash, InvalidRecord, Record, VerifierKey,
    base64::{decimal, decode, decode_hash, encode},
    decode_record, leaf_hash, verify_inclusion,
};

/// A proof for one record that needs nothing but the log's key,
/// <https://c2sp.org/tlog-proof>: its place, the audit path and the signed checkpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordProof {
    /// Where the record stands.
    pub index: u64,
    /// The audit path, from the leaf up.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint, as the log gave it.
    pub checkpoint: String,
}

/// Why a record is not proved.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum RecordProofError {
    /// The text is not a proof.
    #[error("the proof is malformed")]
    Malformed,
    /// Its checkpoint is not to be believed.
    #[error("the proof's checkpoint is not to be believed")]
    Checkpoint(#[source] CheckpointError),
    /// The entry is not a record, or says that it stands elsewhere.
    #[error("the entry is not the record that the proof is for")]
    Record(#[source] InvalidRecord),
    /// The entry is not at that place in the checkpoint's tree.
    #[error("the record is not in the checkpoint's tree")]
    NotIncluded,
}

impl RecordProof {
    /// The text of the proof, for a `.tlog-proof` file.
    pub fn encode(&self) -> String {
        let mut text = format!("{HEADER}\nindex {}\n", self.index);
        for hash in &self.hashes {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{}", encode(hash));
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads the text of a proof. Nothing is verified yet; an `extra` line is passed over, because
    /// nothing vouches for it.
    pub fn parse(text: &str) -> Result<Self, RecordProofError> {
        Self::parse_lines(text).ok_or(RecordProofError::Malformed)
    }

    /// Gives the record if its body stands where the proof says, in a tree that the key signed.
    pub fn verify(&self, key: &VerifierKey, body: &[u8]) -> Result<Record, RecordProofError> {
        let checkpoint =
            Checkpoint::verify(&self.checkpoint, key).map_err(RecordProofError::Checkpoint)?;
        let Checkpoint { size, root, .. } = checkpoint;
        verify_inclusion(&leaf_hash(body), self.index, size, &self.hashes, &root)
            .map_err(|_| RecordProofError::NotIncluded)?;
        let record = decode_record(body).map_err(RecordProofError::Record)?;
        if record.index == self.index {
            Ok(record)
        } else {
            Err(RecordProofError::Record(InvalidRecord::Field("index")))
        }
    }

    fn parse_lines(text: &str) -> Option<Self> {
        let (head, checkpoint) = text.split_once("\n\n")?;
        let mut lines = head.split('\n').peekable();
        if lines.next()? != HEADER {
            return None;
        }
        if let Some(extra) = lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            decode(extra)?;
            lines.next();
        }
        let index = decimal(lines.next()?.strip_prefix("index ")?)?;
        let hashes = lines.map(decode_hash).collect::<Option<Vec<_>>>()?;
        if hashes.len() > LONGEST_PATH {
            return None;
        }
        Some(Self { index, hashes, checkpoint: checkpoint.to_owned() })
    }
}

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// A tree of `u64` leaves is no higher.
const LONGEST_PATH: usize = 64;
