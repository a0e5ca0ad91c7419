use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use domain::Clock;

/// When one revocation ends many leases, every process that held some would ask for new ones in the
/// same instant. Each spreads its questions instead, over a time that grows with how many ended.
#[derive(Debug, Default)]
pub(crate) struct Rush {
    /// Milliseconds on the clock's `elapsed`.
    until: AtomicU64,
}

impl Rush {
    /// Takes note of how many leases ended at once.
    pub(crate) fn note(&self, ended: u64, clock: &dyn Clock) {
        if ended >= MANY {
            let until = millis(clock).saturating_add(ended.min(LONGEST));
            self.until.fetch_max(until, Ordering::AcqRel);
        }
    }

    /// Within which time the next question is to be asked, at any moment of it.
    pub(crate) fn spread(&self, clock: &dyn Clock) -> Duration {
        let left = self.until.load(Ordering::Acquire).saturating_sub(millis(clock));
        Duration::from_millis(left)
    }
}

fn millis(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Fewer than this ask at once, as ever.
const MANY: u64 = 16;

/// One millisecond for each, up to this.
const LONGEST: u64 = 500;

#[cfg(test)]
mod tests {
    use domain::{ManualClock, Timestamp};

    use super::*;

    #[test]
    fn after_many_endings_at_once_questions_are_spread_for_a_while() {
        let (rush, clock) = (Rush::default(), ManualClock::at(Timestamp::from_millis(0)));
        rush.note(MANY - 1, &clock);
        assert_eq!(rush.spread(&clock), Duration::ZERO);
        rush.note(100, &clock);
        assert_eq!(rush.spread(&clock), Duration::from_millis(100));
        rush.note(1_000_000, &clock);
        assert_eq!(rush.spread(&clock), Duration::from_millis(LONGEST));
        clock.advance(Duration::from_millis(LONGEST));
        assert_eq!(rush.spread(&clock), Duration::ZERO);
    }
}
