use std::path::PathBuf;

use audit::{Entry, VerifierKey};
use clap::{Args, ValueEnum};
use sinks::Event;

use crate::{
    audit_verify::{self, Archives, Folder, KeyArgs},
    failure::Failure,
    output::{Output, raw},
};

#[derive(Args, Debug)]
pub(crate) struct Convert {
    /// The export.
    directory: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    archives: Archives,
    /// The form, one line for each record: `docs/export.md` has its fields.
    #[arg(long, value_enum)]
    format: Format,
}

/// The forms that sinks have, too.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A JSON object with the record's own fields.
    Jsonl,
    /// A JSON object by the Open Cybersecurity Schema Framework.
    Ocsf,
    /// The Common Event Format.
    Cef,
}

impl Convert {
    /// Verifies all of it before the first line is written, and what is written once more: a log that
    /// is not what was signed leaves no line that looks like it.
    pub(crate) fn run(self, output: Output) -> Result<(), Failure> {
        let key = self.key.load()?;
        let folder = Folder { directory: self.directory, archives: self.archives.directories };
        read_through(&folder, &key, output, |_| Ok(()))?;
        if let Some(start) = folder.start()? {
            output.note(&format!(
                "entries before {} were pruned, and no line is of them: name the export that covers \
                 them with --archive",
                start.first_index()
            ));
        }
        let format = match self.format {
            Format::Jsonl => sinks::Format::Jsonl,
            Format::Ocsf => sinks::Format::Ocsf,
            Format::Cef => sinks::Format::Cef,
        };
        read_through(&folder, &key, Output::new(true), |events| {
            let lines: String = events.iter().map(|event| format.line(event) + "\n").collect();
            raw(lines.as_bytes())
        })
    }
}

/// Reads an export to its end, bundle by bundle, and verifies it on the way.
fn read_through(
    folder: &Folder,
    key: &VerifierKey,
    output: Output,
    mut with: impl FnMut(Vec<Event>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut verifier = folder.verifier(key)?;
    for bundle in verifier.bundles() {
        let bytes = folder.read_bundle(bundle)?;
        let not_one = |index| {
            let what = "an entry is not a record".to_owned();
            Failure::Unverified { what, index: Some(index) }
        };
        let bodies = audit_verify::decode(bundle, &bytes)?;
        let mut events = Vec::new();
        for (index, body) in (bundle.first_entry()..).zip(bodies) {
            verifier.push(body)?;
            let entry = Entry { index, body: body.to_vec() };
            let event = Event::read(&entry, |_| None);
            events.push(event.map_err(|_| not_one(index))?);
        }
        with(events)?;
        let done = bundle.first_entry() + bundle.width;
        output.progress(&format!("{done} of {} entries verified", verifier.checkpoint().size));
    }
    output.progress("");
    verifier.finish()?;
    Ok(())
}
