use std::{collections::BTreeMap, time::Duration};

use crate::{
    Timestamp,
    budget::{Mode, Period, Quantity},
};

/// What is known of one limit in one window.
///
/// While it is hard, `spent + unknown + reserved <= cap` after every transition, with `spent` rounded
/// up to whole units; a cap that was lowered below that lets nothing more in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Account {
    /// The most that may be spent.
    pub cap: u64,
    /// Whether it refuses.
    pub mode: Mode,
    /// What is known to have been spent.
    pub spent: Quantity,
    /// What of `spent` was spent on managed credentials; the rest was on the tenant's own.
    pub managed: Quantity,
    /// What a hard account would have refused of it.
    pub over: Over,
    /// What may have been spent by calls of which nobody knows how they ended.
    pub unknown: u64,
    /// What calls under way, and slices, may yet spend.
    pub reserved: u64,
    /// What was spent although no cap left room for it: calls that cost more than their worst case.
    pub overrun: u64,
    /// The highest percentage of which an alert was raised.
    pub alerted: u8,
    /// What was spent when: of rolling windows only. Each bucket's start, end of counting, and sum.
    buckets: BTreeMap<Timestamp, (Timestamp, Sums)>,
}

/// What was spent, and what of it is told apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sums {
    /// All of it.
    pub spent: Quantity,
    /// What of it was spent on managed credentials.
    pub managed: Quantity,
    /// What of it a hard account would have refused.
    pub over: Over,
}

/// What a shadow account granted although the cap had no room for it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Over {
    /// How many reservations.
    pub reservations: u64,
    /// How many calls were made in them.
    pub calls: u64,
    /// What these came to.
    pub spent: Quantity,
}

/// Where a reservation's amount stands in an account.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Under `reserved`.
    Reserved,
    /// Under `unknown`, since the reservation expired.
    Unknown,
    /// Nowhere any more.
    Gone,
}

impl Account {
    /// An account of which nothing is spent.
    pub fn new(cap: u64, mode: Mode) -> Self {
        Self { cap, mode, ..Self::default() }
    }

    /// The same with what was spent when, as it was kept: each bucket's start, end of counting and
    /// sums.
    #[must_use]
    pub fn with_buckets(
        self,
        buckets: impl IntoIterator<Item = (Timestamp, Timestamp, Sums)>,
    ) -> Self {
        let buckets = buckets.into_iter().map(|(start, leaves, sums)| (start, (leaves, sums)));
        Self { buckets: buckets.collect(), ..self }
    }

    /// What was spent when, in a rolling window: each bucket's start, end of counting and sums.
    pub fn buckets(&self) -> impl Iterator<Item = (Timestamp, Timestamp, Sums)> {
        self.buckets.iter().map(|(start, (leaves, sums))| (*start, *leaves, *sums))
    }

    /// All that counts against the cap.
    pub fn used(&self) -> u64 {
        self.spent.rounded_up().saturating_add(self.unknown).saturating_add(self.reserved)
    }

    /// What can still be reserved.
    pub fn room(&self) -> u64 {
        self.cap.saturating_sub(self.used())
    }

    /// Whether this much can be reserved: always, where the account does not refuse.
    pub fn has_room(&self, amount: u64) -> bool {
        self.mode == Mode::Shadow || amount <= self.room()
    }

    /// Whether this much is granted although the cap has no room for it.
    pub fn is_over(&self, amount: u64) -> bool {
        self.mode == Mode::Shadow && amount > self.room()
    }

    /// Counts a reservation that a hard account would have refused.
    pub fn count_over(&mut self, at: Option<Bucket>) {
        let over = Over { reservations: 1, ..Over::default() };
        self.add(&Sums { over, ..Sums::default() }, at);
    }

    /// Reserves, if there is room; says whether it did.
    #[must_use]
    pub fn reserve(&mut self, amount: u64) -> bool {
        let fits = self.has_room(amount);
        if fits {
            self.reserved = self.reserved.saturating_add(amount);
        }
        fits
    }

    /// Puts what was spent in the place of what was held for it.
    ///
    /// What was spent beyond `covered` is spent all the same: it takes what room there is, and the
    /// rest is an overrun, so that the sum never exceeds the cap and the excess can be seen. What of it
    /// was on managed credentials is the last to be an overrun.
    pub fn settle(&mut self, place: Place, covered: u64, came: &Sums, at: Option<Bucket>) {
        self.take(place, covered);
        let held = came.spent.min(Quantity::whole(covered));
        let beyond = came.spent.less(held).rounded_up();
        let room = self.cap.saturating_sub(self.spent.plus(held).rounded_up());
        let room = room.saturating_sub(self.unknown).saturating_sub(self.reserved);
        let fits = if self.mode == Mode::Shadow { beyond } else { beyond.min(room) };
        self.overrun = self.overrun.saturating_add(beyond - fits);
        let spent = held.plus(Quantity::whole(fits));
        let over = Over { spent: came.over.spent.min(spent), ..came.over };
        self.add(&Sums { spent, managed: came.managed.min(spent), over }, at);
    }

    /// Gives back what was held and not spent.
    pub fn release(&mut self, place: Place, amount: u64) {
        self.take(place, amount);
    }

    /// Keeps what was reserved as if it were spent, since nobody knows.
    pub fn lose(&mut self, amount: u64) {
        self.take(Place::Reserved, amount);
        self.unknown = self.unknown.saturating_add(amount);
    }

    /// Drops what has left a rolling window by now.
    pub fn roll(&mut self, now: Timestamp) {
        while let Some(oldest) = self.buckets.first_entry()
            && oldest.get().0 <= now
        {
            let (_, sums) = oldest.remove();
            self.spent = self.spent.less(sums.spent);
            self.managed = self.managed.less(sums.managed);
            self.over = self.over.less(&sums.over);
        }
        self.alerted = self.alerted.min(self.percent());
    }

    /// When a rolling window will next have more room; none when time alone gives none.
    pub fn next_room(&self) -> Option<Timestamp> {
        self.buckets.values().map(|(leaves, _)| *leaves).next()
    }

    /// The highest of these percentages that what is spent has reached since it was last asked for.
    pub fn alert(&mut self, percentages: &[u8]) -> Option<u8> {
        let reached = self.percent();
        let highest = percentages.iter().copied().filter(|it| (1..=reached).contains(it)).max()?;
        (highest > self.alerted).then(|| {
            self.alerted = highest;
            highest
        })
    }

    /// How much of the cap is spent, in whole per cent, 255 at the most.
    fn percent(&self) -> u8 {
        let spent = u128::from(self.spent.rounded_up().saturating_add(self.unknown));
        let percent = (spent * 100).checked_div(u128::from(self.cap)).unwrap_or(100);
        u8::try_from(percent).unwrap_or(u8::MAX)
    }

    fn add(&mut self, sums: &Sums, at: Option<Bucket>) {
        self.spent = self.spent.plus(sums.spent);
        self.managed = self.managed.plus(sums.managed);
        self.over = self.over.plus(&sums.over);
        if let Some(Bucket { start, leaves }) = at {
            let (_, all) = self.buckets.entry(start).or_insert((leaves, Sums::default()));
            *all = Sums {
                spent: all.spent.plus(sums.spent),
                managed: all.managed.plus(sums.managed),
                over: all.over.plus(&sums.over),
            };
        }
    }

    fn take(&mut self, place: Place, amount: u64) {
        match place {
            Place::Reserved => self.reserved = self.reserved.saturating_sub(amount),
            Place::Unknown => self.unknown = self.unknown.saturating_sub(amount),
            Place::Gone => {}
        }
    }
}

impl Sums {
    /// This much of a tenant's own, and nothing over.
    pub fn own(spent: Quantity) -> Self {
        Self { spent, ..Self::default() }
    }
}

impl Over {
    fn plus(&self, more: &Self) -> Self {
        Self {
            reservations: self.reservations.saturating_add(more.reservations),
            calls: self.calls.saturating_add(more.calls),
            spent: self.spent.plus(more.spent),
        }
    }

    fn less(&self, gone: &Self) -> Self {
        Self {
            reservations: self.reservations.saturating_sub(gone.reservations),
            calls: self.calls.saturating_sub(gone.calls),
            spent: self.spent.less(gone.spent),
        }
    }
}

/// A part of a rolling window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bucket {
    start: Timestamp,
    leaves: Timestamp,
}

impl Bucket {
    /// The bucket of this moment, in a rolling period of this length.
    pub fn of(length: Duration, at: Timestamp) -> Self {
        let (start, leaves) = Period::bucket(length, at);
        Self { start, leaves }
    }

    /// When a window does not count it any more.
    pub const fn leaves(self) -> Timestamp {
        self.leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_more_than_its_worst_case_is_an_overrun_and_not_an_excess() {
        let mut account = Account::new(100, Mode::Hard);
        assert!(account.reserve(90));
        account.settle(Place::Reserved, 90, &Sums::own(Quantity::whole(115)), None);
        assert_eq!((account.used(), account.overrun), (100, 15));
        assert!(!account.reserve(1));
    }

    #[test]
    fn parts_of_a_micro_add_up_to_whole_ones_and_no_more() {
        let mut account = Account::new(11, Mode::Hard);
        for _ in 0..25 {
            assert!(account.reserve(1));
            account.settle(Place::Reserved, 1, &Sums::own(Quantity::from_parts(0, 400_000)), None);
        }
        assert_eq!((account.spent, account.room()), (Quantity::whole(10), 1));
        assert!(account.reserve(1));
        account.settle(Place::Reserved, 1, &Sums::own(Quantity::from_parts(0, 1)), None);
        assert!(!account.reserve(1), "a millionth of the last unit is spent");
    }

    #[test]
    fn a_shadow_counts_and_refuses_nothing() {
        let mut account = Account::new(1, Mode::Shadow);
        assert!(account.reserve(5));
        account.settle(Place::Reserved, 5, &Sums::own(Quantity::whole(7)), None);
        assert_eq!((account.used(), account.overrun, account.room()), (7, 0, 0));
    }

    #[test]
    fn what_a_hard_account_would_have_refused_is_counted_and_rolls_away() {
        let minute = Duration::from_mins(1);
        let bucket = Some(Bucket::of(minute, Timestamp::from_millis(5_000)));
        let mut account = Account::new(10, Mode::Shadow);
        assert!(!account.is_over(10) && account.is_over(11));
        account.count_over(bucket);
        let spent = Quantity::whole(11);
        let over = Over { reservations: 0, calls: 2, spent };
        let came = Sums { spent, managed: Quantity::whole(4), over };
        account.settle(Place::Gone, 0, &came, bucket);
        assert_eq!(account.over, Over { reservations: 1, calls: 2, spent });
        assert_eq!((account.spent, account.managed), (spent, Quantity::whole(4)));
        account.roll(Timestamp::from_millis(66_000));
        assert_eq!(account, Account::new(10, Mode::Shadow));
        assert!(!Account::new(10, Mode::Hard).is_over(11), "a hard one refuses");
    }

    #[test]
    fn what_was_managed_is_never_more_than_what_was_spent() {
        let mut account = Account::new(10, Mode::Hard);
        assert!(account.reserve(10));
        let (spent, managed) = (Quantity::whole(14), Quantity::whole(12));
        account.settle(Place::Reserved, 10, &Sums { managed, ..Sums::own(spent) }, None);
        assert_eq!((account.spent, account.managed), (Quantity::whole(10), Quantity::whole(10)));
        assert_eq!(account.overrun, 4);
    }

    #[test]
    fn each_alert_is_raised_once() {
        let mut account = Account::new(200, Mode::Hard);
        let alerts = [50, 80, 100];
        let mut spend = |amount| {
            assert!(account.reserve(amount));
            account.settle(Place::Reserved, amount, &Sums::own(Quantity::whole(amount)), None);
            account.alert(&alerts)
        };
        assert_eq!(spend(99), None);
        assert_eq!(spend(1), Some(50));
        assert_eq!(spend(1), None);
        assert_eq!(spend(98), Some(80));
        assert_eq!(spend(1), Some(100));
        assert_eq!(Account::new(0, Mode::Hard).alert(&alerts), Some(100));
    }

    #[test]
    fn a_rolling_window_forgets_what_is_older_than_itself() {
        let minute = Duration::from_mins(1);
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let mut account = Account::new(10, Mode::Hard);
        assert!(account.reserve(4));
        account.settle(
            Place::Reserved,
            4,
            &Sums::own(Quantity::whole(4)),
            Some(Bucket::of(minute, at(5))),
        );
        account.roll(at(65));
        assert_eq!(account.room(), 6, "a call at 5.9 s is not a minute old");
        assert_eq!(account.next_room(), Some(at(66)));
        account.roll(at(66));
        assert_eq!((account.room(), account.next_room()), (10, None));
    }
}
