use std::collections::BTreeMap;

use thiserror::Error;

use crate::{
    Timestamp, Uid,
    budget::{
        Account, AccountKey, Amounts, Budget, Hold, Limit, Over, Place, Reservation,
        ReservationState, Settlement, Spending, Sums, Unit, account::Bucket,
    },
};

/// All budgets, accounts and reservations, in memory: what a store keeps in rows.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    budgets: BTreeMap<Uid, Budget>,
    accounts: BTreeMap<AccountKey, Account>,
    reservations: BTreeMap<Uid, Reservation>,
}

/// A limit has no room for what was asked.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the limit of {cap} {} is reached: {left} are left", unit.as_str())]
pub struct Exhausted {
    /// The budget whose limit it is.
    pub budget: Uid,
    /// What is limited.
    pub unit: Unit,
    /// To how much.
    pub cap: u64,
    /// How much of it can still be reserved.
    pub left: u64,
    /// When there will be more; none when time alone gives none.
    pub renews_at: Option<Timestamp>,
}

/// Why a transition cannot be.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum LedgerError {
    /// There is no room. Nothing was reserved in any account.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// There is no such budget.
    #[error("no budget has this id")]
    NoSuchBudget,
    /// There is no such reservation.
    #[error("no reservation has this id")]
    NoSuchReservation,
    /// It takes back what was said before, or gives back more than was granted.
    #[error("the settlement contradicts the reservation or an earlier settlement")]
    Contradiction,
    /// It has not expired, so its holder will settle it.
    #[error("the reservation has not expired")]
    NotExpired,
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    /// It is on the books.
    Now,
    /// It had been there already, or a later one.
    Before,
}

/// How large a slice to give: what is needed at the least, then what is wanted, but no more than a
/// sixteenth of the room. So slices shrink as a cap comes near, and what proxies hold unused is a
/// part of what is left, not of the cap.
pub fn slice_size(room: u64, need: u64, wanted: u64) -> u64 {
    need.max(wanted.min(room / 16))
}

impl Ledger {
    /// Adds a budget, or changes one. Another cap holds from now on; what is held already is not
    /// taken back, so that a cap below it lets nothing in until enough has been given back.
    pub fn put_budget(&mut self, budget: Budget) {
        for limit in budget.caps() {
            for (_, account) in self
                .accounts
                .iter_mut()
                .filter(|(key, _)| key.budget == budget.id && key.unit == limit.unit)
            {
                account.cap = limit.cap;
                account.mode = budget.mode;
            }
        }
        self.budgets.insert(budget.id, budget);
    }

    /// Brings back an account as it was kept.
    pub fn restore_account(&mut self, key: AccountKey, account: Account) {
        self.accounts.insert(key, account);
    }

    /// Brings back a reservation as it was kept, with or after its accounts.
    pub fn restore_reservation(&mut self, id: Uid, reservation: Reservation) {
        self.reservations.insert(id, reservation);
    }

    /// Undoes a reservation of which nothing was settled and whose holder never heard: all of it is
    /// given back, and its id may be used again. Says whether there was one.
    pub fn undo(&mut self, id: Uid) -> bool {
        let untouched = |it: &Reservation| it.sequence == 0 && it.state == ReservationState::Open;
        if !self.reservations.get(&id).is_some_and(untouched) {
            return false;
        }
        let Some(reservation) = self.reservations.remove(&id) else { return false };
        let rest = reservation.rest();
        for Hold { key, place, .. } in &reservation.holds {
            if let Some(account) = self.accounts.get_mut(key) {
                account.release(*place, rest.of(key.unit));
            }
        }
        true
    }

    /// When there is something to do for a reservation again if nobody settles it: it expires, or
    /// leaves a rolling window. None when it waits for somebody to reconcile it, or is closed.
    pub fn due_at(&self, id: Uid) -> Option<Timestamp> {
        let reservation = self.reservations.get(&id)?;
        match (reservation.state, reservation.expired_at) {
            (ReservationState::Open, _) => Some(reservation.expires_at),
            (ReservationState::Unknown, Some(expired_at)) => {
                let unknown = reservation.holds.iter().filter(|it| it.place == Place::Unknown);
                let lengths = unknown.filter_map(|it| rolling(&self.budgets, &it.key));
                lengths.map(|length| Bucket::of(length, expired_at).leaves()).min()
            }
            (ReservationState::Unknown | ReservationState::Closed, _) => None,
        }
    }

    /// Reserves what one call may come to in every limit of these budgets, or nothing at all. The
    /// same id again is the same reservation.
    pub fn reserve(
        &mut self,
        id: Uid,
        budgets: &[Uid],
        need: &Amounts,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<&Reservation, LedgerError> {
        self.slice(id, budgets, need, need, now, expires_at)
    }

    /// Reserves a slice: at least `need`, more when it is wanted and the limits are far. The same id
    /// again is the same slice.
    pub fn slice(
        &mut self,
        id: Uid,
        budgets: &[Uid],
        need: &Amounts,
        wanted: &Amounts,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<&Reservation, LedgerError> {
        if !self.reservations.contains_key(&id) {
            let keys = self.accounts_of(budgets, now)?;
            self.check_room(&keys, need, now)?;
            let granted = need.each(|unit, need| {
                let sizes = keys.iter().filter(|key| key.unit == unit);
                let sizes = sizes.filter_map(|key| self.accounts.get(key)).map(|account| {
                    let room = if account.is_over(need) { u64::MAX } else { account.room() };
                    slice_size(room, need, wanted.of(unit))
                });
                sizes.min().unwrap_or(0)
            });
            let mut holds = Vec::with_capacity(keys.len());
            for key in keys {
                let Some(account) = self.accounts.get_mut(&key) else { continue };
                // A slice is within the room or was needed beyond it, never a part of both.
                let over = account.is_over(need.of(key.unit));
                if over {
                    account.count_over(bucket(&self.budgets, &key, now));
                }
                // There is room: it was looked for above.
                let _ = account.reserve(granted.of(key.unit));
                holds.push(Hold { key, place: Place::Reserved, over });
            }
            let reservation = Reservation {
                granted,
                covered: Amounts::default(),
                returned: Amounts::default(),
                spent: Spending::default(),
                managed: Spending::default(),
                sequence: 0,
                expires_at,
                expired_at: None,
                state: ReservationState::Open,
                holds,
            };
            self.reservations.insert(id, reservation);
        }
        self.reservations.get(&id).ok_or(LedgerError::NoSuchReservation)
    }

    /// Takes a holder's word of what became of its reservation. A settlement counts once, however
    /// often and late it arrives: a slice that had expired in the meantime is settled from what is
    /// unknown.
    pub fn settle(
        &mut self,
        id: Uid,
        settlement: &Settlement,
        now: Timestamp,
    ) -> Result<Settled, LedgerError> {
        let reservation = self.reservations.get_mut(&id).ok_or(LedgerError::NoSuchReservation)?;
        if settlement.sequence <= reservation.sequence
            || reservation.state == ReservationState::Closed
        {
            return Ok(Settled::Before);
        }
        let managed = settlement.managed.since(&reservation.managed);
        let grown = settlement.spent.since(&reservation.spent).zip(managed);
        let (spent, managed) = grown.ok_or(LedgerError::Contradiction)?;
        let given = settlement.covered.plus(&settlement.returned);
        if !reservation.covered.is_within(&settlement.covered)
            || !reservation.returned.is_within(&settlement.returned)
            || !given.is_within(&reservation.granted)
            || spent.since(&managed).is_none()
        {
            return Err(LedgerError::Contradiction);
        }
        let covered = settlement.covered.less(&reservation.covered);
        let returned = settlement.returned.less(&reservation.returned);
        for Hold { key, place, over } in &reservation.holds {
            let Some(account) = self.accounts.get_mut(key) else { continue };
            if *place != Place::Gone {
                let bucket = bucket(&self.budgets, key, now);
                let unit = key.unit;
                let calls = Over { calls: spent.requests, spent: spent.of(unit), reservations: 0 };
                let over = if *over { calls } else { Over::default() };
                let came = Sums { spent: spent.of(unit), managed: managed.of(unit), over };
                account.settle(*place, covered.of(unit), &came, bucket);
                account.release(*place, returned.of(unit));
            }
        }
        reservation.covered = settlement.covered;
        reservation.returned = settlement.returned;
        reservation.spent = settlement.spent;
        reservation.managed = settlement.managed;
        reservation.sequence = settlement.sequence;
        if reservation.is_spent_up() {
            reservation.state = ReservationState::Closed;
        }
        Ok(Settled::Now)
    }

    /// Gives up waiting for the holders of what has expired. What they did not settle counts as spent
    /// until it is known better; calls under way do not, for those have ended.
    pub fn expire(&mut self, now: Timestamp) {
        for reservation in self.reservations.values_mut() {
            if reservation.state != ReservationState::Open || reservation.expires_at > now {
                continue;
            }
            let rest = reservation.rest();
            for Hold { key, place, .. } in &mut reservation.holds {
                let Some(account) = self.accounts.get_mut(key) else { continue };
                if key.unit == Unit::Concurrent {
                    account.release(*place, rest.of(key.unit));
                    *place = Place::Gone;
                } else {
                    account.lose(rest.of(key.unit));
                    *place = Place::Unknown;
                }
            }
            reservation.expired_at = Some(now);
            reservation.state = if reservation.is_spent_up() {
                ReservationState::Closed
            } else {
                ReservationState::Unknown
            };
        }
    }

    /// Replaces what is unknown of a reservation by what it turned out to be, and what of that was on
    /// managed credentials, and gives back the rest.
    pub fn reconcile(
        &mut self,
        id: Uid,
        found: &Spending,
        managed: &Spending,
        now: Timestamp,
    ) -> Result<Settled, LedgerError> {
        let reservation = self.reservations.get(&id).ok_or(LedgerError::NoSuchReservation)?;
        match reservation.state {
            ReservationState::Open => return Err(LedgerError::NotExpired),
            ReservationState::Closed => return Ok(Settled::Before),
            ReservationState::Unknown => {}
        }
        let rest = reservation.rest();
        let covered = rest.each(|unit, rest| found.of(unit).rounded_up().min(rest));
        let last = Settlement {
            sequence: reservation.sequence.saturating_add(1),
            covered: reservation.covered.plus(&covered),
            returned: reservation.returned.plus(&rest.less(&covered)),
            spent: reservation.spent.plus(found),
            managed: reservation.managed.plus(managed),
        };
        self.settle(id, &last, now)
    }

    /// Lets rolling windows move on; without it they have less room than they could. Calendar windows need nobody: the next one has an account of its
    /// own.
    pub fn roll(&mut self, now: Timestamp) {
        for (key, account) in &mut self.accounts {
            if rolling(&self.budgets, key).is_some() {
                account.roll(now);
            }
        }
        for reservation in self.reservations.values_mut() {
            let Some(expired_at) = reservation.expired_at else { continue };
            let rest = reservation.rest();
            for Hold { key, place, .. } in &mut reservation.holds {
                let Some(length) = rolling(&self.budgets, key) else { continue };
                if *place == Place::Unknown && Bucket::of(length, expired_at).leaves() <= now {
                    if let Some(account) = self.accounts.get_mut(key) {
                        account.release(*place, rest.of(key.unit));
                    }
                    *place = Place::Gone;
                }
            }
            if reservation.is_spent_up() {
                reservation.state = ReservationState::Closed;
            }
        }
    }

    /// Raises the alerts that are due: the budget, the limit and the percentage.
    pub fn alerts(&mut self) -> Vec<(AccountKey, u8)> {
        let mut due = Vec::new();
        for (key, account) in &mut self.accounts {
            let Some(budget) = self.budgets.get(&key.budget) else { continue };
            due.extend(account.alert(&budget.alerts).map(|percentage| (*key, percentage)));
        }
        due
    }

    /// An account, if anything was reserved in its window.
    pub fn account(&self, key: &AccountKey) -> Option<&Account> {
        self.accounts.get(key)
    }

    /// All accounts.
    pub fn accounts(&self) -> impl Iterator<Item = (&AccountKey, &Account)> {
        self.accounts.iter()
    }

    /// A reservation.
    pub fn reservation(&self, id: Uid) -> Option<&Reservation> {
        self.reservations.get(&id)
    }

    /// All reservations.
    pub fn reservations(&self) -> impl Iterator<Item = (&Uid, &Reservation)> {
        self.reservations.iter()
    }

    /// The accounts of these budgets' windows at the moment, made where they are missing.
    fn accounts_of(
        &mut self,
        budgets: &[Uid],
        now: Timestamp,
    ) -> Result<Vec<AccountKey>, LedgerError> {
        let mut keys = Vec::new();
        for id in budgets {
            let budget = self.budgets.get(id).ok_or(LedgerError::NoSuchBudget)?;
            let window = budget.period.window(now).start;
            for Limit { unit, cap } in budget.caps() {
                let key = AccountKey { budget: *id, unit, window };
                self.accounts.entry(key).or_insert_with(|| Account::new(cap, budget.mode));
                keys.push(key);
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// Of the limits without room, tells of the one that is longest without.
    fn check_room(
        &self,
        keys: &[AccountKey],
        need: &Amounts,
        now: Timestamp,
    ) -> Result<(), Exhausted> {
        let mut worst: Option<Exhausted> = None;
        for key in keys {
            let Some(account) = self.accounts.get(key) else { continue };
            if account.has_room(need.of(key.unit)) {
                continue;
            }
            let period = self.budgets.get(&key.budget).map(|budget| &budget.period);
            let renews_at = period.and_then(|period| match period.rolling() {
                Some(_) => account.next_room(),
                None => period.window(now).end,
            });
            let (budget, unit) = (key.budget, key.unit);
            let found =
                Exhausted { budget, unit, cap: account.cap, left: account.room(), renews_at };
            let lasts = |it: &Exhausted| it.renews_at.map_or(i64::MAX, Timestamp::as_millis);
            if worst.is_none_or(|worst| lasts(&worst) < lasts(&found)) {
                worst = Some(found);
            }
        }
        worst.map_or(Ok(()), Err)
    }
}

fn rolling(budgets: &BTreeMap<Uid, Budget>, key: &AccountKey) -> Option<std::time::Duration> {
    budgets.get(&key.budget)?.period.rolling()
}

fn bucket(budgets: &BTreeMap<Uid, Budget>, key: &AccountKey, now: Timestamp) -> Option<Bucket> {
    rolling(budgets, key).map(|length| Bucket::of(length, now))
}
