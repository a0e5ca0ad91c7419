use std::{
    fs::File,
    io::{self, IsTerminal as _, Read},
    os::fd::AsFd as _,
};

use domain::Secret;
use sealing::LONGEST_SECRET;

use crate::failure::Failure;

/// Reads a secret: from stdin when that is not a terminal, otherwise from a prompt that shows
/// nothing. It is never an argument, because those are in shell histories and process lists.
pub(crate) fn read(prompt: &str) -> Result<Secret, Failure> {
    if io::stdin().is_terminal() {
        let typed = rpassword::prompt_password(prompt).map_err(Failure::Input)?;
        checked(typed.into_bytes())
    } else {
        // Not through the standard library's buffer, which would keep a copy.
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(Failure::Input)?;
        from_reader(File::from(stdin))
    }
}

fn from_reader(reader: impl Read) -> Result<Secret, Failure> {
    // At its final size from the start: a buffer that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(LONGEST_SECRET + 4);
    let result = reader.take(LONGEST_SECRET as u64 + 3).read_to_end(&mut bytes);
    result.map_err(Failure::Input)?;
    checked(bytes)
}

/// Without one newline at its end, which editors and `echo` add.
fn checked(mut bytes: Vec<u8>) -> Result<Secret, Failure> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    let secret = Secret::new(bytes);
    if secret.is_empty() {
        return Err(Failure::Usage("the secret is empty; give it on stdin or type it"));
    }
    if secret.len() > LONGEST_SECRET {
        return Err(Failure::Usage("the secret is longer than 16384 bytes"));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &[u8], secret: Option<&[u8]>) {
        let read = from_reader(input).ok();
        assert_eq!(read.as_ref().map(Secret::expose), secret);
    }

    #[test]
    fn one_newline_is_trimmed_and_nothing_else() {
        check(b"sk-1\n", Some(b"sk-1"));
        check(b"sk-1\r\n", Some(b"sk-1"));
        check(b"sk-1", Some(b"sk-1"));
        check(b"{\n}\n\n", Some(b"{\n}\n"));
        check(b" sk-1 ", Some(b" sk-1 "));
    }

    #[test]
    fn empty_and_endless_input_is_refused() {
        check(b"", None);
        check(b"\n", None);
        check(&vec![b'x'; LONGEST_SECRET], Some(&vec![b'x'; LONGEST_SECRET]));
        check(&vec![b'x'; LONGEST_SECRET + 1], None);
        check(&vec![b'x'; LONGEST_SECRET * 2], None);
    }
}
