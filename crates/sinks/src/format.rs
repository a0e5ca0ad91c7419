use serde::Deserialize;

use crate::{Event, cef, json_lines, ocsf};

/// The form in which a record is written as a line.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object with the record's own fields.
    Jsonl,
    /// A JSON object by the Open Cybersecurity Schema Framework.
    Ocsf,
    /// The Common Event Format.
    Cef,
}

impl Format {
    /// The record as one line, without the line's end.
    pub fn line(self, event: &Event) -> String {
        match self {
            Self::Jsonl => json_lines::line(event),
            Self::Ocsf => ocsf::line(event),
            Self::Cef => cef::line(event),
        }
    }
}
