use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Writes a line for people, to standard error.
pub(crate) fn say(line: impl Display) {
    // There is nobody to tell when standard error is closed.
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Writes lines for scripts, to standard output, and sees to it that they arrive.
pub(crate) fn hand_out(lines: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{lines}")?;
    out.flush()
}
