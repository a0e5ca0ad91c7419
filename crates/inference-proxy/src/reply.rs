use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use domain::{Clock, Dialect};
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use crate::{
    busy::Busy,
    hidden_usage::HiddenUsage,
    leak::{Leak, Leaked},
    metering::Answer,
    reporter::Reporter,
    route::Operation,
    trouble::withheld,
    upstream::Upstream,
};

/// The body of an answer.
pub(crate) struct Reply {
    source: Source,
    /// Held until the answer is over, so that the call counts as one in hand until then.
    busy: Option<Busy>,
}

enum Source {
    Whole(Option<Bytes>),
    Stream(Box<Stream>),
}

/// A provider's answer on its way to the caller: piece by piece as it comes, but for a short one that is
/// no stream of events. When the caller goes away this is dropped, and [`Answer`] decides whether it is
/// read on.
pub(crate) struct Stream {
    pub(crate) body: Answer,
    pub(crate) leak: Leak,
    /// For a caller who did not ask for figures of usage where we did.
    pub(crate) hidden_usage: Option<HiddenUsage>,
    pub(crate) idle: Idle,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) operation: Operation,
    pub(crate) started: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) reporter: Reporter,
    /// In which shape an event takes the place of one with the secret, where the answer is a stream of
    /// events.
    pub(crate) events: Option<Dialect>,
    pub(crate) ready: Ready,
}

/// What waits to be handed on.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Pieces that were searched.
    pieces: VecDeque<Bytes>,
    /// Nothing has gone out: the answer is held back until it is whole.
    is_gathering: bool,
    /// How the answer ends after them, once that is known.
    end: Option<Result<(), CutShort>>,
}

/// Why an answer ends before its end. The caller sees the connection break, not a clean end; only where
/// an event says what happened, that event is the end.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum CutShort {
    #[error("the provider cut the answer off")]
    ByProvider,
    #[error("the provider paused for too long")]
    TooSlow,
    #[error("the answer held a leased secret")]
    Leak,
}

impl Reply {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { source: Source::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())), busy: None }
    }

    pub(crate) fn stream(stream: Stream) -> Self {
        Self { source: Source::Stream(Box::new(stream)), busy: None }
    }

    pub(crate) fn hold(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        match &mut self.get_mut().source {
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_none(),
            Source::Stream(stream) => stream.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Source::Stream(stream) => stream.size_hint(),
        }
    }
}

impl Stream {
    /// Holds an answer back until it is whole, so that one with the secret in it can be replaced. What
    /// is longer or slower than most goes on as it comes.
    pub(crate) async fn gather(&mut self) -> Result<(), Leaked> {
        let until = Instant::now() + LONGEST_GATHERING;
        let mut length = 0;
        self.ready.is_gathering = true;
        while length <= MOST_GATHERED && self.ready.end.is_none() {
            match timeout_at(until, poll_fn(|cx| self.poll_piece(cx))).await {
                Ok(Some(Ok(piece))) => {
                    length += piece.len();
                    self.ready.pieces.push_back(piece);
                }
                Ok(Some(Err(CutShort::Leak))) => return Err(Leaked),
                Ok(Some(Err(why))) => self.ready.end = Some(Err(why)),
                Ok(None) => self.ready.end = Some(Ok(())),
                Err(_) => break,
            }
        }
        self.ready.is_gathering = false;
        Ok(())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if let Some(piece) = self.ready.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(end) = self.ready.end {
            // A failure is told once.
            self.ready.end = Some(Ok(()));
            return Poll::Ready(end.err().map(Err));
        }
        let mut piece = ready!(self.poll_piece(cx));
        if piece == Some(Err(CutShort::Leak))
            && let Some(shape) = self.events
        {
            self.ready.end = Some(Ok(()));
            piece = Some(Ok(withheld().event(shape, &self.reporter.request_id)));
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    /// The next piece of the answer that has been searched.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutShort>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending if self.idle.is_over(cx) => return self.cut(CutShort::TooSlow),
                Poll::Pending => return Poll::Pending,
            };
            self.idle.heard();
            let passed = match frame {
                // Trailers are the provider's and not on the list of what goes back.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.leak.pass(bytes),
                    Err(_) => continue,
                },
                Some(Err(_)) => return self.cut(CutShort::ByProvider),
                None => {
                    let rest = self.rest();
                    return Poll::Ready(Some(rest).filter(|rest| !rest.is_empty()).map(Ok));
                }
            };
            match passed.map(|bytes| self.without_usage(bytes)) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                Err(Leaked) => return self.cut(CutShort::Leak),
            }
        }
    }

    fn is_over(&self) -> bool {
        let hides = self.hidden_usage.as_ref().is_some_and(HiddenUsage::holds_back);
        let is_read = self.body.is_end_stream() && !self.leak.holds_back() && !hides;
        let ends = self.ready.end.map_or(is_read, |end| end.is_ok());
        ends && self.ready.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        // Of these the length may turn out another one than the provider's.
        if self.events.is_some() || self.hidden_usage.is_some() {
            return SizeHint::default();
        }
        let ready: usize = self.ready.pieces.iter().map(Bytes::len).sum();
        let ready = u64::try_from(ready + self.leak.held()).unwrap_or(u64::MAX);
        if self.ready.end == Some(Ok(())) {
            return SizeHint::with_exact(ready);
        }
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(ready));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(ready));
        }
        hint
    }

    fn without_usage(&mut self, bytes: Bytes) -> Bytes {
        match &mut self.hidden_usage {
            Some(hidden) if !bytes.is_empty() => hidden.pass(bytes),
            Some(_) | None => bytes,
        }
    }

    /// What was held back of an answer that is over.
    fn rest(&mut self) -> Bytes {
        let rest = self.leak.rest();
        let Some(hidden) = &mut self.hidden_usage else { return rest };
        let passed = hidden.pass(rest);
        let last = hidden.rest();
        if last.is_empty() { passed } else { [passed, last].concat().into() }
    }

    fn cut(&mut self, why: CutShort) -> Poll<Option<Result<Bytes, CutShort>>> {
        if why == CutShort::Leak {
            self.body.withhold(self.ready.is_gathering.then(|| withheld().status));
            self.reporter.secret_in("body");
        } else {
            self.body.cut();
            self.reporter.cut(why);
        }
        Poll::Ready(Some(Err(why)))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let took = self.clock.elapsed().saturating_sub(self.started);
        self.upstream.series.ended(self.operation, took);
    }
}

/// Notices a pause that is too long. Pieces only leave a mark; the timer is set once a while, so that
/// a fast stream costs no timers.
pub(crate) struct Idle {
    longest: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    heard: bool,
}

impl Idle {
    pub(crate) fn new(longest: Duration) -> Self {
        Self { longest, timer: None, heard: false }
    }

    fn heard(&mut self) {
        self.heard = true;
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let longest = self.longest;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(longest)));
        while timer.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.heard) {
                return true;
            }
            timer.as_mut().reset(Instant::now() + longest);
        }
        false
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

/// Nearly all answers that are no streams are shorter.
const MOST_GATHERED: usize = 64 << 10;

/// A caller may wait for signs of life.
const LONGEST_GATHERING: Duration = Duration::from_secs(2);
