use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde_json::Value;

/// Takes the event with figures of usage out of a stream, for a caller who did not ask for it.
/// Pieces in which there is none go as they came, uncopied; an event is held back until it is whole.
#[derive(Debug, Default)]
pub(crate) struct HiddenUsage {
    held: BytesMut,
    gave_up: bool,
}

impl HiddenUsage {
    /// Lets a piece pass, less events of usage and an end that is not a whole event.
    pub(crate) fn pass(&mut self, piece: Bytes) -> Bytes {
        if self.gave_up {
            return piece;
        }
        let mut piece = if self.held.is_empty() {
            piece
        } else {
            self.held.extend_from_slice(&piece);
            self.held.split().freeze()
        };
        let tail = piece.split_off(end_of_events(&piece));
        // Lines that only keep the connection alive must not wait for an event.
        if tail.iter().all(u8::is_ascii_whitespace) && piece.is_empty() {
            return tail;
        }
        self.held.extend_from_slice(&tail);
        if self.held.len() > LONGEST_EVENT {
            // No event of usage is as long as this.
            self.gave_up = true;
            let mut all = BytesMut::from(&*without_usage(piece));
            all.unsplit(self.held.split());
            return all.freeze();
        }
        without_usage(piece)
    }

    /// What is still held back when the answer is over.
    pub(crate) fn rest(&mut self) -> Bytes {
        let rest = self.held.split().freeze();
        if is_usage(&rest) { Bytes::new() } else { rest }
    }

    pub(crate) fn holds_back(&self) -> bool {
        !self.held.is_empty()
    }
}

fn without_usage(events: Bytes) -> Bytes {
    if memmem::find(&events, b"\"usage\"").is_none() || !each(&events).any(is_usage) {
        return events;
    }
    let kept: Vec<&[u8]> = each(&events).filter(|event| !is_usage(event)).collect();
    Bytes::from(kept.concat())
}

/// Event by event, each with the empty line that ends it.
fn each(events: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = events;
    std::iter::from_fn(move || {
        let (event, after) = rest.split_at(end_of_first(rest).unwrap_or(rest.len()));
        rest = after;
        Some(event).filter(|event| !event.is_empty())
    })
}

/// Whether it is the one event that only says what was used: no choices, and figures.
fn is_usage(event: &[u8]) -> bool {
    if memmem::find(event, b"\"usage\"").is_none()
        || memmem::find(event, b"\"usage\":null").is_some()
    {
        return false;
    }
    let mut data = Vec::with_capacity(event.len());
    for line in event.split(|byte| *byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"data:") {
            data.extend_from_slice(value);
        }
    }
    let Ok(value) = serde_json::from_slice::<Value>(&data) else { return false };
    let has_no_choices = value.get("choices").and_then(Value::as_array).is_some_and(Vec::is_empty);
    has_no_choices && value.get("usage").is_some_and(Value::is_object)
}

/// Where the last whole event ends.
fn end_of_events(bytes: &[u8]) -> usize {
    let end = |mark: &[u8]| memmem::rfind(bytes, mark).map_or(0, |at| at + mark.len());
    end(b"\n\n").max(end(b"\r\n\r\n"))
}

fn end_of_first(bytes: &[u8]) -> Option<usize> {
    let end = |mark: &[u8]| memmem::find(bytes, mark).map(|at| at + mark.len());
    [end(b"\n\n"), end(b"\r\n\r\n")].into_iter().flatten().min()
}

const LONGEST_EVENT: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: &str =
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\": {}\"}}],\"usage\":null}\n\n";
    const USAGE: &str = "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    fn pass(text: &str, size: usize) -> String {
        let mut hidden = HiddenUsage::default();
        let mut through = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            through.extend_from_slice(&hidden.pass(Bytes::copy_from_slice(piece)));
        }
        through.extend_from_slice(&hidden.rest());
        String::from_utf8(through).unwrap()
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        for size in [1, 2, 7, 50, text.len()] {
            assert_eq!(pass(text, size), expected, "by {size}");
        }
    }

    #[test]
    fn only_the_event_of_usage_is_taken_out_however_a_stream_is_cut() {
        check(&format!("{CHUNK}{CHUNK}{USAGE}{DONE}"), &format!("{CHUNK}{CHUNK}{DONE}"));
        check(&format!("{CHUNK}{}", USAGE.trim_end()), CHUNK);
        let crlf = |text: &str| text.replace('\n', "\r\n");
        check(&crlf(&format!("{CHUNK}{USAGE}{DONE}")), &crlf(&format!("{CHUNK}{DONE}")));
        // Azure begins like this, and some send figures with the last choice.
        let filter = "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n";
        let both = "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"prompt_tokens\":1}}\n\n";
        let broken = "data: {\"usage\":\n\ndata: \"usage\" : 1\n\n";
        let all = format!(": alive\n\n{filter}{both}{broken}{DONE}not an end");
        check(&all, &all);
    }

    #[test]
    fn what_keeps_a_connection_alive_is_not_held_back() {
        let mut hidden = HiddenUsage::default();
        assert_eq!(hidden.pass(Bytes::from_static(b"\n")), "\n");
        assert_eq!(hidden.pass(Bytes::from_static(b": x\n\n")), ": x\n\n");
        assert!(!hidden.holds_back());
    }

    #[test]
    fn an_event_without_an_end_does_not_fill_the_memory() {
        let mut hidden = HiddenUsage::default();
        let piece = Bytes::from(vec![b'x'; LONGEST_EVENT]);
        assert!(hidden.pass(piece.clone()).is_empty());
        assert_eq!(hidden.pass(piece.clone()).len(), 2 * LONGEST_EVENT);
        assert_eq!(hidden.pass(piece).len(), LONGEST_EVENT);
        assert!(!hidden.holds_back());
    }

    #[test]
    fn pieces_without_figures_are_not_copied() {
        let piece = Bytes::from_static(CHUNK.as_bytes());
        let passed = HiddenUsage::default().pass(piece.clone());
        assert_eq!((passed.as_ptr(), passed.len()), (piece.as_ptr(), piece.len()));
    }
}
