use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

/// What is being read: who asks for what somebody else is reading waits for that answer.
///
/// A read belongs to those who wait for it. When the one who began it gives up, the others go on with
/// it, and when none is left it ends.
pub(crate) struct Flights<K, T: Clone> {
    under_way: Arc<UnderWay<K, T>>,
}

type UnderWay<K, T> = Mutex<HashMap<K, WeakShared<BoxFuture<'static, T>>>>;

/// Takes a read out when it has ended, or was dropped.
struct Landing<K: Eq + Hash, T: Clone> {
    under_way: Arc<UnderWay<K, T>>,
    key: K,
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// The answer of the read of `key` that is under way, or of the one that begins now.
    pub(crate) async fn join<R>(&self, key: K, read: impl FnOnce() -> R) -> T
    where
        R: Future<Output = T> + Send + 'static,
    {
        let flight = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(flight) = under_way.get(&key).and_then(WeakShared::upgrade) {
                flight
            } else {
                let landing = Landing { under_way: Arc::clone(&self.under_way), key: key.clone() };
                let flight = begin(landing, read());
                under_way.extend(flight.downgrade().map(|flight| (key, flight)));
                flight
            }
        };
        flight.await
    }
}

fn begin<K, T>(
    landing: Landing<K, T>,
    read: impl Future<Output = T> + Send + 'static,
) -> Shared<BoxFuture<'static, T>>
where
    K: Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    let flight = async move {
        let _landing = landing;
        read.await
    };
    flight.boxed().shared()
}

impl<K: Eq + Hash, T: Clone> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<K, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self { under_way: Arc::default() }
    }
}

impl<K, T: Clone> fmt::Debug for Flights<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_at_once_share_one_read_and_later_ones_do_not() {
        let flights = Flights::default();
        let (reads, go_on) = (AtomicU64::new(0), Arc::new(Notify::new()));
        let ask = |key: u8| {
            let read = || {
                let (read, go_on) = (reads.fetch_add(1, Ordering::Relaxed), Arc::clone(&go_on));
                async move {
                    go_on.notified().await;
                    read
                }
            };
            Box::pin(flights.join(key, read))
        };
        for expected in [[0, 0, 0, 1], [2, 2, 2, 3]] {
            let mut asked = [ask(1), ask(1), ask(1), ask(2)];
            for one in &mut asked {
                assert_eq!(one.now_or_never(), None);
            }
            go_on.notify_waiters();
            assert_eq!(join_all(asked).await, expected);
        }
        assert!(flights.under_way.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_read_goes_on_without_who_began_it_and_ends_with_the_last() {
        let flights: Flights<u8, u8> = Flights::default();
        let go_on = Arc::new(Notify::new());
        let read = |answer: u8| {
            let go_on = Arc::clone(&go_on);
            move || async move {
                go_on.notified().await;
                answer
            }
        };
        let mut first = Box::pin(flights.join(1, read(1)));
        let mut second = Box::pin(flights.join(1, read(2)));
        assert_eq!((&mut first).now_or_never(), None);
        assert_eq!((&mut second).now_or_never(), None);
        drop(first);
        go_on.notify_one();
        assert_eq!(second.await, 1);

        let mut given_up = Box::pin(flights.join(1, read(3)));
        assert_eq!((&mut given_up).now_or_never(), None);
        drop(given_up);
        assert!(flights.under_way.lock().unwrap().is_empty());
        go_on.notify_one();
        assert_eq!(flights.join(1, read(4)).await, 4);
    }
}
