use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{busy::ConnectionUse, framing::Framing};

/// A connection of an application that must not take for ever to say what it wants: from its
/// beginning, and then from the first byte that arrives while no call is in hand, a whole head must
/// come within the limit. What it says is read along for heads of two meanings. One of HTTP/2 that has no call in hand is kept for a while only.
///
/// The HTTP library has such a limit too, but counts the time between calls into it; a connection
/// that waits for its next call would be closed under its owner's hands.
#[derive(Debug)]
pub(crate) struct HeadDeadline<S> {
    stream: S,
    calls: ConnectionUse,
    limit: Duration,
    keep_alive: Duration,
    /// The deadline of the head that is arriving, and how many calls there had been when it began.
    timer: Option<(usize, Pin<Box<Sleep>>)>,
    /// Whether it speaks HTTP/2, once that is known.
    is_two: Option<bool>,
    framing: Framing,
}

impl<S> HeadDeadline<S> {
    pub(crate) fn new(
        stream: S,
        calls: ConnectionUse,
        limit: Duration,
        keep_alive: Duration,
    ) -> Self {
        let timer = Some((calls.begun(), Box::pin(sleep(limit))));
        Self { stream, calls, limit, keep_alive, timer, is_two: None, framing: Framing::default() }
    }

    /// Takes note that nothing has arrived.
    fn waiting(&mut self) {
        self.forget_whole_head();
        let begun = self.calls.begun();
        // Of HTTP/1 the library itself bounds the time between calls.
        if self.timer.is_none() && self.is_two == Some(true) && self.calls.is_idle() && begun > 0 {
            self.timer = Some((begun, Box::pin(sleep(self.keep_alive))));
        }
    }

    /// Takes note of bytes that arrived.
    fn heard(&mut self, bytes: &[u8]) {
        // `PRI * HTTP/2.0` begins HTTP/2 and nothing else.
        let is_two = *self.is_two.get_or_insert_with(|| bytes.starts_with(b"PRI"));
        if !is_two && self.framing.heard(bytes) {
            self.calls.doubt();
        }
        self.forget_whole_head();
        let begun = self.calls.begun();
        // Frames of HTTP/2 that belong to no call are in order once there has been one.
        if self.timer.is_none() && self.calls.is_idle() && !(is_two && begun > 0) {
            self.timer = Some((begun, Box::pin(sleep(self.limit))));
        }
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        self.forget_whole_head();
        self.timer.as_mut().is_some_and(|(_, timer)| timer.as_mut().poll(cx).is_ready())
    }

    /// A head that became a call was in time.
    fn forget_whole_head(&mut self) {
        if self.timer.as_ref().is_some_and(|(begun, _)| *begun != self.calls.begun()) {
            self.timer = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadDeadline<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if read.is_pending() {
            this.waiting();
        }
        match read {
            Poll::Pending if this.is_late(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Ready(Ok(())) => {
                let new = buf.filled().get(before..).unwrap_or_default();
                if !new.is_empty() {
                    this.heard(new);
                }
                // Bytes that trickle in do not move the deadline.
                if this.is_late(cx) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Ready(Ok(()))
            }
            read @ (Poll::Ready(_) | Poll::Pending) => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadDeadline<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
