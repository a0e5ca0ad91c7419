use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use domain::Clock;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    beginning::Begun, busy::Busy, hidden_usage::HiddenUsage, leak::Leak, meters::Meters,
    route::Operation, upstream::Upstream,
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

/// A provider's answer on its way to the caller: as it comes, piece by piece, never gathered. When
/// the caller goes away this is dropped, and the provider's connection with it.
pub(crate) struct Stream {
    pub(crate) body: Begun,
    pub(crate) leak: Leak,
    /// For a caller who did not ask for figures of usage where we did.
    pub(crate) hidden_usage: Option<HiddenUsage>,
    pub(crate) idle: Idle,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) operation: Operation,
    pub(crate) started: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) meters: Arc<Meters>,
}

/// Why an answer ends before its end. The caller sees the connection break, not a clean end.
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
            Source::Stream(stream) => {
                let hides = stream.hidden_usage.as_ref().is_some_and(HiddenUsage::holds_back);
                stream.body.is_end_stream() && !stream.leak.holds_back() && !hides
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Source::Stream(stream) if stream.hidden_usage.is_some() => SizeHint::default(),
            Source::Stream(stream) => stream.body.size_hint(),
        }
    }
}

impl Stream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
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
                    let rest = Some(rest).filter(|rest| !rest.is_empty());
                    return Poll::Ready(rest.map(|rest| Ok(Frame::data(rest))));
                }
            };
            match passed.map(|bytes| self.without_usage(bytes)) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Err(_) => return self.cut(CutShort::Leak),
            }
        }
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

    fn cut(&mut self, why: CutShort) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if why == CutShort::Leak {
            self.meters.leaks.increment(1);
            tracing::error!(upstream = ?self.upstream, "an answer held the leased secret and was cut");
        } else {
            self.meters.cut.increment(1);
            tracing::warn!(upstream = ?self.upstream, reason = %why, "an answer was cut short");
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
