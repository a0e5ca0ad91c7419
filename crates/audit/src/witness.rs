use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    Checkpoint, CheckpointError, Hash, Note, NoteError, VerifierKey,
    base64::{decimal, decode_hash, encode},
    empty_root, verify_consistency,
};

/// What a witness knows, and how it decides: <https://c2sp.org/tlog-witness> without I/O. Whoever
/// drives it keeps what it has seen before cosigning.
#[derive(Debug, Default)]
pub struct Witness {
    logs: BTreeMap<String, Log>,
}

#[derive(Debug)]
struct Log {
    key: VerifierKey,
    latest: Option<Seen>,
}

/// A checkpoint that a witness has cosigned, or is about to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The note, as the log sent it.
    pub note: String,
}

/// A request to cosign a checkpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddCheckpoint {
    /// The size of the tree that the witness cosigned last; 0 if it never did.
    pub old_size: u64,
    /// That the tree of that size is the beginning of the checkpoint's.
    pub proof: Vec<Hash>,
    /// The signed checkpoint.
    pub note: String,
}

/// A checkpoint that may be cosigned once it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Submission(Seen);

/// Why a checkpoint is not cosigned.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum WitnessRefusal {
    /// The request does not have the form it must, or its old size is above the checkpoint's.
    #[error("the request is malformed")]
    Malformed,
    /// This witness does not know the log.
    #[error("this witness does not know the log")]
    UnknownLog,
    /// The log's key did not sign the checkpoint.
    #[error("the checkpoint is not signed by the log's key")]
    NotSigned,
    /// The request goes on from another size than that of the latest checkpoint cosigned.
    #[error("the latest checkpoint cosigned has the size {size}")]
    OutOfDate {
        /// The size to go on from.
        size: u64,
        /// The log signed another tree of that very size: it has two histories.
        conflict: Option<Box<Conflict>>,
    },
    /// The log signed two trees of the same size: it has two histories.
    #[error("the log signed another tree of the same size")]
    Forked(Box<Conflict>),
    /// The proof does not hold. Whoever has a checkpoint can send a bad proof along with it, so that
    /// this alone says nothing about the log.
    #[error("the consistency proof does not hold")]
    Unproved(Box<Conflict>),
}

/// Two checkpoints of one log, both signed by it, that were not shown to fit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conflict {
    /// The one cosigned; none if there was none yet.
    pub latest: Option<Seen>,
    /// The one refused.
    pub refused: Seen,
}

impl Witness {
    /// Adds a log by its key, with the note kept of the latest checkpoint cosigned. An error says
    /// that the note is not one of this log.
    pub fn add_log(
        &mut self,
        key: VerifierKey,
        latest: Option<&str>,
    ) -> Result<(), CheckpointError> {
        let latest = latest.map(|note| Seen::verify(note, &key)).transpose()?;
        self.logs.insert(key.name().to_owned(), Log { key, latest });
        Ok(())
    }

    /// Decides on a request. The order of the checks is the specification's.
    pub fn check(&self, request: &AddCheckpoint) -> Result<Submission, WitnessRefusal> {
        let note = Note::parse(&request.note).map_err(|_| WitnessRefusal::Malformed)?;
        let origin = Checkpoint::claimed_origin(&note).ok_or(WitnessRefusal::Malformed)?;
        let log = self.logs.get(&origin).ok_or(WitnessRefusal::UnknownLog)?;
        let refused = Seen::verify(&request.note, &log.key).map_err(|error| match error {
            CheckpointError::Note(NoteError::UnknownSigner | NoteError::BadSignature) => {
                WitnessRefusal::NotSigned
            }
            CheckpointError::Note(NoteError::Malformed)
            | CheckpointError::Malformed
            | CheckpointError::WrongOrigin => WitnessRefusal::Malformed,
        })?;
        let (size, root) = (refused.checkpoint.size, refused.checkpoint.root);
        if request.old_size > size {
            return Err(WitnessRefusal::Malformed);
        }
        let (old_size, old_root) = log.latest.as_ref().map_or_else(
            || (0, empty_root()),
            |latest| (latest.checkpoint.size, latest.checkpoint.root),
        );
        let forked = size == old_size && root != old_root;
        let conflict =
            || Box::new(Conflict { latest: log.latest.clone(), refused: refused.clone() });
        if request.old_size != old_size {
            let conflict = forked.then(conflict);
            return Err(WitnessRefusal::OutOfDate { size: old_size, conflict });
        }
        if forked {
            return Err(WitnessRefusal::Forked(conflict()));
        }
        verify_consistency(old_size, &old_root, size, &root, &request.proof)
            .map_err(|_| WitnessRefusal::Unproved(conflict()))?;
        Ok(Submission(refused))
    }

    /// Takes note of what is kept now: from here on the log must go on from it.
    pub fn accept(&mut self, submission: Submission) {
        if let Some(log) = self.logs.get_mut(&submission.0.checkpoint.origin) {
            log.latest = Some(submission.0);
        }
    }

    /// The latest checkpoint cosigned of each log, by origin.
    pub fn latest(&self) -> impl Iterator<Item = (&str, Option<&Seen>)> {
        self.logs.iter().map(|(origin, log)| (origin.as_str(), log.latest.as_ref()))
    }
}

impl Submission {
    /// What is to be kept, and then cosigned.
    pub fn seen(&self) -> &Seen {
        &self.0
    }
}

impl Seen {
    fn verify(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        Ok(Self { checkpoint: Checkpoint::verify(note, key)?, note: note.to_owned() })
    }
}

impl WitnessRefusal {
    /// Two notes that do not fit, when the request showed such.
    pub fn conflict(&self) -> Option<&Conflict> {
        match self {
            Self::Forked(conflict) | Self::Unproved(conflict) => Some(conflict),
            Self::OutOfDate { conflict, .. } => conflict.as_deref(),
            Self::Malformed | Self::UnknownLog | Self::NotSigned => None,
        }
    }

    /// Whether the two notes alone prove that the log has two histories.
    pub fn is_fork(&self) -> bool {
        match self {
            Self::Forked(_) | Self::OutOfDate { conflict: Some(_), .. } => true,
            Self::Malformed
            | Self::UnknownLog
            | Self::NotSigned
            | Self::OutOfDate { conflict: None, .. }
            | Self::Unproved(_) => false,
        }
    }
}

impl AddCheckpoint {
    /// Reads the body of a request.
    pub fn parse(body: &str) -> Result<Self, WitnessRefusal> {
        Self::parse_lines(body).ok_or(WitnessRefusal::Malformed)
    }

    /// The body of the request.
    pub fn encode(&self) -> String {
        let mut body = format!("old {}\n", self.old_size);
        for hash in &self.proof {
            body.push_str(&encode(hash));
            body.push('\n');
        }
        body.push('\n');
        body.push_str(&self.note);
        body
    }

    fn parse_lines(body: &str) -> Option<Self> {
        let (head, note) = body.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let old_size = decimal(lines.next()?.strip_prefix("old ")?)?;
        let proof = lines.map(decode_hash).collect::<Option<Vec<_>>>()?;
        (proof.len() <= LONGEST_PROOF).then(|| Self { old_size, proof, note: note.to_owned() })
    }
}

/// The specification's bound.
const LONGEST_PROOF: usize = 63;
