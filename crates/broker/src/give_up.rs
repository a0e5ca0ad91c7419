use anyhow::{Context as _, bail};
use audit::{Checkpoint, Hash, Kind, Record, RecordDraft};
use store::{Appended, Pending, Store};

use crate::{
    bootstrap,
    checkpoints::{GivenUp, file::CheckpointFile, tree},
    config::Config,
};

/// Gives up a checkpoint that the log in the database does not continue: an operator's decision that
/// what was signed is lost for good. Puts the decision on record and moves the note that lies in
/// `last_checkpoint` aside, so that brokers start again. Says where the decision stands in the log.
///
/// Beside brokers of the same database it is safe: those that have stopped lending go on after their
/// next start.
///
/// # Errors
/// When the log continues this checkpoint, so that nothing is lost, and when the files or the database
/// cannot be used. What was not done then is done by the same call again.
pub async fn give_up_checkpoint(config: Config, size: u64, root: Hash) -> anyhow::Result<u64> {
    let key = bootstrap::signing_key(&config.log.signing_key).await?;
    let origin = key.verifier().name().to_owned();
    let lost = Checkpoint { origin, size, root };
    let store = store::open(&config.store).await.context("opening the store")?;
    let file = CheckpointFile::new(config.log.last_checkpoint);
    if continues(&*store, &lost).await? {
        bail!(
            "the log in the database continues the checkpoint of {size} records with this root: \
             nothing is lost, and there is nothing to give up"
        );
    }
    let index = record(&*store, &lost).await?;
    // After the record: a start in between finds the decision and does the rest itself.
    let given_up = GivenUp::read(&*store).await.context("reading the log")?;
    if let Some(note) = store.checkpoint().await.context("reading the newest checkpoint")? {
        let signed = Checkpoint::verify(&note, key.verifier());
        let signed = signed.context("the checkpoint in the database")?;
        if given_up.covers(&signed) && !continues(&*store, &signed).await? {
            store.drop_checkpoint(signed.size).await.context("taking the checkpoint out")?;
        }
    }
    let place = file.path().display().to_string();
    if let Some(note) = file.read().await.with_context(|| format!("reading {place}"))? {
        let signed = Checkpoint::verify(&note, key.verifier())
            .with_context(|| format!("the last checkpoint in {place}"))?;
        if given_up.covers(&signed) && !continues(&*store, &signed).await? {
            let aside = file.set_aside(signed.size).await;
            let aside = aside.with_context(|| format!("setting {place} aside"))?;
            tracing::info!(kept = %aside.display(), "keep this file: it proves what was lost");
        }
    }
    store.close().await;
    Ok(index)
}

async fn continues(store: &dyn Store, signed: &Checkpoint) -> anyhow::Result<bool> {
    let tree = tree::at(store, signed.size).await.context("reading the log")?;
    Ok(tree.is_some_and(|tree| tree.root() == signed.root))
}

/// Appends the record of it, or finds the one that is there.
async fn record(store: &dyn Store, lost: &Checkpoint) -> anyhow::Result<u64> {
    let known = store.changes_of_kind(Kind::CheckpointGivenUp).await.context("reading the log")?;
    for entry in known {
        let record = entry.record()?;
        if record.tree_size == lost.size && record.tree_root.as_ref() == lost.root {
            return Ok(entry.index);
        }
    }
    let record = RecordDraft::new(Record {
        kind: Kind::CheckpointGivenUp.into(),
        tree_size: lost.size,
        tree_root: lost.root.to_vec().into(),
        ..Record::default()
    })?;
    let pending = Pending { record, as_of: None, tenants: Vec::new() };
    let appended = store.append(&[pending]).await.context("recording the decision")?;
    match appended.into_iter().next() {
        Some(Appended::Recorded(entry)) => Ok(entry.index),
        Some(Appended::Stale { .. }) | None => bail!("the decision was not recorded"),
    }
}
