use std::sync::LazyLock;

use memchr::{memchr, memmem::Finder};

/// A piece of text with JSON's escapes resolved, as far as they are there.
pub(crate) struct Unescaped {
    bytes: Vec<u8>,
    runs: Vec<Run>,
    /// Where an escape begins that the end of the piece cuts off; else the piece's end.
    cut_off: usize,
}

/// A part that is written as it is, or one escape.
struct Run {
    /// Where it begins in what is resolved.
    at: usize,
    /// Where it begins in the text as it is written.
    written_at: usize,
    is_escape: bool,
}

/// What an escape at the beginning of a text comes to.
enum Escape {
    /// A character, and how many bytes it is written with.
    Of(char, usize),
    CutOff,
    /// It stands for nothing that a secret could have in it.
    Other,
}

impl Unescaped {
    /// Resolves `\uXXXX` and the short escapes that stand for visible characters; `None` where there is
    /// nothing to resolve, which costs no more than looking for another form of the secret.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        let has = |marks: &Finder<'_>| marks.find(text).is_some();
        if text.last() != Some(&b'\\') && !has(&UNICODE) && !has(&SLASH) {
            return None;
        }
        let mut unescaped =
            Self { bytes: Vec::with_capacity(text.len()), runs: Vec::new(), cut_off: text.len() };
        let (mut at, mut rest) = (0, text);
        while let Some(plain) = memchr(b'\\', rest) {
            let (before, escape) = rest.split_at(plain);
            unescaped.add(at, before, false);
            at += plain;
            let written = match Escape::read(escape) {
                Escape::Of(character, written) => {
                    let mut room = [0; 4];
                    unescaped.add(at, character.encode_utf8(&mut room).as_bytes(), true);
                    written
                }
                Escape::CutOff => return Some(Self { cut_off: at, ..unescaped }),
                Escape::Other => {
                    unescaped.add(at, b"\\", true);
                    1
                }
            };
            at += written;
            rest = escape.get(written..).unwrap_or_default();
        }
        unescaped.add(at, rest, false);
        Some(unescaped)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the last `length` bytes begin in the text; for none, where the escape does that is cut off.
    pub(crate) fn start_of_last(&self, length: usize) -> usize {
        let first = self.bytes.len().saturating_sub(length);
        if first == self.bytes.len() {
            return self.cut_off;
        }
        let run = self.runs.partition_point(|run| run.at <= first).checked_sub(1);
        match run.and_then(|run| self.runs.get(run)) {
            Some(run) if run.is_escape => run.written_at,
            Some(run) => run.written_at + (first - run.at),
            None => 0,
        }
    }

    fn add(&mut self, written_at: usize, bytes: &[u8], is_escape: bool) {
        if !bytes.is_empty() {
            self.runs.push(Run { at: self.bytes.len(), written_at, is_escape });
            self.bytes.extend_from_slice(bytes);
        }
    }
}

impl Escape {
    fn read(text: &[u8]) -> Self {
        match text {
            [_] => Self::CutOff,
            [_, short @ (b'/' | b'"' | b'\\'), ..] => Self::Of(char::from(*short), 2),
            [_, b'u', hex @ ..] => match hex.get(..4) {
                Some(hex) => character(hex).map_or(Self::Other, |it| Self::Of(it, 6)),
                None if hex.iter().all(u8::is_ascii_hexdigit) => Self::CutOff,
                None => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// The character of four hex digits; none for half of a pair, which no secret has.
fn character(hex: &[u8]) -> Option<char> {
    let hex = str::from_utf8(hex).ok().filter(|hex| !hex.starts_with('+'))?;
    char::from_u32(u32::from_str_radix(hex, 16).ok()?)
}

static UNICODE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u"));
static SLASH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\/"));

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, usize)>) {
        let found = Unescaped::of(text.as_bytes());
        let found = found.map(|it| (String::from_utf8(it.bytes.clone()).unwrap(), it.cut_off));
        let found = found.as_ref().map(|(bytes, cut_off)| (&**bytes, *cut_off));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn escapes_are_resolved_and_one_that_is_cut_off_waits() {
        check("plain", None);
        check(r#"a\nb\"c"#, None);
        check(r"\u0073\u006b-\u006A", Some(("sk-j", 19)));
        check(r"a\/b\\u0073", Some((r"a/b\u0073", 11)));
        check(r"\u00e9\ud83d", Some(("é\\ud83d", 12)));
        for cut in [r"\", r"\u", r"\u0", r"\u00", r"\u007"] {
            check(&format!(r"\u0073{cut}"), Some(("s", 6)));
        }
        check(r"\u0zzzz\u00", Some((r"\u0zzzz", 7)));
    }

    #[test]
    fn the_place_of_a_byte_is_where_its_escape_begins() {
        let unescaped = Unescaped::of(br"ab\u0063d\u00").unwrap();
        assert_eq!(unescaped.bytes(), b"abcd");
        let starts: Vec<_> = (0..=4).map(|length| unescaped.start_of_last(length)).collect();
        assert_eq!(starts, [9, 8, 2, 1, 0]);
    }
}
