use std::{collections::BTreeMap, time::Duration};

use crate::{
    Cost, Source, Timestamp, Uid,
    budget::{
        Account, Allowance, Amounts, Budget, BudgetHolder, Hold, Ledger, LedgerError, Limit, Mode,
        Over, Period, Place, RateLimits, RateView, ReservationState, Settled, Settlement, Spending,
        Sums, Ticket, Unit, Zone,
    },
};

mod random;
mod sharing;

use random::Random;

fn id(number: u64) -> Uid {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Uid::from_bytes(bytes)
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn budget(number: u64, period: Period, limits: &[(Unit, u64)]) -> Budget {
    let limits = limits.iter().map(|&(unit, cap)| Limit { unit, cap }).collect();
    let holder = BudgetHolder::Tenant;
    Budget { id: id(number), holder, period, mode: Mode::Hard, limits, alerts: vec![80, 100] }
}

fn call(picos: u128) -> Amounts {
    Amounts::of_call(Cost::from_picos(picos), 10, 10)
}

fn spending(picos: u128) -> Spending {
    Spending { cost: Cost::from_picos(picos), requests: 1, input_tokens: 7, output_tokens: 3 }
}

fn used(ledger: &Ledger, number: u64, unit: Unit) -> (u64, u64, u64) {
    let found = ledger.accounts().find(|(key, _)| key.budget == id(number) && key.unit == unit);
    let account = found.unwrap().1;
    (account.spent.rounded_up(), account.unknown, account.reserved)
}

/// What must hold after every transition: no hard cap is exceeded, and what accounts hold is what
/// reservations hold.
fn find_fault(ledger: &Ledger) -> Option<String> {
    let mut held: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for (_, reservation) in ledger.reservations() {
        let rest = reservation.rest();
        for Hold { key, place, .. } in &reservation.holds {
            let sums = held.entry(*key).or_default();
            match place {
                Place::Reserved => sums.0 += rest.of(key.unit),
                Place::Unknown => sums.1 += rest.of(key.unit),
                Place::Gone => {}
            }
        }
    }
    ledger.accounts().find_map(|(key, account)| {
        let (reserved, unknown) = held.get(key).copied().unwrap_or_default();
        let open = crate::Quantity::whole(account.unknown + account.reserved);
        let fits = account.spent.plus(open) <= crate::Quantity::whole(account.cap);
        let parts = account.managed.max(account.over.spent) <= account.spent;
        let sound = parts
            && (account.mode == Mode::Shadow || fits)
            && (account.reserved, account.unknown) == (reserved, unknown);
        (!sound).then(|| format!("{key:?} is {account:?}, held {reserved} and {unknown}"))
    })
}

#[test]
fn spent_and_reserved_never_exceed_a_cap() {
    for seed in 0..60 {
        let mut run = Run::new(seed);
        for step in 0..400 {
            run.step();
            assert_eq!(find_fault(&run.ledger), None, "seed {seed}, step {step}");
        }
        run.quiesce();
        assert_eq!(find_fault(&run.ledger), None, "seed {seed}, at rest");
        for (key, account) in run.ledger.accounts() {
            assert_eq!((account.reserved, account.unknown), (0, 0), "seed {seed}: {key:?}");
        }
        assert_eq!(run.spent_by_windows(), run.truth, "seed {seed}: to the pico-USD");
    }
}

#[test]
fn a_budget_that_checks_first_and_counts_afterwards_is_caught() {
    // What gateways do: look whether there is room, call, and add what it came to. The check that
    // the true one passes must find it out.
    let mut random = Random::new(7);
    let caught = (0..50).any(|_| {
        let mut account = Account::new(100, Mode::Hard);
        let mut under_way = Vec::new();
        for _ in 0..100 {
            if random.below(2) == 0 && account.room() >= 20 {
                under_way.push(random.below(20) + 1);
            } else if let Some(spent) = under_way.pop() {
                account.spent = account.spent.plus(crate::Quantity::whole(spent));
            }
        }
        account.used() > account.cap
    });
    assert!(caught);
}

#[test]
fn a_ledger_whose_settlements_count_twice_is_caught() {
    let mut ledger = Ledger::default();
    ledger.put_budget(budget(1, Period::Total, &[(Unit::Money, 100)]));
    let held = ledger.reserve(id(9), &[id(1)], &call(40_000_000), at(0), at(10)).unwrap().granted;
    let again = Settlement::of_call(&held, spending(30_000_000));
    ledger.settle(id(9), &again, at(1)).unwrap();
    assert_eq!(find_fault(&ledger), None);
    let (_, account) = ledger.accounts().next().unwrap();
    let mut twice = account.clone();
    for _ in 0..3 {
        twice.settle(Place::Reserved, 0, &Sums::own(crate::Quantity::whole(30)), None);
    }
    assert_eq!(twice.overrun, 20, "even then the cap holds, and what is wrong can be seen");
    assert_eq!(ledger.settle(id(9), &again, at(2)), Ok(Settled::Before));
    assert_eq!(used(&ledger, 1, Unit::Money), (30, 0, 0));
}

#[test]
fn a_ledger_that_gives_back_what_nobody_knows_is_caught() {
    let caught = (0..20).any(|seed| {
        let mut run = Run { forgetful: true, ..Run::new(seed) };
        (0..400).for_each(|_| run.step());
        run.quiesce();
        run.spent_by_windows() != run.truth
    });
    assert!(caught);
}

/// A random walk over everything that can happen, with a record of what was truly spent.
struct Run {
    ledger: Ledger,
    random: Random,
    now: i64,
    next: u64,
    holders: Vec<Holder>,
    /// What each dead holder's lost calls truly came to.
    lost: BTreeMap<Uid, Spending>,
    truth: Cost,
    /// Whether what nobody knows is given back, as it must not be.
    forgetful: bool,
}

struct Holder {
    id: Uid,
    allowance: Allowance,
    calls: Vec<(Ticket, u128)>,
    unsaid: Spending,
    sent: Vec<Settlement>,
}

const PATH: [u64; 3] = [1, 2, 3];

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut ledger = Ledger::default();
        let zone: Zone = "Europe/Berlin".parse().unwrap();
        let caps = [random.below(3_000) + 50, random.below(3_000) + 50, random.below(6_000) + 50];
        ledger.put_budget(budget(1, Period::Day(zone), &[(Unit::Money, caps[0])]));
        ledger.put_budget(budget(
            2,
            Period::Rolling(Duration::from_hours(1)),
            &[(Unit::Money, caps[1]), (Unit::Requests, 200), (Unit::Concurrent, 9)],
        ));
        ledger.put_budget(budget(3, Period::Total, &[(Unit::Money, caps[2])]));
        Self {
            ledger,
            random,
            now: 1_790_000_000_000,
            next: 100,
            holders: Vec::new(),
            lost: BTreeMap::new(),
            truth: Cost::ZERO,
            forgetful: false,
        }
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0 | 1 => self.open(),
            2..=5 => self.begin(),
            6 | 7 => self.end(),
            8 => self.report(),
            9 => self.die(),
            10 => self.wait(),
            _ => self.reconcile(),
        }
    }

    fn open(&mut self) {
        let need = call(u128::from(self.random.below(60_000_000)));
        let wanted = need.each(|_, need| need * 20);
        let ends = self.now + 300_000;
        self.next += 1;
        let path = PATH.map(id);
        match self.ledger.slice(id(self.next), &path, &need, &wanted, at(self.now), at(ends)) {
            Ok(granted) => {
                let units = [Unit::Money, Unit::Requests, Unit::Concurrent];
                let allowance = Allowance::new(&granted.granted, &units, at(ends - 60_000));
                let (calls, sent) = (Vec::new(), Vec::new());
                let unsaid = Spending::default();
                self.holders.push(Holder { id: id(self.next), allowance, calls, unsaid, sent });
            }
            Err(LedgerError::Exhausted(refused)) => assert!(refused.left < refused.cap.max(1)),
            Err(error) => panic!("{error}"),
        }
    }

    fn begin(&mut self) {
        let most = u128::from(self.random.below(60_000_000)) + 1;
        let now = at(self.now);
        let Some(holder) = self.random.pick(&mut self.holders) else { return };
        if let Some(ticket) = holder.allowance.begin(&call(most), now) {
            holder.calls.push((ticket, most));
        }
    }

    fn end(&mut self) {
        let part = u128::from(self.random.below(1001));
        let lost = self.random.below(10) == 0;
        let Some(holder) = self.random.pick(&mut self.holders) else { return };
        let Some((ticket, most)) = holder.calls.pop() else { return };
        let spent = spending(most * part / 1000);
        self.truth = self.truth.plus(spent.cost);
        if lost {
            holder.allowance.lose(ticket, &[], &Spending::default(), Source::Byok);
            holder.unsaid = holder.unsaid.plus(&spent);
        } else {
            holder.allowance.end(ticket, &spent, Source::Managed);
        }
    }

    /// Some reports are lost on the way, some come twice, some late.
    fn report(&mut self) {
        let (gives_back, arrives, again) =
            (self.random.below(4) == 0, self.random.below(3) > 0, self.random.below(3) == 0);
        let now = at(self.now);
        let Some(holder) = self.random.pick(&mut self.holders) else { return };
        if gives_back {
            holder.allowance.give_back();
        }
        holder.sent.extend(holder.allowance.report());
        if arrives && let Some(report) = holder.sent.last() {
            self.ledger.settle(holder.id, report, now).unwrap();
        }
        if again && let Some(report) = holder.sent.first() {
            let settled = self.ledger.settle(holder.id, report, now).unwrap();
            assert!(settled == Settled::Before || holder.sent.len() == 1 || !arrives);
        }
    }

    /// A holder is killed with calls under way, which the provider brings to an end.
    fn die(&mut self) {
        if self.holders.is_empty() || self.random.below(3) > 0 {
            return;
        }
        let at = usize::try_from(self.random.below(self.holders.len() as u64)).unwrap();
        let mut dead = self.holders.swap_remove(at);
        let mut unsaid = dead.unsaid;
        for (_, most) in dead.calls {
            unsaid = unsaid.plus(&spending(most / 2));
            self.truth = self.truth.plus(Cost::from_picos(most / 2));
        }
        // What it had said, or meant to say, that did not arrive is unsaid as well.
        let known = self.ledger.reservation(dead.id).unwrap().spent;
        dead.sent.extend(dead.allowance.report());
        let said = dead.sent.last().map(|report| report.spent).unwrap_or_default();
        if let Some(more) = said.since(&known) {
            unsaid = unsaid.plus(&more);
        }
        self.lost.insert(dead.id, unsaid);
    }

    fn wait(&mut self) {
        self.now += i64::try_from(self.random.below(120_000)).unwrap();
        self.ledger.expire(at(self.now));
        self.ledger.roll(at(self.now));
        if self.forgetful {
            let own = Spending::default();
            let dead: Vec<_> = self.lost.keys().copied().collect();
            for id in dead {
                let _ = self.ledger.reconcile(id, &own, &own, at(self.now));
            }
        }
    }

    fn reconcile(&mut self) {
        let Some((&id, _)) = self.lost.iter().next() else { return };
        let found = self.lost[&id];
        match self.ledger.reconcile(id, &found, &Spending::default(), at(self.now)) {
            Err(LedgerError::NotExpired) => {}
            settled => {
                settled.unwrap();
                self.lost.remove(&id);
            }
        }
    }

    /// Everybody reports and leaves; what expired is reconciled.
    fn quiesce(&mut self) {
        while let Some(mut holder) = self.holders.pop() {
            for (ticket, most) in std::mem::take(&mut holder.calls) {
                self.truth = self.truth.plus(Cost::from_picos(most));
                holder.allowance.end(ticket, &spending(most), Source::Byok);
            }
            holder.allowance.give_back();
            holder.sent.extend(holder.allowance.report());
            if let Some(last) = holder.sent.last() {
                self.ledger.settle(holder.id, last, at(self.now)).unwrap();
            }
            self.lost.insert(holder.id, holder.unsaid);
        }
        self.now += 300_001;
        self.ledger.expire(at(self.now));
        while !self.lost.is_empty() {
            self.reconcile();
        }
    }

    /// What the days' accounts together say was spent.
    fn spent_by_windows(&self) -> Cost {
        let days = self.ledger.accounts().filter(|(key, _)| key.budget == id(PATH[0]));
        days.fold(Cost::ZERO, |sum, (_, account)| {
            assert_eq!(account.overrun, 0);
            let (whole, picos) = account.spent.parts();
            sum.plus(Cost::of(whole, 1_000_000)).plus(Cost::from_picos(picos.into()))
        })
    }
}
