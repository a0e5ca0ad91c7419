use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{StatusCode, response::Parts};
use http_body::{Body, Frame, SizeHint};
use metering::{Ended, Meter};
use strongroom_proto::v1::usage_record::Outcome;

use super::{Metering, Tab};
use crate::beginning::Begun;

/// A provider's answer, read for what it took while it passes. When whoever reads it goes away before
/// its end, it is read on without them, within bounds, or broken off, as the configuration says.
#[derive(Debug)]
pub(crate) struct Answer {
    body: Option<Begun>,
    status: StatusCode,
    open: Option<Open>,
    /// Its caller has gone away: when it is dropped now, it ends.
    is_alone: bool,
}

/// Until the call is settled.
#[derive(Debug)]
struct Open {
    metering: Arc<Metering>,
    tab: Tab,
    meter: Option<Meter>,
}

impl Answer {
    pub(crate) fn new(
        metering: &Arc<Metering>,
        tab: Option<Tab>,
        head: &Parts,
        body: Begun,
    ) -> Self {
        let open = tab.map(|tab| {
            let meter = tab.meter(&head.headers);
            Open { metering: Arc::clone(metering), tab, meter }
        });
        Self { body: Some(body), status: head.status, open, is_alone: false }
    }

    /// The same, now that its caller has gone away. Dropping it breaks it off.
    pub(crate) fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// Settles a call whose answer broke off on the way here.
    pub(crate) fn cut(&mut self) {
        self.finish(Ended::Cut, Outcome::Cut);
    }

    /// Settles a call whose answer held the lent secret. The caller gets this status, if nothing of the
    /// answer has gone out before.
    pub(crate) fn withhold(&mut self, instead: Option<StatusCode>) {
        self.status = instead.unwrap_or(self.status);
        self.finish(Ended::Cut, Outcome::Withheld);
    }

    /// Settles the call, once.
    pub(crate) fn finish(&mut self, ended: Ended, outcome: Outcome) {
        if let Some(Open { tab, meter, .. }) = self.open.take() {
            tab.finish(meter, ended, outcome, self.status);
        }
    }

    fn heard(&mut self, bytes: &[u8]) {
        if let Some(open) = &mut self.open {
            open.tab.heard();
            if let Some(meter) = &mut open.meter {
                meter.feed(bytes);
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    this.heard(bytes);
                }
            }
            Some(Err(_)) if this.is_alone => this.finish(Ended::Cut, Outcome::ClientGone),
            Some(Err(_)) => this.cut(),
            None if this.is_alone => this.finish(Ended::Whole, Outcome::ClientGone),
            None => this.finish(Ended::Whole, Outcome::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.open.is_some() && !self.is_alone && self.is_end_stream() {
            // Nobody asks for more where the length says that there is none.
            self.finish(Ended::Whole, Outcome::Complete);
        }
        if self.is_alone {
            return self.finish(Ended::Cut, Outcome::ClientGone);
        }
        if let Some(metering) = self.open.as_ref().map(|open| Arc::clone(&open.metering)) {
            let (body, status, open) = (self.body.take(), self.status, self.open.take());
            metering.go_on_without_caller(Self { body, status, open, is_alone: true });
        }
    }
}
