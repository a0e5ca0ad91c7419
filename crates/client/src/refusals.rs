use std::time::Duration;

use domain::{Amounts, Unit};
use strongroom_proto::v1;

use crate::{LeaseError, convert};

/// What the broker said no to a moment ago, by unit. Whoever needs more than was left then gets the
/// same no without asking, so that one who calls on and on loads neither the broker nor its log.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Vec<Refusal>);

#[derive(Debug)]
struct Refusal {
    unit: Unit,
    /// What was left of the limit.
    left: u64,
    error: LeaseError,
    said: Duration,
    until: Duration,
}

impl Refusals {
    /// Keeps a no for a moment, or until the limit renews. One that does not say of which limit it is
    /// says nothing of other calls.
    pub(crate) fn keep(&mut self, error: &LeaseError, limit: &v1::LimitView, said: Duration) {
        let Some(unit) = convert::unit(limit.unit()) else { return };
        let renews = limit.renews_after.and_then(convert::duration).unwrap_or(HOLDS);
        let until = said.saturating_add(renews.min(HOLDS));
        self.0.retain(|refusal| refusal.unit != unit);
        self.0.push(Refusal { unit, left: limit.left, error: error.clone(), said, until });
    }

    /// The no to this need, if one holds.
    pub(crate) fn of(&self, need: &Amounts, now: Duration) -> Option<LeaseError> {
        let holds = |it: &&Refusal| now < it.until && need.of(it.unit) > it.left;
        let refusal = self.0.iter().find(holds)?;
        Some(refusal.error.clone().after(now.saturating_sub(refusal.said)))
    }

    /// There may be room now.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// What others give back in the meantime is found a little later. What this process gives back, and
/// what is changed, ends a refusal at once.
const HOLDS: Duration = Duration::from_secs(1);
