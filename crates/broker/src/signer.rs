use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use audit::{Checkpoint, Hash, SignerKey};
use store::{Store, StoreError};
use tokio::{
    select,
    sync::{mpsc, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::checkpoints::{Checkpoints, Known, Trouble, count_echo, file::CheckpointFile, tree};

/// Keeps this broker's newest checkpoint, and signs the next when this broker leads: each only after
/// proving that the log continues the last one in this broker's file and the newest in the database.
///
/// Every broker keeps one, so that after a failover that lost records any of them notices.
pub(crate) struct Signer {
    store: Arc<dyn Store>,
    key: SignerKey,
    checkpoints: Arc<Checkpoints>,
    file: CheckpointFile,
    echoes: mpsc::Receiver<String>,
    /// The note in the database that was looked at last.
    in_database: Option<String>,
    /// Tells those who hand checkpoints to witnesses.
    published: watch::Sender<Option<String>>,
}

/// How a checkpoint stands to the log in the database.
enum Standing {
    Continued,
    Not(Trouble),
}

/// What became of a signed checkpoint that turned up.
enum Taken {
    Continued,
    GivenUp,
    Not(Trouble),
}

/// How often the log is looked at. A checkpoint is at most one second old while records arrive.
const PERIOD: Duration = Duration::from_millis(500);

impl Signer {
    /// Reads the last checkpoint and the database's, and checks that the log still continues them.
    /// `config` is the configuration's path, for what is said of the way out.
    ///
    /// # Errors
    /// When a file cannot be read, and when the log is not what was signed: then something has been
    /// undone in the database, and nothing must be added to it.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        key: SignerKey,
        last: PathBuf,
        config: &Path,
    ) -> anyhow::Result<Self> {
        let (checkpoints, echoes) = Checkpoints::new(key.verifier().clone(), config);
        let mut signer = Self {
            checkpoints: Arc::new(checkpoints),
            file: CheckpointFile::new(last),
            store,
            key,
            echoes,
            in_database: None,
            published: watch::Sender::new(None),
        };
        signer.take_file().await?;
        signer.take_database_at_start().await?;
        Ok(signer)
    }

    /// What the services of the broker share with it.
    pub(crate) fn checkpoints(&self) -> Arc<Checkpoints> {
        Arc::clone(&self.checkpoints)
    }

    /// Tells of each checkpoint that this signer publishes.
    pub(crate) fn published(&self) -> watch::Receiver<Option<String>> {
        self.published.subscribe()
    }

    /// Works until `stop`, then once more.
    pub(crate) async fn run(mut self, mut leads: watch::Receiver<bool>, stop: CancellationToken) {
        let mut ticks = time::interval(PERIOD);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let (mut ends, mut said) = (false, String::new());
        while !ends {
            select! {
                // In this order: no flood of echoes keeps the log from being signed.
                biased;
                () = stop.cancelled() => ends = true,
                _ = ticks.tick() => {}
                Ok(()) = leads.changed() => {}
                Some(note) = self.echoes.recv() => {
                    self.look_at_echo(&note).await;
                    continue;
                }
            }
            let leads = *leads.borrow_and_update();
            let failed = self.look(leads).await.err();
            if failed.is_some() {
                metrics::counter!("strongroom_checkpoint_failures_total").increment(1);
            }
            // Said once for as long as it is the same, not twice a second.
            let why = failed.map(|error| format!("{error:#}")).unwrap_or_default();
            if !why.is_empty() && why != said {
                tracing::error!(error = why, "no checkpoint kept or signed");
            }
            said = why;
        }
    }

    /// Keeps what others have signed, and signs the log as it stands if this broker leads.
    pub(crate) async fn look(&mut self, leads: bool) -> anyhow::Result<()> {
        self.take_database().await?;
        let head = self.store.head().await.context("reading the head")?;
        let (size, newest) = (head.frontier.size(), self.checkpoints.newest());
        let signed = newest.as_ref().map_or(0, |known| known.checkpoint.size);
        if let Some(known) = newest.as_ref().filter(|_| size < signed) {
            let trouble = Trouble::Behind { signed: known.checkpoint.clone(), found: size };
            self.checkpoints.stop(trouble);
        }
        if self.checkpoints.check().is_err() {
            bail!("the log does not continue a checkpoint that was signed");
        }
        if !leads {
            return Ok(());
        }
        if size > signed {
            let root = head.frontier.root();
            let newest = newest.as_ref().map(|known| &known.checkpoint);
            let is_so = is_tree(&*self.store, newest, (size, &root)).await;
            if is_so.context("reading the log")? != Some(true) {
                bail!(
                    "the records do not hash to the head of the log at {size} records, or do not \
                     continue the newest checkpoint"
                );
            }
            let note = Checkpoint::sign(size, &root, &self.key)?;
            let checkpoint = Checkpoint::verify(&note, self.checkpoints.key())?;
            // The file first: what others may have seen must be known here after a crash.
            self.keep(Known { checkpoint, note }).await?;
        }
        self.publish().await
    }

    /// Puts this broker's newest checkpoint into the database, unless it is there.
    async fn publish(&mut self) -> anyhow::Result<()> {
        let Some(newest) = self.checkpoints.newest() else { return Ok(()) };
        let size = newest.checkpoint.size;
        if self.in_database.as_deref().and_then(Checkpoint::claimed_size) >= Some(size) {
            return Ok(());
        }
        self.store.put_checkpoint(size, &newest.note).await.context("publishing the checkpoint")?;
        self.in_database = Some(newest.note.clone());
        metrics::gauge!("strongroom_checkpoint_records").set(metric(size));
        self.published.send_replace(Some(newest.note.clone()));
        Ok(())
    }

    /// Holds the log against the database's checkpoint, and keeps that if it is newer.
    async fn take_database(&mut self) -> anyhow::Result<()> {
        let note = self.store.checkpoint().await.context("reading the newest checkpoint")?;
        if note == self.in_database {
            return Ok(());
        }
        if let Some(note) = &note {
            let signed = Checkpoint::verify(note, self.checkpoints.key())
                .context("the checkpoint in the database")?;
            match self.take(&signed, note).await? {
                Taken::Continued => {}
                Taken::GivenUp => return self.make_room(&signed).await,
                Taken::Not(trouble) => {
                    self.checkpoints.stop(trouble);
                    return Ok(());
                }
            }
        }
        self.in_database = note;
        Ok(())
    }

    /// Looks at what a client has seen.
    async fn look_at_echo(&mut self, note: &str) {
        let Ok(signed) = Checkpoint::verify(note, self.checkpoints.key()) else {
            count_echo("unsigned");
            return;
        };
        match self.take(&signed, note).await {
            Ok(Taken::Continued) => count_echo("continued"),
            Ok(Taken::GivenUp) => count_echo("given_up"),
            Ok(Taken::Not(trouble)) => {
                count_echo("not_continued");
                self.checkpoints.stop(trouble);
            }
            Err(error) => {
                self.checkpoints.look_again(note);
                tracing::warn!(error = format!("{error:#}"), "an echoed checkpoint is open still");
            }
        }
    }

    /// Keeps a signed checkpoint if it is newer than what is known, and says what is wrong if the
    /// log does not continue it and nobody gave it up.
    async fn take(&mut self, signed: &Checkpoint, note: &str) -> anyhow::Result<Taken> {
        let newest = self.checkpoints.newest();
        let known = newest.as_ref().map(|known| &known.checkpoint);
        match standing(&*self.store, known, signed).await? {
            Standing::Continued => {
                if newest.is_none_or(|known| known.checkpoint.size < signed.size) {
                    let known = Known { checkpoint: signed.clone(), note: note.to_owned() };
                    self.keep(known).await?;
                }
                Ok(Taken::Continued)
            }
            Standing::Not(trouble) => {
                let given_up = self.checkpoints.is_given_up(signed, &*self.store).await?;
                Ok(if given_up { Taken::GivenUp } else { Taken::Not(trouble) })
            }
        }
    }

    /// Makes a checkpoint this broker's newest, in the file first.
    async fn keep(&mut self, known: Known) -> anyhow::Result<()> {
        let written = self.file.replace(known.checkpoint.size, &known.note).await;
        written.with_context(|| format!("writing {}", self.file.path().display()))?;
        self.checkpoints.advance(known);
        Ok(())
    }

    async fn take_file(&mut self) -> anyhow::Result<()> {
        let place = self.file.path().display().to_string();
        let Some(note) = self.file.read().await.with_context(|| format!("reading {place}"))? else {
            return Ok(());
        };
        let signed = Checkpoint::verify(&note, self.checkpoints.key())
            .with_context(|| format!("the last checkpoint in {place}"))?;
        match self.take(&signed, &note).await? {
            Taken::Continued => Ok(()),
            Taken::GivenUp => {
                let aside = self.file.set_aside(signed.size).await;
                let aside = aside.with_context(|| format!("setting {place} aside"))?;
                tracing::warn!(size = signed.size, kept = %aside.display(), "given up, and set aside");
                Ok(())
            }
            Taken::Not(trouble) => bail!(
                "the log in the database does not continue the checkpoint in {place}: {trouble}; \
                 the database was restored or changed: {}",
                self.checkpoints.way_out(&signed)
            ),
        }
    }

    async fn take_database_at_start(&mut self) -> anyhow::Result<()> {
        let note = self.store.checkpoint().await.context("reading the newest checkpoint")?;
        let Some(note) = note else { return Ok(()) };
        let signed = Checkpoint::verify(&note, self.checkpoints.key())
            .context("the checkpoint in the database")?;
        match self.take(&signed, &note).await? {
            Taken::Continued => self.in_database = Some(note),
            Taken::GivenUp => self.make_room(&signed).await?,
            Taken::Not(trouble) => bail!(
                "the log in the database does not continue the checkpoint beside it: {trouble}; \
                 records were removed or changed: {}",
                self.checkpoints.way_out(&signed)
            ),
        }
        Ok(())
    }

    /// Takes a checkpoint that was given up out of the database, which keeps the largest only.
    async fn make_room(&mut self, given_up: &Checkpoint) -> anyhow::Result<()> {
        self.in_database = None;
        let dropped = self.store.drop_checkpoint(given_up.size).await;
        dropped.context("taking out a checkpoint that was given up")
    }
}

/// How a checkpoint stands to the log in the store, and to the newest one that is known.
async fn standing(
    store: &dyn Store,
    newest: Option<&Checkpoint>,
    signed: &Checkpoint,
) -> Result<Standing, StoreError> {
    match is_tree(store, newest, (signed.size, &signed.root)).await? {
        Some(true) => Ok(Standing::Continued),
        Some(false) => Ok(Standing::Not(Trouble::Forked { signed: signed.clone() })),
        None => {
            let found = store.head().await?.frontier.size();
            Ok(Standing::Not(Trouble::Behind { signed: signed.clone(), found }))
        }
    }
}

/// Whether a root is that of the log's tree at a size, and that tree the continuation of the newest
/// checkpoint, if that is smaller. `None` when the log does not reach that far.
async fn is_tree(
    store: &dyn Store,
    newest: Option<&Checkpoint>,
    (size, root): (u64, &Hash),
) -> Result<Option<bool>, StoreError> {
    let Some(tree) = tree::at(store, size).await? else { return Ok(None) };
    match newest.filter(|newest| newest.size < size) {
        Some(newest) if tree.root() == *root => tree::continues(store, newest, (size, root)).await,
        Some(_) | None => Ok(Some(tree.root() == *root)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric of more than 2^53 records may be inexact")]
pub(crate) fn metric(size: u64) -> f64 {
    size as f64
}

#[cfg(test)]
mod tests;
