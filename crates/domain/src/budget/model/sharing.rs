use std::collections::BTreeSet;

use super::*;

#[test]
fn a_reservation_is_in_every_account_or_in_none() {
    let mut ledger = Ledger::default();
    ledger.put_budget(budget(1, Period::Total, &[(Unit::Money, 100)]));
    ledger.put_budget(budget(2, Period::Total, &[(Unit::Money, 30), (Unit::Requests, 5)]));
    let path = [id(1), id(2)];
    ledger.reserve(id(9), &path, &call(20_000_000), at(0), at(10)).unwrap();
    let refused = ledger.reserve(id(8), &path, &call(20_000_000), at(0), at(10)).unwrap_err();
    let LedgerError::Exhausted(refused) = refused else { panic!("{refused}") };
    assert_eq!((refused.budget, refused.unit, refused.left), (id(2), Unit::Money, 10));
    assert_eq!(refused.to_string(), "the limit of 30 micro_usd is reached: 10 are left");
    assert_eq!(used(&ledger, 1, Unit::Money), (0, 0, 20));
    assert_eq!(used(&ledger, 2, Unit::Requests), (0, 0, 1));
    // A lost answer: the same id again is the same reservation.
    ledger.reserve(id(9), &path, &call(20_000_000), at(0), at(10)).unwrap();
    assert_eq!(used(&ledger, 1, Unit::Money), (0, 0, 20));
}

#[test]
fn a_call_counts_with_its_key_its_group_and_its_tenant() {
    let key: crate::VirtualKeyId = "mzxw6ytboimzxw6y".parse().unwrap();
    let group: crate::GroupId = "search".parse().unwrap();
    let other: crate::GroupId = "chat".parse().unwrap();
    let covers = |holder: BudgetHolder| holder.covers(&key, Some(&group));
    assert!(covers(BudgetHolder::Tenant));
    assert!(covers(BudgetHolder::Group(group.clone())));
    assert!(covers(BudgetHolder::VirtualKey(key.clone())));
    assert!(!covers(BudgetHolder::Group(other)));
    assert!(!covers(BudgetHolder::VirtualKey("aaaaaaaaaaaaaaaa".parse().unwrap())));
    assert!(!BudgetHolder::Group(group.clone()).covers(&key, None));
}

#[test]
fn an_unknown_outcome_stays_spent_until_it_is_reconciled() {
    let mut ledger = Ledger::default();
    let limits = [(Unit::Money, 100), (Unit::Concurrent, 1)];
    ledger.put_budget(budget(1, Period::Total, &limits));
    ledger.reserve(id(9), &[id(1)], &call(60_000_000), at(0), at(10)).unwrap();
    let own = Spending::default();
    assert_eq!(ledger.reconcile(id(9), &own, &own, at(9)), Err(LedgerError::NotExpired));
    ledger.expire(at(10));
    assert_eq!(used(&ledger, 1, Unit::Money), (0, 60, 0));
    assert_eq!(used(&ledger, 1, Unit::Concurrent), (0, 0, 0), "a dead proxy's calls have ended");
    assert!(ledger.reserve(id(8), &[id(1)], &call(41_000_000), at(11), at(20)).is_err());
    ledger.reconcile(id(9), &spending(1_500_000), &own, at(11)).unwrap();
    assert_eq!(used(&ledger, 1, Unit::Money), (2, 0, 0));
    assert_eq!(ledger.reconcile(id(9), &spending(1_500_000), &own, at(12)), Ok(Settled::Before));
    assert_eq!(used(&ledger, 1, Unit::Money), (2, 0, 0));
}

#[test]
fn a_settlement_that_comes_after_expiry_still_counts() {
    let mut ledger = Ledger::default();
    ledger.put_budget(budget(1, Period::Total, &[(Unit::Money, 100)]));
    let held = ledger.reserve(id(9), &[id(1)], &call(60_000_000), at(0), at(10)).unwrap().granted;
    ledger.expire(at(10));
    let late = Settlement::of_call(&held, spending(5_000_000));
    assert_eq!(ledger.settle(id(9), &late, at(50)), Ok(Settled::Now));
    assert_eq!(used(&ledger, 1, Unit::Money), (5, 0, 0));
    assert_eq!(ledger.reservation(id(9)).unwrap().state, ReservationState::Closed);
}

#[test]
fn a_settlement_that_takes_back_an_earlier_one_is_refused() {
    let mut ledger = Ledger::default();
    ledger.put_budget(budget(1, Period::Total, &[(Unit::Money, 100)]));
    ledger.reserve(id(9), &[id(1)], &call(60_000_000), at(0), at(10)).unwrap();
    let said = |sequence, covered, returned| Settlement {
        sequence,
        covered: Amounts::default().with(Unit::Money, covered),
        returned: Amounts::default().with(Unit::Money, returned),
        spent: Spending::default(),
        managed: Spending::default(),
    };
    assert_eq!(ledger.settle(id(9), &said(1, 20, 20), at(1)), Ok(Settled::Now));
    assert_eq!(ledger.settle(id(9), &said(1, 30, 20), at(1)), Ok(Settled::Before));
    for wrong in [said(2, 10, 20), said(2, 20, 10), said(2, 41, 20)] {
        assert_eq!(ledger.settle(id(9), &wrong, at(1)), Err(LedgerError::Contradiction));
    }
    assert_eq!(ledger.settle(id(7), &said(1, 0, 0), at(1)), Err(LedgerError::NoSuchReservation));
    assert_eq!(used(&ledger, 1, Unit::Money), (0, 0, 20));
}

#[test]
fn each_window_has_an_account_of_its_own() {
    let mut ledger = Ledger::default();
    ledger.put_budget(budget(1, Period::Day(Zone::UTC), &[(Unit::Money, 100)]));
    let day = 86_400_000;
    let before = call(100_000_000);
    let held = ledger.reserve(id(9), &[id(1)], &before, at(day - 1), at(2 * day)).unwrap().granted;
    let refused = ledger.reserve(id(8), &[id(1)], &call(1), at(day - 1), at(day)).unwrap_err();
    let LedgerError::Exhausted(refused) = refused else { panic!("{refused}") };
    assert_eq!((refused.left, refused.renews_at), (0, Some(at(day))));
    // Midnight: the new day is untouched by the old one's reservation, and the other way round.
    ledger.reserve(id(7), &[id(1)], &call(100_000_000), at(day), at(2 * day)).unwrap();
    let late = Settlement::of_call(&held, spending(90_000_000));
    ledger.settle(id(9), &late, at(day + 5)).unwrap();
    let used: Vec<_> =
        ledger.accounts().map(|(_, it)| (it.spent.rounded_up(), it.reserved)).collect();
    assert_eq!(used, [(90, 0), (0, 100)]);
}

#[test]
fn another_cap_holds_at_once() {
    let mut ledger = Ledger::default();
    ledger.put_budget(budget(1, Period::Total, &[(Unit::Money, 100)]));
    ledger.reserve(id(9), &[id(1)], &call(60_000_000), at(0), at(10)).unwrap();
    ledger.put_budget(budget(1, Period::Total, &[(Unit::Money, 50)]));
    assert!(ledger.reserve(id(8), &[id(1)], &call(1), at(0), at(10)).is_err());
    ledger.put_budget(budget(1, Period::Total, &[(Unit::Money, 61)]));
    ledger.reserve(id(8), &[id(1)], &call(1), at(0), at(10)).unwrap();
}

#[test]
fn what_is_spent_on_managed_credentials_is_told_apart() {
    let mut ledger = Ledger::default();
    ledger.put_budget(budget(1, Period::Total, &[(Unit::Money, 100), (Unit::Requests, 9)]));
    let granted =
        ledger.reserve(id(9), &[id(1)], &call(60_000_000), at(0), at(10)).unwrap().granted;
    let mut allowance = Allowance::new(&granted, &[Unit::Money], at(10));
    for (most, source) in
        [(10_000_000, Source::Managed), (20_000_000, Source::Byok), (5_000_000, Source::Keyless)]
    {
        let ticket = allowance.begin(&call(most), at(1)).unwrap();
        allowance.end(ticket, &spending(most), source);
    }
    let told = allowance.report().unwrap();
    ledger.settle(id(9), &told, at(2)).unwrap();
    let sums = |ledger: &Ledger, unit| {
        let (_, account) = ledger.accounts().find(|(key, _)| key.unit == unit).unwrap();
        (account.spent.rounded_up(), account.managed.rounded_up())
    };
    assert_eq!(sums(&ledger, Unit::Money), (35, 15));
    assert_eq!(sums(&ledger, Unit::Requests), (3, 2));
    // More managed than spent, or less than was said before, cannot be.
    let more = Settlement { sequence: 2, managed: spending(16_000_000), ..told };
    let less = Settlement { sequence: 2, managed: Spending::default(), ..told };
    for wrong in [more, less] {
        assert_eq!(ledger.settle(id(9), &wrong, at(3)), Err(LedgerError::Contradiction));
    }
}

#[test]
fn a_shadow_counts_what_a_hard_budget_would_have_refused() {
    let mut ledger = Ledger::default();
    let limits = [(Unit::Money, 100)];
    ledger.put_budget(Budget { mode: Mode::Shadow, ..budget(1, Period::Total, &limits) });
    let wanted = call(1_000_000_000);
    let mut take = |number, micros: u128| {
        let need = call(micros * 1_000_000);
        let slice = ledger.slice(id(number), &[id(1)], &need, &wanted, at(0), at(10)).unwrap();
        let (granted, over) = (slice.granted, slice.holds[0].over);
        let spent = spending(micros * 1_000_000);
        ledger.settle(id(number), &Settlement::of_call(&granted, spent), at(1)).unwrap();
        (granted.of(Unit::Money), over)
    };
    // Within the room it gives what a hard one gives, so that the two come to the cap alike.
    assert_eq!(take(11, 4), (6, false));
    assert_eq!(take(12, 96), (96, false));
    assert_eq!(take(13, 7), (1_000, true));
    assert_eq!(take(14, 1), (1_000, true));
    let (_, account) = ledger.accounts().next().unwrap();
    assert_eq!(account.spent.rounded_up(), 108);
    let expected = Over { reservations: 2, calls: 2, spent: crate::Quantity::whole(8) };
    assert_eq!(account.over, expected);
}

#[test]
fn alerts_are_raised_for_each_limit_once() {
    let mut ledger = Ledger::default();
    ledger.put_budget(budget(1, Period::Total, &[(Unit::Money, 10), (Unit::Requests, 100)]));
    let held = ledger.reserve(id(9), &[id(1)], &call(9_000_000), at(0), at(10)).unwrap().granted;
    assert_eq!(ledger.alerts(), [], "nothing is spent yet");
    ledger.settle(id(9), &Settlement::of_call(&held, spending(9_000_000)), at(1)).unwrap();
    let raised = ledger.alerts();
    assert_eq!(raised.len(), 1);
    assert_eq!((raised[0].0.unit, raised[0].1), (Unit::Money, 80));
    assert_eq!(ledger.alerts(), []);
}

/// Many clients at many proxies race for one cap until each is refused; returns what was admitted.
fn race(proxies: usize, cap: u64, most: u64, seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut ledger = Ledger::default();
    ledger.put_budget(budget(1, Period::Total, &[(Unit::Money, cap)]));
    let mut next = 10;
    let end = at(1_000_000);
    let mut open: Vec<Option<(Uid, Allowance)>> = (0..proxies).map(|_| None).collect();
    let mut admitted = 0;
    let mut refused = BTreeSet::new();
    // A proxy that is refused gives back what it holds; all are done when none gets anything.
    while refused.len() < proxies {
        let proxy = usize::try_from(random.below(proxies as u64)).unwrap();
        let cost = random.below(most) + 1;
        let need = call(u128::from(cost) * 1_000_000);
        let held = open[proxy].as_mut();
        let ticket = held.and_then(|(_, allowance)| allowance.begin(&need, at(1)));
        if let (Some((_, allowance)), Some(ticket)) = (open[proxy].as_mut(), ticket) {
            allowance.end(ticket, &spending(u128::from(cost) * 1_000_000), Source::Byok);
            admitted += cost;
            refused.clear();
            continue;
        }
        if let Some((id, mut old)) = open[proxy].take() {
            old.give_back();
            ledger.settle(id, &old.report().unwrap(), at(1)).unwrap();
        }
        next += 1;
        let wanted = need.each(|_, need| need * 1_000);
        match ledger.slice(id(next), &[id(1)], &need, &wanted, at(1), end) {
            Ok(slice) => {
                let allowance = Allowance::new(&slice.granted, &[Unit::Money], end);
                open[proxy] = Some((id(next), allowance));
            }
            Err(_) => {
                refused.insert(proxy);
            }
        }
        if next % 50 == 0 {
            assert_eq!(find_fault(&ledger), None);
        }
    }
    assert_eq!(find_fault(&ledger), None);
    assert!(admitted <= cap);
    assert_eq!(ledger.accounts().next().unwrap().1.spent.rounded_up(), admitted);
    admitted
}

#[test]
fn slices_shrink_as_the_cap_comes_near() {
    for (room, need, wanted, size) in [
        (1_600, 1, 1_000, 100),
        (1_600, 1, 50, 50),
        (160, 1, 1_000, 10),
        (15, 1, 1_000, 1),
        (15, 9, 1_000, 9),
        (0, 0, 1_000, 0),
    ] {
        assert_eq!(crate::slice_size(room, need, wanted), size, "{room} {need} {wanted}");
    }
}

#[test]
fn many_proxies_use_at_least_99_of_100_of_a_cap_and_never_more() {
    for seed in 0..20 {
        assert_eq!(race(4, 1_000, 1, seed), 1_000, "calls of one unit use all of it");
        for proxies in [1, 4, 64] {
            let admitted = race(proxies, 100_000, 500, seed);
            assert!(admitted >= 99_000, "{proxies} proxies used {admitted}, seed {seed}");
        }
    }
}

#[test]
fn no_minute_wherever_it_begins_has_more_than_the_limit() {
    let limits = RateLimits { requests_per_minute: Some(60), ..RateLimits::default() };
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let mut ledger = Ledger::default();
        ledger.put_budget(limits.budget(id(1), BudgetHolder::Tenant).unwrap());
        let (mut now, mut next) = (0_i64, 10);
        let mut held: Vec<(Uid, Allowance)> = Vec::new();
        let mut used: Vec<i64> = Vec::new();
        for _ in 0..3_000 {
            now += i64::try_from(random.below(150)).unwrap();
            ledger.roll(at(now));
            match random.below(4) {
                0 => {
                    next += 1;
                    let need = call(0);
                    let wanted = need.each(|_, need| need * 5);
                    let end = at(now + 90_000);
                    if let Ok(slice) =
                        ledger.slice(id(next), &[id(1)], &need, &wanted, at(now), end)
                    {
                        let granted = slice.granted;
                        held.push((id(next), Allowance::new(&granted, &[Unit::Requests], end)));
                    }
                }
                1 | 2 => {
                    if let Some((_, allowance)) = random.pick(&mut held)
                        && let Some(ticket) = allowance.begin(&call(0), at(now))
                    {
                        allowance.end(ticket, &spending(0), Source::Byok);
                        used.push(now);
                    }
                }
                _ => {
                    if let Some((id, allowance)) = random.pick(&mut held)
                        && let Some(report) = allowance.report()
                    {
                        ledger.settle(*id, &report, at(now)).unwrap();
                    }
                }
            }
            if next % 20 == 0 {
                assert_eq!(find_fault(&ledger), None);
            }
        }
        let busiest = used
            .iter()
            .map(|&from| used.iter().filter(|&&at| (from..from + 60_000).contains(&at)).count());
        assert!(used.len() > 100);
        assert!(busiest.max().unwrap() <= 60, "seed {seed}");
    }
}

#[test]
fn what_is_unknown_leaves_a_rolling_window_with_it() {
    let limits =
        RateLimits { requests_per_minute: Some(2), concurrent: Some(3), tokens_per_minute: None };
    let mut ledger = Ledger::default();
    ledger.put_budget(limits.budget(id(1), BudgetHolder::Tenant).unwrap());
    ledger.reserve(id(9), &[id(1)], &call(0), at(0), at(1_000)).unwrap();
    ledger.expire(at(1_000));
    assert_eq!(used(&ledger, 1, Unit::Requests), (0, 1, 0));
    ledger.roll(at(61_999));
    assert_eq!(used(&ledger, 1, Unit::Requests), (0, 1, 0));
    ledger.roll(at(62_000));
    assert_eq!(used(&ledger, 1, Unit::Requests), (0, 0, 0));
    assert_eq!(ledger.reservation(id(9)).unwrap().state, ReservationState::Closed);
}

#[test]
fn callers_are_told_what_is_left_and_when_there_is_more() {
    let limits = RateLimits { requests_per_minute: Some(2), ..RateLimits::default() };
    let mut ledger = Ledger::default();
    ledger.put_budget(limits.budget(id(1), BudgetHolder::Tenant).unwrap());
    let held = ledger.reserve(id(9), &[id(1)], &call(0), at(500), at(9_000)).unwrap().granted;
    ledger.settle(id(9), &Settlement::of_call(&held, spending(0)), at(1_500)).unwrap();
    let (_, account) = ledger.accounts().next().unwrap();
    let view = RateView::of(account, at(2_000));
    assert_eq!((view.limit, view.remaining), (2, 1));
    assert_eq!(view.reset_after, Duration::from_mins(1));
    assert_eq!(RateLimits::default().budget(id(1), BudgetHolder::Tenant), None);
}
