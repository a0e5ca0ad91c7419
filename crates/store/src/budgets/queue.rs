use tokio::sync::{mpsc, oneshot};

use crate::{
    StoreError,
    budgets::{BudgetDone, BudgetWork},
    writer::{Answer, Job},
};

/// Work that waits for a transaction.
pub(crate) struct Queued {
    pub(crate) works: Vec<BudgetWork>,
    /// Absent when nobody waits for it.
    pub(crate) answer: Option<Answer<Vec<BudgetDone>>>,
}

/// How much may wait. What comes then waits before the queue.
pub(crate) const QUEUE: usize = 1024;

/// How many callers' work one transaction takes on.
const BATCH: usize = 16;

/// How much of one caller's work goes into one transaction.
pub(crate) const STEP: usize = 64;

/// Puts what waits together into transactions, one at a time: so the writer that they share with the
/// log, if they do, has the log's turn after each.
pub(crate) async fn batch(mut queue: mpsc::Receiver<Queued>, writer: mpsc::Sender<Job>) {
    let mut waiting = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        let works = waiting.iter().flat_map(|queued| queued.works.iter().cloned()).collect();
        match send(&writer, works).await {
            Ok(done) => {
                let mut done = done.into_iter();
                for queued in waiting.drain(..) {
                    let own = done.by_ref().take(queued.works.len()).collect();
                    queued.tell(Ok(own));
                }
            }
            Err(StoreError::Unavailable(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "nothing was reserved");
                for queued in waiting.drain(..) {
                    queued.tell(Err(StoreError::not_taken_on()));
                }
            }
            // What cannot be done must not stop what can.
            Err(_) => {
                for queued in waiting.drain(..) {
                    let done = send(&writer, queued.works.clone()).await;
                    queued.tell(done);
                }
            }
        }
    }
}

impl Queued {
    fn tell(self, done: Result<Vec<BudgetDone>, StoreError>) {
        if let Some(answer) = self.answer {
            // Whoever asked may have stopped waiting; what was done stays done.
            let _ = answer.send(done);
        }
    }
}

async fn send(
    writer: &mpsc::Sender<Job>,
    works: Vec<BudgetWork>,
) -> Result<Vec<BudgetDone>, StoreError> {
    let (answer, done) = oneshot::channel();
    let sent = writer.send(Job::Budgets(works, answer)).await;
    sent.map_err(|_| StoreError::not_taken_on())?;
    done.await.map_err(|_| StoreError::not_taken_on())?
}
