use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::Clock;
use serde::Deserialize;
use strongroom_proto::v1::{WatchRevocationsRequest, WatchRevocationsResponse};
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::{
    Problem,
    cache::Inner,
    problem::CERTIFICATE_REFUSED,
    renewal::random_below,
    ring::{Ending, Ring},
};

/// What happens to leases while the revocation stream is lost.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum OnStreamLoss {
    /// Leases are used to their end: a revocation that does not arrive takes effect then.
    #[default]
    Available,
    /// Leases are not used from five seconds after the broker was last heard, nor before it was
    /// heard for the first time.
    Strict,
}

/// Whether revocations arrive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WatchState {
    /// The stream has not been heard of yet.
    Connecting,
    /// Revocations arrive.
    Live,
    /// The stream is lost and being brought up again.
    Lost,
}

/// Why no call can be served at the moment.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Outage {
    /// This process has just begun.
    #[error("no broker has been heard yet")]
    NotHeardYet,
    /// The broker has said that this identity is blocked or no longer valid, or has refused its certificate
    /// and no lease is left.
    #[error(
        "the broker does not accept this gateway's identity: see its certificate, and blocked identities"
    )]
    Refused,
    /// No broker has been heard for a minute, and no lease that it gave is in force any more.
    #[error("no broker has been heard for a minute, and no lease is left: see the log")]
    Away,
}

/// The state of the stream, as each lease looks at it.
#[derive(Debug)]
pub(crate) struct Vitals {
    on_loss: OnStreamLoss,
    live: AtomicBool,
    /// Milliseconds on the clock's `elapsed`; `NEVER` before the first time.
    heard_at: AtomicU64,
    /// Whether the broker has said, since it was last heard, that it does not accept this identity.
    refused: AtomicBool,
    /// The same of its certificate. That may be a matter of time or of one broker, so leases go on.
    turned_away: AtomicBool,
}

impl Vitals {
    pub(crate) fn new(on_loss: OnStreamLoss) -> Self {
        Self {
            on_loss,
            live: AtomicBool::new(false),
            heard_at: AtomicU64::new(NEVER),
            refused: AtomicBool::new(false),
            turned_away: AtomicBool::new(false),
        }
    }

    /// Whether the state of the stream lets leases be used.
    pub(crate) fn permit(&self, clock: &dyn Clock) -> bool {
        match self.on_loss {
            OnStreamLoss::Available => true,
            OnStreamLoss::Strict => match self.heard_at.load(Ordering::Acquire) {
                NEVER => false,
                at => clock.elapsed().saturating_sub(Duration::from_millis(at)) < STRICT_GRACE,
            },
        }
    }

    pub(crate) fn state(&self) -> WatchState {
        if self.live.load(Ordering::Acquire) {
            WatchState::Live
        } else if self.heard_at.load(Ordering::Acquire) == NEVER {
            WatchState::Connecting
        } else {
            WatchState::Lost
        }
    }

    /// Why no call can be served; `has_lease` says whether one is in force. A broker that starts again
    /// is no outage: leases go on meanwhile, and others come when it is back.
    pub(crate) fn outage(
        &self,
        clock: &dyn Clock,
        has_lease: impl FnOnce() -> bool,
    ) -> Option<Outage> {
        if self.refused.load(Ordering::Acquire) {
            return Some(Outage::Refused);
        }
        let outage = match self.heard_at.load(Ordering::Acquire) {
            NEVER => Outage::NotHeardYet,
            at => {
                let unheard = clock.elapsed().saturating_sub(Duration::from_millis(at));
                if unheard < LONG_UNHEARD || has_lease() {
                    return None;
                }
                Outage::Away
            }
        };
        let turned_away = self.turned_away.load(Ordering::Acquire);
        Some(if turned_away { Outage::Refused } else { outage })
    }

    fn refused(&self) {
        self.refused.store(true, Ordering::Release);
    }

    fn turned_away(&self, by_certificate: bool) {
        self.turned_away.store(by_certificate, Ordering::Release);
    }

    fn heard(&self, clock: &dyn Clock) {
        let at = u64::try_from(clock.elapsed().as_millis()).unwrap_or(NEVER - 1);
        self.heard_at.store(at, Ordering::Release);
        self.live.store(true, Ordering::Release);
        self.refused.store(false, Ordering::Release);
        self.turned_away.store(false, Ordering::Release);
    }

    fn lost(&self) -> bool {
        self.live.swap(false, Ordering::AcqRel)
    }
}

/// Follows the revocation stream and brings it up again, for as long as it is polled.
pub(crate) async fn watch(inner: Arc<Inner>) {
    let mut failures = 0;
    loop {
        let from = inner.watch_from();
        let ended = follow(&inner, from, &mut failures).await;
        if ended == Ended::CannotResume {
            inner.start_over();
        }
        if ended == Ended::Closed && failures == 0 {
            // The connection had its age. One that closes unheard is lost.
            failures = 1;
            continue;
        }
        if inner.vitals.lost() {
            inner.meters.streams_lost.increment(1);
            inner.meters.watching.set(0.0);
            tracing::warn!("the revocation stream is lost");
        }
        sleep(backoff(failures, random_below(1 << 16))).await;
        failures += 1;
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ended {
    /// The broker ended it, as it does with a connection's age.
    Closed,
    Lost,
    CannotResume,
}

async fn follow(inner: &Inner, from: Option<u64>, failures: &mut u32) -> Ended {
    let request = WatchRevocationsRequest { from_index: from };
    let mut leases = inner.broker.leases();
    let opened = timeout(inner.broker.timeout(), leases.watch_revocations(request)).await;
    let mut stream = match opened {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) if ends_everything(&status) => return inner.cannot_resume(&status),
        Ok(Err(status)) => {
            let problem = Problem::from_status(&status);
            inner.vitals.turned_away(problem.reason == CERTIFICATE_REFUSED);
            // At 1, 2, 4, 8 … failures in a row: often enough to be seen, and no flood.
            if failures.saturating_add(1).is_power_of_two() {
                tracing::warn!(code = ?problem.code, "no revocation stream: {problem}");
            }
            return Ended::Lost;
        }
        Err(_) => {
            inner.vitals.turned_away(false);
            return Ended::Lost;
        }
    };
    loop {
        let message = match timeout(LONGEST_SILENCE, stream.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Err(status)) if ends_everything(&status) => return inner.cannot_resume(&status),
            Ok(Ok(None)) => return Ended::Closed,
            Ok(Err(_)) | Err(_) => return Ended::Lost,
        };
        if !inner.hear(message, from) {
            return Ended::CannotResume;
        }
        *failures = 0;
    }
}

/// Whether the broker's refusal means that nothing that is held may be used any longer: the log is
/// not the one that was followed, or this identity has been put out.
fn ends_everything(status: &Status) -> bool {
    status.code() == Code::OutOfRange || puts_out(status)
}

fn puts_out(status: &Status) -> bool {
    matches!(&*Problem::from_status(status).reason, "IDENTITY_IS_BLOCKED" | "UNIDENTIFIED")
}

impl Inner {
    /// Where the stream should begin: where it was lost, or right after the oldest lease that is
    /// held, or now.
    fn watch_from(&self) -> Option<u64> {
        let ring = self.ring();
        ring.resume_at().or_else(|| {
            self.leases.iter().map(|(_, lease)| lease.log_index().saturating_add(1)).min()
        })
    }

    /// Applies a message of a stream that was asked for from `from` on. False when it comes from a
    /// log that is shorter than the one followed so far.
    fn hear(&self, message: WatchRevocationsResponse, from: Option<u64>) -> bool {
        let endings: Vec<Ending> = message.revocations.into_iter().map(Ending::from).collect();
        let mut ring = self.ring();
        if !advance(&mut ring, &endings, message.next_index, from) {
            return false;
        }
        self.drop_leases(|lease| {
            ring.forgot(lease) || endings.iter().any(|ending| ending.ends(lease))
        });
        // Only now: in strict mode, being heard lets leases be used.
        self.vitals.heard(&*self.clock);
        self.meters.watching.set(1.0);
        true
    }

    fn cannot_resume(&self, status: &Status) -> Ended {
        if puts_out(status) {
            self.vitals.refused();
        }
        Ended::CannotResume
    }

    fn start_over(&self) {
        tracing::warn!("the revocation stream cannot go on; every lease is dropped");
        let mut ring = self.ring();
        ring.start_over();
        self.drop_leases(|_| true);
    }
}

/// Takes a message into the ring; false when its log is shorter than what was seen of it.
fn advance(ring: &mut Ring, endings: &[Ending], next_index: u64, from: Option<u64>) -> bool {
    match ring.resume_at() {
        Some(known) if next_index < known => return false,
        Some(_) => {}
        // Asked from now on, the stream does not say where that was: at its first position at latest.
        None => ring.begin(from.unwrap_or(next_index)),
    }
    ring.note(endings, next_index);
    true
}

/// From 100 ms doubling to 5 s, and of that between half and all.
fn backoff(failures: u32, random: u32) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE);
    let half = most / 2;
    half + half.saturating_mul(random & 0xffff) / 0xffff
}

const NEVER: u64 = u64::MAX;
/// As long as a lease of the usual length.
const LONG_UNHEARD: Duration = Duration::from_mins(1);
const STRICT_GRACE: Duration = Duration::from_secs(5);
/// Three heartbeats of two seconds.
const LONGEST_SILENCE: Duration = Duration::from_secs(6);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use domain::{ManualClock, Timestamp};

    use super::*;

    #[test]
    fn strict_stops_five_seconds_after_the_last_word() {
        let clock = ManualClock::at(Timestamp::from_millis(50_000));
        let vitals = Vitals::new(OnStreamLoss::Strict);
        assert!(!vitals.permit(&clock));
        assert_eq!(vitals.state(), WatchState::Connecting);

        vitals.heard(&clock);
        assert_eq!(vitals.state(), WatchState::Live);
        clock.advance(Duration::from_millis(4_999));
        assert!(vitals.permit(&clock));
        clock.advance(Duration::from_millis(1));
        assert!(!vitals.permit(&clock));

        assert!(vitals.lost());
        assert!(!vitals.lost());
        assert_eq!(vitals.state(), WatchState::Lost);
        vitals.heard(&clock);
        assert!(vitals.permit(&clock));
    }

    #[test]
    fn an_outage_begins_when_no_broker_is_heard_and_no_lease_is_left() {
        let clock = ManualClock::at(Timestamp::from_millis(50_000));
        let vitals = Vitals::new(OnStreamLoss::Available);
        assert_eq!(vitals.outage(&clock, || true), Some(Outage::NotHeardYet));
        vitals.heard(&clock);
        assert_eq!(vitals.outage(&clock, || false), None);
        vitals.lost();
        // A broker that starts again takes no gateway out of service, whether it holds leases or not.
        clock.advance(Duration::from_secs(59));
        assert_eq!(vitals.outage(&clock, || false), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(vitals.outage(&clock, || true), None, "it serves on");
        assert_eq!(vitals.outage(&clock, || false), Some(Outage::Away));
        vitals.heard(&clock);
        assert_eq!(vitals.outage(&clock, || false), None);
        // Whose certificate is refused is told that, and not that there is no broker; leases go on.
        vitals.turned_away(true);
        assert_eq!(vitals.outage(&clock, || false), None);
        clock.advance(LONG_UNHEARD);
        assert_eq!(vitals.outage(&clock, || true), None);
        assert_eq!(vitals.outage(&clock, || false), Some(Outage::Refused));
        vitals.turned_away(false);
        assert_eq!(vitals.outage(&clock, || false), Some(Outage::Away));
        // Who is put out is so at once, until the broker is heard again.
        vitals.refused();
        assert_eq!(vitals.outage(&clock, || true), Some(Outage::Refused));
        vitals.heard(&clock);
        assert_eq!(vitals.outage(&clock, || false), None);
    }

    #[test]
    fn a_refused_identity_is_told_from_a_log_that_cannot_go_on() {
        use tonic_types::{ErrorDetails, StatusExt as _};
        let of = |code, reason: &str| {
            let details = ErrorDetails::with_error_info(
                reason,
                "strongroom.dev",
                std::collections::HashMap::<String, String>::new(),
            );
            Status::with_error_details(code, "words", details)
        };
        for reason in ["IDENTITY_IS_BLOCKED", "UNIDENTIFIED"] {
            let status = of(Code::PermissionDenied, reason);
            assert!(puts_out(&status) && ends_everything(&status), "{reason}");
        }
        let status = of(Code::OutOfRange, "PRUNED");
        assert!(ends_everything(&status) && !puts_out(&status));
        let status = of(Code::PermissionDenied, "NOT_PERMITTED");
        assert!(!ends_everything(&status) && !puts_out(&status));
    }

    #[test]
    fn available_goes_on_without_a_stream() {
        let clock = ManualClock::at(Timestamp::from_millis(50_000));
        assert!(Vitals::new(OnStreamLoss::Available).permit(&clock));
    }

    #[test]
    fn a_log_that_became_shorter_is_noticed() {
        let mut ring = Ring::new(4);
        assert!(advance(&mut ring, &[], 10, None));
        assert!(advance(&mut ring, &[], 10, None));
        assert!(advance(&mut ring, &[], 12, Some(10)));
        assert!(!advance(&mut ring, &[], 11, Some(12)));
        assert_eq!(ring.resume_at(), Some(12));
    }

    #[test]
    fn a_stream_that_began_earlier_covers_from_there() {
        let mut ring = Ring::new(4);
        assert!(advance(&mut ring, &[], 10, Some(4)));
        assert_eq!(ring.resume_at(), Some(10));
    }

    #[test]
    fn pauses_grow_to_five_seconds_and_are_spread() {
        assert_eq!(backoff(0, 0), Duration::from_millis(50));
        assert_eq!(backoff(0, 0xffff), Duration::from_millis(100));
        assert_eq!(backoff(3, 0xffff), Duration::from_millis(800));
        assert_eq!(backoff(1000, 0xffff), LONGEST_PAUSE);
    }
}
