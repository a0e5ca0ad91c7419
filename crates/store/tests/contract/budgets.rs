use std::sync::Arc;

use audit::{Kind, Record};
use domain::{
    AccountKey, Amounts, Budget, BudgetHolder, Cost, Limit, Mode, Period, ReservationState,
    Settled, Settlement, Spending, Timestamp, Uid, Unit,
};
use store::{
    BudgetRow, Change, Counted, Draw, Drawn, Found, Granted, Page, Reconcile, Reconciled, Report,
    Reported, Store, StoreError,
};
use tokio::task::JoinSet;

use crate::{
    given::{acme, at, changed, mac, uid},
    place::Place,
};

pub(crate) fn budget(number: u8, period: Period, limits: &[(Unit, u64)]) -> Budget {
    let limits = limits.iter().map(|&(unit, cap)| Limit { unit, cap }).collect();
    let holder = BudgetHolder::Tenant;
    Budget { id: uid(number), holder, period, mode: Mode::Hard, limits, alerts: vec![50, 100] }
}

pub(crate) fn row(name: &str, budget: Budget) -> BudgetRow {
    BudgetRow {
        tenant_uid: uid(1),
        tenant: "acme".parse().unwrap(),
        id: name.parse().unwrap(),
        budget,
        revision: 1,
        request_id: Some("r-2".parse().unwrap()),
        created_at: at(10),
        updated_at: at(11),
        row_mac: mac(1, 9),
    }
}

pub(crate) fn draw(number: u64, budgets: &[Budget], need: Amounts, now: Timestamp) -> Draw {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let counted = |budget: &Budget| Counted { budget: budget.clone(), revision: 1 };
    Draw {
        id: Uid::from_bytes(id),
        attempt: uid(1),
        tenant: "acme".parse().unwrap(),
        virtual_key: "aaaabbbbccccdddd".parse().unwrap(),
        holder: "spiffe://a.b/proxy".to_owned(),
        budgets: budgets.iter().map(counted).collect(),
        need,
        wanted: need,
        lasts: std::time::Duration::from_mins(5),
        ends_at: None,
        at: Some(now),
    }
}

pub(crate) fn requests(count: u64) -> Amounts {
    Amounts::default().with(Unit::Requests, count)
}

pub(crate) async fn granted(store: &dyn Store, draw: &Draw) -> Granted {
    let drawn = store.draw(draw).await.unwrap();
    let Drawn::Granted(granted) = drawn else { panic!("{drawn:?}") };
    *granted
}

fn spent(requests: u64) -> Spending {
    Spending {
        cost: Cost::from_picos(u128::from(requests) * 1_500_000),
        requests,
        ..Spending::default()
    }
}

fn report(draw: &Draw, sequence: u64, covered: u64, returned: u64) -> Report {
    let settlement = Settlement {
        sequence,
        covered: requests(covered),
        returned: requests(returned),
        spent: spent(covered),
        managed: spent(covered / 2),
    };
    Report { id: draw.id, holder: draw.holder.clone(), settlement, at: draw.at }
}

async fn reported(store: &dyn Store, report: Report) -> Reported {
    store.report(vec![report]).await.unwrap().pop().unwrap()
}

async fn figures(store: &dyn Store, budget: &Budget, now: Timestamp) -> (u64, u64, u64) {
    let window = budget.period.window(now).start;
    let accounts = store.accounts(budget.id, window).await.unwrap();
    let (_, account) = accounts.iter().find(|(key, _)| key.unit == Unit::Requests).unwrap();
    (account.spent.rounded_up(), account.reserved, account.unknown)
}

/// The records that sweeping until nothing is due appends.
pub(crate) async fn swept(store: &dyn Store, now: Timestamp) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let swept = store.sweep(uid(8), Some(now)).await.unwrap();
        records.extend(swept.entries.iter().map(|entry| entry.record().unwrap()));
        if !swept.more {
            return records;
        }
    }
}

fn kinds(records: &[Record]) -> Vec<Kind> {
    records.iter().map(Record::kind).collect()
}

pub(crate) async fn a_budget_reads_back_as_written_and_changes_by_its_revision(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let limits = [(Unit::Money, 5_000_000), (Unit::Requests, 7)];
    let zone = "Europe/Lisbon".parse().unwrap();
    let mut monthly = row("monthly", budget(3, Period::Month(zone), &limits));
    let key = "aaaabbbbccccdddd".parse().unwrap();
    let keys = row(
        "keys",
        Budget {
            holder: BudgetHolder::VirtualKey(key),
            mode: Mode::Shadow,
            ..budget(4, Period::Total, &limits[..1])
        },
    );
    for row in [&monthly, &keys] {
        store.apply(&Change::CreateBudget(row.clone()), &changed()).await.unwrap();
    }
    assert_eq!(store.budget(&acme.id, &monthly.id).await.unwrap().as_ref(), Some(&monthly));
    let page = Page { after: "", limit: 9 };
    assert_eq!(store.budgets(&acme.id, page).await.unwrap(), [keys.clone(), monthly.clone()]);
    let again = store.apply(&Change::CreateBudget(monthly.clone()), &changed()).await;
    assert!(
        matches!(again, Err(StoreError::Exists(name)) if name == "tenants/acme/budgets/monthly")
    );

    let drawn = draw(1, &[monthly.budget.clone()], requests(5), at(100));
    granted(&*store, &drawn).await;
    (monthly.revision, monthly.budget.limits[1].cap) = (2, 3);
    store.apply(&Change::UpdateBudget(monthly.clone()), &changed()).await.unwrap();
    assert_eq!(store.budget(&acme.id, &monthly.id).await.unwrap().as_ref(), Some(&monthly));
    assert_eq!(figures(&*store, &monthly.budget, at(100)).await, (0, 5, 0));
    // Who has not heard of the new cap reserves nothing by the old one.
    let old = draw(2, &[monthly.budget.clone()], requests(1), at(100));
    assert!(matches!(store.draw(&old).await.unwrap(), Drawn::Stale));
    let mut new = old.clone();
    new.budgets[0].revision = 2;
    assert!(
        matches!(store.draw(&new).await.unwrap(), Drawn::Exhausted(it) if (it.cap, it.left) == (3, 0))
    );

    let refused = store.apply(&Change::DeleteBudget(monthly.clone()), &changed()).await;
    assert!(matches!(refused, Err(StoreError::Changed(_))));
    monthly.revision = 3;
    store.apply(&Change::DeleteBudget(monthly.clone()), &changed()).await.unwrap();
    assert_eq!(store.budget(&acme.id, &monthly.id).await.unwrap(), None);
    let window = monthly.budget.period.window(at(100)).start;
    assert_eq!(store.accounts(monthly.budget.id, window).await.unwrap(), []);
    // What was held of it is settled, and holds nothing.
    assert_eq!(reported(&*store, report(&drawn, 1, 2, 3)).await, Reported::Settled(Settled::Now));
}

pub(crate) async fn an_allowance_is_reserved_in_all_of_its_budgets_or_in_none(place: &Place) {
    let store = place.open().await;
    let wide = budget(3, Period::Total, &[(Unit::Requests, 100)]);
    let narrow = budget(4, Period::Total, &[(Unit::Requests, 6), (Unit::Concurrent, 1)]);
    let both = [wide.clone(), narrow.clone()];
    let first = granted(&*store, &draw(1, &both, requests(4), at(1))).await;
    assert_eq!(first.granted, requests(4));
    assert_eq!(first.accounts.len(), 3);
    assert_eq!(first.expires_at, at(301));
    let refused = store.draw(&draw(2, &both, requests(3), at(1))).await.unwrap();
    let Drawn::Exhausted(limit) = refused else { panic!("{refused:?}") };
    assert_eq!(
        (limit.budget, limit.unit, limit.cap, limit.left),
        (narrow.id, Unit::Requests, 6, 2)
    );
    assert_eq!(figures(&*store, &wide, at(1)).await, (0, 4, 0));
    // A lost answer is asked for again, and another's id is nobody else's.
    let again = granted(&*store, &draw(1, &both, requests(4), at(2))).await;
    assert_eq!((again.granted, again.expires_at), (first.granted, first.expires_at));
    let foreign =
        Draw { holder: "spiffe://a.b/else".to_owned(), ..draw(1, &both, requests(1), at(2)) };
    assert!(matches!(store.draw(&foreign).await.unwrap(), Drawn::Taken));
    assert_eq!(figures(&*store, &wide, at(1)).await, (0, 4, 0));
}

pub(crate) async fn a_settlement_counts_once_and_contradicts_nothing(place: &Place) {
    let store = place.open().await;
    let total = budget(3, Period::Total, &[(Unit::Requests, 100), (Unit::Money, 1_000)]);
    let drawn = draw(1, std::slice::from_ref(&total), requests(10).with(Unit::Money, 100), at(1));
    granted(&*store, &drawn).await;
    for settled in [Settled::Now, Settled::Before] {
        assert_eq!(reported(&*store, report(&drawn, 1, 3, 0)).await, Reported::Settled(settled));
        assert_eq!(figures(&*store, &total, at(1)).await, (3, 7, 0));
    }
    let money = store.accounts(total.id, at(0).min(Timestamp::from_millis(0))).await.unwrap();
    // The cost was not covered: it takes what room there is, to the millionth of a micro-USD.
    let (_, money) = money.iter().find(|(key, _)| key.unit == Unit::Money).unwrap();
    assert_eq!((money.spent.rounded_up(), money.reserved), (5, 100));
    for wrong in [report(&drawn, 2, 2, 0), report(&drawn, 2, 3, 8)] {
        assert_eq!(reported(&*store, wrong).await, Reported::Contradiction);
    }
    let foreign = Report { holder: "spiffe://a.b/else".to_owned(), ..report(&drawn, 2, 4, 0) };
    assert_eq!(reported(&*store, foreign).await, Reported::NoSuchAllowance);
    let nobodys = report(&draw(9, &[], requests(1), at(1)), 1, 1, 0);
    let both = store.report(vec![nobodys, report(&drawn, 2, 5, 5)]).await.unwrap();
    assert_eq!(both, [Reported::NoSuchAllowance, Reported::Settled(Settled::Now)]);
    assert_eq!(figures(&*store, &total, at(1)).await, (5, 0, 0));
}

pub(crate) async fn only_an_attempt_that_nobody_heard_of_is_undone(place: &Place) {
    let store = place.open().await;
    let total = budget(3, Period::Total, &[(Unit::Requests, 10)]);
    let kept = draw(1, std::slice::from_ref(&total), requests(2), at(1));
    let lost = draw(2, std::slice::from_ref(&total), requests(3), at(1));
    granted(&*store, &kept).await;
    granted(&*store, &lost).await;
    // Asked for again by another attempt: that one's undoing leaves it.
    granted(&*store, &Draw { attempt: uid(2), ..kept.clone() }).await;
    store.undo(kept.id, uid(2));
    store.undo(lost.id, lost.attempt);
    assert_eq!(reported(&*store, report(&kept, 1, 1, 0)).await, Reported::Settled(Settled::Now));
    store.undo(kept.id, kept.attempt);
    assert_eq!(reported(&*store, report(&lost, 1, 1, 0)).await, Reported::NoSuchAllowance);
    assert_eq!(figures(&*store, &total, at(1)).await, (1, 1, 0));
    granted(&*store, &lost).await;
    assert_eq!(figures(&*store, &total, at(1)).await, (1, 4, 0));
    // Undone and asked for again at once, it is another.
    let again = Draw { attempt: uid(3), need: requests(2), wanted: requests(2), ..lost.clone() };
    store.undo(lost.id, lost.attempt);
    assert_eq!(granted(&*store, &again).await.granted, requests(2));
    assert_eq!(figures(&*store, &total, at(1)).await, (1, 3, 0));
    store.undo(again.id, again.attempt);
    assert_eq!(reported(&*store, report(&again, 1, 1, 0)).await, Reported::NoSuchAllowance);
    assert_eq!(figures(&*store, &total, at(1)).await, (1, 1, 0));
}

pub(crate) async fn what_expires_is_unknown_until_it_is_reconciled(place: &Place) {
    let store = place.open().await;
    acme(&*store).await;
    let total = budget(3, Period::Total, &[(Unit::Requests, 10), (Unit::Concurrent, 4)]);
    let need = requests(6).with(Unit::Concurrent, 2);
    let (dead, late) = (
        draw(1, std::slice::from_ref(&total), need, at(1)),
        draw(2, std::slice::from_ref(&total), requests(3), at(1)),
    );
    granted(&*store, &dead).await;
    granted(&*store, &late).await;
    assert_eq!(reported(&*store, report(&dead, 1, 1, 0)).await, Reported::Settled(Settled::Now));
    assert_eq!(swept(&*store, at(300)).await, []);
    let records = swept(&*store, at(301)).await;
    assert_eq!(kinds(&records), [Kind::AllowanceExpired; 2]);
    assert_eq!(figures(&*store, &total, at(1)).await, (1, 0, 8));
    let unknown =
        records.iter().find(|it| it.allowance_id == dead.id.as_bytes().as_slice()).unwrap();
    let amounts = unknown.amounts.unwrap();
    assert_eq!(
        (amounts.requests, amounts.concurrent, unknown.virtual_key.as_str()),
        (5, 0, "aaaabbbbccccdddd")
    );

    // Late is not lost.
    assert_eq!(reported(&*store, report(&late, 1, 2, 1)).await, Reported::Settled(Settled::Now));
    let listed = store.unknown_allowances(&dead.tenant, None, 9).await.unwrap();
    assert_eq!(listed.iter().map(|row| row.id).collect::<Vec<_>>(), [dead.id]);
    assert_eq!(listed[0].reservation.state, ReservationState::Unknown);
    assert!(store.unknown_allowances(&dead.tenant, Some(dead.id), 9).await.unwrap().is_empty());

    let open = draw(5, std::slice::from_ref(&total), requests(1), at(400));
    granted(&*store, &open).await;
    let ids = [dead.id, open.id, uid(77)];
    let record = Record { request_id: "r-9".to_owned(), ..Record::default() };
    let reconcile = |tenant: &str| Reconcile {
        tenant: tenant.parse().unwrap(),
        found: ids.map(|id| Found { id, spent: spent(4), managed: spent(3) }).to_vec(),
        record: record.clone(),
        at: Some(at(400)),
    };
    let foreign = store.reconcile(reconcile("umbrella")).await.unwrap();
    assert_eq!(foreign, [Reconciled::NoSuchAllowance; 3]);
    let size = store.head().await.unwrap().frontier.size();
    let done = store.reconcile(reconcile("acme")).await.unwrap();
    assert_eq!(
        done,
        [Reconciled::Settled(Settled::Now), Reconciled::Open, Reconciled::NoSuchAllowance]
    );
    let records = store.records(size, 9, None).await.unwrap();
    let record = records[0].record().unwrap();
    assert_eq!(
        (records.len(), record.kind(), record.request_id.as_str()),
        (1, Kind::AllowanceReconciled, "r-9")
    );
    assert_eq!(record.spent.unwrap().micro_usd, 6);
    assert_eq!(figures(&*store, &total, at(1)).await, (7, 1, 0));
    let account = account(&*store, &total, Unit::Requests).await;
    assert_eq!(account.managed.rounded_up(), 3 + 1, "of what was reconciled, and of the late one");
    let again = store.reconcile(reconcile("acme")).await.unwrap();
    assert_eq!(again[0], Reconciled::Settled(Settled::Before));
}

async fn account(store: &dyn Store, budget: &Budget, unit: Unit) -> domain::Account {
    let window = budget.period.window(at(1)).start;
    let accounts = store.accounts(budget.id, window).await.unwrap();
    accounts.into_iter().find(|(key, _)| key.unit == unit).unwrap().1
}

pub(crate) async fn managed_spend_is_a_part_of_what_was_spent(place: &Place) {
    let store = place.open().await;
    acme(&*store).await;
    let rolling = Period::Rolling(std::time::Duration::from_hours(1));
    let limits = [(Unit::Requests, 100), (Unit::Money, 100)];
    let budgets = [budget(3, Period::Total, &limits), budget(4, rolling, &limits)];
    let drawn = draw(1, &budgets, requests(10).with(Unit::Money, 20), at(1));
    granted(&*store, &drawn).await;
    let told = report(&drawn, 1, 7, 0);
    let more = Settlement { managed: spent(8), ..told.settlement };
    let wrong = Report { settlement: more, ..told.clone() };
    assert_eq!(reported(&*store, wrong).await, Reported::Contradiction);
    assert_eq!(reported(&*store, told).await, Reported::Settled(Settled::Now));
    for budget in &budgets {
        let money = account(&*store, budget, Unit::Money).await;
        // To the millionth of a micro-USD.
        assert_eq!((money.spent.parts(), money.managed.parts()), ((11, 0), (4, 500_000)));
        let requests = account(&*store, budget, Unit::Requests).await;
        assert_eq!((requests.spent.parts(), requests.managed.parts()), ((7, 0), (3, 0)));
    }
    // What has left a rolling window has left both.
    let later = at(2 * 3600);
    granted(&*store, &draw(2, &budgets[1..], requests(1), later)).await;
    let requests = account(&*store, &budgets[1], Unit::Requests).await;
    assert_eq!((requests.spent.parts(), requests.managed.parts()), ((0, 0), (0, 0)));
}

pub(crate) async fn a_shadow_says_once_that_a_hard_budget_would_have_refused(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let rolling = Period::Rolling(std::time::Duration::from_mins(1));
    let shadow =
        Budget { mode: Mode::Shadow, alerts: vec![], ..budget(3, rolling, &[(Unit::Requests, 3)]) };
    store.apply(&Change::CreateBudget(row("ten", shadow.clone())), &changed()).await.unwrap();
    let one = std::slice::from_ref(&shadow);
    let fits = granted(&*store, &draw(1, one, requests(3), at(1))).await;
    assert_eq!(fits.over, []);
    assert_eq!(swept(&*store, at(1)).await, []);
    for number in [2, 3] {
        let wish = draw(number, one, requests(2), at(1));
        let over = granted(&*store, &wish).await;
        assert_eq!((over.granted, over.over.len()), (requests(2), 1));
        // A lost answer is asked for again, and is not another refusal.
        assert_eq!(granted(&*store, &wish).await.over, []);
        let settled = reported(&*store, report(&wish, 1, 2, 0)).await;
        assert_eq!(settled, Reported::Settled(Settled::Now));
    }
    let over = account(&*store, &shadow, Unit::Requests).await.over;
    assert_eq!((over.reservations, over.calls, over.spent.parts()), (2, 4, (4, 0)));
    let told = |records: Vec<Record>| {
        let told = |it: &Record| it.kind() == Kind::BudgetWouldRefuse;
        let told: Vec<Record> = records.into_iter().filter(told).collect();
        told.into_iter().map(|it| (it.tenant, it.budget, it.unit)).collect::<Vec<_>>()
    };
    let expected = (acme.id.to_string(), "ten".to_owned(), 2);
    assert_eq!(told(swept(&*store, at(2)).await), std::slice::from_ref(&expected));
    // Once, until what was over has left the window.
    granted(&*store, &draw(4, one, requests(2), at(3))).await;
    assert_eq!(told(swept(&*store, at(3)).await), []);
    granted(&*store, &draw(5, one, requests(9), at(600))).await;
    assert_eq!(told(swept(&*store, at(600)).await), [expected]);
}

pub(crate) async fn an_alert_is_raised_again_when_its_window_had_emptied(place: &Place) {
    let store = place.open().await;
    acme(&*store).await;
    let rolling = Period::Rolling(std::time::Duration::from_mins(1));
    let minute = budget(3, rolling, &[(Unit::Requests, 10)]);
    store.apply(&Change::CreateBudget(row("ten", minute.clone())), &changed()).await.unwrap();
    let one = std::slice::from_ref(&minute);
    // The second is drawn while the first counts, and settled when it does not any more.
    let calls = [draw(1, one, requests(5), at(1)), draw(2, one, requests(5), at(2))];
    for call in &calls {
        granted(&*store, call).await;
    }
    for (call, when) in calls.iter().zip([3, 200]) {
        let report = Report { at: Some(at(when)), ..report(call, 1, 5, 0) };
        assert_eq!(reported(&*store, report).await, Reported::Settled(Settled::Now));
        let records = swept(&*store, at(when)).await;
        let alerts = records.iter().filter(|it| it.kind() == Kind::BudgetAlert);
        assert_eq!(alerts.map(|it| it.percent).collect::<Vec<_>>(), [50]);
    }
}

pub(crate) async fn what_has_ended_is_recorded_once_and_then_forgotten(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let total = budget(3, Period::Total, &[(Unit::Requests, 10)]);
    store.apply(&Change::CreateBudget(row("ten", total.clone())), &changed()).await.unwrap();
    let drawn = draw(1, std::slice::from_ref(&total), requests(6), at(1));
    granted(&*store, &drawn).await;
    assert_eq!(reported(&*store, report(&drawn, 1, 6, 0)).await, Reported::Settled(Settled::Now));
    let now = store.now().await.unwrap();
    let records = swept(&*store, now).await;
    assert_eq!(kinds(&records), [Kind::AllowanceSettled, Kind::BudgetAlert]);
    assert_eq!(records[0].spent.unwrap().requests, 6);
    assert_eq!(
        (records[1].budget.as_str(), records[1].tenant.as_str(), records[1].percent),
        ("ten", acme.id.as_str(), 50)
    );
    assert_eq!(records[1].amounts.unwrap().requests, 10, "the cap");
    assert_eq!(records[1].broker, vec![8; 16]);
    assert_eq!(swept(&*store, now).await, []);
    // A repeated settlement is known as one for an hour.
    let again = reported(&*store, report(&drawn, 1, 6, 0)).await;
    assert_eq!(again, Reported::Settled(Settled::Before));
    assert_eq!(swept(&*store, now + std::time::Duration::from_mins(61)).await, []);
    assert_eq!(reported(&*store, report(&drawn, 1, 6, 0)).await, Reported::NoSuchAllowance);
    assert_eq!(figures(&*store, &total, at(1)).await, (6, 0, 0));
}

pub(crate) async fn a_race_for_a_cap_gives_out_all_of_it_and_no_more(place: &Place) {
    const CAP: u64 = 300;
    let stores: Vec<Arc<dyn Store>> = match place {
        // One process at a time opens a file.
        Place::File(_) => vec![place.open().await],
        Place::Server(_) => vec![place.open().await, place.open().await],
    };
    let total = budget(3, Period::Total, &[(Unit::Requests, CAP)]);
    let month = budget(2, Period::Month("UTC".parse().unwrap()), &[(Unit::Requests, CAP * 2)]);
    let mut racing = JoinSet::new();
    for racer in 0..32_u64 {
        let store = Arc::clone(&stores[usize::try_from(racer).unwrap() % stores.len()]);
        let budgets = [total.clone(), month.clone()];
        racing.spawn(async move {
            let mut got = 0;
            for turn in 0.. {
                let wish = Draw {
                    wanted: requests(40),
                    ..draw(racer * 10_000 + turn, &budgets, requests(1), at(1))
                };
                let drawn = store.draw(&wish).await.unwrap();
                if matches!(drawn, Drawn::Exhausted(_)) {
                    break;
                }
                let Drawn::Granted(granted) = drawn else { panic!("{drawn:?}") };
                let count = granted.granted.of(Unit::Requests);
                got += count;
                let settled = reported(&*store, report(&wish, 1, count, 0)).await;
                assert_eq!(settled, Reported::Settled(Settled::Now));
            }
            got
        });
    }
    let got: u64 = racing.join_all().await.into_iter().sum();
    assert_eq!(got, CAP);
    for budget in [&total, &month] {
        assert_eq!(figures(&*stores[0], budget, at(1)).await, (CAP, 0, 0));
    }
}

/// All accounts as they are when rolling windows have moved on, without what was said of them.
pub(crate) fn settled_accounts(
    accounts: impl IntoIterator<Item = (AccountKey, domain::Account)>,
    now: Timestamp,
) -> Vec<(AccountKey, domain::Account)> {
    let rolled = accounts.into_iter().map(|(key, mut account)| {
        account.roll(now);
        account.alerted = 0;
        (key, account)
    });
    let mut rolled: Vec<_> = rolled.collect();
    rolled.sort_by_key(|(key, _)| *key);
    rolled
}
