use memchr::memchr;

/// Notices a head of HTTP/1 that says in two ways where its body ends: by a length and by a transfer
/// coding. Two servers in a row may believe one each, and then what one takes for a body is a request to
/// the other. The HTTP library drops the length without a word, so the bytes are looked at here.
///
/// It follows lines, and not where bodies begin and end: what is no JSON may be taken for such a head, and
/// is refused as well.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    /// How the line at hand begins.
    line: Vec<u8>,
    has_length: bool,
    has_coding: bool,
}

impl Framing {
    /// Takes the next bytes; true when there was such a head in what has come so far.
    pub(crate) fn heard(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let end = memchr(b'\n', bytes);
            let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            let room = LONGEST.saturating_sub(self.line.len());
            self.line.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
            if end.is_some() && self.is_doubtful() {
                return true;
            }
            bytes = rest;
        }
        false
    }

    /// Ends a line; whether the head has both by now.
    fn is_doubtful(&mut self) -> bool {
        let begins = |name: &[u8]| {
            self.line.get(..name.len()).is_some_and(|line| line.eq_ignore_ascii_case(name))
        };
        self.has_length |= begins(LENGTH);
        self.has_coding |= begins(CODING);
        if matches!(&*self.line, b"\n" | b"\r\n") {
            (self.has_length, self.has_coding) = (false, false);
        }
        self.line.clear();
        self.has_length && self.has_coding
    }
}

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";
const LONGEST: usize = CODING.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: bool) {
        for size in 1..=text.len() {
            let mut framing = Framing::default();
            let found = text.as_bytes().chunks(size).any(|piece| framing.heard(piece));
            assert_eq!(found, expected, "{text:?} by {size}");
        }
    }

    #[test]
    fn a_length_and_a_coding_in_one_head_are_noticed() {
        let (post, long) = ("POST / HTTP/1.1\r\nHost: a\r\n", "a".repeat(100));
        let (length, coding) = ("Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n");
        check(&format!("{post}{length}{coding}\r\n"), true);
        check(&format!("{post}{coding}x: {long}\r\n{}", length.to_lowercase()), true);
        check(&format!("{post}{}{}\r\n", length.to_uppercase(), coding.to_uppercase()), true);
        // As a second request, too.
        let first = format!("{post}{length}\r\n{{}}");
        check(&format!("{first}{post}{coding}{length}\r\n"), true);
        for one in [length, coding] {
            check(&format!("{post}{one}\r\n{{}}"), false);
        }
        check(&format!("{first}{post}{coding}\r\n2\r\n{{}}\r\n0\r\n\r\n{first}"), false);
        check(&format!("{post}x: Content-Length: 2\r\n{coding}\r\n"), false);
        check(&format!("{post}x-{length}{coding}\r\n"), false);
    }
}
