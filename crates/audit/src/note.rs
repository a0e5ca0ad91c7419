use thiserror::Error;

use crate::{CosignerKey, SignerKey, VerifierKey, WitnessKey, base64, key::is_name};

/// A signed note, <https://c2sp.org/signed-note>: a text and signatures over it. The text means
/// nothing until [`Note::verify`] has given it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// Why a note is not to be believed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum NoteError {
    /// It does not have the form of a signed note.
    #[error("the signed note is malformed")]
    Malformed,
    /// It is signed, but not by the key asked for.
    #[error("the note is not signed by the expected key")]
    UnknownSigner,
    /// It says that the key signed it, and the key did not.
    #[error("a signature of the note does not verify")]
    BadSignature,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct NoteSignature {
    name: String,
    key_id: [u8; 4],
    bytes: Vec<u8>,
}

impl Note {
    /// Signs a text. It must end in a newline and have no other control characters.
    pub fn sign(text: &str, key: &SignerKey) -> Result<Self, NoteError> {
        if !is_text(text) {
            return Err(NoteError::Malformed);
        }
        let signature = NoteSignature {
            name: key.verifier().name().to_owned(),
            key_id: key.verifier().id(),
            bytes: key.sign(text).to_vec(),
        };
        Ok(Self { text: text.to_owned(), signatures: vec![signature] })
    }

    /// Reads a note. Nothing is verified yet.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > LONGEST {
            return Err(NoteError::Malformed);
        }
        // The last empty line divides: the text may have empty lines of its own.
        let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
        let (text, rest) = note.split_at(at + 1);
        let lines = rest.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
        let lines = lines.ok_or(NoteError::Malformed)?;
        if !is_text(text) {
            return Err(NoteError::Malformed);
        }
        let signatures = lines.split('\n').map(signature).collect::<Option<Vec<_>>>();
        let signatures = signatures.ok_or(NoteError::Malformed)?;
        if signatures.len() > MOST_SIGNATURES {
            return Err(NoteError::Malformed);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Gives the text if the key signed it. Signatures of other keys are ignored, as the
    /// specification asks; one that claims to be this key's and is not spoils the note.
    pub fn verify(&self, key: &VerifierKey) -> Result<&str, NoteError> {
        let mut signed = false;
        for signature in &self.signatures {
            if signature.name == key.name() && signature.key_id == key.id() {
                if !key.verifies(&self.text, &signature.bytes) {
                    return Err(NoteError::BadSignature);
                }
                signed = true;
            }
        }
        if signed { Ok(&self.text) } else { Err(NoteError::UnknownSigner) }
    }

    /// The text, which may be anyone's.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The line that a witness puts below the note, as of a time in seconds since 1970. The witness
    /// must have made sure before that the checkpoint continues all that it has cosigned.
    pub fn cosign(&self, key: &CosignerKey, time: u64) -> String {
        let witness = key.witness();
        let (name, key_id) = (witness.name().to_owned(), witness.id());
        NoteSignature { name, key_id, bytes: key.cosign(&self.text, time) }.line()
    }

    /// When the witness cosigned the note, in seconds since 1970; the latest if it did more than
    /// once. As with [`Note::verify`], one that claims to be this witness's and is not spoils it.
    pub fn cosigned(&self, witness: &WitnessKey) -> Result<u64, NoteError> {
        let mut latest = None;
        for signature in &self.signatures {
            if signature.name == witness.name() && signature.key_id == witness.id() {
                let time = witness.verify(&self.text, &signature.bytes);
                latest = latest.max(Some(time.ok_or(NoteError::BadSignature)?));
            }
        }
        latest.ok_or(NoteError::UnknownSigner)
    }

    /// Adds a witness's cosignature out of the lines with which it answered. Lines of other keys are
    /// left out, and an older cosignature of this witness is replaced.
    pub fn add_cosignature(&mut self, lines: &str, witness: &WitnessKey) -> Result<(), NoteError> {
        let answer = Self::parse(&format!("{}\n{lines}", self.text))?;
        answer.cosigned(witness)?;
        let ours = |it: &NoteSignature| it.name == witness.name() && it.key_id == witness.id();
        self.signatures.retain(|signature| !ours(signature));
        self.signatures.extend(answer.signatures.into_iter().find(ours));
        Ok(())
    }

    /// The note as it is stored and sent.
    pub fn encode(&self) -> String {
        let mut note = format!("{}\n", self.text);
        note.extend(self.signatures.iter().map(NoteSignature::line));
        note
    }
}

impl NoteSignature {
    fn line(&self) -> String {
        let bytes = [&self.key_id[..], &self.bytes].concat();
        format!("— {} {}\n", self.name, base64::encode(&bytes))
    }
}

/// Generous for a checkpoint with a hundred post-quantum witnesses.
const LONGEST: usize = 1_000_000;
const MOST_SIGNATURES: usize = 100;

fn is_text(text: &str) -> bool {
    text.len() > 1 && text.ends_with('\n') && !text.bytes().any(|byte| byte < 0x20 && byte != b'\n')
}

fn signature(line: &str) -> Option<NoteSignature> {
    let (name, bytes) = line.strip_prefix("— ")?.split_once(' ')?;
    let bytes = base64::decode(bytes)?;
    let (key_id, bytes) = bytes.split_first_chunk::<4>()?;
    if !is_name(name) || bytes.is_empty() {
        return None;
    }
    Some(NoteSignature { name: name.to_owned(), key_id: *key_id, bytes: bytes.to_vec() })
}
