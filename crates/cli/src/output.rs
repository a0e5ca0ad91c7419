use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::error::ErrorKind;
use serde::Serialize;
use serde_json::json;

use crate::failure::Failure;

/// Where results go: a JSON document for programs, or text for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a terminal shows the result.
    pub(crate) fn is_terminal(self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Shows a result in the one form or the other.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let mut text = if self.json { to_json(value)? } else { human(value) };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        raw(text.as_bytes())
    }

    /// A remark beside the result: for people only.
    pub(crate) fn note(self, text: &str) {
        if !self.json {
            complain(&format!("{text}\n"));
        }
    }

    /// Whether somebody watches.
    pub(crate) fn shows_progress(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// How far a long work is: for people who watch.
    pub(crate) fn progress(self, text: &str) {
        if self.shows_progress() {
            complain(&format!("\r{text}\u{1b}[K"));
        }
    }

    pub(crate) fn fail(self, failure: &Failure) -> ExitCode {
        if failure.is_closed_pipe() {
            return ExitCode::FAILURE;
        }
        if self.json {
            complain(&format!("{}\n", json!({ "error": failure.view() })));
        } else {
            complain(&format!("error: {}\n", printable(&failure.message())));
            if let Some(hint) = failure.hint() {
                complain(&format!("  try: {hint}\n"));
            }
        }
        ExitCode::from(failure.exit_code())
    }
}

pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Help, the version, or what is wrong with the command line.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked_for && env::args_os().any(|argument| argument == "--json") {
        let message = error.render().to_string();
        let message = message.trim().trim_start_matches("error: ");
        complain(&format!("{}\n", json!({ "error": { "kind": "usage", "message": message } })));
    } else {
        // Nobody is left to tell when this fails.
        let _ = error.print();
    }
    ExitCode::from(u8::from(!asked_for) * 2)
}

/// Columns for people: as wide as their widest cell, and nothing that could steer a terminal.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let header = header.map(str::to_owned).to_vec();
    columns(header, rows.into_iter().map(|row| row.to_vec()).collect())
}

/// As [`table`], for columns that are only known when it runs.
pub(crate) fn columns(header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut widths = vec![0; header.len()];
    let cells = |row: Vec<String>| row.iter().map(|cell| printable(cell)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).map(cells).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths.iter().copied()) {
            // Writing to a `String` cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and values of one thing, below each other; empty values are left out.
pub(crate) fn list<const N: usize>(rows: [(&str, String); N]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{name:width$}  {}", printable(&value));
    }
    text
}

/// The text without control characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))
}

fn complain(text: &str) {
    // Nobody is left to tell when this fails.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_straight_columns_and_steers_no_terminal() {
        let text = table(["NAME", "X"], vec![["tenants/acme".into(), "\u{1b}[2J".into()]]);
        assert_eq!(text, "NAME          X\ntenants/acme  \u{fffd}[2J\n");
    }

    #[test]
    fn a_list_leaves_out_what_is_empty() {
        assert_eq!(list([("name", "a".into()), ("etag", String::new())]), "name  a\n");
    }
}
