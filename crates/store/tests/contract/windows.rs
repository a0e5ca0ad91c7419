//! Windows that end while everybody is at work, and brokers that start anew in between.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use audit::{Kind, Record};
use domain::{Amounts, Budget, Cost, Period, Settled, Settlement, Spending, Timestamp, Uid, Unit};
use store::{Drawn, Found, Granted, Reconcile, Reconciled, Report, Reported, Store};
use tokio::task::JoinSet;

use crate::{
    budgets::{budget, draw, granted, requests, swept},
    given::{acme, at},
    place::Place,
};

const RACERS: i64 = 16;
const TURNS: i64 = 20;
const CAP: u64 = 100_000;

/// What one call comes to: parts of a micro-USD that make whole ones only together.
fn came_to(racer: i64, turn: i64) -> Spending {
    let picos = u128::try_from(racer * 100_003 + turn * 1_234_567 + 1).unwrap();
    Spending { cost: Cost::from_picos(picos), requests: 1, ..Spending::default() }
}

/// What is spent, reserved and unknown of a unit in the window of this time.
async fn standing(
    store: &dyn Store,
    budget: &Budget,
    unit: Unit,
    now: Timestamp,
) -> ((u64, u32), u64, u64) {
    let accounts = store.accounts(budget.id, budget.period.window(now).start).await.unwrap();
    let (_, account) = accounts.into_iter().find(|(key, _)| key.unit == unit).unwrap();
    (account.spent.parts(), account.reserved, account.unknown)
}

/// The end of a day in a zone that is not a whole number of hours away from UTC.
fn midnight(day: &Budget) -> Timestamp {
    day.period.window(at(1_700_000_000)).end.unwrap()
}

fn days() -> [Budget; 3] {
    let limits = [(Unit::Requests, CAP), (Unit::Money, CAP)];
    [
        budget(3, Period::Day("Asia/Kathmandu".parse().unwrap()), &limits),
        budget(4, Period::Rolling(Duration::from_hours(6)), &limits),
        budget(5, Period::Total, &limits),
    ]
}

/// Draws for one call and settles it two seconds later, which may be on the next day.
async fn call(store: &dyn Store, budgets: &[Budget], (racer, turn): (i64, i64), now: Timestamp) {
    let spent = came_to(racer, turn);
    let need = Amounts::of_call(spent.cost, 0, 0);
    let number = u64::try_from(racer * 1000 + turn).unwrap();
    let wish = draw(number, budgets, need, now);
    let Granted { granted, .. } = granted(store, &wish).await;
    let settlement = Settlement::of_call(&granted, spent);
    let later = Some(now + Duration::from_secs(2));
    let report = Report { id: wish.id, holder: wish.holder, settlement, at: later };
    assert_eq!(store.report(vec![report]).await.unwrap(), [Reported::Settled(Settled::Now)]);
}

pub(crate) async fn a_window_that_ends_under_load_loses_no_update(place: &Place) {
    let store = place.open().await;
    let stores = [Arc::clone(&store), place.beside(&store).await];
    let budgets = days();
    let midnight = midnight(&budgets[0]);
    assert_ne!(midnight.as_millis() % 3_600_000, 0, "the zone's days begin at a quarter to");
    // From ten seconds before it to ten seconds after.
    let moment = move |turn: i64| {
        let first = midnight.as_millis() - 10_000;
        Timestamp::from_millis(first + turn * 1000)
    };
    let mut racing = JoinSet::new();
    for racer in 0..RACERS {
        let store = Arc::clone(&stores[usize::try_from(racer).unwrap() % 2]);
        let budgets = budgets.clone();
        racing.spawn(async move {
            for turn in 0..TURNS {
                call(&*store, &budgets, (racer, turn), moment(turn)).await;
                if turn % 5 == 0 {
                    // As the broker that leads does, which gives up what was drawn before midnight.
                    store.sweep(Uid::from_bytes([8; 16]), Some(moment(turn))).await.unwrap();
                }
            }
        });
    }
    racing.join_all().await;

    let mut expected: BTreeMap<Timestamp, (u128, u64)> = BTreeMap::new();
    for (racer, turn) in (0..RACERS).flat_map(|racer| (0..TURNS).map(move |turn| (racer, turn))) {
        let window = budgets[0].period.window(moment(turn)).start;
        let sums = expected.entry(window).or_default();
        *sums = (sums.0 + came_to(racer, turn).cost.picos(), sums.1 + 1);
    }
    assert_eq!(expected.len(), 2);
    let parts = |picos: u128| {
        let micros = u64::try_from(picos / 1_000_000).unwrap();
        (micros, u32::try_from(picos % 1_000_000).unwrap())
    };
    let check = async |budget: &Budget, now: Timestamp, (picos, calls): (u128, u64)| {
        let money = standing(&*store, budget, Unit::Money, now).await;
        assert_eq!(money, (parts(picos), 0, 0), "{:?} at {now:?}", budget.period);
        let calls = ((calls, 0), 0, 0);
        assert_eq!(standing(&*store, budget, Unit::Requests, now).await, calls);
    };
    for (window, sums) in &expected {
        check(&budgets[0], *window, *sums).await;
    }
    let all = expected.values().fold((0, 0), |all, sums| (all.0 + sums.0, all.1 + sums.1));
    for budget in &budgets[1..] {
        check(budget, moment(TURNS), all).await;
    }
}

pub(crate) async fn a_new_day_has_all_of_its_cap_whatever_is_open_of_the_old_one(place: &Place) {
    let store = place.open().await;
    let day = budget(3, days()[0].period.clone(), &[(Unit::Requests, 10)]);
    let (midnight, one) = (midnight(&day), std::slice::from_ref(&day));
    let before = Timestamp::from_millis(midnight.as_millis() - 1);
    let late = draw(1, one, requests(10), before);
    let held = granted(&*store, &late).await;
    assert_eq!(held.expires_at, midnight, "no call begins in it afterwards");
    let more = draw(2, one, requests(1), before);
    assert!(matches!(store.draw(&more).await.unwrap(), Drawn::Exhausted(_)));
    granted(&*store, &draw(3, one, requests(10), midnight)).await;
    // It is settled where it was reserved.
    let spent = Spending { requests: 7, ..Spending::default() };
    let settlement = Settlement::of_call(&held.granted, spent);
    let report = Report { id: late.id, holder: late.holder, settlement, at: Some(midnight) };
    assert_eq!(store.report(vec![report]).await.unwrap(), [Reported::Settled(Settled::Now)]);
    let standing = async |now| standing(&*store, &day, Unit::Requests, now).await;
    assert_eq!(standing(before).await, ((7, 0), 0, 0));
    assert_eq!(standing(midnight).await, ((0, 0), 10, 0));
}

pub(crate) async fn what_a_dead_proxy_held_is_back_after_its_time_and_outlives_brokers(
    place: &Place,
) {
    let total = budget(3, Period::Total, &[(Unit::Requests, 10), (Unit::Concurrent, 4)]);
    let rolling = budget(4, Period::Rolling(Duration::from_hours(1)), &[(Unit::Requests, 10)]);
    let both = [total.clone(), rolling.clone()];
    let dead = draw(1, &both, requests(8).with(Unit::Concurrent, 4), at(1));
    let report = |sequence, covered, returned| {
        let spent = Spending { requests: covered, ..Spending::default() };
        let (covered, returned) = (requests(covered), requests(returned));
        let managed = Spending::default();
        let settlement = Settlement { sequence, covered, returned, spent, managed };
        vec![Report { id: dead.id, holder: dead.holder.clone(), settlement, at: Some(at(2)) }]
    };
    let fits = async |store: &dyn Store, number, budgets: &[Budget], count, now| {
        let need = requests(count).with(Unit::Concurrent, 1);
        let drawn = store.draw(&draw(number, budgets, need, at(now))).await.unwrap();
        matches!(drawn, Drawn::Granted(_))
    };
    {
        let store = place.open().await;
        acme(&*store).await;
        granted(&*store, &dead).await;
        let reported = store.report(report(1, 2, 1)).await.unwrap();
        assert_eq!(reported, [Reported::Settled(Settled::Now)]);
        store.close().await;
    }
    // Both are gone. What was drawn is held on, and no longer than it lasts.
    {
        let store = place.open().await;
        let held = async |budget| standing(&*store, budget, Unit::Requests, at(2)).await;
        assert_eq!(held(&total).await, ((2, 0), 5, 0));
        assert!(!fits(&*store, 2, &both, 1, 3).await, "all calls that may be under way are");
        assert_eq!(swept(&*store, at(300)).await, []);
        let kinds: Vec<_> = swept(&*store, at(301)).await.iter().map(Record::kind).collect();
        assert_eq!(kinds, [Kind::AllowanceExpired]);
        assert_eq!(held(&total).await, ((2, 0), 0, 5));
        // Calls under way of a dead proxy have ended; what they came to is not known.
        assert!(!fits(&*store, 3, &both, 4, 302).await);
        assert!(fits(&*store, 4, &both, 3, 302).await);
        store.close().await;
    }
    {
        let store = place.open().await;
        // The window has moved past it; the total knows of it until somebody says what it came to.
        let hours = 2 * 3600;
        swept(&*store, at(hours)).await;
        assert!(!fits(&*store, 5, &both, 1, hours).await);
        assert!(!fits(&*store, 6, std::slice::from_ref(&total), 1, hours).await);
        let found = Spending { requests: 1, ..Spending::default() };
        let reconcile = Reconcile {
            tenant: dead.tenant.clone(),
            found: vec![Found { id: dead.id, spent: found, managed: Spending::default() }],
            record: Record::default(),
            at: Some(at(hours)),
        };
        let done = store.reconcile(reconcile).await.unwrap();
        assert_eq!(done, [Reconciled::Settled(Settled::Now)]);
        let total = standing(&*store, &total, Unit::Requests, at(1)).await;
        // The other draw has ended by now and nobody has settled it.
        assert_eq!(total, ((3, 0), 0, 3));
        assert!(fits(&*store, 7, &both, 4, hours).await);
    }
}
