use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use audit::{
    Bundle, Checkpoint, Kind, PolicyDocument, Report, Verifier, VerifierKey, decode_record,
    encode_bundle,
};
use strongroom_client::{Broker, Problem};
use strongroom_proto::v1::{GetCheckpointRequest, GetPolicyRequest, ListRecordsRequest};
use tokio::time::{sleep, timeout};

/// What was proved of the log.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) report: Report,
    /// How many records there were at the last proof, which this one continues.
    pub(crate) continues: Option<u64>,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { origin, size, leases, root, .. } = &self.report;
        write!(
            f,
            "The log verifies: {size} records, {leases} leases, nothing changed and nothing missing.\n\
             The records of {origin} hash to the root that was signed: tree size {size}, root {}.\n\
             Every lease was of a credential and a key in force at that point of the log, and was allowed\n\
             by the access rules of its time.",
            hex::encode(root)
        )?;
        match self.continues {
            Some(before) => {
                write!(f, "\nIt continues the log of {before} records that was proved before.")
            }
            None => Ok(()),
        }
    }
}

/// A checkpoint is signed each second; a machine under load may be late.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A log's export: its records, a signed checkpoint over them, and the key that verifies it.
#[derive(Debug)]
pub(crate) struct Export {
    /// A folder that `strongroom audit verify` reads too.
    pub(crate) folder: PathBuf,
    /// The checkpoint of the last proof, which the next one has to continue.
    pub(crate) last_proved: PathBuf,
    pub(crate) key: VerifierKey,
}

impl Export {
    /// Reads the log as of its newest record, and waits for the checkpoint that covers it.
    pub(crate) async fn write(&self, admin: &Broker) -> anyhow::Result<()> {
        let durable = u64::try_from(records(admin).await?.len())?;
        let covering = timeout(LONGEST_WAIT, self.checkpoint_over(admin, durable));
        let (checkpoint, size) =
            covering.await.context("no checkpoint covers the newest records")??;
        // More may have come since: up to the checkpoint, no further.
        let bodies = records(admin).await?;
        write(&self.folder, size, &bodies, &checkpoint)?;
        write_policies(admin, &self.folder, &bodies).await
    }

    /// Verifies it with nothing but its files and the log's key: every record, their order, and the
    /// signed root; and that it continues the log as it was at the last proof.
    pub(crate) fn verify(&self) -> anyhow::Result<Proof> {
        let checkpoint = fs::read_to_string(self.folder.join(CHECKPOINT))?;
        let mut verifier = Verifier::open(&self.key, &checkpoint)?;
        for entry in fs::read_dir(self.folder.join(POLICIES))? {
            verifier.know_policy(PolicyDocument::parse(fs::read(entry?.path())?)?);
        }
        let mut continues = None;
        if let Some(earlier) = read_if_there(&self.last_proved)? {
            verifier.expect_earlier(&earlier).context("the checkpoint of the last proof")?;
            continues = Some(Checkpoint::verify(&earlier, &self.key)?.size);
        }
        for bundle in verifier.bundles() {
            let path = self.folder.join(bundle.path());
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            for body in bundle.decode(&bytes).with_context(|| format!("{}", path.display()))? {
                verifier.push(body)?;
            }
        }
        let report = verifier.finish()?;
        if let Some(missing) = report.unknown_policies.first() {
            bail!("the access rules {} are not in the export", hex::encode(missing));
        }
        fs::write(&self.last_proved, checkpoint).context("keeping the checkpoint")?;
        Ok(Proof { report, continues })
    }

    async fn checkpoint_over(&self, admin: &Broker, size: u64) -> anyhow::Result<(String, u64)> {
        loop {
            match admin.audit().get_checkpoint(GetCheckpointRequest {}).await {
                Ok(answer) => {
                    let note = answer.into_inner().checkpoint;
                    let checkpoint = Checkpoint::verify(&note, &self.key)?;
                    if checkpoint.size >= size {
                        return Ok((note, checkpoint.size));
                    }
                }
                Err(status) if Problem::from_status(&status).reason == "NO_CHECKPOINT" => {}
                Err(status) => return Err(status).context("reading the checkpoint"),
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

const CHECKPOINT: &str = "checkpoint";
const POLICIES: &str = "policies";

async fn records(admin: &Broker) -> anyhow::Result<Vec<Vec<u8>>> {
    let (mut client, mut bodies, mut from_index) = (admin.audit(), Vec::new(), 0);
    loop {
        let request = ListRecordsRequest { from_index, page_size: 4096, ..Default::default() };
        let page = client.list_records(request).await.context("reading the log")?.into_inner();
        bodies.extend(page.entries.into_iter().map(|entry| entry.body.to_vec()));
        if page.next_index >= page.tree_size {
            return Ok(bodies);
        }
        if page.next_index <= from_index {
            bail!("the broker gives no record {from_index} although the log has it");
        }
        from_index = page.next_index;
    }
}

fn write(folder: &Path, size: u64, bodies: &[Vec<u8>], checkpoint: &str) -> anyhow::Result<()> {
    // Partial bundles of an earlier export would be in the way of nobody, but mislead people.
    match fs::remove_dir_all(folder.join("tile")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    for bundle in Bundle::covering(size) {
        let from = usize::try_from(bundle.first_entry())?;
        let to = from + usize::try_from(bundle.width)?;
        let entries =
            bodies.get(from..to).context("the checkpoint covers more than the log has")?;
        let path: PathBuf = folder.join(bundle.path());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, encode_bundle(entries)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    fs::write(folder.join(CHECKPOINT), checkpoint).context("writing the checkpoint")
}

/// Saves the access rules that the records name.
async fn write_policies(admin: &Broker, folder: &Path, bodies: &[Vec<u8>]) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join(POLICIES))?;
    for body in bodies {
        let record = decode_record(body)?;
        if record.kind() == Kind::PolicyLoaded {
            let name = format!("{}.json", hex::encode(&record.policy_sha256));
            let request = GetPolicyRequest { policy_sha256: record.policy_sha256 };
            let policy = admin.audit().get_policy(request).await.context("reading the rules")?;
            fs::write(folder.join(POLICIES).join(name), policy.into_inner().document)?;
        }
    }
    Ok(())
}

fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use audit::{Frontier, Kind, Record, RecordDraft, SignerKey};
    use domain::Timestamp;

    use super::*;

    /// A log of three records in a folder, with the key it was signed with.
    fn exported(folder: &Path) -> Export {
        let signer = SignerKey::generate("example.org/log").unwrap();
        let (mut tree, mut bodies) = (Frontier::default(), Vec::new());
        for index in 0..3 {
            let record = Record { kind: Kind::BrokerStarted.into(), ..Record::default() };
            let draft = RecordDraft::new(record).unwrap();
            let entry = draft.seal_at(index, Timestamp::from_millis(5));
            tree.push(entry.leaf_hash());
            bodies.push(entry.body);
        }
        let checkpoint = Checkpoint::sign(3, &tree.root(), &signer).unwrap();
        let export = Export {
            folder: folder.join("export"),
            last_proved: folder.join("last-proved"),
            key: signer.verifier().clone(),
        };
        write(&export.folder, 3, &bodies, &checkpoint).unwrap();
        fs::create_dir(export.folder.join(POLICIES)).unwrap();
        export
    }

    #[test]
    fn a_second_proof_continues_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let export = exported(folder.path());
        assert_eq!(export.verify().unwrap().continues, None);
        let again = export.verify().unwrap();
        assert_eq!((again.report.size, again.continues), (3, Some(3)));
    }

    #[test]
    fn a_changed_record_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let export = exported(folder.path());
        let path = export.folder.join("tile/entries/000.p/3");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(export.verify().is_err());
    }

    #[test]
    fn another_history_is_found_by_the_checkpoint_of_the_last_proof() {
        let folder = tempfile::tempdir().unwrap();
        let export = exported(folder.path());
        export.verify().unwrap();
        let other = exported(&folder.path().join("other"));
        assert!(Export { last_proved: export.last_proved, ..other }.verify().is_err());
    }
}
