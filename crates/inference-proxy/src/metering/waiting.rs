use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Response;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Error, ResponseFuture};

use super::{Metering, Tab};

/// The wait for an answer to begin. When the caller goes away meanwhile, the provider goes on all the
/// same and charges for it; so the answer is waited for without the caller, within bounds.
pub(crate) struct Waiting<'a> {
    metering: &'a Arc<Metering>,
    answer: Option<ResponseFuture>,
    tab: &'a mut Option<Tab>,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(
        metering: &'a Arc<Metering>,
        answer: ResponseFuture,
        tab: &'a mut Option<Tab>,
    ) -> Self {
        if let Some(tab) = tab {
            tab.sent();
        }
        Self { metering, answer: Some(answer), tab }
    }

    /// It has lasted for too long: the caller is still there, the answer is not waited for.
    pub(crate) fn give_up(&mut self) {
        self.answer = None;
    }
}

impl Future for Waiting<'_> {
    type Output = Result<Response<Incoming>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(answer) = &mut this.answer else { return Poll::Pending };
        let polled = Pin::new(answer).poll(cx);
        if polled.is_ready() {
            this.answer = None;
        }
        polled
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        if let Some(tab) = self.tab.take() {
            self.metering.wait_without_caller(answer, tab);
        }
    }
}
