use std::time::Duration;

use domain::{Clock, LONGEST_TTL, Timestamp};

/// A moment on both clocks, so that one can be held against the other later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    elapsed: Duration,
    wall: Timestamp,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { elapsed: clock.elapsed(), wall: clock.now() }
    }

    /// On the clock that goes on in suspend.
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// Until when a lease may be used. Counted from when the request was sent, on the clock that goes on
/// in suspend, and a little short: the broker counts from later, with a clock of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    sent: Moment,
    usable: Duration,
}

impl Deadline {
    pub(crate) fn new(sent: Moment, ttl: Duration) -> Self {
        let ttl = ttl.min(LONGEST_TTL);
        Self { sent, usable: ttl.saturating_sub(ttl / 50 + MARGIN) }
    }

    /// Whether the lease may be used now. A wall clock that jumped against the other means that one
    /// of them stood still, as after a virtual machine was restored; then neither is believed.
    pub(crate) fn is_ahead(&self, clock: &dyn Clock) -> bool {
        let gone = clock.elapsed().saturating_sub(self.sent.elapsed);
        if gone >= self.usable {
            return false;
        }
        let wall_gone = clock.now().as_millis().saturating_sub(self.sent.wall.as_millis());
        let gone = i64::try_from(gone.as_millis()).unwrap_or(i64::MAX);
        wall_gone.abs_diff(gone) <= LARGEST_JUMP_MILLIS
    }

    /// When a share of the usable time has gone, on the clock's `elapsed`.
    pub(crate) fn at_percent(&self, percent: u32) -> Duration {
        self.sent.elapsed.saturating_add(self.usable.saturating_mul(percent) / 100)
    }
}

const MARGIN: Duration = Duration::from_millis(100);
const LARGEST_JUMP_MILLIS: u64 = 5_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use domain::ManualClock;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_ends_two_percent_and_100_ms_early() {
        let clock = ManualClock::at(Timestamp::from_millis(1_000_000));
        let deadline = Deadline::new(Moment::now(&clock), seconds(60));
        clock.advance(Duration::from_millis(58_699));
        assert!(deadline.is_ahead(&clock));
        clock.advance(Duration::from_millis(1));
        assert!(!deadline.is_ahead(&clock));
    }

    #[test]
    fn it_counts_from_when_the_request_was_sent() {
        let clock = ManualClock::at(Timestamp::from_millis(1_000_000));
        let sent = Moment::now(&clock);
        clock.advance(seconds(59));
        assert!(!Deadline::new(sent, seconds(60)).is_ahead(&clock));
    }

    #[test]
    fn it_is_never_longer_than_the_longest_lease() {
        let clock = ManualClock::at(Timestamp::from_millis(1_000_000));
        let deadline = Deadline::new(Moment::now(&clock), seconds(86_400));
        assert!(deadline.usable < LONGEST_TTL);
        assert_eq!(Deadline::new(Moment::now(&clock), Duration::ZERO).usable, Duration::ZERO);
    }

    #[derive(Debug, Default)]
    struct Jumping {
        jump: AtomicI64,
    }

    impl Clock for Jumping {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1_000_000 + self.jump.load(Ordering::SeqCst))
        }

        fn elapsed(&self) -> Duration {
            seconds(1_000)
        }
    }

    #[test]
    fn a_wall_clock_that_jumps_ends_it() {
        let clock = Jumping::default();
        let deadline = Deadline::new(Moment::now(&clock), seconds(60));
        for (jump, ahead) in
            [(0, true), (5_000, true), (-5_000, true), (5_001, false), (-5_001, false)]
        {
            clock.jump.store(jump, Ordering::SeqCst);
            assert_eq!(deadline.is_ahead(&clock), ahead, "{jump}");
        }
    }
}
