use std::ops::Range;

use memchr::{memchr, memmem, memrchr};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::usage::{WORD, data_of, has_object, may_be_an_object};

/// Takes the chunk that holds nothing but usage out of a stream of OpenAI's chat completions, for a
/// caller that did not ask for it. All else goes on byte for byte, and at once: what is held back is
/// the beginning of a line until its end has come, unless the line is longer than any such chunk.
#[derive(Debug)]
pub struct Filter {
    word: memmem::Finder<'static>,
    kept: Vec<u8>,
    /// The line at hand is too long to be looked for, and goes on as it comes.
    passing: bool,
    /// The line before was blank, so that an event begins.
    fresh: bool,
    /// The event that was taken out was this line alone, so its blank line goes too.
    swallow: bool,
}

/// What is to be sent on, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// Bytes of earlier chunks.
    Held(Vec<u8>),
    /// A part of the chunk that was fed.
    Part(Range<usize>),
}

/// A chunk of usage alone is some hundred bytes.
const LONGEST: usize = 16 << 10;

#[derive(Deserialize)]
struct Chunk<'a> {
    choices: Vec<IgnoredAny>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

impl Filter {
    /// A filter for one answer.
    pub fn new() -> Self {
        let word = memmem::Finder::new(WORD);
        Self { word, kept: Vec::new(), passing: false, fresh: true, swallow: false }
    }

    /// Takes the next chunk, wherever it was cut, and adds what is to be sent on.
    pub fn feed(&mut self, chunk: &[u8], out: &mut Vec<Piece>) {
        let mut from = 0;
        if self.passing || !self.kept.is_empty() {
            let Some(end) = memchr(b'\n', chunk) else { return self.hold(chunk, 0, out) };
            from = end + 1;
            if self.passing {
                self.passing = false;
                self.fresh = false;
                out.push(Piece::Part(0..from));
            } else {
                self.kept.extend_from_slice(chunk.get(..from).unwrap_or_default());
                let line = std::mem::take(&mut self.kept);
                if self.goes_on(&line) {
                    out.push(Piece::Held(line));
                }
            }
        }
        let rest = chunk.get(from..).unwrap_or_default();
        let whole = memrchr(b'\n', rest).map_or(from, |last| from + last + 1);
        self.lines(chunk, from..whole, out);
        self.hold(chunk, whole, out);
    }

    /// What is held when the answer is over.
    pub fn finish(self) -> Vec<u8> {
        self.kept
    }

    fn hold(&mut self, chunk: &[u8], from: usize, out: &mut Vec<Piece>) {
        let part = chunk.get(from..).unwrap_or_default();
        if part.is_empty() {
            return;
        }
        if !self.passing && self.kept.len() + part.len() <= LONGEST {
            self.kept.extend_from_slice(part);
            return;
        }
        if !self.kept.is_empty() {
            out.push(Piece::Held(std::mem::take(&mut self.kept)));
        }
        self.passing = true;
        self.swallow = false;
        out.push(Piece::Part(from..chunk.len()));
    }

    /// Whether a line that came in pieces goes on.
    fn goes_on(&mut self, line: &[u8]) -> bool {
        let blank = is_blank(line);
        if std::mem::take(&mut self.swallow) && blank {
            self.fresh = true;
            return false;
        }
        if has_object(&self.word, line) && is_usage_alone(line) {
            self.swallow = self.fresh;
            return false;
        }
        self.fresh = blank;
        true
    }

    /// Looks through whole lines; what has not the word goes on in one piece.
    fn lines(&mut self, chunk: &[u8], lines: Range<usize>, out: &mut Vec<Piece>) {
        let slice = |range: Range<usize>| chunk.get(range).unwrap_or_default();
        let mut done = lines.start;
        if self.swallow && !lines.is_empty() {
            done = self.swallow_blank(chunk, done, lines.end);
        }
        let mut from = done;
        while let Some(at) = self.word.find(slice(from..lines.end)).map(|at| from + at) {
            if !may_be_an_object(slice(at..lines.end)) {
                from = at + WORD.len();
                continue;
            }
            let start = memrchr(b'\n', slice(done..at)).map_or(done, |end| done + end + 1);
            let end = memchr(b'\n', slice(at..lines.end)).map_or(lines.end, |end| at + end + 1);
            from = end;
            if !is_usage_alone(slice(start..end)) {
                continue;
            }
            self.look_at_last(slice(done..start));
            out.extend((done < start).then_some(Piece::Part(done..start)));
            self.swallow = self.fresh;
            done = if self.swallow { self.swallow_blank(chunk, end, lines.end) } else { end };
            from = done;
        }
        self.look_at_last(slice(done..lines.end));
        out.extend((done < lines.end).then_some(Piece::Part(done..lines.end)));
    }

    /// Where the lines go on behind a blank one; that may still be to come.
    fn swallow_blank(&mut self, chunk: &[u8], from: usize, end: usize) -> usize {
        let rest = chunk.get(from..end).unwrap_or_default();
        let Some(line) = memchr(b'\n', rest).map(|end| end + 1) else { return from };
        self.swallow = false;
        let blank = rest.get(..line).is_some_and(is_blank);
        self.fresh |= blank;
        if blank { from + line } else { from }
    }

    /// Whether an event begins behind these lines.
    fn look_at_last(&mut self, lines: &[u8]) {
        if let Some((_, before)) = lines.split_last() {
            let last = memrchr(b'\n', before).map_or(0, |end| end + 1);
            self.fresh = lines.get(last..).is_some_and(is_blank);
        }
    }
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
}

fn is_usage_alone(line: &[u8]) -> bool {
    let Some(data) = data_of(line).filter(|data| data.len() <= LONGEST) else { return false };
    serde_json::from_slice::<Chunk<'_>>(data).is_ok_and(|chunk| {
        chunk.choices.is_empty() && chunk.usage.is_some_and(|usage| usage.get().starts_with('{'))
    })
}
