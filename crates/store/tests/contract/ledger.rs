//! The store beside `domain::Ledger`, step by step: whatever happens, in whatever order, both say the
//! same.

use std::{collections::BTreeMap, time::Duration};

use audit::Record;
use domain::{
    Amounts, Budget, Cost, Ledger, LedgerError, Mode, Period, Reservation, Settlement, Spending,
    Timestamp, Uid, Unit,
};
use store::{Draw, Drawn, Found, Reconcile, Reconciled, Report, Reported, Store};

use crate::{
    budgets::{budget, draw, settled_accounts, swept},
    given::acme,
    place::Place,
};

pub(crate) async fn the_store_says_what_the_ledger_says(place: &Place) {
    let store = place.open().await;
    acme(&*store).await;
    for seed in 1..4 {
        let mut run = Run::new(seed);
        for step in 0..120 {
            run.step(&*store).await;
            run.compare(&*store, &format!("seed {seed}, step {step}")).await;
        }
    }
}

fn shadow(number: u8, period: Period, limits: &[(Unit, u64)]) -> Budget {
    Budget { mode: Mode::Shadow, ..budget(number, period, limits) }
}

struct Run {
    ledger: Ledger,
    budgets: Vec<Budget>,
    random: u64,
    seed: u64,
    now: i64,
    drawn: Vec<Draw>,
    /// What was last said of each.
    said: BTreeMap<Uid, Settlement>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let number = |it: u64| u8::try_from(seed * 10 + it).unwrap();
        let zone = "Europe/Berlin".parse().unwrap();
        let budgets = vec![
            budget(number(1), Period::Day(zone), &[(Unit::Money, 900)]),
            budget(
                number(2),
                Period::Rolling(Duration::from_mins(10)),
                &[(Unit::Money, 700), (Unit::Requests, 90), (Unit::Concurrent, 9)],
            ),
            budget(number(3), Period::Total, &[(Unit::Money, 4_000)]),
            shadow(number(4), Period::Total, &[(Unit::Money, 300)]),
            shadow(
                number(5),
                Period::Rolling(Duration::from_mins(3)),
                &[(Unit::Money, 90), (Unit::Concurrent, 2)],
            ),
        ];
        let mut ledger = Ledger::default();
        for budget in &budgets {
            ledger.put_budget(budget.clone());
        }
        let (drawn, said) = (Vec::new(), BTreeMap::new());
        Self { ledger, budgets, random: seed, seed, now: 1_790_000_000_000, drawn, said }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % limit
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    async fn step(&mut self, store: &dyn Store) {
        self.now += i64::try_from(self.below(40_000)).unwrap();
        swept(store, self.time()).await;
        self.ledger.expire(self.time());
        self.ledger.roll(self.time());
        match self.below(10) {
            0..=3 => self.draw(store).await,
            4..=7 => self.report(store).await,
            8 => self.reconcile(store).await,
            _ => self.undo(store).await,
        }
    }

    async fn draw(&mut self, store: &dyn Store) {
        let cost = Cost::from_picos(u128::from(self.below(60_000_000)) + 1);
        let need = Amounts::of_call(cost, 5, 5);
        let number = self.seed * 1_000_000 + u64::try_from(self.drawn.len()).unwrap();
        let first = usize::try_from(self.below(3)).unwrap();
        let count = usize::try_from(self.below(3)).unwrap() + 1;
        let budgets = self.budgets[first..first + count].to_vec();
        let wish = Draw {
            wanted: need.each(|_, need| need * 8),
            ..draw(number, &budgets, need, self.time())
        };
        let ids: Vec<_> = budgets.iter().map(|it| it.id).collect();
        let ends = budgets.iter().filter_map(|it| it.period.window(self.time()).end);
        let ends = ends.fold(self.time() + wish.lasts, Ord::min);
        let (need, wanted, now) = (&wish.need, &wish.wanted, self.time());
        let expected = self.ledger.slice(wish.id, &ids, need, wanted, now, ends);
        match (store.draw(&wish).await.unwrap(), expected) {
            (Drawn::Granted(granted), Ok(reservation)) => {
                assert_eq!(granted.granted, reservation.granted);
                assert_eq!(granted.expires_at, reservation.expires_at);
                self.drawn.push(wish);
            }
            (Drawn::Exhausted(found), Err(LedgerError::Exhausted(expected))) => {
                assert_eq!(found, expected);
            }
            (found, expected) => panic!("{found:?}, and the ledger {expected:?}"),
        }
    }

    fn pick(&mut self) -> Option<Draw> {
        let count = u64::try_from(self.drawn.len()).unwrap();
        // The latest ones: most others have ended.
        let back = usize::try_from(self.below(count.clamp(1, 12))).unwrap();
        self.drawn.len().checked_sub(back + 1).map(|at| self.drawn[at].clone())
    }

    async fn report(&mut self, store: &dyn Store) {
        let Some(wish) = self.pick() else { return };
        let Some(reservation) = self.ledger.reservation(wish.id).cloned() else { return };
        let settlement = match self.below(8) {
            // Something that was said before, or that cannot be.
            0 => self.said.get(&wish.id).copied().unwrap_or_default(),
            1 => Settlement {
                sequence: reservation.sequence + 1,
                covered: reservation.granted,
                returned: reservation.granted,
                spent: reservation.spent,
                managed: reservation.managed,
            },
            _ => self.next(&reservation),
        };
        let now = self.time();
        let expected = self.ledger.settle(wish.id, &settlement, now);
        let report = Report { id: wish.id, holder: wish.holder, settlement, at: Some(now) };
        let found = store.report(vec![report]).await.unwrap().pop().unwrap();
        match (found, expected) {
            (Reported::Settled(found), Ok(expected)) => assert_eq!(found, expected),
            (Reported::Contradiction, Err(LedgerError::Contradiction)) => {}
            (found, expected) => panic!("{found:?}, and the ledger {expected:?}"),
        }
        self.said.insert(wish.id, settlement);
    }

    fn next(&mut self, reservation: &Reservation) -> Settlement {
        let (share, gives_back) = (self.below(101), self.below(3) == 0);
        let rest = reservation.rest();
        let covered =
            rest.each(|unit, rest| if unit == Unit::Concurrent { 0 } else { rest * share / 100 });
        let left = rest.less(&covered);
        let returned = if gives_back { left } else { Amounts::default() };
        // Sometimes a little more than was covered, and always with parts of a micro-USD.
        let picos =
            u128::from(covered.of(Unit::Money)) * 1_000_000 + u128::from(self.below(3_000_000));
        let spent = Spending {
            cost: Cost::from_picos(picos),
            requests: covered.of(Unit::Requests),
            ..Spending::default()
        };
        let (is_managed, own) = (self.below(2) == 0, Spending::default());
        Settlement {
            sequence: reservation.sequence + 1,
            covered: reservation.covered.plus(&covered),
            returned: reservation.returned.plus(&returned),
            spent: reservation.spent.plus(&spent),
            managed: reservation.managed.plus(if is_managed { &spent } else { &own }),
        }
    }

    async fn reconcile(&mut self, store: &dyn Store) {
        let Some(wish) = self.pick() else { return };
        let found =
            Spending { cost: Cost::from_picos(777_777), requests: 1, ..Spending::default() };
        let managed = if self.below(2) == 0 { found } else { Spending::default() };
        let expected = self.ledger.reconcile(wish.id, &found, &managed, self.time());
        let reconcile = Reconcile {
            tenant: wish.tenant,
            found: vec![Found { id: wish.id, spent: found, managed }],
            record: Record::default(),
            at: Some(self.time()),
        };
        let found = store.reconcile(reconcile).await.unwrap().pop().unwrap();
        match (found, expected) {
            (Reconciled::Settled(found), Ok(expected)) => assert_eq!(found, expected),
            (Reconciled::Open, Err(LedgerError::NotExpired))
            | (Reconciled::NoSuchAllowance, Err(LedgerError::NoSuchReservation)) => {}
            (found, expected) => panic!("{found:?}, and the ledger {expected:?}"),
        }
    }

    async fn undo(&mut self, store: &dyn Store) {
        let Some(wish) = self.pick() else { return };
        store.undo(wish.id, wish.attempt);
        if self.ledger.undo(wish.id) {
            self.drawn.retain(|it| it.id != wish.id);
        }
        // What comes after it in the queue is done after it.
        store
            .report(vec![Report {
                id: wish.id,
                holder: String::new(),
                settlement: Settlement::default(),
                at: Some(self.time()),
            }])
            .await
            .unwrap();
    }

    async fn compare(&self, store: &dyn Store, when: &str) {
        for budget in &self.budgets {
            let window = budget.period.window(self.time()).start;
            let found = store.accounts(budget.id, window).await.unwrap();
            let expected = self.ledger.accounts();
            let expected =
                expected.filter(|(key, _)| key.budget == budget.id && key.window == window);
            let expected = expected.map(|(key, account)| (*key, account.clone()));
            let now = self.time();
            let (found, expected) = (settled_accounts(found, now), settled_accounts(expected, now));
            assert_eq!(found, expected, "{when}");
            for (key, account) in &found {
                let is_hard = budget.mode == Mode::Hard;
                assert!(!is_hard || account.used() <= account.cap, "{when}: {key:?}");
                assert!(account.managed <= account.spent && account.over.spent <= account.spent);
            }
        }
    }
}
