use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use audit::{BUNDLE_WIDTH, timestamp};
use clap::Args;
use domain::{Clock as _, SystemClock, Timestamp};
use serde::Serialize;
use strongroom_proto::v1::{ListRecordsRequest, PruneRecordsRequest};

use crate::{
    audit_export::CHECKPOINT,
    audit_verify::{self, Archives, Folder, KeyArgs},
    context::Context,
    expiry,
    failure::Failure,
    files,
    output::list,
};

#[derive(Args, Debug)]
pub(crate) struct Prune {
    /// An export that covers what is to be pruned; it is verified first.
    directory: PathBuf,
    /// What is older: a time, such as `400d`, or the first index that is to stay.
    #[arg(long, value_name = "AGE|INDEX")]
    before: Before,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    archives: Archives,
    /// Prunes without being asked.
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Age(Duration),
    Index(u64),
}

#[derive(Serialize)]
struct Pruned {
    /// The first record that is kept.
    first_index: u64,
    /// How many this run took out.
    entries: u64,
    /// Where the log says so; the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_index: Option<u64>,
}

impl Prune {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let key = self.key.load()?;
        let folder = Folder { directory: self.directory, archives: self.archives.directories };
        let cutoff = match self.before {
            Before::Age(age) => Some(ago(age)),
            Before::Index(_) => None,
        };
        // The index of the first record that is to stay.
        let (mut next, mut young) = (None, None);
        let report = audit_verify::walk(&folder, &key, &[], context.output, |body| {
            // What is not a record was refused by the verifier before.
            let Ok(record) = audit::decode_record(body) else { return };
            let time = record.time.as_ref().and_then(timestamp);
            if young.is_none() && cutoff.is_some_and(|cutoff| time >= Some(cutoff)) {
                young = Some(record.index);
            }
            next = Some(record.index + 1);
        })?;
        let wanted = match self.before {
            Before::Age(_) => young.or(next).unwrap_or_default(),
            Before::Index(index) => index,
        };
        let before_index = wanted.min(report.size) / BUNDLE_WIDTH * BUNDLE_WIDTH;
        let mut client = context.broker()?.audit();
        let request = ListRecordsRequest { page_size: 1, newest_first: true, ..Default::default() };
        let first = client.list_records(request).await?.into_inner().first_index;
        let covered_from = report.pruned.map_or(0, |pruned| pruned.before);
        if covered_from > first {
            return Err(Failure::Usage(
                "the export begins after the log; name older ones: --archive",
            ));
        }
        let mut pruned = Pruned { first_index: first, entries: 0, log_index: None };
        if before_index > first {
            if !self.yes {
                confirm(first, before_index)?;
            }
            let checkpoint = files::read_text(&folder.directory.join(CHECKPOINT))?;
            while pruned.first_index < before_index {
                let checkpoint = checkpoint.clone();
                let request = PruneRecordsRequest { before_index, checkpoint };
                let answer = client.prune_records(request).await?.into_inner();
                if answer.first_index <= pruned.first_index {
                    return Err(Failure::BadAnswer("nothing more was pruned"));
                }
                pruned.first_index = answer.first_index;
                pruned.log_index = Some(answer.log_index);
                context.output.progress(&format!("{} of {before_index}", answer.first_index));
            }
            context.output.progress("");
            pruned.entries = pruned.first_index - first;
        }
        context.output.show(&pruned, human)
    }
}

impl FromStr for Before {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(index) => Ok(Self::Index(index)),
            Err(_) => expiry::parse(text).map(Self::Age),
        }
    }
}

fn ago(age: Duration) -> Timestamp {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(SystemClock.now().as_millis().saturating_sub(age))
}

/// Asks on a terminal. Without one there is nobody to ask, and nothing is pruned.
fn confirm(first: u64, before: u64) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::NotConfirmed);
    }
    let mut asked = io::stderr().lock();
    write!(asked, "Take entries {first} to {before} out of the log for good? Type `prune`: ")
        .and_then(|()| asked.flush())
        .map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Failure::Input)?;
    if answer.trim() == "prune" { Ok(()) } else { Err(Failure::NotConfirmed) }
}

fn human(pruned: &Pruned) -> String {
    list([
        ("pruned", format!("{} entries", pruned.entries)),
        ("first kept", pruned.first_index.to_string()),
        ("on record", pruned.log_index.map(|index| index.to_string()).unwrap_or_default()),
    ])
}
