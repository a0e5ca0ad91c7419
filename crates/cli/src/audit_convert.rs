use std::path::{Path, PathBuf};

use audit::{Entry, Verifier, VerifierKey};
use clap::{Args, ValueEnum};
use sinks::Event;

use crate::{
    audit_export::CHECKPOINT,
    audit_verify::{KeyArgs, read_bundle, unsigned},
    failure::Failure,
    files,
    output::{Output, raw},
};

#[derive(Args, Debug)]
pub(crate) struct Convert {
    /// The export.
    directory: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
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
        read_through(&self.directory, &key, output, |_| Ok(()))?;
        let format = match self.format {
            Format::Jsonl => sinks::Format::Jsonl,
            Format::Ocsf => sinks::Format::Ocsf,
            Format::Cef => sinks::Format::Cef,
        };
        read_through(&self.directory, &key, Output::new(true), |events| {
            let lines: String = events.iter().map(|event| format.line(event) + "\n").collect();
            raw(lines.as_bytes())
        })
    }
}

/// Reads an export to its end, bundle by bundle, and verifies it on the way.
fn read_through(
    directory: &Path,
    key: &VerifierKey,
    output: Output,
    mut with: impl FnMut(Vec<Event>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let note = files::read_text(&directory.join(CHECKPOINT))?;
    let mut verifier = Verifier::open(key, &note).map_err(|error| unsigned("the", error))?;
    for bundle in verifier.bundles() {
        let bytes = read_bundle(directory, bundle)?;
        let not_one = |what: &str, index| Failure::Unverified { what: what.to_owned(), index };
        let bodies = bundle.decode(&bytes).map_err(|_| {
            not_one("a file is not a bundle of entries", Some(bundle.first_entry()))
        })?;
        let mut events = Vec::new();
        for (index, body) in (bundle.first_entry()..).zip(bodies) {
            verifier.push(body)?;
            let entry = Entry { index, body: body.to_vec() };
            let event = Event::read(&entry, |_| None);
            events.push(event.map_err(|_| not_one("an entry is not a record", Some(index)))?);
        }
        with(events)?;
        let done = bundle.first_entry() + bundle.width;
        output.progress(&format!("{done} of {} entries verified", verifier.checkpoint().size));
    }
    output.progress("");
    verifier.finish()?;
    Ok(())
}
