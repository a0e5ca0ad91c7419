use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use audit::{
    Bundle, CheckpointError, GivenUp, Kind, Note, Report, Verifier, VerifierKey, WitnessKey,
};
use clap::Args;
use domain::Timestamp;
use serde::Serialize;

use crate::{
    audit_export::{CHECKPOINT, EARLIER},
    audit_policies,
    audit_tiles::TileCheck,
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
    /// A witness's key: it must have cosigned the checkpoint. Repeatable; all of them must have.
    #[arg(long, value_name = "KEY")]
    witness: Vec<WitnessKey>,
}

/// The log's key. Take it from where you trust it, not from the export.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct KeyArgs {
    /// The log's verifier key.
    #[arg(long, value_name = "KEY")]
    vkey: Option<VerifierKey>,
    /// A file with it.
    #[arg(long, value_name = "FILE")]
    vkey_file: Option<PathBuf>,
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
    kinds: BTreeMap<&'static str, u64>,
    /// Earlier checkpoints that the log does not continue because an operator gave them up.
    given_up: Vec<String>,
    /// Access rules that records name and that are not in the export: their leases are not held
    /// against any.
    policies_not_given: Vec<String>,
    uses: Vec<Use>,
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
        let note = files::read_text(&self.directory.join(CHECKPOINT))?;
        let mut verifier = Verifier::open(&key, &note).map_err(|error| unsigned("the", error))?;
        audit_policies::load(&self.directory, &mut verifier)?;
        for path in self.earlier.iter().cloned().chain(kept(&self.directory)?) {
            let note = files::read_text(&path)?;
            verifier.expect_earlier(&note).map_err(|error| unsigned("an earlier", error))?;
        }
        let witnesses = self.witness.iter().map(|key| cosigned(&note, key));
        let witnesses = witnesses.collect::<Result<Vec<_>, _>>()?;
        let mut uses = Uses::new();
        let mut tiles = TileCheck::of(&self.directory);
        for bundle in verifier.bundles() {
            let bytes = read_bundle(&self.directory, bundle)?;
            let bodies = bundle.decode(&bytes).map_err(|_| Failure::Unverified {
                what: format!("the file `{}` is not a bundle of entries", bundle.path()),
                index: Some(bundle.first_entry()),
            })?;
            for body in bodies {
                verifier.push(body)?;
                tiles.push(body);
                count(body, &mut uses);
            }
            let done = bundle.first_entry() + bundle.width;
            output.progress(&format!("{done} of {} entries", verifier.checkpoint().size));
        }
        output.progress("");
        let report = verifier.finish()?;
        tiles.finish()?;
        output.show(&Verified::new(report, witnesses, uses), human)
    }
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
            kinds: report.kinds.iter().map(|(kind, n)| (kind.as_str_name(), *n)).collect(),
            policies_not_given: report.unknown_policies.iter().map(hex::encode).collect(),
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

pub(crate) fn read_bundle(directory: &Path, bundle: Bundle) -> Result<Vec<u8>, Failure> {
    let path = directory.join(bundle.path());
    if path.exists() {
        return files::read(&path);
    }
    Err(Failure::Unverified {
        what: format!("the checkpoint covers `{}`, which is missing", bundle.path()),
        index: Some(bundle.first_entry()),
    })
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
    for it in &report.witnesses {
        text.push_str(&list([("cosigned", format!("by {} at {}", it.witness, it.time))]));
    }
    for missing in &report.policies_not_given {
        let words = "are not in the export: leases are not held against them";
        text.extend(["note: the access rules ", missing, " ", words, "\n"]);
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
