use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::BodyExt as _;
use hyper_util::client::legacy::ResponseFuture;
use metering::Ended;
use strongroom_proto::v1::usage_record::Outcome;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{Answer, Metering, Tab};
use crate::{OnDisconnect, beginning::Begun};

/// Answers that are read to their end after their callers have gone away.
#[derive(Debug)]
pub(crate) struct Drains {
    room: Arc<Semaphore>,
    tasks: Mutex<JoinSet<()>>,
}

impl Drains {
    pub(crate) fn new(most: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(most)), tasks: Mutex::default() }
    }

    /// Room for one more, if there is some and the process is not about to end.
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Handle::try_current().ok()?;
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Waits for those under way, and then breaks them off.
    pub(crate) async fn finish(&self, within: Duration) {
        self.room.close();
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(within, all).await.is_err() {
            tracing::warn!("answers without callers did not end in time");
        }
        tasks.shutdown().await;
    }
}

impl Metering {
    fn drains(&self) -> Option<OwnedSemaphorePermit> {
        let drains = self.config.on_disconnect == OnDisconnect::Drain;
        drains.then(|| self.drains.permit())?
    }

    /// The caller of this answer has gone away.
    pub(super) fn go_on_without_caller(&self, mut answer: Answer) {
        let Some(permit) = self.drains() else {
            return answer.finish(Ended::Cut, Outcome::ClientGone);
        };
        let until = Instant::now() + self.config.drain_time;
        let bytes = self.config.drain_bytes;
        self.drains.spawn(async move {
            let _permit = permit;
            let ended = read_on(&mut answer, until, bytes).await;
            answer.finish(ended, Outcome::ClientGone);
        });
    }

    /// The caller has gone away before the answer began.
    pub(super) fn wait_without_caller(self: &Arc<Self>, answer: ResponseFuture, mut tab: Tab) {
        let Some(permit) = self.drains() else { return tab.gone() };
        let until = Instant::now() + self.config.drain_time;
        let bytes = self.config.drain_bytes;
        let metering = Arc::clone(self);
        self.drains.spawn(async move {
            let _permit = permit;
            let Ok(Ok(answer)) = timeout_at(until, answer).await else { return tab.gone() };
            let (head, body) = answer.into_parts();
            if !head.status.is_success() {
                tab.answered_with_error(head.status);
                return tab.gone();
            }
            let mut answer = Answer::new(&metering, Some(tab), &head, Begun::new(body)).alone();
            let ended = read_on(&mut answer, until, bytes).await;
            answer.finish(ended, Outcome::ClientGone);
        });
    }
}

/// Reads to the end, for as long and as much as may be.
async fn read_on(answer: &mut Answer, until: Instant, mut bytes: u64) -> Ended {
    while let Ok(frame) = timeout_at(until, answer.frame()).await {
        let Some(frame) = frame else { return Ended::Whole };
        let Ok(frame) = frame else { return Ended::Cut };
        let length =
            frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
        match bytes.checked_sub(length) {
            Some(left) => bytes = left,
            None => return Ended::Cut,
        }
    }
    Ended::Cut
}
