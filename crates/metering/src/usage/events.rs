use memchr::{memchr, memmem, memrchr};

use crate::{Format, usage::spots::Spots};

/// Finds usage in a stream of server-sent events.
///
/// Almost all of a stream is what was said. It is looked through once, for the word that usage begins
/// with; only a line that has it is walked through. What is kept is the piece of a line that a chunk
/// ends in, and of a line that is longer than [`LONGEST_KEPT`] not even that: it is walked through as
/// it comes.
#[derive(Debug)]
pub(crate) struct Events {
    spots: Spots,
    word: memmem::Finder<'static>,
    kept: Vec<u8>,
    long: Long,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Long {
    No,
    /// The line at hand is walked through as it comes.
    Walked,
    /// It has no data.
    Skipped,
}

const LONGEST_KEPT: usize = 8 << 10;
/// How the name of every member begins that holds usage in a stream.
pub(crate) const WORD: &[u8] = b"\"usage";

impl Events {
    pub(crate) fn new(format: Format) -> Self {
        let word = memmem::Finder::new(WORD);
        Self { spots: Spots::new(format), word, kept: Vec::new(), long: Long::No }
    }

    /// Takes the next chunk, wherever it was cut, and hands over each object found.
    pub(crate) fn feed(&mut self, chunk: &[u8], found: &mut dyn FnMut(usize, &[u8])) {
        let mut rest = chunk;
        if self.long != Long::No || !self.kept.is_empty() {
            let Some(end) = memchr(b'\n', rest) else { return self.keep(rest, found) };
            let (line, after) = rest.split_at(end);
            self.keep(line, found);
            self.end_of_line(found);
            rest = after.get(1..).unwrap_or_default();
        }
        let whole = memrchr(b'\n', rest).map_or(0, |last| last + 1);
        let (lines, tail) = rest.split_at(whole);
        self.lines(lines, found);
        self.keep(tail, found);
    }

    /// The stream has ended; its last line may have no end of its own.
    pub(crate) fn finish(&mut self, found: &mut dyn FnMut(usize, &[u8])) {
        self.end_of_line(found);
    }

    /// Looks through whole lines.
    fn lines(&mut self, lines: &[u8], found: &mut dyn FnMut(usize, &[u8])) {
        let mut from = 0;
        while let Some(rest) = lines.get(from..)
            && let Some(at) = self.word.find(rest).map(|at| from + at)
        {
            let (before, after) = lines.split_at(at);
            if !may_be_an_object(after) {
                from = at + WORD.len();
                continue;
            }
            let start = memrchr(b'\n', before).map_or(0, |end| end + 1);
            let end = memchr(b'\n', after).map_or(lines.len(), |end| at + end);
            line(&mut self.spots, lines.get(start..end).unwrap_or_default(), found);
            from = end;
        }
    }

    fn keep(&mut self, part: &[u8], found: &mut dyn FnMut(usize, &[u8])) {
        let mut part = part;
        if self.long == Long::No {
            let room = LONGEST_KEPT - self.kept.len().min(LONGEST_KEPT);
            let (fits, over) = part.split_at(part.len().min(room));
            self.kept.extend_from_slice(fits);
            if over.is_empty() {
                return;
            }
            part = over;
            self.long = Long::Skipped;
            if let Some(data) = data_of(&self.kept) {
                self.long = Long::Walked;
                self.spots.reset();
                self.spots.feed(data, found);
            }
            self.kept.clear();
        }
        if self.long == Long::Walked {
            self.spots.feed(part, found);
        }
    }

    fn end_of_line(&mut self, found: &mut dyn FnMut(usize, &[u8])) {
        if self.long == Long::No && has_object(&self.word, &self.kept) {
            line(&mut self.spots, &self.kept, found);
        }
        self.kept.clear();
        self.long = Long::No;
    }
}

fn line(spots: &mut Spots, line: &[u8], found: &mut dyn FnMut(usize, &[u8])) {
    if let Some(data) = data_of(line) {
        spots.reset();
        spots.feed(data, found);
    }
}

/// The data of a line, if it is one of data.
pub(crate) fn data_of(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"data:")
}

/// Whether a line has a member that may hold usage.
pub(crate) fn has_object(word: &memmem::Finder<'_>, line: &[u8]) -> bool {
    word.find_iter(line).any(|at| may_be_an_object(line.get(at..).unwrap_or_default()))
}

/// Whether what begins with [`WORD`] can be a member with an object. Most that is found says `null`,
/// and is not worth walking through its line.
pub(crate) fn may_be_an_object(found: &[u8]) -> bool {
    let colon = found.iter().take(LONGEST_NAME).position(|byte| *byte == b':');
    let value = colon.and_then(|colon| found.get(colon + 1..)).unwrap_or_default();
    value.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first == b'{')
}

/// `"usageMetadata"` and spaces.
const LONGEST_NAME: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_stream_without_an_end_no_more_is_kept_than_of_a_line() {
        for stream in ["data: {\"usage\":{\"a\":\"", "data: [", "event: "] {
            let mut events = Events::new(Format::OpenAiChat);
            let mut found = |_: usize, _: &[u8]| panic!("there is nothing to be found");
            events.feed(stream.as_bytes(), &mut found);
            for _ in 0..1_000 {
                events.feed(&[b'x'; 1_000], &mut found);
                assert!(events.kept.len() <= LONGEST_KEPT);
                assert!(events.spots.held() <= 16 << 10);
            }
        }
    }
}
