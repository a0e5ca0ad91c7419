use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use audit::{Checkpoint, Frontier, SignerKey};
use store::{Store, StoreError, Tree};
use tokio::{fs, io::AsyncWriteExt as _, select, time};
use tokio_util::sync::CancellationToken;

/// Signs checkpoints of the log, each only after proving that it continues the last one signed.
///
/// The last one lies in a file apart from the database: a database that was restored from a backup
/// or rewritten cannot bring its own excuse along.
pub(crate) struct Signer {
    store: Arc<dyn Store>,
    key: SignerKey,
    last: PathBuf,
    /// The tree as of the last checkpoint, grown from leaf hashes and not from what the head says.
    signed: Frontier,
}

/// How old the newest checkpoint may be while records arrive.
const PERIOD: Duration = Duration::from_secs(1);

/// Leaf hashes read at a time.
const STEP: u64 = 65_536;

impl Signer {
    /// Reads the key and the last checkpoint, and checks that the log still continues it.
    ///
    /// # Errors
    /// When a file cannot be read or is open to others, and when the log is not what was signed:
    /// then something has been undone in the database, and nothing must be added to it.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        key: SignerKey,
        last: PathBuf,
    ) -> anyhow::Result<Self> {
        let mut signer = Self { store, key, last, signed: Frontier::default() };
        let Some(note) = read_if_there(&signer.last).await? else { return Ok(signer) };
        let checkpoint = Checkpoint::verify(&note, signer.key.verifier())
            .with_context(|| format!("the last checkpoint in {}", signer.last.display()))?;
        signer.resume(&checkpoint).await?;
        if signer.signed.size() < checkpoint.size || signer.signed.root() != checkpoint.root {
            bail!(
                "the log in the database does not continue the checkpoint in {}: it has {} records \
                 of the {} that were signed, or other ones; the database was restored or changed",
                signer.last.display(),
                signer.signed.size(),
                checkpoint.size,
            );
        }
        Ok(signer)
    }

    /// Takes up the tree as of a checkpoint: from the few stored hashes that make it up if they lead
    /// to the signed root, and else from every leaf, which says where the log stands.
    async fn resume(&mut self, checkpoint: &Checkpoint) -> anyhow::Result<()> {
        match Tree::of(&*self.store).frontier(checkpoint.size).await {
            Ok(frontier) if frontier.root() == checkpoint.root => {
                self.signed = frontier;
                Ok(())
            }
            Ok(_) | Err(StoreError::Corrupt(_)) => self.grow_to(checkpoint.size).await,
            Err(error) => Err(error).context("reading the log"),
        }
    }

    /// Signs until `stop`, then once more.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ends = false;
        while !ends {
            select! {
                () = stop.cancelled() => ends = true,
                () = time::sleep(PERIOD) => {}
            }
            if let Err(error) = self.sign().await {
                metrics::counter!("strongroom_checkpoint_failures_total").increment(1);
                tracing::error!(error = format!("{error:#}"), "no checkpoint signed");
            }
        }
    }

    /// Signs the log as it stands, if it has grown.
    pub(crate) async fn sign(&mut self) -> anyhow::Result<()> {
        let head = self.store.head().await.context("reading the head")?;
        let size = head.frontier.size();
        if size < self.signed.size() {
            bail!("the log has shrunk from {} to {size} records", self.signed.size());
        }
        if size == self.signed.size() {
            return Ok(());
        }
        let before = self.signed.clone();
        if let Err(error) = self.grow_to(size).await {
            self.signed = before;
            return Err(error);
        }
        if self.signed.size() != size || self.signed.root() != head.frontier.root() {
            self.signed = before;
            bail!("the records do not hash to the head of the log at {size} records");
        }
        let note = Checkpoint::sign(size, &self.signed.root(), &self.key)?;
        // The file first: what others may have seen must be known here after a crash.
        self.keep(&note).await.with_context(|| format!("writing {}", self.last.display()))?;
        self.store.put_checkpoint(size, &note).await.context("publishing the checkpoint")?;
        metrics::gauge!("strongroom_checkpoint_records").set(metric(size));
        Ok(())
    }

    async fn grow_to(&mut self, size: u64) -> anyhow::Result<()> {
        while self.signed.size() < size {
            let from = self.signed.size();
            let to = size.min(from + STEP);
            let hashes = self.store.leaf_hashes(from..to).await.context("reading the log")?;
            if hashes.is_empty() {
                return Ok(());
            }
            for hash in hashes {
                self.signed.push(hash);
            }
        }
        Ok(())
    }

    async fn keep(&self, note: &str) -> std::io::Result<()> {
        let new = self.last.with_extension("new");
        let mut file = fs::File::create(&new).await?;
        file.write_all(note.as_bytes()).await?;
        file.sync_all().await?;
        fs::rename(&new, &self.last).await
    }
}

async fn read_if_there(path: &std::path::Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path).await {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric of more than 2^53 records may be inexact")]
fn metric(size: u64) -> f64 {
    size as f64
}
