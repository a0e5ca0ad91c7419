use std::{fmt::Write as _, path::Path};

use audit::{Disclosure, Names};
use serde::Deserialize;

use crate::{failure::Failure, files};

/// A person, as a line of an export's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    commitment: String,
    salt: String,
    spiffe_id: String,
}

/// Where the names of people are kept in an export.
const PEOPLE: &str = "people.jsonl";

/// The names that lie in an export. A line that was changed names nobody.
pub(crate) fn load(directory: &Path) -> Result<Names, Failure> {
    let path = directory.join(PEOPLE);
    if !path.exists() {
        return Ok(Names::default());
    }
    let text = files::read_text(&path)?;
    let read = |line: &str| {
        let Person { commitment, salt, spiffe_id } = serde_json::from_str(line).ok()?;
        let (commitment, salt) = (hex::decode(commitment).ok()?, hex::decode(salt).ok()?);
        Disclosure::check(&commitment, &salt, &spiffe_id).ok()
    };
    Ok(text.lines().filter_map(read).collect())
}

/// Keeps names in an export, beside those that are there.
pub(crate) fn save(directory: &Path, mut names: Names) -> Result<(), Failure> {
    names.know_all(load(directory)?);
    let mut text = String::new();
    for name in names.all() {
        let (commitment, salt) = (hex::encode(name.commitment()), hex::encode(name.salt()));
        let line = serde_json::json!({
            "commitment": commitment,
            "salt": salt,
            "spiffe_id": name.value(),
        });
        let _ = writeln!(text, "{line}");
    }
    if text.is_empty() { Ok(()) } else { files::write(&directory.join(PEOPLE), text.as_bytes()) }
}
