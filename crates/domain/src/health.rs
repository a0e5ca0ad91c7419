use std::time::Duration;

use crate::{Failure, Timestamp};

/// What is known of how a credential has fared: whether it rests after failures, and whether a call
/// is out to see if it works again. A plain value: whoever holds it says what time it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Health {
    /// Failures since the last success.
    failures: u32,
    rest: Option<Rest>,
}

/// A time in which a credential is not asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rest {
    /// When it began.
    pub since: Timestamp,
    /// When a call may see whether the credential works again.
    pub until: Timestamp,
    /// What went wrong.
    pub why: Failure,
    /// When a call was let through to see whether the credential works again.
    pub probe: Option<Timestamp>,
}

/// Whether a call may use a credential now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Readiness {
    /// It may.
    #[default]
    Ready,
    /// One call may, to see whether the credential works again; it must first be claimed with
    /// [`Health::claim_probe`].
    Probe,
    /// It may not before then.
    Resting {
        /// When it may be asked again.
        until: Timestamp,
        /// What it rests from.
        why: Failure,
    },
}

impl Readiness {
    /// Whether a call may go out.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Ready | Self::Probe)
    }
}

impl Health {
    /// What another one knew: so many failures since the last success, and the rest after them.
    pub const fn of(failures: u32, rest: Option<Rest>) -> Self {
        Self { failures, rest }
    }

    /// Failures since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The rest that has not been ended by a success.
    pub const fn rest(&self) -> Option<&Rest> {
        self.rest.as_ref()
    }

    /// Whether a call may use the credential at this moment when no other stands in for it.
    ///
    /// To rest costs nothing while another one serves; without one it costs the service. So it rests
    /// only after an answer that each call would get, and not for long: whoever mends the credential
    /// should not have to wait. A limit is often one model's, and trouble is over when it is over:
    /// there the provider's own answer is the best one.
    pub fn readiness_alone(&self, now: Timestamp) -> Readiness {
        match &self.rest {
            Some(Rest { since, until, why, .. })
                if matches!(why, Failure::CredentialRefused | Failure::NoQuota) =>
            {
                let until = (*until).min(*since + LONGEST_REST_ALONE);
                if now < until { Readiness::Resting { until, why: *why } } else { Readiness::Ready }
            }
            Some(_) | None => Readiness::Ready,
        }
    }

    /// Whether a call may use the credential at this moment.
    pub fn readiness(&self, now: Timestamp) -> Readiness {
        let Some(rest) = &self.rest else { return Readiness::Ready };
        let until = rest.probe.map_or(rest.until, |sent| rest.until.max(sent + PROBE_ANSWERS));
        if now < until { Readiness::Resting { until, why: rest.why } } else { Readiness::Probe }
    }

    /// Claims the one call that may see whether the credential works again. Whoever gets `true` sends
    /// it and reports how it went; a probe of which nobody hears again is given up after a while.
    pub fn claim_probe(&mut self, now: Timestamp) -> bool {
        let due = self.readiness(now) == Readiness::Probe;
        if due && let Some(rest) = &mut self.rest {
            rest.probe = Some(now);
        }
        due
    }

    /// A call that began at `begun` was served. A call that began before the rest did says nothing
    /// about what happened since.
    pub fn succeeded(&mut self, begun: Timestamp) {
        if self.rest.as_ref().is_none_or(|rest| begun > rest.since) {
            *self = Self::default();
        }
    }

    /// A call that began at `begun` has failed by `now`.
    pub fn failed(&mut self, failure: Failure, begun: Timestamp, now: Timestamp) {
        match failure {
            // The credential was good enough to be told so.
            Failure::CallersFault => return self.succeeded(begun),
            // About one model or permission, or about the provider's address, not about the credential:
            // it neither rests nor recovers.
            Failure::NotAllowed | Failure::SecretInAnswer => {
                if let Some(rest) = &mut self.rest {
                    rest.probe = None;
                }
                return;
            }
            Failure::CredentialRefused
            | Failure::Unusable
            | Failure::NoQuota
            | Failure::RateLimited { .. }
            | Failure::ProviderTrouble
            | Failure::TimedOut
            | Failure::Unreachable => {}
        }
        // Many calls fail together; those that began before the rest did must not prolong it.
        if self.rest.as_ref().is_some_and(|rest| begun <= rest.since) {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let Some(length) = self.rest_after(failure) else { return };
        self.rest = Some(Rest { since: now, until: now + length, why: failure, probe: None });
    }

    fn rest_after(&self, failure: Failure) -> Option<Duration> {
        let doubled = |first: Duration, longest: Duration| {
            let times = 1u32 << self.failures.saturating_sub(1).min(16);
            Some(first.saturating_mul(times).min(longest))
        };
        match failure {
            Failure::RateLimited { retry_after: Some(asked) } => {
                Some(asked.clamp(SHORTEST_REST, LONGEST_REST))
            }
            Failure::RateLimited { retry_after: None } => {
                doubled(Duration::from_secs(2), Duration::from_mins(1))
            }
            Failure::CredentialRefused | Failure::Unusable => {
                doubled(Duration::from_mins(1), Duration::from_mins(15))
            }
            Failure::NoQuota => doubled(Duration::from_mins(5), LONGEST_REST),
            // One of these may be the request's own length or bad luck; a row of them is not.
            Failure::ProviderTrouble | Failure::TimedOut | Failure::Unreachable => {
                let more = self.failures >= FAILURES_IN_A_ROW || self.rest.is_some();
                more.then(|| doubled(Duration::from_secs(1), Duration::from_mins(2))).flatten()
            }
            Failure::NotAllowed | Failure::CallersFault | Failure::SecretInAnswer => None,
        }
    }
}

/// So many failures of the provider in a row make a credential rest.
const FAILURES_IN_A_ROW: u32 = 3;

/// After this time nothing more is expected of a probe.
pub const PROBE_ANSWERS: Duration = Duration::from_mins(1);

/// A provider that says "come back at once" is given this time.
const SHORTEST_REST: Duration = Duration::from_secs(1);

/// No rest is longer, whatever a provider says: by then someone may have mended it.
const LONGEST_REST: Duration = Duration::from_hours(1);

/// No rest is longer where no other credential stands in.
const LONGEST_REST_ALONE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
