use crate::{
    Source, Timestamp,
    budget::{Amounts, Settlement, Spending, Unit},
};

/// A slice in its holder's hands: calls are reserved and settled in it without asking anybody.
///
/// Whatever its holder does, `covered + returned + free + held by calls` is what was granted, so all
/// holders together stay within the caps.
#[derive(Debug)]
pub struct Allowance {
    limited: [bool; Unit::ALL.len()],
    free: Amounts,
    covered: Amounts,
    returned: Amounts,
    spent: Spending,
    managed: Spending,
    sequence: u64,
    told: bool,
    ends_at: Timestamp,
}

/// What one call holds of an allowance. It is ended or lost, once.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a call that is neither ended nor lost holds its amount until the slice expires"]
pub struct Ticket(Amounts);

impl Allowance {
    /// What was granted: of the `limited` units as much as it says, of all others as much as one
    /// likes. No call begins at or after `ends_at`: the end of the lease or of the earliest window,
    /// whichever is first.
    pub fn new(granted: &Amounts, limited: &[Unit], ends_at: Timestamp) -> Self {
        Self {
            limited: Unit::ALL.map(|unit| limited.contains(&unit)),
            free: *granted,
            covered: Amounts::default(),
            returned: Amounts::default(),
            spent: Spending::default(),
            managed: Spending::default(),
            sequence: 0,
            told: true,
            ends_at,
        }
    }

    /// Reserves what a call may come to; none when the allowance does not hold it. Then a larger one
    /// is to be asked for, and when that is refused, [`Self::give_back`] leaves to others what is of
    /// no use here.
    pub fn begin(&mut self, need: &Amounts, now: Timestamp) -> Option<Ticket> {
        let need = need.each(|unit, need| if self.is_limited(unit) { need } else { 0 });
        if now >= self.ends_at || !need.is_within(&self.free) {
            return None;
        }
        self.free = self.free.less(&need);
        Some(Ticket(need))
    }

    /// Settles a call on a credential of this source. What it took beyond its worst case comes out of
    /// what is free.
    pub fn end(&mut self, Ticket(held): Ticket, spent: &Spending, source: Source) {
        let all = self.free.plus(&held);
        let covered = all.each(|unit, all| spent.of(unit).rounded_up().min(all));
        self.free = all.less(&covered);
        self.covered = self.covered.plus(&covered);
        self.count(spent, source);
        self.told = false;
    }

    /// Leaves a call's amount held, since nobody knows what it took; when the slice expires, that becomes
    /// what is unknown of it. Of the units that are `known`, `spent` is what it took; that it is not
    /// under way any more is always known.
    pub fn lose(&mut self, Ticket(held): Ticket, known: &[Unit], spent: &Spending, source: Source) {
        let is_known = |unit| unit == Unit::Concurrent || known.contains(&unit);
        let settled = held.each(|unit, held| if is_known(unit) { held } else { 0 });
        let covered = settled.each(|unit, held| spent.of(unit).rounded_up().min(held));
        self.free = self.free.plus(&settled.less(&covered));
        self.covered = self.covered.plus(&covered);
        self.count(spent, source);
        self.told &= *spent == Spending::default();
    }

    fn count(&mut self, spent: &Spending, source: Source) {
        self.spent = self.spent.plus(spent);
        if source.is_managed() {
            self.managed = self.managed.plus(spent);
        }
    }

    /// Gives back all that no call holds.
    pub fn give_back(&mut self) {
        self.told &= self.free == Amounts::default();
        self.returned = self.returned.plus(&self.free);
        self.free = Amounts::default();
    }

    /// What to tell the broker, if there is anything new. Telling it twice, late, or not at all before
    /// the next one does no harm.
    pub fn report(&mut self) -> Option<Settlement> {
        if self.told {
            return None;
        }
        self.told = true;
        self.sequence += 1;
        let Self { sequence, covered, returned, spent, managed, .. } = *self;
        Some(Settlement { sequence, covered, returned, spent, managed })
    }

    /// What no call holds.
    pub fn free(&self) -> &Amounts {
        &self.free
    }

    fn is_limited(&self, unit: Unit) -> bool {
        self.limited.get(unit as usize).copied().unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cost;

    const SOON: Timestamp = Timestamp::from_millis(1000);

    fn allowance(money: u64) -> Allowance {
        let granted = Amounts::default().with(Unit::Money, money).with(Unit::Concurrent, 2);
        Allowance::new(&granted, &[Unit::Money, Unit::Concurrent], SOON)
    }

    fn call(micros: u64) -> Amounts {
        Amounts::of_call(Cost::of(micros, 1_000_000), 5, 5)
    }

    fn spent(picos: u128) -> Spending {
        Spending { cost: Cost::from_picos(picos), requests: 1, input_tokens: 5, output_tokens: 2 }
    }

    #[test]
    fn calls_are_reserved_until_they_end() {
        let mut allowance = allowance(10);
        let now = Timestamp::from_millis(0);
        let one = allowance.begin(&call(6), now).unwrap();
        assert_eq!(allowance.begin(&call(5), now), None);
        let two = allowance.begin(&call(4), now).unwrap();
        assert_eq!(allowance.begin(&call(0), now), None, "two are under way");
        allowance.end(one, &spent(1_500_000), Source::Byok);
        allowance.lose(two, &[], &Spending::default(), Source::Byok);
        assert_eq!(
            (allowance.free().of(Unit::Money), allowance.free().of(Unit::Concurrent)),
            (4, 2)
        );
        let report = allowance.report().unwrap();
        assert_eq!((report.sequence, report.covered.of(Unit::Money)), (1, 2));
        assert_eq!((report.spent, report.managed), (spent(1_500_000), Spending::default()));
        assert_eq!(allowance.report(), None);
        allowance.give_back();
        assert_eq!(allowance.report().unwrap().returned.of(Unit::Money), 4);
    }

    #[test]
    fn of_a_call_that_is_lost_what_is_known_is_settled() {
        let granted = Amounts::default().with(Unit::Money, 10).with(Unit::Requests, 5);
        let mut allowance = Allowance::new(&granted, &[Unit::Money, Unit::Requests], SOON);
        let lost = allowance.begin(&call(6), Timestamp::from_millis(0)).unwrap();
        let spent = Spending { requests: 1, ..Spending::default() };
        allowance.lose(lost, &[Unit::Requests], &spent, Source::Byok);
        allowance.give_back();
        let report = allowance.report().unwrap();
        assert_eq!((report.spent, report.covered.of(Unit::Requests)), (spent, 1));
        assert_eq!(report.returned.of(Unit::Requests), 4);
        // Of ten, six may have been spent.
        assert_eq!((report.covered.of(Unit::Money), report.returned.of(Unit::Money)), (0, 4));
    }

    #[test]
    fn nothing_begins_when_the_slice_has_ended() {
        assert_eq!(allowance(10).begin(&call(1), SOON), None);
    }

    #[test]
    fn what_nobody_limits_is_not_held() {
        let mut allowance = allowance(10);
        let ticket = allowance.begin(&call(1), Timestamp::from_millis(0)).unwrap();
        assert_eq!(ticket.0.of(Unit::InputTokens), 0);
        allowance.end(ticket, &spent(1), Source::Managed);
        let report = allowance.report().unwrap();
        assert_eq!(report.covered.of(Unit::InputTokens), 0);
        assert_eq!(report.managed, spent(1));
    }
}
