use std::time::Duration;

use crate::{Failure, RequestId, Timestamp};

mod fares;
#[cfg(test)]
mod tests;
mod turns;

pub use fares::{Fare, Fares};
pub use turns::Turns;

/// How a new version of a credential takes the place of the one before it, in steps: a share of the
/// leases, a larger one, all of them, and then the old version's end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rotation {
    /// Whose request it is: the same one again begins nothing.
    pub operation: RequestId,
    /// The new version.
    pub candidate: u64,
    /// The version before it.
    pub previous: u64,
    /// How it is to go.
    pub plan: RotationPlan,
    /// How far it is.
    pub state: RotationState,
    /// When it began.
    pub started: Timestamp,
    /// When it came into its state.
    pub since: Timestamp,
    /// The last four characters of the version that is not the current one.
    pub other_last_four: String,
    /// Whether a test has shown before it began that the provider accepts the new key.
    pub tested: bool,
}

/// How a rotation is to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RotationPlan {
    percent: u8,
    hold: Duration,
    overlap: Duration,
    keeps_previous: bool,
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RotationState {
    /// Of 100 leases, so many are of the new version.
    Canary(u8),
    /// All new leases are of the new version; those of the old one go on.
    Overlap,
    /// The new version is the only one.
    Done,
    /// The old version is the only one.
    RolledBack(SetBack),
}

/// Why a rotation was set back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SetBack {
    /// The provider does not accept the new key, and accepts the old one.
    CredentialRefused,
    /// The new key's account has no quota, and the old one's has.
    NoQuota,
    /// The new key may not do what the old one may.
    NotAllowed,
    /// Somebody wanted it so.
    Cancelled,
}

impl Rotation {
    /// Begins one, with its first share. `last_four` and `tested` are of the new version.
    pub fn begin(
        operation: RequestId,
        (previous, candidate): (u64, u64),
        plan: RotationPlan,
        (last_four, tested): (String, bool),
        now: Timestamp,
    ) -> Self {
        let state = RotationState::Canary(plan.percent);
        Self {
            operation,
            candidate,
            previous,
            plan,
            state,
            started: now,
            since: now,
            other_last_four: last_four,
            tested,
        }
    }

    /// Whether both versions are there to be lent.
    pub const fn is_live(&self) -> bool {
        matches!(self.state, RotationState::Canary(_) | RotationState::Overlap)
    }

    /// Of 100 leases, how many are of the new version.
    pub const fn percent(&self) -> u8 {
        match self.state {
            RotationState::Canary(percent) => percent,
            RotationState::Overlap | RotationState::Done => 100,
            RotationState::RolledBack(_) => 0,
        }
    }

    /// The version that is current by this rotation.
    pub const fn current(&self) -> u64 {
        match self.state {
            RotationState::Canary(_) | RotationState::RolledBack(_) => self.previous,
            RotationState::Overlap | RotationState::Done => self.candidate,
        }
    }

    /// The version that may be lent beside the current one.
    pub const fn spare(&self) -> Option<u64> {
        match self.state {
            RotationState::Canary(_) => Some(self.candidate),
            RotationState::Overlap => Some(self.previous),
            RotationState::Done | RotationState::RolledBack(_) => None,
        }
    }

    /// When it goes on by itself; `None` when it is over.
    pub fn due(&self) -> Option<Timestamp> {
        match self.state {
            RotationState::Canary(_) => Some(self.since + self.plan.hold),
            RotationState::Overlap => Some(self.since + self.plan.overlap),
            RotationState::Done | RotationState::RolledBack(_) => None,
        }
    }

    /// The step that follows when its time has come; `None` when it has not, or it is over.
    pub fn next_step(&self, now: Timestamp) -> Option<Self> {
        let state = match self.state {
            RotationState::Canary(percent) if percent < SECOND_SHARE => {
                RotationState::Canary(SECOND_SHARE)
            }
            RotationState::Canary(_) => RotationState::Overlap,
            RotationState::Overlap => RotationState::Done,
            RotationState::Done | RotationState::RolledBack(_) => return None,
        };
        self.due().filter(|due| *due <= now).map(|_| self.entering(state, now))
    }

    /// Goes on without waiting: to the new version for all, and then to the old one's end. `None` when
    /// it is over.
    #[must_use]
    pub fn promoted(&self, now: Timestamp) -> Option<Self> {
        match self.state {
            RotationState::Canary(_) => Some(self.entering(RotationState::Overlap, now)),
            RotationState::Overlap => Some(self.entering(RotationState::Done, now)),
            RotationState::Done | RotationState::RolledBack(_) => None,
        }
    }

    /// Goes back to the old version. `None` when it is over.
    #[must_use]
    pub fn set_back(&self, why: SetBack, now: Timestamp) -> Option<Self> {
        self.is_live().then(|| self.entering(RotationState::RolledBack(why), now))
    }

    /// The version whose secret is deleted on coming into the state that this is in.
    pub const fn deletes(&self) -> Option<u64> {
        match self.state {
            RotationState::Done if !self.plan.keeps_previous => Some(self.previous),
            RotationState::RolledBack(_) => Some(self.candidate),
            RotationState::Canary(_) | RotationState::Overlap | RotationState::Done => None,
        }
    }

    fn entering(&self, state: RotationState, now: Timestamp) -> Self {
        Self { state, since: now, ..self.clone() }
    }
}

impl RotationPlan {
    /// The share of the first step when none is asked for.
    pub const PERCENT: u8 = 5;
    /// How long a step lasts when nothing else is asked for.
    pub const HOLD: Duration = Duration::from_mins(2);
    /// How long the old version's leases go on when nothing else is asked for: as long as one can.
    pub const OVERLAP: Duration = crate::LONGEST_TTL;

    /// A plan; `None` if the share is not 1 to 99, a step not 1 s to 7 days long, or the overlap longer
    /// than a day.
    pub fn new(
        percent: u8,
        hold: Duration,
        overlap: Duration,
        keeps_previous: bool,
    ) -> Option<Self> {
        let shares = (1..=99).contains(&percent);
        let holds = (SHORTEST_HOLD..=LONGEST_HOLD).contains(&hold);
        (shares && holds && overlap <= LONGEST_OVERLAP).then_some(Self {
            percent,
            hold,
            overlap,
            keeps_previous,
        })
    }

    /// The share of the first step.
    pub const fn percent(&self) -> u8 {
        self.percent
    }

    /// How long each step lasts.
    pub const fn hold(&self) -> Duration {
        self.hold
    }

    /// How long leases of the old version go on.
    pub const fn overlap(&self) -> Duration {
        self.overlap
    }

    /// Whether the old version's secret stays stored.
    pub const fn keeps_previous(&self) -> bool {
        self.keeps_previous
    }
}

impl SetBack {
    const ALL: [Self; 4] =
        [Self::CredentialRefused, Self::NoQuota, Self::NotAllowed, Self::Cancelled];

    /// The word in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CredentialRefused => Failure::CredentialRefused.as_str(),
            Self::NoQuota => Failure::NoQuota.as_str(),
            Self::NotAllowed => Failure::NotAllowed.as_str(),
            Self::Cancelled => "cancelled",
        }
    }

    /// The one with this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.as_str() == word)
    }
}

/// The share after the first, for plans that begin below it.
const SECOND_SHARE: u8 = 25;
const SHORTEST_HOLD: Duration = Duration::from_secs(1);
const LONGEST_HOLD: Duration = Duration::from_hours(7 * 24);
const LONGEST_OVERLAP: Duration = Duration::from_hours(24);
