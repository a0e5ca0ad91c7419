use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Spreads calls: no more than so many a second, but for a few at once. A process that starts with ten
/// thousand tenants must not use up a quota that others need too.
#[derive(Debug)]
pub(super) struct Pace {
    /// The time that each call takes up.
    each: Duration,
    /// When everything that was let through so far is paid for.
    paid: Mutex<Duration>,
}

/// So much may be used up before anybody has to wait.
const AT_ONCE: Duration = Duration::from_millis(200);

/// Who would have to wait longer is turned away: its own deadline is near.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

impl Pace {
    /// At least one call a second.
    pub(super) fn new(calls_per_second: u32) -> Self {
        let each = Duration::from_secs(1) / calls_per_second.max(1);
        Self { each, paid: Mutex::default() }
    }

    /// How long to wait before the next call; `None` when that is too long, and nothing is taken up.
    pub(super) fn turn(&self, now: Duration) -> Option<Duration> {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = (*paid).max(now);
        let wait = begins.saturating_sub(now).saturating_sub(AT_ONCE);
        if wait > LONGEST_WAIT {
            return None;
        }
        *paid = begins + self.each;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cold_start_is_spread_over_the_seconds_that_it_may_take() {
        let pace = Pace::new(100);
        let start = Duration::from_secs(50);
        let waits: Vec<_> = (0..500).map_while(|_| pace.turn(start)).collect();
        assert_eq!(waits.iter().filter(|wait| wait.is_zero()).count(), 21, "a fifth of a second");
        assert_eq!(waits.len(), 121, "and those who wait a second at the most");
        assert!(waits.iter().max() <= Some(&LONGEST_WAIT));

        // In any second after that, a hundred.
        let mut let_through = 0;
        for millis in 0..10_000_u64 {
            let_through += u32::from(pace.turn(start + Duration::from_millis(millis)).is_some());
        }
        assert!((990..=1_010).contains(&let_through), "{let_through}");
    }

    #[test]
    fn who_asks_seldom_never_waits() {
        let pace = Pace::new(10);
        for second in 0..20 {
            assert_eq!(pace.turn(Duration::from_secs(second)), Some(Duration::ZERO));
        }
    }
}
