use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use audit::{
    Bundle, CheckpointError, GivenUp, Kind, Names, Note, PrunedStart, Report, Verifier,
    VerifierKey, WitnessKey,
};
use clap::Args;
use domain::Timestamp;
use serde::Serialize;

use crate::{
    audit_export::{CHECKPOINT, EARLIER, PRUNED},
    audit_policies,
    audit_tiles::TileCheck,
    failure::Failure,
    files,
    output::{Output, list, table},
    people, views,
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
    /// A witness's key: it must have cosigned the checkpoint. Repeatable; all of them must have.
    #[arg(long, value_name = "KEY")]
    witness: Vec<WitnessKey>,
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
    witnesses: Vec<Cosigned>,
    leases: u64,
    /// What was not checked, because it was pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned: Option<PrunedView>,
    kinds: BTreeMap<&'static str, u64>,
    /// Earlier checkpoints that the log does not continue because an operator gave them up.
    given_up: Vec<String>,
    /// Access rules that records name and that are not in the export: their leases are not held
    /// against any.
    policies_not_given: Vec<String>,
    /// Leases, and parts in approved calls, of people whose names are not in the export: they are not held
    /// against the access rules.
    acts_of_unnamed_people: u64,
    uses: Vec<Use>,
}

#[derive(Serialize)]
struct PrunedView {
    before: u64,
    recorded_at_index: u64,
    earlier_checkpoints_not_compared: usize,
}

/// A witness that saw the checkpoint, and no other history of the log, at that time.
#[derive(Serialize)]
struct Cosigned {
    witness: String,
    time: String,
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
        let archives = self.archives.directories;
        let folder = Folder { directory: self.directory, archives };
        let note = files::read_text(&folder.directory.join(CHECKPOINT))?;
        let witnesses = self.witness.iter().map(|key| cosigned(&note, key));
        let witnesses = witnesses.collect::<Result<Vec<_>, _>>()?;
        let (mut tiles, mut uses) = (TileCheck::of(&folder)?, Uses::new());
        let names = folder.names()?;
        let report = walk(&folder, &key, &self.earlier, output, |body| {
            tiles.push(body);
            count(body, &names, &mut uses);
        })?;
        tiles.finish()?;
        output.show(&Verified::new(report, witnesses, uses), human)
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
    let mut verifier = folder.verifier(key)?;
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
    fn new(report: Report, witnesses: Vec<Cosigned>, uses: Uses) -> Self {
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
            witnesses,
            leases: report.leases,
            pruned: report.pruned.map(|pruned| PrunedView {
                before: pruned.before,
                recorded_at_index: pruned.index,
                earlier_checkpoints_not_compared: pruned.earlier,
            }),
            kinds: report.kinds.iter().map(|(kind, n)| (kind.as_str_name(), *n)).collect(),
            policies_not_given: report.unknown_policies.iter().map(hex::encode).collect(),
            acts_of_unnamed_people: report.unnamed,
            given_up: report.given_up.iter().map(given_up).collect(),
            uses: uses.collect(),
        }
    }
}

fn given_up(lost: &GivenUp) -> String {
    let GivenUp { index, size, root } = lost;
    let root = hex::encode(root);
    format!("the earlier checkpoint of {size} entries, {root}, was given up at index {index}")
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
    /// Begins to verify the export, where its records begin.
    pub(crate) fn verifier(&self, key: &VerifierKey) -> Result<Verifier, Failure> {
        let note = files::read_text(&self.directory.join(CHECKPOINT))?;
        let opened = match self.start()? {
            Some(start) => Verifier::open_pruned(key, &note, &start),
            None => Verifier::open(key, &note),
        };
        let mut verifier = opened.map_err(|error| unsigned("the", error))?;
        for directory in [&self.directory].into_iter().chain(&self.archives) {
            audit_policies::load(directory, &mut verifier)?;
        }
        self.names()?.all().into_iter().cloned().for_each(|name| verifier.know_name(name));
        Ok(verifier)
    }

    /// The names of people that lie in the export and its archives.
    pub(crate) fn names(&self) -> Result<Names, Failure> {
        let mut names = Names::default();
        for directory in [&self.directory].into_iter().chain(&self.archives) {
            names.know_all(people::load(directory)?);
        }
        Ok(names)
    }

    /// Where the records begin, if not all are there: in this folder or in the archives.
    pub(crate) fn start(&self) -> Result<Option<PrunedStart>, Failure> {
        let Some(start) = self.pruned()? else { return Ok(None) };
        let mut before = Bundle::covering(start.first_index());
        let whole = before.all(|bundle| self.find(&bundle.path()).is_some());
        Ok((!whole).then_some(start))
    }

    /// Where the log began when it was exported, if it was pruned.
    pub(crate) fn pruned(&self) -> Result<Option<PrunedStart>, Failure> {
        let path = self.directory.join(PRUNED);
        if !path.exists() {
            return Ok(None);
        }
        let start = PrunedStart::parse(&files::read_text(&path)?);
        start.map(Some).map_err(|_| Failure::Unverified {
            what: format!("the file `{PRUNED}` does not say where the log begins"),
            index: None,
        })
    }

    /// A file of the log, in this folder or else in the archives.
    pub(crate) fn find(&self, path: &str) -> Option<PathBuf> {
        let directories = [&self.directory].into_iter().chain(&self.archives);
        directories.map(|directory| directory.join(path)).find(|path| path.exists())
    }

    pub(crate) fn read_bundle(&self, bundle: Bundle) -> Result<Vec<u8>, Failure> {
        let path = self.find(&bundle.path()).ok_or_else(|| Failure::Unverified {
            what: format!("the checkpoint covers `{}`, which is missing", bundle.path()),
            index: Some(bundle.first_entry()),
        })?;
        files::read(&path)
    }
}

pub(crate) fn unsigned(which: &str, error: CheckpointError) -> Failure {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    let what = format!("{which} checkpoint: {error}{}", cause.unwrap_or_default());
    Failure::Unverified { what, index: None }
}

fn cosigned(note: &str, key: &WitnessKey) -> Result<Cosigned, Failure> {
    let time = Note::parse(note).and_then(|note| note.cosigned(key));
    let time = time.map_err(|error| Failure::Unverified {
        what: format!("witness {} did not cosign the checkpoint: {error}", key.name()),
        index: None,
    })?;
    let millis = i64::try_from(time).unwrap_or(i64::MAX).saturating_mul(1000);
    let time = views::time(Some(audit::proto_time(Timestamp::from_millis(millis))));
    Ok(Cosigned { witness: key.name().to_owned(), time })
}

fn count(body: &[u8], names: &Names, uses: &mut Uses) {
    // What is not a record was refused by the verifier before.
    let Ok(record) = audit::decode_record(body) else { return };
    let kind = record.kind();
    if !matches!(kind, Kind::LeaseGranted | Kind::LeaseRenewed) {
        return;
    }
    let actor = names.show_actor(&record);
    let (granted, renewed) =
        uses.entry((actor, record.credential, record.virtual_key)).or_default();
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
    for it in &report.witnesses {
        text.push_str(&list([("cosigned", format!("by {} at {}", it.witness, it.time))]));
    }
    for missing in &report.policies_not_given {
        let words = "are not in the export: leases are not held against them";
        text.extend(["note: the access rules ", missing, " ", words, "\n"]);
    }
    if report.acts_of_unnamed_people > 0 {
        let acts = report.acts_of_unnamed_people;
        let words = "leases, or parts in approved calls, are of people whose names are not in the export: \
                     the access rules are not held against them";
        text.extend(["note: ", &acts.to_string(), " ", words, "\n"]);
    }
    for lost in &report.given_up {
        text.extend(["note: ", lost, "\n"]);
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
