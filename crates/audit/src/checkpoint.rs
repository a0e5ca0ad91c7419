use thiserror::Error;

use crate::{
    Hash, Note, NoteError, SignerKey, VerifierKey,
    base64::{decimal, decode_hash, encode},
};

/// The head of a log's tree, <https://c2sp.org/tlog-checkpoint>.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    /// Which log it is; the name of its key.
    pub origin: String,
    /// How many records the tree has.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
}

/// Why a checkpoint is not to be believed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum CheckpointError {
    /// The note around it is malformed, or not signed by the log's key.
    #[error("the checkpoint is not a note signed by the log")]
    Note(#[source] NoteError),
    /// The signed text is not a checkpoint.
    #[error("the checkpoint is malformed")]
    Malformed,
    /// It is signed by the log's key, for another log.
    #[error("the checkpoint is of another log")]
    WrongOrigin,
}

impl Checkpoint {
    /// The checkpoint of a tree as a signed note. The key's name becomes the origin.
    ///
    /// Who signs must have checked that the tree continues every tree it signed before: a log that
    /// signs two that do not fit has proved itself false.
    pub fn sign(size: u64, root: &Hash, key: &SignerKey) -> Result<String, NoteError> {
        let text = format!("{}\n{size}\n{}\n", key.verifier().name(), encode(root));
        Ok(Note::sign(&text, key)?.encode())
    }

    /// Reads a signed note and gives the checkpoint if the log's key signed it.
    pub fn verify(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let note = Note::parse(note).map_err(CheckpointError::Note)?;
        let text = note.verify(key).map_err(CheckpointError::Note)?;
        let checkpoint = Self::parse(text).ok_or(CheckpointError::Malformed)?;
        if checkpoint.origin == key.name() {
            Ok(checkpoint)
        } else {
            Err(CheckpointError::WrongOrigin)
        }
    }

    /// The origin that a note claims, for who has to find the key to verify it with.
    pub(crate) fn claimed_origin(note: &Note) -> Option<String> {
        Self::parse(note.text()).map(|checkpoint| checkpoint.origin)
    }

    /// The size that a note claims, unverified: to tell cheaply whether it can be news.
    pub fn claimed_size(note: &str) -> Option<u64> {
        decimal(note.split('\n').nth(1)?)
    }

    /// The root as the note has it, in base64.
    pub fn root_text(&self) -> String {
        encode(&self.root)
    }

    /// Reads a root that a person copied: base64 as in a note, or hex digits.
    pub fn parse_root(text: &str) -> Option<Hash> {
        let mut root = [0; 32];
        match hex::decode_to_slice(text, &mut root) {
            Ok(()) => Some(root),
            Err(_) => decode_hash(text),
        }
    }

    /// Extension lines are allowed by the specification and mean nothing here.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty())?.to_owned();
        let size = decimal(lines.next()?)?;
        let root = decode_hash(lines.next()?)?;
        lines.all(|line| !line.is_empty()).then_some(Self { origin, size, root })
    }
}
