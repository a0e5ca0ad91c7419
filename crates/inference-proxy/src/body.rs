use std::{
    collections::VecDeque,
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use domain::Clock;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use memchr::memmem;
use thiserror::Error;
use tokio::time::timeout;

use crate::scan::{BodyError, Outline, Scanner};

/// A request's body as it arrived: the very buffers, in order.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    list: VecDeque<Bytes>,
    /// Where bytes go once there are many frames, so that a body in tiny pieces costs no more
    /// memory than its length.
    tail: BytesMut,
    length: usize,
    reserved: Option<Arc<Reserved>>,
}

/// The memory that all bodies at hand take together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffered(Arc<AtomicUsize>);

/// A body's part of it, given back when the body is gone.
#[derive(Debug)]
struct Reserved {
    all: Buffered,
    part: usize,
}

/// Why a body was not received.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum ReceiveError {
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the request body arrived too slowly")]
    TooSlow,
    #[error("too many request bodies are being received at the moment; try again")]
    Full,
    #[error("the request body was cut off")]
    CutOff,
    #[error(transparent)]
    Invalid(#[from] BodyError),
}

/// What a body may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// How much memory all bodies may take together.
    pub(crate) all: usize,
    /// How large it may be.
    pub(crate) size: usize,
    /// How long it may pause.
    pub(crate) idle: Duration,
}

/// Receives a JSON body and looks at its top.
pub(crate) async fn receive(
    mut body: Incoming,
    limits: BodyLimits,
    buffered: &Buffered,
    clock: &dyn Clock,
) -> Result<(Frames, Outline), ReceiveError> {
    let too_large = ReceiveError::TooLarge(limits.size);
    if body.size_hint().lower() > u64::try_from(limits.size).unwrap_or(u64::MAX) {
        return Err(too_large);
    }
    let mut scanner = Scanner::new();
    let mut reserved = Reserved { all: buffered.clone(), part: 0 };
    let mut frames = Frames::default();
    let started = clock.elapsed();
    loop {
        let frame = timeout(limits.idle, body.frame()).await.map_err(|_| ReceiveError::TooSlow)?;
        let Some(frame) = frame else { break };
        let Ok(bytes) = frame.map_err(|_| ReceiveError::CutOff)?.into_data() else { continue };
        if frames.length + bytes.len() > limits.size {
            return Err(too_large);
        }
        if !reserved.grow(bytes.len(), limits.all) {
            return Err(ReceiveError::Full);
        }
        scanner.feed(&bytes)?;
        frames.push(bytes);
        let taken = clock.elapsed().saturating_sub(started);
        if taken > limits.idle && frames.length < least_after(taken) {
            return Err(ReceiveError::TooSlow);
        }
    }
    frames.reserved = Some(Arc::new(reserved));
    Ok((frames, scanner.finish()?))
}

impl Reserved {
    fn grow(&mut self, by: usize, most: usize) -> bool {
        self.part += by;
        self.all.0.fetch_add(by, Ordering::Relaxed) + by <= most
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.part, Ordering::Relaxed);
    }
}

/// Frames smaller than this are copied out of the buffer they arrived in.
const SMALL: usize = 4096;

/// How much must have arrived by then: 1 KiB a second.
fn least_after(taken: Duration) -> usize {
    usize::try_from(taken.as_secs()).unwrap_or(usize::MAX).saturating_mul(1024)
}

impl Frames {
    fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        // A small frame may keep a large buffer alive, which nobody has counted.
        let bytes = if bytes.len() < SMALL { Bytes::copy_from_slice(&bytes) } else { bytes };
        if self.list.len() < MANY && self.tail.is_empty() {
            self.list.push_back(bytes);
        } else {
            self.tail.extend_from_slice(&bytes);
        }
    }

    /// Puts other bytes in the place of a part; everything else stays where it is in memory.
    pub(crate) fn replace(&mut self, part: Range<usize>, with: &[u8]) {
        self.settle();
        let mut replaced = VecDeque::with_capacity(self.list.len() + 2);
        let mut with = Some(Bytes::copy_from_slice(with));
        let mut at = 0;
        for frame in self.list.drain(..) {
            let end = at + frame.len();
            let before = part.start.clamp(at, end) - at;
            let after = part.end.clamp(at, end) - at;
            replaced.push_back(frame.slice(..before));
            if part.start < end
                && let Some(with) = with.take()
            {
                replaced.push_back(with);
            }
            replaced.push_back(frame.slice(after..));
            at = end;
        }
        replaced.retain(|frame| !frame.is_empty());
        self.length = replaced.iter().map(Bytes::len).sum();
        self.list = replaced;
    }

    /// The same body once more, without copying it; `None` when it is longer than this.
    pub(crate) fn again(&mut self, longest: usize) -> Option<Self> {
        if self.length > longest {
            return None;
        }
        self.settle();
        Some(Self {
            list: self.list.clone(),
            tail: BytesMut::new(),
            length: self.length,
            reserved: self.reserved.clone(),
        })
    }

    /// Whether these bytes stand somewhere in it, also where one frame ends and another begins.
    pub(crate) fn has(&self, word: &[u8]) -> bool {
        let finder = memmem::Finder::new(word);
        let mut joint = Vec::new();
        let tail = (!self.tail.is_empty()).then_some(&*self.tail);
        self.list.iter().map(|frame| &**frame).chain(tail).any(|frame| {
            let most = word.len().saturating_sub(1);
            joint.extend_from_slice(frame.get(..most.min(frame.len())).unwrap_or_default());
            let found = finder.find(&joint).is_some() || finder.find(frame).is_some();
            let rest = if frame.len() < most { &joint } else { frame };
            joint = rest.get(rest.len().saturating_sub(most)..).unwrap_or_default().to_vec();
            found
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All of it in one piece.
    pub(crate) fn joined(&mut self) -> Bytes {
        self.settle();
        if let (Some(only), 1) = (self.list.front(), self.list.len()) {
            return only.clone();
        }
        let mut all = BytesMut::with_capacity(self.length);
        self.list.iter().for_each(|frame| all.extend_from_slice(frame));
        all.freeze()
    }

    /// Puts another body in its place.
    pub(crate) fn become_all(&mut self, bytes: Bytes) {
        self.tail.clear();
        self.length = bytes.len();
        self.list = VecDeque::from([bytes]);
    }

    fn settle(&mut self) {
        if !self.tail.is_empty() {
            self.list.push_back(self.tail.split().freeze());
        }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        this.settle();
        let next = this.list.pop_front();
        this.length -= next.as_ref().map_or(0, Bytes::len);
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.length == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.length).unwrap_or(u64::MAX))
    }
}

const MANY: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(pieces: &[&str]) -> Frames {
        let mut frames = Frames::default();
        for piece in pieces {
            frames.push(Bytes::copy_from_slice(piece.as_bytes()));
        }
        frames
    }

    fn text(mut frames: Frames) -> String {
        frames.settle();
        let bytes: Vec<u8> = frames.list.iter().flatten().copied().collect();
        assert_eq!(bytes.len(), frames.length);
        String::from_utf8(bytes).unwrap()
    }

    #[track_caller]
    fn check(pieces: &[&str], part: Range<usize>, expected: &str) {
        let mut frames = frames(pieces);
        frames.replace(part, b"XY");
        assert_eq!(text(frames), expected, "{pieces:?}");
    }

    #[test]
    fn a_part_is_replaced_across_frames() {
        check(&["abcdef"], 2..4, "abXYef");
        check(&["abc", "def"], 2..4, "abXYef");
        check(&["a", "b", "c", "d", "e", "f"], 2..4, "abXYef");
        check(&["ab", "cd", "ef"], 2..4, "abXYef");
        check(&["abcdef"], 0..6, "XY");
        check(&["abc", "def"], 5..6, "abcdeXY");
        check(&["abc", "def"], 1..1, "aXYbcdef");
        check(&["abc", "def"], 3..3, "abcXYdef");
    }

    #[test]
    fn a_body_can_be_sent_again_unless_it_is_too_long() {
        let mut frames = frames(&["abc", "def"]);
        assert!(frames.again(5).is_none());
        let again = frames.again(6).unwrap();
        frames.replace(0..1, b"X");
        assert_eq!((text(again), frames.joined()), ("abcdef".into(), Bytes::from("Xbcdef")));
    }

    #[test]
    fn a_word_is_found_wherever_the_body_was_cut() {
        let text = "{\"a\":{\"ttl\":1}}";
        for size in 1..text.len() {
            let pieces: Vec<&str> =
                text.as_bytes().chunks(size).map(|it| std::str::from_utf8(it).unwrap()).collect();
            assert!(frames(&pieces).has(b"\"ttl\""), "by {size}");
            assert!(!frames(&pieces).has(b"\"ttm\""), "by {size}");
        }
    }

    #[test]
    fn a_body_in_tiny_pieces_is_kept_together() {
        let mut frames = Frames::default();
        for _ in 0..10_000 {
            frames.push(Bytes::from_static(b"x"));
        }
        assert!(frames.list.len() <= MANY);
        assert_eq!(text(frames), "x".repeat(10_000));
    }
}
