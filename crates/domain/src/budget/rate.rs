use std::time::Duration;

use crate::{
    Timestamp, Uid,
    budget::{Account, Budget, BudgetHolder, Limit, Mode, Period, Unit},
};

/// How fast, and how many at once. Counted as budgets are, in slices too, so that the limits hold
/// over any number of proxies: in any minute, wherever it begins, no more is admitted than they say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RateLimits {
    /// Calls in a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens in a minute, of input and output together.
    pub tokens_per_minute: Option<u64>,
    /// Calls under way.
    pub concurrent: Option<u64>,
}

/// What a caller is told of one limit, as in the `x-ratelimit-*` headers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateView {
    /// The limit.
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// When there will be more; nothing when there is none to come by waiting.
    pub reset_after: Duration,
}

impl RateLimits {
    /// The same as a budget with this id; none when there is no limit.
    pub fn budget(&self, id: Uid, holder: BudgetHolder) -> Option<Budget> {
        let limits = [
            (Unit::Requests, self.requests_per_minute),
            (Unit::Tokens, self.tokens_per_minute),
            (Unit::Concurrent, self.concurrent),
        ];
        let limits = limits.into_iter().filter_map(|(unit, cap)| Some(Limit { unit, cap: cap? }));
        let limits: Vec<_> = limits.collect();
        let period = Period::Rolling(Duration::from_mins(1));
        let budget = Budget { id, holder, period, mode: Mode::Hard, limits, alerts: Vec::new() };
        (!budget.limits.is_empty()).then_some(budget)
    }
}

impl RateView {
    /// What to say of this account.
    pub fn of(account: &Account, now: Timestamp) -> Self {
        let reset_after = account.next_room().map_or(Duration::ZERO, |at| at.since(now));
        Self { limit: account.cap, remaining: account.room(), reset_after }
    }
}
