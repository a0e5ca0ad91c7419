use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{Format, usage::spots::Spots};

/// Finds usage in an AWS event stream: frames of `length ‖ length of headers ‖ CRC of both ‖ headers ‖
/// payload ‖ CRC`. Only frames of the events that hold usage are kept, one at a time.
#[derive(Debug)]
pub(crate) struct Frames {
    spots: Spots,
    /// Which `:event-type` holds usage, and whether the payload wraps the model's own event.
    event: &'static [u8],
    wrapped: bool,
    part: Part,
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Prelude,
    Headers {
        length: usize,
        after: usize,
    },
    Payload {
        length: usize,
    },
    /// This many bytes are of no interest.
    Skip(usize),
    /// This is no event stream.
    Lost,
}

/// Longer frames are not kept: usage comes in short ones.
const LONGEST_HEADERS: usize = 4 << 10;
const LONGEST_PAYLOAD: usize = 64 << 10;
const PRELUDE: usize = 12;
const TRAILER: usize = 4;

/// What Bedrock's `invoke` wraps a model's event in.
#[derive(Deserialize)]
struct Wrapped<'a> {
    bytes: &'a str,
}

impl Frames {
    pub(crate) fn new(format: Format) -> Self {
        let wrapped = format == Format::BedrockInvoke;
        Self {
            spots: Spots::new(format),
            event: if wrapped { b"chunk" } else { b"metadata" },
            wrapped,
            part: Part::Prelude,
            held: Vec::new(),
        }
    }

    /// Takes the next chunk, wherever it was cut, and hands over each object found.
    pub(crate) fn feed(&mut self, chunk: &[u8], found: &mut dyn FnMut(usize, &[u8])) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let wanted = match self.part {
                Part::Prelude => PRELUDE,
                Part::Headers { length, .. } | Part::Payload { length } => length,
                Part::Skip(length) => {
                    let skipped = length.min(rest.len());
                    rest = rest.get(skipped..).unwrap_or_default();
                    let left = length - skipped;
                    self.part = if left == 0 { Part::Prelude } else { Part::Skip(left) };
                    continue;
                }
                Part::Lost => return,
            };
            let (taken, after) = rest.split_at(rest.len().min(wanted - self.held.len()));
            self.held.extend_from_slice(taken);
            rest = after;
            if self.held.len() == wanted {
                self.part = self.next(found);
                self.held.clear();
            }
        }
    }

    /// What comes after the part that is held.
    fn next(&mut self, found: &mut dyn FnMut(usize, &[u8])) -> Part {
        match self.part {
            Part::Prelude => prelude(&self.held).unwrap_or(Part::Lost),
            Part::Headers { after, .. } => {
                let kept = event_type(&self.held) == Some(self.event)
                    && (1..=LONGEST_PAYLOAD).contains(&after);
                if kept { Part::Payload { length: after } } else { Part::Skip(after + TRAILER) }
            }
            Part::Payload { .. } => {
                self.payload(found);
                Part::Skip(TRAILER)
            }
            Part::Skip(_) | Part::Lost => self.part,
        }
    }

    fn payload(&mut self, found: &mut dyn FnMut(usize, &[u8])) {
        self.spots.reset();
        if !self.wrapped {
            self.spots.feed(&self.held, found);
        } else if let Ok(Wrapped { bytes }) = serde_json::from_slice(&self.held)
            && let Ok(event) = STANDARD.decode(bytes)
        {
            self.spots.feed(&event, found);
        }
    }
}

fn prelude(bytes: &[u8]) -> Option<Part> {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    let (total, headers, crc) = (number(0)?, number(4)?, number(8)?);
    let sum = crc32fast::hash(bytes.get(..8)?);
    let payload = total.checked_sub(headers.checked_add(PRELUDE + TRAILER)?)?;
    if usize::try_from(sum).ok()? != crc {
        return None;
    }
    Some(match headers {
        0 => Part::Skip(payload + TRAILER),
        1..=LONGEST_HEADERS => Part::Headers { length: headers, after: payload },
        _ => Part::Skip(headers + payload + TRAILER),
    })
}

/// The value of `:event-type` among headers of `u8 length ‖ name ‖ u8 type ‖ u16 length ‖ value`.
fn event_type(mut headers: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, rest) = headers.split_first()?;
        let (name, rest) = rest.split_at_checked(length.into())?;
        let (&kind, rest) = rest.split_first()?;
        let (value, rest) = match kind {
            0 | 1 => rest.split_at_checked(0)?,
            2 => rest.split_at_checked(1)?,
            3 => rest.split_at_checked(2)?,
            4 => rest.split_at_checked(4)?,
            5 | 8 => rest.split_at_checked(8)?,
            6 | 7 => {
                let (length, rest) = rest.split_at_checked(2)?;
                rest.split_at_checked(u16::from_be_bytes(length.try_into().ok()?).into())?
            }
            9 => rest.split_at_checked(16)?,
            _ => return None,
        };
        if name == b":event-type" {
            return Some(value);
        }
        headers = rest;
    }
}
