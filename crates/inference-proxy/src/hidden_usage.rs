use bytes::{Bytes, BytesMut};
use metering::{Filter, Piece};

/// Takes the event with figures of usage out of a stream, for a caller who did not ask for it. Pieces
/// in which there is none go as they came, uncopied.
#[derive(Debug)]
pub(crate) struct HiddenUsage {
    /// Until the answer is over.
    filter: Option<Filter>,
    pieces: Vec<Piece>,
}

impl Default for HiddenUsage {
    fn default() -> Self {
        Self { filter: Some(Filter::new()), pieces: Vec::new() }
    }
}

impl HiddenUsage {
    /// Lets a piece pass, less lines of usage and an end that is not a whole line.
    pub(crate) fn pass(&mut self, piece: Bytes) -> Bytes {
        let Some(filter) = &mut self.filter else { return piece };
        self.pieces.clear();
        filter.feed(&piece, &mut self.pieces);
        match &mut *self.pieces {
            [] => Bytes::new(),
            [Piece::Part(part)] => piece.slice(part.clone()),
            [Piece::Held(held)] => std::mem::take(held).into(),
            pieces => {
                let mut all = BytesMut::new();
                for one in pieces {
                    match one {
                        Piece::Held(held) => all.extend_from_slice(held),
                        Piece::Part(part) => {
                            all.extend_from_slice(piece.get(part.clone()).unwrap_or_default());
                        }
                    }
                }
                all.freeze()
            }
        }
    }

    /// What is still held back when the answer is over.
    pub(crate) fn rest(&mut self) -> Bytes {
        let Some(mut filter) = self.filter.take() else { return Bytes::new() };
        self.pieces.clear();
        // A last line without an end is looked at as one with an end is.
        filter.feed(b"\n", &mut self.pieces);
        match self.pieces.pop() {
            Some(Piece::Held(mut line)) => {
                line.pop();
                line.into()
            }
            Some(Piece::Part(_)) | None => Bytes::new(),
        }
    }

    /// Whether something may yet come without the provider sending more.
    pub(crate) fn holds_back(&self) -> bool {
        self.filter.is_some()
    }
}

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
    }

    #[test]
    fn a_line_without_an_end_does_not_fill_the_memory() {
        let mut hidden = HiddenUsage::default();
        let piece = Bytes::from(vec![b'x'; 64 << 10]);
        assert_eq!(hidden.pass(piece.clone()).len(), piece.len());
        assert_eq!(hidden.pass(piece.clone()).len(), piece.len());
        assert!(hidden.rest().is_empty());
    }

    #[test]
    fn pieces_without_figures_are_not_copied() {
        let piece = Bytes::from_static(CHUNK.as_bytes());
        let passed = HiddenUsage::default().pass(piece.clone());
        assert_eq!((passed.as_ptr(), passed.len()), (piece.as_ptr(), piece.len()));
    }
}
