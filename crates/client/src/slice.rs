use std::time::Duration;

use domain::{Allowance, Amounts, Settlement, Source, Spending, Ticket, Timestamp, Unit};
use strongroom_proto::v1;

use crate::convert;

/// The id of a slice: 16 random bytes that this process made.
pub(crate) type SliceId = [u8; 16];

/// A slice of budgets in this process's hands. Its time is counted on the clock's `elapsed`.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) id: SliceId,
    allowance: Allowance,
    limited: Vec<Unit>,
    /// What is settled of a call whose outcome nobody knows.
    settled_anyway: &'static [Unit],
    /// When it was asked for.
    pub(crate) drawn_at: Duration,
    ends_at: Duration,
    /// Calls that hold a part of it.
    under_way: usize,
    /// Some call's outcome is unknown: its part stays held until the slice ends.
    has_lost: bool,
    /// It is smaller than what was wished for: a limit is near, and others want what is left over.
    pub(crate) is_tight: bool,
    /// No call begins in it any more.
    pub(crate) is_retired: bool,
    /// What was told and not yet taken.
    untaken: Option<Settlement>,
    /// How much the broker knows to be given back.
    returned: Amounts,
}

impl Slice {
    /// What the broker granted in answer to a request sent at `drawn_at`.
    pub(crate) fn of(
        id: SliceId,
        wire: &v1::Allowance,
        wanted: &Amounts,
        drawn_at: Duration,
    ) -> Self {
        let limited: Vec<_> = wire.limited().filter_map(convert::unit).collect();
        let granted = wire.granted.as_ref().map(convert::amounts).unwrap_or_default();
        let ttl = wire.ttl.and_then(convert::duration).unwrap_or_default();
        // A little short, as leases are: the broker counts from later, with a clock of its own.
        let ends_at = drawn_at.saturating_add(ttl.saturating_sub(ttl / 50 + MARGIN));
        let is_tight = limited.iter().any(|unit| granted.of(*unit) < wanted.of(*unit));
        Self {
            id,
            allowance: Allowance::new(&granted, &limited, moment(ends_at)),
            settled_anyway: settled_anyway(&limited, &wire.limits),
            limited,
            drawn_at,
            ends_at,
            under_way: 0,
            has_lost: false,
            is_tight,
            is_retired: false,
            untaken: None,
            returned: Amounts::default(),
        }
    }

    pub(crate) fn begin(&mut self, need: &Amounts, now: Duration) -> Option<Ticket> {
        if self.is_retired {
            return None;
        }
        let ticket = self.allowance.begin(need, moment(now))?;
        self.under_way += 1;
        Some(ticket)
    }

    pub(crate) fn end(&mut self, ticket: Ticket, spent: &Spending, source: Source) {
        self.under_way = self.under_way.saturating_sub(1);
        self.allowance.end(ticket, spent, source);
    }

    /// A call of whose outcome nothing is known, but that it was made and what it needed.
    pub(crate) fn lose(&mut self, ticket: Ticket, need: &Amounts, source: Source) {
        self.under_way = self.under_way.saturating_sub(1);
        let known = self.settled_anyway;
        let mut spent = Spending { requests: need.of(Unit::Requests), ..Spending::default() };
        if known.contains(&Unit::Tokens) {
            spent.input_tokens = need.of(Unit::InputTokens);
            spent.output_tokens = need.of(Unit::OutputTokens);
        }
        self.has_lost |= self.limited.iter().any(|unit| !known.contains(unit));
        self.allowance.lose(ticket, known, &spent, source);
    }

    pub(crate) fn limited(&self) -> &[Unit] {
        &self.limited
    }

    pub(crate) fn free(&self) -> &Amounts {
        self.allowance.free()
    }

    /// Gives back what no call holds; whether there was any.
    pub(crate) fn give_back(&mut self) -> bool {
        let had_some = *self.allowance.free() != Amounts::default();
        self.allowance.give_back();
        had_some
    }

    pub(crate) fn has_ended(&self, now: Duration) -> bool {
        now >= self.ends_at
    }

    /// What is to be told, the same again until it is taken.
    pub(crate) fn report(&mut self) -> Option<v1::Settlement> {
        if let Some(report) = self.allowance.report() {
            self.untaken = Some(report);
        }
        self.untaken.as_ref().map(|report| convert::settlement(&self.id, report))
    }

    /// The broker has it, and whatever was told before it. Whether others have more room for that.
    pub(crate) fn taken(&mut self, sequence: u64) -> bool {
        let Some(told) = self.untaken.take_if(|told| told.sequence <= sequence) else {
            return false;
        };
        let before = std::mem::replace(&mut self.returned, told.returned);
        before != told.returned
    }

    /// Whether nothing can come of it any more.
    pub(crate) fn is_over(&mut self, now: Duration) -> bool {
        let is_settled = self.report().is_none() && *self.allowance.free() == Amounts::default();
        let is_known = !self.has_lost || self.has_ended(now);
        self.under_way == 0 && is_settled && is_known
    }
}

/// That it was a call, and is none under way any more. And its worst case, where tokens are counted, and
/// by nothing but rate limits, which forget it in a minute and which nobody reconciles.
fn settled_anyway(limited: &[Unit], limits: &[v1::LimitView]) -> &'static [Unit] {
    let counts_tokens = |view: &&v1::LimitView| {
        matches!(view.unit(), v1::Unit::InputTokens | v1::Unit::OutputTokens | v1::Unit::Tokens)
    };
    let only_rates = limits.iter().filter(counts_tokens).all(|view| view.is_rate);
    if limited.contains(&Unit::Tokens) && only_rates {
        &[Unit::Requests, Unit::Concurrent, Unit::Tokens]
    } else {
        &[Unit::Requests, Unit::Concurrent]
    }
}

/// The rules count in moments; here they are of the clock that goes on in suspend.
fn moment(elapsed: Duration) -> Timestamp {
    Timestamp::from_millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

const MARGIN: Duration = Duration::from_millis(100);
