use std::sync::Arc;

use audit::{Kind, Record};
use domain::{TenantId, Timestamp, Tokens, Uid};
use store::{
    CallQuery, Change, PriceRow, Store, StoreError, UsageBy, UsageFilter, UsageKey, UsageQuery,
    UsageRow, UsageSpent, UsageSum, quarter_of, quarter_start,
};

use crate::{
    given::{acme, draft},
    place::Place,
};

/// 2023-11-14T22:15:00Z: a quarter begins.
const START: i64 = 1_700_000_100_000;
const QUARTER: i64 = 15 * 60 * 1000;

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn call(id: u8, millis: i64, cost: (u64, u64)) -> UsageRow {
    UsageRow {
        id: Uid::from_bytes([id; 16]),
        tenant: tenant("acme"),
        started_at: Timestamp::from_millis(START + millis),
        with: UsageKey {
            virtual_key: "tenants/acme/virtualKeys/aaaaaaaaaaaaaaaa".to_owned(),
            credential: "tenants/acme/credentials/openai".to_owned(),
            provider: "openai".to_owned(),
            model: "gpt-4o".to_owned(),
            source: 1,
            outcome: 1,
            status: 200,
        },
        credential_version: 3,
        requested_model: "openai/gpt-4o".to_owned(),
        dialect: 1,
        endpoint: "chat".to_owned(),
        spent: UsageSpent {
            tokens: Tokens {
                input: 1,
                cache_read: 2,
                cache_write_5m: 3,
                cache_write_1h: 4,
                audio_input: 5,
                output: 6,
                reasoning: 7,
                audio_output: 8,
            },
            searches: 9,
            cost_micros: cost.0,
            cost_picos: cost.1,
        },
        usage_known: true,
        cost_known: true,
        cost_stated: false,
        price_version: "7-2".to_owned(),
        latency_millis: 100,
        first_token_millis: Some(40),
        lease_hash: vec![0xa5; 32],
        allowance_id: vec![],
        attempts: 1,
    }
}

/// All of the tenant's calls in one sum.
fn all() -> UsageQuery {
    let from = quarter_of(Timestamp::from_millis(START));
    UsageQuery {
        filter: UsageFilter { tenant: Some(tenant("acme")), ..UsageFilter::default() },
        from,
        until: from + 1000,
        origin: from,
        length: 1000,
        limit: 100,
        ..UsageQuery::default()
    }
}

async fn sum(store: &dyn Store) -> UsageSum {
    let mut sums = store.usage(&all()).await.unwrap();
    assert_eq!(sums.len(), 1, "{sums:?}");
    sums.remove(0)
}

pub(crate) async fn a_call_is_counted_once(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.count_usage(&[]).await.unwrap(), Vec::<bool>::new());
    let (one, two) = (call(1, 0, (1, 2)), call(2, 5, (3, 4)));
    // Twice in one batch, and again later.
    let counted = store.count_usage(&[one.clone(), two.clone(), one.clone()]).await.unwrap();
    assert_eq!(counted, [true, true, false]);
    store.close().await;
    let store = place.open().await;
    let three = call(3, 9, (0, 0));
    // The same id counts for nothing, whatever else it says.
    let other = UsageRow { tenant: tenant("globex"), ..one.clone() };
    assert_eq!(store.count_usage(&[two, three, other]).await.unwrap(), [false, true, false]);
    let sum = sum(&*store).await;
    assert_eq!((sum.calls, sum.spent.cost_micros, sum.spent.cost_picos), (3, 4, 6));
    assert_eq!(sum.spent.tokens.all(), 3 * 36);
    assert_eq!((sum.spent.searches, sum.latency_millis), (27, 300));
    assert_eq!((sum.first_token_millis, sum.first_tokens), (120, 3));
    assert_eq!((sum.usage_unknown, sum.cost_unknown), (0, 0));
}

pub(crate) async fn a_version_has_served_once_a_call_was_answered_well(place: &Place) {
    let store = place.open().await;
    let failed = call(1, 0, (0, 0));
    let failed = UsageRow { with: UsageKey { status: 401, ..failed.with.clone() }, ..failed };
    let other = UsageRow { credential_version: 4, ..call(2, 0, (0, 0)) };
    store.count_usage(&[failed, other]).await.unwrap();
    let name = "tenants/acme/credentials/openai".parse().unwrap();
    assert!(!store.has_served(&name, 3).await.unwrap());
    assert!(store.has_served(&name, 4).await.unwrap());
    store.count_usage(&[call(3, 0, (0, 0))]).await.unwrap();
    assert!(store.has_served(&name, 3).await.unwrap());
    let another = "tenants/globex/credentials/openai".parse().unwrap();
    assert!(!store.has_served(&another, 3).await.unwrap());
}

pub(crate) async fn sums_are_exact(place: &Place) {
    let store = place.open().await;
    // Parts of a micro-USD that make whole ones only together, in several rows and in one.
    let mut calls = Vec::new();
    for id in 0..200_u8 {
        let part = call(id, i64::from(id % 3) * QUARTER, (u64::from(id), 999_999));
        calls.push(UsageRow { cost_known: id != 7, usage_known: id > 9, ..part });
    }
    assert!(store.count_usage(&calls).await.unwrap().iter().all(|new| *new));
    let of_all = sum(&*store).await;
    let picos: u128 = (0..200_u128).map(|id| id * 1_000_000 + 999_999).sum();
    let cost = u128::from(of_all.spent.cost_micros) * 1_000_000;
    assert_eq!(cost + u128::from(of_all.spent.cost_picos), picos);
    assert_eq!((of_all.cost_unknown, of_all.usage_unknown), (1, 10));

    // Nearly as much as a column holds, twice: the sum is larger than a column.
    let most = u64::try_from(i64::MAX).unwrap() - 1_000_000;
    let dear = |id: u8, key: &str| {
        let call = call(id, 0, (most, 1));
        UsageRow { with: UsageKey { model: key.to_owned(), ..call.with.clone() }, ..call }
    };
    let before = of_all.spent.cost_micros;
    store.count_usage(&[dear(201, "a"), dear(202, "b")]).await.unwrap();
    assert_eq!(sum(&*store).await.spent.cost_micros, before + 2 * most);
}

pub(crate) async fn sums_are_told_apart_by_what_is_asked_for(place: &Place) {
    let store = place.open().await;
    let with = |id: u8, millis: i64, change: &dyn Fn(&mut UsageRow)| {
        let mut call = call(id, millis, (u64::from(id), 0));
        change(&mut call);
        call
    };
    let calls = [
        with(1, 0, &|_| {}),
        with(2, QUARTER, &|it| "gpt-5".clone_into(&mut it.with.model)),
        with(4, 2 * QUARTER, &|it| it.with.source = 2),
        with(8, 4 * QUARTER, &|it| it.with.status = 429),
        with(16, 4 * QUARTER - 1, &|it| "azure".clone_into(&mut it.with.provider)),
        with(32, 0, &|it| it.tenant = tenant("globex")),
        with(64, 0, &|it| it.with.outcome = 4),
    ];
    store.count_usage(&calls).await.unwrap();
    let costs = async |query: UsageQuery| -> Vec<u64> {
        let sums = store.usage(&query).await.unwrap();
        let mut costs: Vec<_> = sums.iter().map(|sum| sum.spent.cost_micros).collect();
        costs.sort_unstable();
        costs
    };
    assert_eq!(costs(all()).await, [95]);
    let by = |by: UsageBy| UsageQuery { by, ..all() };
    assert_eq!(costs(by(UsageBy { model: true, ..UsageBy::default() })).await, [2, 93]);
    assert_eq!(costs(by(UsageBy { source: true, ..UsageBy::default() })).await, [4, 91]);
    let two = UsageBy { source: true, model: true, ..UsageBy::default() };
    assert_eq!(costs(by(two)).await, [2, 4, 89]);
    assert_eq!(costs(by(UsageBy { status: true, ..UsageBy::default() })).await, [8, 87]);
    assert_eq!(costs(by(UsageBy { outcome: true, ..UsageBy::default() })).await, [31, 64]);
    let everyone = UsageQuery { filter: UsageFilter::default(), ..all() };
    assert_eq!(costs(everyone.clone()).await, [127]);
    let by_tenant = UsageQuery { by: UsageBy { tenant: true, ..UsageBy::default() }, ..everyone };
    assert_eq!(costs(by_tenant).await, [32, 95]);
    let only = |change: &dyn Fn(&mut UsageFilter)| {
        let mut query = all();
        change(&mut query.filter);
        query
    };
    assert_eq!(costs(only(&|it| it.model = Some("gpt-5".to_owned()))).await, [2]);
    assert_eq!(costs(only(&|it| it.provider = Some("azure".to_owned()))).await, [16]);
    assert_eq!(costs(only(&|it| it.status = Some(429))).await, [8]);
    assert_eq!(costs(only(&|it| it.outcome = Some(4))).await, [64]);
    assert_eq!(costs(only(&|it| it.source = Some(2))).await, [4]);
    assert_eq!(costs(only(&|it| it.virtual_key = Some("x".to_owned()))).await, [0; 0]);

    // Stretches of time: an hour each, from one quarter before the first.
    let hours = UsageQuery { origin: all().from - 1, length: 4, ..all() };
    let mut sums = store.usage(&hours).await.unwrap();
    sums.sort_by_key(|sum| sum.stretch);
    let stretches: Vec<_> = sums.iter().map(|it| (it.stretch, it.spent.cost_micros)).collect();
    assert_eq!(stretches, [(0, 71), (1, 24)]);
    let later = UsageQuery { from: all().from + 4, ..all() };
    assert_eq!(costs(later).await, [8]);
    assert_eq!(quarter_start(all().from), Timestamp::from_millis(START));
}

pub(crate) async fn calls_are_listed_the_latest_first(place: &Place) {
    let store = place.open().await;
    let calls: Vec<_> = (1..=9).map(|id| call(id, i64::from(id / 3), (1, 0))).collect();
    store.count_usage(&calls).await.unwrap();
    let query = CallQuery {
        filter: all().filter,
        until: Timestamp::from_millis(START + 1000),
        limit: 4,
        ..CallQuery::default()
    };
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = store.calls(&CallQuery { after, ..query.clone() }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.started_at, last.id));
        listed.extend(page);
    }
    let expected: Vec<_> = calls.into_iter().rev().collect();
    assert_eq!(listed, expected);
    let first = Timestamp::from_millis(START + 2);
    let late = store.calls(&CallQuery { from: first, ..query.clone() }).await.unwrap();
    assert_eq!(late.len(), 4);
    let filter = UsageFilter { status: Some(500), ..query.filter.clone() };
    assert_eq!(store.calls(&CallQuery { filter, ..query }).await.unwrap(), []);
}

pub(crate) async fn what_does_not_fit_is_refused_whole(place: &Place) {
    let store = place.open().await;
    let most = u64::try_from(i64::MAX).unwrap();
    store.count_usage(&[call(1, 0, (most, 0))]).await.unwrap();
    let refused = store.count_usage(&[call(2, 0, (1, 0)), call(3, QUARTER, (1, 0))]).await;
    assert!(matches!(refused, Err(StoreError::TooLarge)), "{refused:?}");
    // Neither is counted, and the store goes on.
    assert_eq!(sum(&*store).await.spent.cost_micros, most);
    assert_eq!(store.count_usage(&[call(3, QUARTER, (1, 0))]).await.unwrap(), [true]);
    assert_eq!(sum(&*store).await.calls, 2);
}

pub(crate) async fn calls_counted_at_once_by_two_brokers_are_all_in_the_sum(place: &Place) {
    let first = place.open().await;
    // One file is one broker's; its tasks stand for two.
    let second = match place {
        Place::File(_) => Arc::clone(&first),
        Place::Server(_) => place.open().await,
    };
    let mut tasks = tokio::task::JoinSet::new();
    for round in 0..8_u8 {
        let store = Arc::clone(if round % 2 == 0 { &first } else { &second });
        tasks.spawn(async move {
            // Each batch has half of the one before it, and keys in another order.
            let mut calls: Vec<_> = (round * 10..round * 10 + 20)
                .map(|id| call(id, i64::from(id % 4) * QUARTER, (1, 0)))
                .collect();
            if round % 2 == 0 {
                calls.reverse();
            }
            let counted = store.count_usage(&calls).await.unwrap();
            counted.iter().filter(|new| **new).count()
        });
    }
    let counted: usize = tasks.join_all().await.into_iter().sum();
    assert_eq!(counted, 90);
    let sum = sum(&*first).await;
    assert_eq!((sum.calls, sum.spent.cost_micros), (90, 90));
}

pub(crate) async fn what_is_old_is_forgotten(place: &Place) {
    let store = place.open().await;
    let calls: Vec<_> = (0..20).map(|id| call(id, i64::from(id) * QUARTER, (1, 0))).collect();
    store.count_usage(&calls).await.unwrap();
    let at = |quarters: i64| Timestamp::from_millis(START + quarters * QUARTER);
    let mut forgotten = 0;
    loop {
        match store.forget_usage(at(15), at(5)).await.unwrap() {
            0 => break,
            some => forgotten += some,
        }
    }
    assert_eq!(forgotten, 15 + 5);
    assert_eq!(sum(&*store).await.calls, 15);
    let query = CallQuery { until: at(100), limit: 100, ..CallQuery::default() };
    let kept = store.calls(&query).await.unwrap();
    assert_eq!((kept.len(), kept[4].started_at), (5, at(15)));
}

pub(crate) async fn prices_are_kept_as_they_were_put_in(place: &Place) {
    let store = place.open().await;
    acme(&*store).await;
    let row = |tenant: Option<&str>, revision, sha: u8| PriceRow {
        tenant: tenant.map(|name| name.parse().unwrap()),
        revision,
        sha256: [sha; 32],
        document: vec![sha, 0, 0xff],
        created_at: Timestamp::from_millis(START),
    };
    let record = |sha: u8| {
        let prices_sha256 = vec![sha; 32].into();
        draft(Record { kind: Kind::PricesChanged.into(), prices_sha256, ..Record::default() })
    };
    let put = async |row: PriceRow| {
        let sha = row.sha256[0];
        store.apply(&Change::SetPrices(row), &record(sha)).await
    };
    put(row(None, 1, 1)).await.unwrap();
    put(row(Some("acme"), 1, 2)).await.unwrap();
    put(row(None, 2, 3)).await.unwrap();
    // Two that decided on the same prices: the second is refused, and not on record.
    let refused = put(row(None, 2, 4)).await;
    assert!(matches!(refused, Err(StoreError::Exists(_))), "{refused:?}");
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.prices(&[3; 32]).await.unwrap(), Some(vec![3, 0, 0xff]));
    assert_eq!(store.prices(&[4; 32]).await.unwrap(), None);
    assert_eq!(store.changes_of_kind(Kind::PricesChanged).await.unwrap().len(), 3);
}
