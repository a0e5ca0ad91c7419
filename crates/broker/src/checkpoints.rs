use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use audit::{Checkpoint, Hash, Kind, VerifierKey};
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};
use store::{Store, StoreError};
use tokio::sync::{mpsc, watch};

use crate::{log::Log, refused::Why};

pub(crate) mod file;
pub(crate) mod tree;

/// What this broker knows of signed checkpoints: the newest, those that were given up, and whether
/// one turned up that the log does not continue. Then nothing is lent until the broker is started
/// again.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    key: VerifierKey,
    newest: ArcSwapOption<Known>,
    given_up: ArcSwap<GivenUp>,
    stopped: AtomicBool,
    trouble: watch::Sender<Option<Trouble>>,
    /// SHA-256 of notes that were looked at, or are about to be.
    looked_at: Cache<Hash, ()>,
    echoes: mpsc::Sender<String>,
    /// How an operator calls this broker's binary, for what it says of the way out.
    command: String,
}

/// A checkpoint that the log's key signed and the log continues.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) note: String,
}

/// The checkpoints that operators gave up, as the log tells it.
#[derive(Debug, Default)]
pub(crate) struct GivenUp(Vec<(u64, Hash)>);

/// A checkpoint that the log's key signed and the log does not continue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Trouble {
    /// The log has fewer records than were signed.
    Behind {
        /// What was signed.
        signed: Checkpoint,
        /// How many records there are.
        found: u64,
    },
    /// The log has other records than were signed.
    Forked {
        /// What was signed.
        signed: Checkpoint,
    },
}

/// Echoes that may wait to be looked at. What is over is echoed again.
const ECHOES: usize = 16;

/// The longest note that a client may echo, in bytes: room for the signatures of many witnesses.
const LONGEST_ECHO: usize = 16 * 1024;

impl Checkpoints {
    /// Knows nothing yet. What is echoed and has to be looked at comes out of the receiver.
    pub(crate) fn new(key: VerifierKey, config: &Path) -> (Self, mpsc::Receiver<String>) {
        let (echoes, to_look_at) = mpsc::channel(ECHOES);
        let checkpoints = Self {
            key,
            newest: ArcSwapOption::empty(),
            given_up: ArcSwap::default(),
            stopped: AtomicBool::new(false),
            trouble: watch::Sender::new(None),
            looked_at: Cache::new(4096),
            echoes,
            command: format!("broker give-up-checkpoint --config {}", config.display()),
        };
        (checkpoints, to_look_at)
    }

    /// The key that verifies the log's checkpoints.
    pub(crate) fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The newest checkpoint that this broker knows.
    pub(crate) fn newest(&self) -> Option<std::sync::Arc<Known>> {
        self.newest.load_full()
    }

    /// The newest checkpoint as a note; empty before the first.
    pub(crate) fn note(&self) -> String {
        self.newest.load().as_ref().map(|known| known.note.clone()).unwrap_or_default()
    }

    /// Takes a newer one. To be called by one task only, which has made sure of it.
    pub(crate) fn advance(&self, known: Known) {
        self.looked_at.insert(digest(&known.note), ());
        metrics::gauge!("strongroom_checkpoint_records").set(metric(known.checkpoint.size));
        self.newest.store(Some(std::sync::Arc::new(known)));
    }

    /// Takes in what a client has seen. Nothing is lent when it proves that the log lost records.
    ///
    /// Seldom more than the comparison of two texts: only a size beyond what this broker knows of
    /// costs a read, and a signature is verified here only if the log is too short for it. So a
    /// size that somebody made up stops nothing.
    pub(crate) async fn hear(&self, note: &str, log: &Log, store: &dyn Store) -> Result<(), Why> {
        self.check()?;
        let is_newest = self.newest.load().as_ref().is_some_and(|known| known.note == note);
        if note.is_empty() || is_newest {
            return Ok(());
        }
        let claimed = Checkpoint::claimed_size(note).filter(|_| note.len() <= LONGEST_ECHO);
        let Some(size) = claimed else {
            count_echo("malformed");
            return Ok(());
        };
        let known = log.size();
        if size > known {
            let found = store.head().await?.frontier.size();
            log.saw(known, found);
            if size > found {
                return self.hear_of_more(note, found, store).await;
            }
        }
        self.look_at_later(note);
        Ok(())
    }

    /// Looks at a checkpoint of more records than there are.
    async fn hear_of_more(&self, note: &str, found: u64, store: &dyn Store) -> Result<(), Why> {
        let Ok(signed) = Checkpoint::verify(note, &self.key) else {
            count_echo("unsigned");
            return Ok(());
        };
        if self.is_given_up(&signed, store).await? {
            count_echo("given_up");
            return Ok(());
        }
        count_echo("not_continued");
        self.stop(Trouble::Behind { signed, found });
        self.check()
    }

    /// Puts a note in line to be looked at, once.
    fn look_at_later(&self, note: &str) {
        let digest = digest(note);
        if !self.looked_at.contains_key(&digest) && self.echoes.try_send(note.to_owned()).is_ok() {
            self.looked_at.insert(digest, ());
        }
    }

    /// Lets a note be looked at again, when that failed.
    pub(crate) fn look_again(&self, note: &str) {
        self.looked_at.invalidate(&digest(note));
    }

    /// Whether an operator gave a checkpoint up, as the log has it now.
    pub(crate) async fn is_given_up(
        &self,
        signed: &Checkpoint,
        store: &dyn Store,
    ) -> Result<bool, StoreError> {
        if self.given_up.load().covers(signed) {
            return Ok(true);
        }
        self.given_up.store(std::sync::Arc::new(GivenUp::read(store).await?));
        Ok(self.given_up.load().covers(signed))
    }

    /// Stops the lending, for good.
    pub(crate) fn stop(&self, trouble: Trouble) {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        metrics::gauge!("strongroom_log_not_continued").set(1.0);
        tracing::error!(way_out = self.way_out(trouble.signed()), "nothing is lent: {trouble}");
        self.trouble.send_replace(Some(trouble));
    }

    /// Refuses to lend when a checkpoint turned up that the log does not continue.
    pub(crate) fn check(&self) -> Result<(), Why> {
        if !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(match &*self.trouble.borrow() {
            Some(Trouble::Forked { .. }) => Why::LogForked,
            Some(Trouble::Behind { .. }) | None => Why::LogBehindCheckpoint,
        })
    }

    /// Tells of the checkpoint that the log does not continue, once there is one.
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.subscribe()
    }

    /// What an operator can do about a checkpoint that the log does not continue.
    pub(crate) fn way_out(&self, signed: &Checkpoint) -> String {
        format!(
            "restore the records that are missing; or, if they are lost for good, stop this broker \
             and run `{} --size {} --root {}` (docs/operations.md, Backups)",
            self.command,
            signed.size,
            signed.root_text(),
        )
    }
}

impl GivenUp {
    /// Reads what the log says was given up.
    pub(crate) async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let mut given_up = Vec::new();
        for entry in store.changes_of_kind(Kind::CheckpointGivenUp).await? {
            let corrupt = || StoreError::Corrupt(format!("record {}", entry.index));
            let record = entry.record().map_err(|_| corrupt())?;
            let root = record.tree_root.as_ref().try_into().map_err(|_| corrupt())?;
            given_up.push((record.tree_size, root));
        }
        Ok(Self(given_up))
    }

    /// Whether a checkpoint is one of these, or of the lost history before one.
    pub(crate) fn covers(&self, signed: &Checkpoint) -> bool {
        self.0.iter().any(|(size, root)| {
            signed.size < *size || (signed.size == *size && signed.root == *root)
        })
    }
}

impl Trouble {
    /// What was signed.
    pub(crate) fn signed(&self) -> &Checkpoint {
        match self {
            Self::Behind { signed, .. } | Self::Forked { signed } => signed,
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Behind { signed, found } => write!(
                f,
                "the log in the database has {found} records, and {} were signed",
                signed.size
            ),
            Self::Forked { signed } => write!(
                f,
                "the first {} records of the log in the database are not those that were signed",
                signed.size
            ),
        }
    }
}

/// Counts what clients echo that is not simply known.
pub(crate) fn count_echo(outcome: &'static str) {
    metrics::counter!("strongroom_checkpoint_echoes_total", "outcome" => outcome).increment(1);
}

fn digest(note: &str) -> Hash {
    Sha256::digest(note).into()
}

#[expect(clippy::cast_precision_loss, reason = "a metric of more than 2^53 records may be inexact")]
fn metric(size: u64) -> f64 {
    size as f64
}
