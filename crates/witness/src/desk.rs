use std::{
    fmt,
    path::Path,
    str::FromStr as _,
    sync::{Arc, Mutex, PoisonError},
};

use audit::{AddCheckpoint, CosignerKey, Note, VerifierKey, Witness, WitnessRefusal};
use domain::Clock;

use crate::{WitnessError, evidence::Evidence, files::failed, files::read_private, state::State};

/// Where checkpoints are handed in: decides on each, keeps it, and only then cosigns.
pub struct Desk {
    key: CosignerKey,
    clock: Arc<dyn Clock>,
    evidence: Evidence,
    /// One at a time from the check to the cosignature, or an older checkpoint could replace a newer.
    witness: Mutex<(Witness, State)>,
}

/// What a log is answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The line of the cosignature.
    Cosigned(String),
    /// Not cosigned, and why not.
    Refused(WitnessRefusal),
    /// The checkpoint could not be kept, so it is not cosigned. Trying again may help.
    NotKept,
}

impl Desk {
    /// Reads the witness's key and the logs' keys, and what is kept of the logs in `state`.
    ///
    /// # Errors
    /// Also when what is kept of a log cannot be believed: a witness does not begin anew by itself.
    pub fn open(
        key: &Path,
        logs: &[impl AsRef<Path>],
        state: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WitnessError> {
        let kept = State::open(state)?;
        let evidence = Evidence::open(state)?;
        let mut witness = Witness::default();
        for path in logs {
            let path = path.as_ref();
            let text = std::fs::read_to_string(path).map_err(failed(path))?;
            let log = VerifierKey::from_str(text.trim_end())
                .map_err(|source| WitnessError::Key { path: path.to_owned(), source })?;
            let origin = log.name().to_owned();
            let latest = kept.latest(&origin)?;
            witness.add_log(log, latest.as_deref()).map_err(|source| WitnessError::State {
                path: kept.path(&origin),
                origin,
                source,
            })?;
        }
        let secret = read_private(key)?;
        let text = std::str::from_utf8(secret.expose()).unwrap_or_default();
        let key = CosignerKey::parse(text.trim_end())
            .map_err(|source| WitnessError::Key { path: key.to_owned(), source })?;
        Ok(Self { key, clock, evidence, witness: Mutex::new((witness, kept)) })
    }

    /// The text form of the key that verifies what this witness cosigns.
    pub fn key(&self) -> String {
        self.key.witness().to_string()
    }

    /// Decides on the body of a request. It waits for the disk.
    pub fn add(&self, body: &str) -> Answer {
        let mut desk = self.witness.lock().unwrap_or_else(PoisonError::into_inner);
        let (witness, state) = &mut *desk;
        let checked = AddCheckpoint::parse(body).and_then(|request| witness.check(&request));
        let submission = match checked {
            Ok(submission) => submission,
            Err(refusal) => {
                self.alarm(&refusal);
                return Answer::Refused(refusal);
            }
        };
        let seen = submission.seen().clone();
        let Ok(note) = Note::parse(&seen.note) else {
            return Answer::Refused(WitnessRefusal::Malformed);
        };
        // Kept before it is cosigned: after a crash in between it is only not answered, but one that
        // was answered is never forgotten.
        if let Err(error) = state.keep(&seen.checkpoint.origin, &seen.note) {
            tracing::error!(%error, "a checkpoint could not be kept, and is not cosigned");
            return Answer::NotKept;
        }
        witness.accept(submission);
        let (log, size) = (seen.checkpoint.origin, seen.checkpoint.size);
        tracing::debug!(log, size, "cosigned");
        let seconds = u64::try_from(self.clock.now().as_millis() / 1000).unwrap_or(0);
        Answer::Cosigned(note.cosign(&self.key, seconds))
    }

    /// The names of the notes kept because they do not fit together.
    pub fn evidence(&self) -> Result<Vec<String>, WitnessError> {
        self.evidence.list().map_err(failed(Path::new("evidence")))
    }

    fn alarm(&self, refusal: &WitnessRefusal) {
        let Some(conflict) = refusal.conflict() else { return };
        let kept = match self.evidence.keep(refusal, conflict) {
            Ok(kept) => kept.unwrap_or_else(|| "there is no room for more".to_owned()),
            Err(error) => format!("not kept: {error}"),
        };
        let refused = &conflict.refused.checkpoint;
        let (log, size) = (&refused.origin, refused.size);
        let kind = if refusal.is_fork() { "fork" } else { "unproved" };
        metrics::counter!("strongroom_witness_conflicts_total", "kind" => kind).increment(1);
        if refusal.is_fork() {
            tracing::error!(log, size, evidence = kept, "THE LOG SIGNED TWO HISTORIES");
        } else {
            tracing::error!(log, size, evidence = kept, "a checkpoint came without a valid proof");
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("witness", self.key.witness()).finish_non_exhaustive()
    }
}
