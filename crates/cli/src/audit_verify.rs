use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use audit::{Bundle, CheckpointError, Kind, PrunedStart, Report, Verifier, VerifierKey};
use clap::Args;
use domain::Timestamp;
use serde::Serialize;

use crate::{
    audit_export::{CHECKPOINT, EARLIER, PRUNED},
    failure::Failure,
    files,
    output::{Output, list, table},
    views,
};

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The export.
    directory: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// A checkpoint of this log from before: the log must be its continuation. Repeatable; those that
    /// earlier exports left in the directory are held against it, too.
    #[arg(long, value_name = "FILE")]
    earlier: Vec<PathBuf>,
    #[command(flatten)]
    archives: Archives,
}

/// Where records are that were pruned before the export was made.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Archives {
    /// An older export of the same log, for what this one begins after. Repeatable.
    #[arg(long = "archive", value_name = "DIR")]
    pub(crate) directories: Vec<PathBuf>,
}

/// An export and the older ones that go before it.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) directory: PathBuf,
    pub(crate) archives: Vec<PathBuf>,
}

/// The log's key. Take it from where you trust it, not from the export.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct KeyArgs {
    /// The log's verifier key.
    #[arg(long, value_name = "KEY")]
    pub(crate) vkey: Option<VerifierKey>,
    /// A file with it.
    #[arg(long, value_name = "FILE")]
    pub(crate) vkey_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Verified {
    #[serde(rename = "verified")]
    holds: bool,
    origin: String,
    size: u64,
    root: String,
    first_time: String,
    last_time: String,
    leases: u64,
    /// What was not checked, because it was pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned: Option<PrunedView>,
    kinds: BTreeMap<&'static str, u64>,
    uses: Vec<Use>,
}

#[derive(Serialize)]
struct PrunedView {
    before: u64,
    recorded_at_index: u64,
    earlier_checkpoints_not_compared: usize,
}

/// Who was lent which key, and how often.
#[derive(Serialize)]
struct Use {
    actor: String,
    credential: String,
    virtual_key: String,
    granted: u64,
    renewed: u64,
}

type Uses = BTreeMap<(String, String, String), (u64, u64)>;

impl KeyArgs {
    pub(crate) fn load(&self) -> Result<VerifierKey, Failure> {
        match (&self.vkey, &self.vkey_file) {
            (Some(key), _) => Ok(key.clone()),
            (None, Some(path)) => files::read_text(path)?
                .trim_end()
                .parse()
                .map_err(|_| Failure::Usage("the file does not hold a verifier key")),
            (None, None) => Err(Failure::Usage("give the log's key with --vkey or --vkey-file")),
        }
    }
}

impl Verify {
    pub(crate) fn run(self, output: Output) -> Result<(), Failure> {
        let key = self.key.load()?;
        let mut uses = Uses::new();
        let count = |body: &[u8]| count(body, &mut uses);
        let archives = self.archives.directories;
        let folder = Folder { directory: self.directory, archives };
        let report = walk(&folder, &key, &self.earlier, output, count)?;
        output.show(&Verified::new(report, uses), human)
    }
}

/// Verifies an export and shows every body to `visit`. What it has seen counts only if this succeeds.
pub(crate) fn walk(
    folder: &Folder,
    key: &VerifierKey,
    earlier: &[PathBuf],
    output: Output,
    mut visit: impl FnMut(&[u8]),
) -> Result<Report, Failure> {
    let note = files::read_text(&folder.directory.join(CHECKPOINT))?;
    let opened = match folder.start()? {
        Some(start) => Verifier::open_pruned(key, &note, &start),
        None => Verifier::open(key, &note),
    };
    let mut verifier = opened.map_err(|error| unsigned("the", error))?;
    for path in earlier.iter().cloned().chain(kept(&folder.directory)?) {
        let note = files::read_text(&path)?;
        verifier.expect_earlier(&note).map_err(|error| unsigned("an earlier", error))?;
    }
    for bundle in verifier.bundles() {
        let bytes = folder.read_bundle(bundle)?;
        for body in decode(bundle, &bytes)? {
            verifier.push(body)?;
            visit(body);
        }
        let done = bundle.first_entry() + bundle.width;
        output.progress(&format!("{done} of {} entries", verifier.checkpoint().size));
    }
    output.progress("");
    Ok(verifier.finish()?)
}

impl Verified {
    fn new(report: Report, uses: Uses) -> Self {
        let time = |time: Option<Timestamp>| views::time(time.map(audit::proto_time));
        let uses =
            uses.into_iter().map(|((actor, credential, virtual_key), (granted, renewed))| Use {
                actor,
                credential,
                virtual_key,
                granted,
                renewed,
            });
        Self {
            holds: true,
            origin: report.origin,
            size: report.size,
            root: hex::encode(report.root),
            first_time: time(report.first_time),
            last_time: time(report.last_time),
            leases: report.leases,
            pruned: report.pruned.map(|pruned| PrunedView {
                before: pruned.before,
                recorded_at_index: pruned.index,
                earlier_checkpoints_not_compared: pruned.earlier,
            }),
            kinds: report.kinds.iter().map(|(kind, n)| (kind.as_str_name(), *n)).collect(),
            uses: uses.collect(),
        }
    }
}

/// The checkpoints that earlier exports left.
fn kept(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let directory = directory.join(EARLIER);
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&directory).map_err(files::failed(&directory))?;
    entries
        .map(|entry| Ok(entry.map_err(files::failed(&directory))?.path()))
        .filter(|path| !matches!(path, Ok(path) if path.extension().is_some()))
        .collect()
}

pub(crate) fn decode(bundle: Bundle, bytes: &[u8]) -> Result<Vec<&[u8]>, Failure> {
    bundle.decode(bytes).map_err(|_| Failure::Unverified {
        what: format!("the file `{}` is not a bundle of entries", bundle.path()),
        index: Some(bundle.first_entry()),
    })
}

impl Folder {
    /// Where the records begin, if not all are there: in this folder or in the archives.
    pub(crate) fn start(&self) -> Result<Option<PrunedStart>, Failure> {
        let path = self.directory.join(PRUNED);
        if !path.exists() {
            return Ok(None);
        }
        let text = files::read_text(&path)?;
        let start = PrunedStart::parse(&text).map_err(|_| Failure::Unverified {
            what: format!("the file `{PRUNED}` does not say where the log begins"),
            index: None,
        })?;
        let whole = Bundle::covering(start.first_index()).all(|bundle| self.find(bundle).is_some());
        Ok((!whole).then_some(start))
    }

    fn find(&self, bundle: Bundle) -> Option<PathBuf> {
        let paths = [&self.directory].into_iter().chain(&self.archives);
        paths.map(|directory| directory.join(bundle.path())).find(|path| path.exists())
    }

    pub(crate) fn read_bundle(&self, bundle: Bundle) -> Result<Vec<u8>, Failure> {
        let path = self.find(bundle).ok_or_else(|| Failure::Unverified {
            what: format!("the checkpoint covers `{}`, which is missing", bundle.path()),
            index: Some(bundle.first_entry()),
        })?;
        files::read(&path)
    }
}

fn unsigned(which: &str, error: CheckpointError) -> Failure {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    let what = format!("{which} checkpoint: {error}{}", cause.unwrap_or_default());
    Failure::Unverified { what, index: None }
}

fn count(body: &[u8], uses: &mut Uses) {
    // What is not a record was refused by the verifier before.
    let Ok(record) = audit::decode_record(body) else { return };
    let kind = record.kind();
    if !matches!(kind, Kind::LeaseGranted | Kind::LeaseRenewed) {
        return;
    }
    let (granted, renewed) =
        uses.entry((record.actor, record.credential, record.virtual_key)).or_default();
    if kind == Kind::LeaseGranted {
        *granted += 1;
    } else {
        *renewed += 1;
    }
}

fn human(report: &Verified) -> String {
    let mut text = list([
        ("verified", format!("{} entries of {}", report.size, report.origin)),
        ("root", report.root.clone()),
        ("first", report.first_time.clone()),
        ("last", report.last_time.clone()),
        ("leases", report.leases.to_string()),
    ]);
    if let Some(PrunedView { before, recorded_at_index, earlier_checkpoints_not_compared }) =
        &report.pruned
    {
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "entries 0 to {before} were pruned, as entry {recorded_at_index} says, and are not \
             checked here: name the export that covers them with --archive"
        );
        if *earlier_checkpoints_not_compared > 0 {
            let _ = writeln!(
                text,
                "{earlier_checkpoints_not_compared} earlier checkpoints lie in what was pruned and \
                 are not compared"
            );
        }
    }
    if !report.uses.is_empty() {
        let row = |it: &Use| {
            [
                it.actor.clone(),
                it.credential.clone(),
                it.virtual_key.clone(),
                it.granted.to_string(),
                it.renewed.to_string(),
            ]
        };
        text.push('\n');
        let header = ["WHO", "CREDENTIAL", "VIRTUAL KEY", "GRANTED", "RENEWED"];
        text.push_str(&table(header, report.uses.iter().map(row).collect()));
    }
    text
}
