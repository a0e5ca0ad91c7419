use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

const FAILURES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(3);

/// Spares a KMS that does not answer: after five failures in a row only one call in three seconds is
/// let through, until one succeeds.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// When the next call is let through; meaningful once open.
    next: Duration,
}

impl Breaker {
    /// Whether a call may be made now. One that is let through while open takes the turn with it, so
    /// it does not matter if its caller goes away without a word.
    pub(crate) fn admits(&self, now: Duration) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failures < FAILURES {
            return true;
        }
        if now < state.next {
            return false;
        }
        state.next = now + PAUSE;
        true
    }

    /// The KMS answered, with whatever.
    pub(crate) fn answered(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failures = 0;
    }

    /// The KMS did not answer. Says whether this is what opened the breaker.
    pub(crate) fn failed(&self, now: Duration) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            state.next = now + PAUSE;
        }
        state.failures == FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_five_failures_in_a_row_and_lets_one_call_through_each_three_seconds() {
        let breaker = Breaker::default();
        let at = Duration::from_millis;
        for _ in 0..4 {
            assert!(!breaker.failed(at(0)));
        }
        breaker.answered();
        for _ in 0..4 {
            assert!(!breaker.failed(at(0)));
        }
        assert!(breaker.admits(at(0)));
        assert!(breaker.failed(at(0)));

        assert!(!breaker.admits(at(2_999)));
        assert!(breaker.admits(at(3_000)));
        assert!(!breaker.admits(at(3_001)));
        assert!(breaker.admits(at(6_000)));

        breaker.answered();
        assert!(breaker.admits(at(6_001)));
        assert!(breaker.admits(at(6_001)));
    }
}
