use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use audit::{Bundle, Checkpoint, Hash, Kind, Names, PrunedStart, VerifierKey, encode_bundle};
use clap::Args;
use serde::Serialize;
use strongroom_client::Transport;
use strongroom_proto::v1::{
    GetCheckpointRequest, ListRecordsRequest, ProveInclusionRequest, audit_client::AuditClient,
};
use tokio::time;

use crate::{
    audit_policies::Policies,
    audit_tiles::Tiles,
    context::Context,
    failure::Failure,
    files,
    output::{Output, list},
    people,
};

#[derive(Args, Debug)]
pub(crate) struct Export {
    /// Where to; an earlier export of the same log is continued.
    directory: PathBuf,
}

#[derive(Serialize)]
struct Exported {
    directory: PathBuf,
    origin: String,
    size: u64,
    bundles_written: u64,
    bundles_kept: u64,
    /// The first record that is in the export, when earlier ones had been pruned from the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_index: Option<u64>,
}

/// The checkpoint's file in an export.
pub(crate) const CHECKPOINT: &str = "checkpoint";

/// In the export of a pruned log: where it begins.
pub(crate) const PRUNED: &str = "pruned";

/// Where checkpoints of earlier exports are kept. Verification holds the log to them.
pub(crate) const EARLIER: &str = "earlier";

/// What one pass wrote.
#[derive(Default)]
struct Saved {
    written: u64,
    kept: u64,
    /// Whether the entries say that those before them were pruned, if they begin after others.
    on_record: bool,
}

impl Export {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut client = context.broker()?.audit();
        for _ in 0..PASSES {
            if let Some(exported) = self.pass(&mut client, context.output).await? {
                return context.output.show(&exported, human);
            }
            // A log that was pruned just now says so in a record that is signed within a second.
            time::sleep(PAUSE).await;
        }
        Err(Failure::BadAnswer(
            "no checkpoint covers the record of the log's pruning; export again",
        ))
    }

    /// Writes the bundles and tiles first and the checkpoint last: an export that was cut off has no
    /// checkpoint that promises more than is there. `None` if the checkpoint does not cover enough to
    /// be verified.
    async fn pass(
        &self,
        client: &mut AuditClient<Transport>,
        output: Output,
    ) -> Result<Option<Exported>, Failure> {
        let answer = client.get_checkpoint(GetCheckpointRequest {}).await?.into_inner();
        // The key is the broker's word here, so this finds damage only; `verify` takes the key from
        // where it is trusted.
        let key: VerifierKey = answer
            .verifier_key
            .parse()
            .map_err(|_| Failure::BadAnswer("the verifier key is malformed"))?;
        let checkpoint = Checkpoint::verify(&answer.checkpoint, &key)
            .map_err(|_| Failure::BadAnswer("the checkpoint is not signed by the log's key"))?;

        let start = self.start(client).await?;
        let saved = self.save(client, checkpoint.size, start.as_ref(), output).await?;
        output.progress("");
        if !saved.on_record {
            return Ok(None);
        }
        keep_earlier(&self.directory, &answer.checkpoint, &key)?;
        if let Some(start) = &start {
            files::write(&self.directory.join(PRUNED), start.encode().as_bytes())?;
        }
        files::write(&self.directory.join(CHECKPOINT), answer.checkpoint.as_bytes())?;
        Ok(Some(Exported {
            directory: self.directory.clone(),
            origin: checkpoint.origin,
            size: checkpoint.size,
            bundles_written: saved.written,
            bundles_kept: saved.kept,
            first_index: start.as_ref().map(PrunedStart::first_index),
        }))
    }

    /// Where the entries of this export begin: where they did before, if it has all that was pruned
    /// since, or else where the log begins now.
    async fn start(
        &self,
        client: &mut AuditClient<Transport>,
    ) -> Result<Option<PrunedStart>, Failure> {
        let first = first_kept(client).await?;
        let held = fs::read_to_string(self.directory.join(PRUNED)).ok();
        let held = held.and_then(|text| PrunedStart::parse(&text).ok());
        let begins = held.as_ref().map_or(0, PrunedStart::first_index);
        let missing = Bundle::covering(first)
            .filter(|bundle| bundle.first_entry() >= begins)
            .any(|bundle| whole(bundle, &self.directory.join(bundle.path())).is_none());
        if missing { start_of(client, first).await.map(Some) } else { Ok(held) }
    }

    /// Writes what is not there yet of a log of this size.
    async fn save(
        &self,
        client: &mut AuditClient<Transport>,
        size: u64,
        start: Option<&PrunedStart>,
        output: Output,
    ) -> Result<Saved, Failure> {
        let first = start.map_or(0, PrunedStart::first_index);
        let mut saved = Saved { on_record: start.is_none(), ..Saved::default() };
        let (mut tiles, mut policies) = (Tiles::of(&self.directory, start), Policies::default());
        let mut names = Names::default();
        for bundle in Bundle::covering(size) {
            let path = self.directory.join(bundle.path());
            let found = whole(bundle, &path);
            saved.kept += u64::from(found.is_some());
            if bundle.first_entry() < first {
                continue;
            }
            let bytes = if let Some(bytes) = found {
                bytes
            } else {
                let bytes = fetch(client, bundle, &mut names).await?;
                files::write(&path, &bytes)?;
                saved.written += 1;
                bytes
            };
            let bodies = bundle.decode(&bytes);
            for body in bodies.map_err(|_| Failure::BadAnswer("a bundle is malformed"))? {
                saved.on_record = saved.on_record || says_pruned(body, first);
                tiles.push(body)?;
                policies.push(body);
            }
            let done = bundle.first_entry() + bundle.width;
            output.progress(&format!("{done} of {size} entries"));
        }
        tiles.finish()?;
        policies.save(client, &self.directory).await?;
        people::save(&self.directory, names)?;
        Ok(saved)
    }
}

/// How often, and after how long, a checkpoint is asked for that covers what it must.
const PASSES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Whether a record says that those before an index were pruned.
fn says_pruned(body: &[u8], before: u64) -> bool {
    audit::decode_record(body)
        .is_ok_and(|record| record.kind() == Kind::LogPruned && record.tree_size == before)
}

/// The first record that the log still has.
async fn first_kept(client: &mut AuditClient<Transport>) -> Result<u64, Failure> {
    let request = ListRecordsRequest { page_size: 1, newest_first: true, ..Default::default() };
    Ok(client.list_records(request).await?.into_inner().first_index)
}

/// The tree of what was pruned: the path of the first kept record in the tree that ends with it.
async fn start_of(client: &mut AuditClient<Transport>, first: u64) -> Result<PrunedStart, Failure> {
    let request = ProveInclusionRequest { index: first, tree_size: first + 1 };
    let answer = client.prove_inclusion(request).await?.into_inner();
    let path: Option<Vec<Hash>> =
        answer.hashes.iter().map(|hash| (&**hash).try_into().ok()).collect();
    let path = path.ok_or(Failure::BadAnswer("a hash has not 32 bytes"))?;
    PrunedStart::from_path(first, &path)
        .map_err(|_| Failure::BadAnswer("the start of the pruned log has the wrong size"))
}

/// A bundle that an earlier run left complete. Files appear whole, so the form suffices.
fn whole(bundle: Bundle, path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok().filter(|bytes| bundle.decode(bytes).is_ok())
}

async fn fetch(
    client: &mut AuditClient<Transport>,
    bundle: Bundle,
    names: &mut Names,
) -> Result<Vec<u8>, Failure> {
    let first = bundle.first_entry();
    let end = first + bundle.width;
    let mut bodies = Vec::new();
    let mut from_index = first;
    while from_index < end {
        let page_size = i32::try_from(end - from_index).unwrap_or(i32::MAX);
        let request = ListRecordsRequest { from_index, page_size, ..Default::default() };
        let page = client.list_records(request).await?.into_inner();
        names.know_all(Names::told(&page.disclosures));
        if page.entries.is_empty() {
            return Err(Failure::BadAnswer("entries that the checkpoint covers are missing"));
        }
        for entry in page.entries {
            if entry.index != from_index {
                return Err(Failure::BadAnswer("the entries are not consecutive"));
            }
            bodies.push(entry.body);
            from_index += 1;
        }
    }
    encode_bundle(bodies).map_err(|_| Failure::BadAnswer("an entry is too long for a bundle"))
}

/// Keeps the checkpoint of the last export, if it was another.
fn keep_earlier(directory: &Path, new: &str, key: &VerifierKey) -> Result<(), Failure> {
    let path = directory.join(CHECKPOINT);
    let Ok(old) = files::read_text(&path) else { return Ok(()) };
    if old == new {
        return Ok(());
    }
    // What is not of this log is kept too, under a name of its own: nothing is overwritten.
    let name = match Checkpoint::verify(&old, key) {
        Ok(checkpoint) => checkpoint.size.to_string(),
        Err(_) => return Err(Failure::Usage("the directory holds the export of another log")),
    };
    files::write(&directory.join(EARLIER).join(name), old.as_bytes())
}

fn human(exported: &Exported) -> String {
    list([
        ("log", exported.origin.clone()),
        ("entries", exported.size.to_string()),
        ("files written", exported.bundles_written.to_string()),
        ("files kept", exported.bundles_kept.to_string()),
        ("begins at", exported.first_index.map(|first| first.to_string()).unwrap_or_default()),
        ("directory", exported.directory.display().to_string()),
    ])
}
