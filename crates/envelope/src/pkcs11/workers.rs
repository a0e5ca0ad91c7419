use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::KmsError;

/// Does work that blocks on threads of its own, so many at once, and waits so long for each.
///
/// What is late is left behind on its thread, and keeps its place until it is done: a token that
/// hangs costs so many threads and no more, and those who come later hear that it is unavailable.
pub(super) struct Workers {
    places: Arc<Semaphore>,
    deadline: Duration,
}

impl Workers {
    pub(super) fn new(places: usize, deadline: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), deadline }
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, KmsError> + Send + 'static,
    ) -> Result<T, KmsError> {
        let places = Arc::clone(&self.places);
        let answer = async move {
            let place = places.acquire_owned().await.map_err(KmsError::unavailable)?;
            let worker = spawn_blocking(move || {
                let _place = place;
                work()
            });
            worker.await.map_err(KmsError::unavailable)?
        };
        let late = |_| KmsError::unavailable("the token did not answer in time");
        timeout(self.deadline, answer).await.map_err(late)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_token_that_hangs_costs_its_places_and_no_more() {
        let workers = Workers::new(2, Duration::from_millis(20));
        let mut hung = Vec::new();
        for _ in 0..5 {
            let (answer, wait) = mpsc::channel::<()>();
            hung.push(answer);
            let late = workers.run(move || wait.recv().map_err(KmsError::unavailable)).await;
            assert!(matches!(late, Err(KmsError::Unavailable(_))), "{late:?}");
        }
        // The other three were never begun: with their callers, the ends on which they would have
        // waited went away.
        let begun = hung.iter().filter(|answer| answer.send(()).is_ok()).count();
        assert_eq!(begun, 2);

        // The token is back.
        let workers = Workers { deadline: Duration::from_secs(10), ..workers };
        workers.run(|| Ok(())).await.unwrap();
    }
}
