use std::{net::SocketAddr, time::Duration};

use audit::{Kind, proto_time};
use domain::{Clock as _, SystemClock};
use e2e::{Application, Backing, Deployment};
use strongroom_proto::v1::VirtualKey;
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};

use crate::{furnish, on_both_stacks};

on_both_stacks![
    a_caller_that_goes_away_is_settled_when_its_answer_is_read_on,
    a_caller_that_is_refused_and_calls_on_leaves_few_records,
    an_outcome_that_nobody_knows_is_spent_until_somebody_reconciles,
    calls_under_way_are_limited_over_two_proxies,
    calls_and_tokens_a_minute_are_limited_over_two_proxies,
    two_proxies_spend_a_budget_to_its_end_and_no_further,
];

/// What each chat takes, in tokens and in micro-USD: 1,000 at 0.15 and 10 at 0.6.
const TOOK: (u64, u64) = (1000, 10);
const COST: u64 = 156;

/// A deployment with a second proxy, which breaks off answers whose callers go away.
async fn two_proxies(deployment: &mut Deployment) -> [SocketAddr; 2] {
    furnish(deployment).await;
    deployment.upstream().take(TOOK.0, TOOK.1);
    let other = deployment.start_proxy("[metering]\non_disconnect = \"cancel\"").await;
    [deployment.proxy(), other]
}

/// A key that ends soon, and its allowances with it.
async fn key_for_a_while(deployment: &Deployment) -> String {
    let expire_time = Some(proto_time(SystemClock.now() + Duration::from_secs(10)));
    let terms = VirtualKey { expire_time, ..VirtualKey::default() };
    deployment.create_key_as("acme", terms).await.0
}

async fn two_proxies_spend_a_budget_to_its_end_and_no_further(mut deployment: Deployment) {
    let proxies = two_proxies(&mut deployment).await;
    spend_all(&deployment, &proxies).await;
    deployment.end().await;
}

/// `PostgreSQL`, two brokers, and a proxy at each, with a third at one of them.
#[tokio::test(flavor = "multi_thread")]
async fn proxies_of_two_brokers_spend_a_budget_to_its_end_and_no_further() {
    if !Backing::Scaled.is_available() {
        return eprintln!("not tested on this stack: run tests/run");
    }
    let mut deployment = Deployment::start(Backing::Scaled).await;
    let [one, other] = two_proxies(&mut deployment).await;
    let beside = deployment.start_beside().await;
    spend_all(&deployment, &[one, other, beside]).await;
    deployment.end().await;
}

/// Callers at all proxies race for one budget, with streams and without.
async fn spend_all(deployment: &Deployment, proxies: &[SocketAddr]) {
    const CAP: u64 = 20_000;
    let budget = deployment.create_budget("acme", CAP).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    let mut callers = JoinSet::new();
    for (number, proxy) in (0..9).zip(proxies.iter().copied().cycle()) {
        let key = key.clone();
        callers.spawn(async move {
            while Application::ask(proxy, &key, number % 4 < 2).await.status().await == 200 {}
        });
    }
    callers.join_all().await;
    // Who was refused while others held the rest may come back for it.
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let account = deployment.account_when(&budget, |it| it.reserved == 0).await;
        if account.spent * 100 >= CAP * 99 {
            break;
        }
        assert!(Instant::now() < deadline, "{account:?} is all that can be used");
        for proxy in proxies {
            Application::ask(*proxy, &key, true).await.status().await;
        }
    }
    let account = deployment.account(&budget).await;
    let charged = u64::try_from(deployment.upstream().seen().len()).unwrap() * COST;
    assert!(charged <= CAP && account.spent == charged, "{charged} of {account:?}");
    assert_eq!((account.unknown, account.overrun), (0, 0), "{account:?}");
}

async fn a_caller_that_goes_away_is_settled_when_its_answer_is_read_on(mut deployment: Deployment) {
    let [drains, _] = two_proxies(&mut deployment).await;
    let budget = deployment.create_budget("acme", 1_000_000).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    deployment.upstream().hold_streams();
    let mut gone = Application::ask(drains, &key, true).await;
    assert!(gone.hears("Hello").await);
    drop(gone);
    deployment.upstream().release_streams();
    let settled = deployment.account_when(&budget, |it| it.reserved == 0 && it.spent > 0).await;
    assert_eq!((settled.spent, settled.unknown), (COST, 0));
    deployment.end().await;
}

async fn an_outcome_that_nobody_knows_is_spent_until_somebody_reconciles(
    mut deployment: Deployment,
) {
    let [cut, cancels] = two_proxies(&mut deployment).await;
    let budget = deployment.create_budget("acme", 1_000_000).await;
    let key = key_for_a_while(&deployment).await;
    assert_eq!(Application::ask(cut, &key, true).await.status().await, 200);
    deployment.upstream().hold_streams();
    let mut gone = Application::ask(cancels, &key, true).await;
    assert!(gone.hears("Hello").await);
    drop(gone);
    let mut broken = Application::ask(cut, &key, true).await;
    assert!(broken.hears("Hello").await);
    // The one whose caller is gone has ended before: its connection upstream is closed.
    deployment.upstream().cut_streams();
    assert!(!broken.hears("[DONE]").await);

    // Until the allowances end they may yet spend it; then it counts until it is known better.
    let lost = deployment.account_when(&budget, |it| it.reserved == 0 && it.unknown > 0).await;
    assert_eq!(lost.spent, COST);
    assert!((2 * COST..500).contains(&lost.unknown), "{lost:?}");
    deployment.reconcile("acme", 2 * COST).await;
    let known = deployment.account(&budget).await;
    assert_eq!((known.spent, known.unknown, known.reserved), (3 * COST, 0, 0));
    deployment.end().await;
}

async fn a_caller_that_is_refused_and_calls_on_leaves_few_records(mut deployment: Deployment) {
    let [proxy, _] = two_proxies(&mut deployment).await;
    deployment.create_budget("acme", 1).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    let began = Instant::now();
    for _ in 0..60 {
        assert_eq!(Application::ask(proxy, &key, false).await.status().await, 402);
    }
    let most = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert_eq!(deployment.upstream().seen(), []);
    let export = deployment.end().await;
    let refused = export.records().into_iter().filter(|it| it.kind() == Kind::Refused).count();
    assert!((1..=most).contains(&refused), "{refused} records, {most} at the most");
}

async fn calls_and_tokens_a_minute_are_limited_over_two_proxies(mut deployment: Deployment) {
    let proxies = two_proxies(&mut deployment).await;
    let calls = VirtualKey { requests_per_minute: 20, ..VirtualKey::default() };
    let tokens = VirtualKey { tokens_per_minute: 10_000, ..VirtualKey::default() };
    // Each call needs 1,150 tokens or so, and takes 1,010 of them.
    for (terms, least, most) in [(calls, 15, 20), (tokens, 7, 9)] {
        let (key, _) = deployment.create_key_as("acme", terms).await;
        let (began, before) = (Instant::now(), deployment.upstream().seen().len());
        let mut callers = JoinSet::new();
        for (number, proxy) in (0..60).zip(proxies.into_iter().cycle()) {
            let key = key.clone();
            callers.spawn(async move {
                Application::ask(proxy, &key, number % 3 == 0).await.answer().await
            });
        }
        let answers = callers.join_all().await;
        assert!(began.elapsed() < Duration::from_mins(1), "the first minute is over");
        let passed = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
        assert_eq!(deployment.upstream().seen().len() - before, passed);
        assert!((least..=most).contains(&passed), "{passed} of {least} to {most}");
        for refused in answers.iter().filter(|answer| !answer.starts_with("HTTP/1.1 200")) {
            assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
            assert!(refused.contains("x-ratelimit-remaining-"), "{refused}");
        }
    }
    deployment.end().await;
}

async fn calls_under_way_are_limited_over_two_proxies(mut deployment: Deployment) {
    const MOST: usize = 3;
    let proxies = two_proxies(&mut deployment).await;
    let terms = VirtualKey { concurrent: 3, ..VirtualKey::default() };
    let (key, _) = deployment.create_key_as("acme", terms).await;
    deployment.upstream().hold_streams();
    let mut under_way = Vec::new();
    let mut looks = interval(Duration::from_millis(50));
    for proxy in proxies.into_iter().cycle() {
        let mut call = Application::ask(proxy, &key, true).await;
        if call.hears("Hello").await {
            under_way.push(call);
            continue;
        }
        let refused = call.answer().await;
        assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
        assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
        if under_way.len() == MOST {
            break;
        }
        looks.tick().await;
    }
    assert_eq!(deployment.upstream().seen().len(), MOST);
    deployment.upstream().release_streams();
    for call in under_way {
        assert_eq!(call.status().await, 200);
    }
    // There is room again, for either proxy.
    for proxy in proxies {
        while Application::ask(proxy, &key, false).await.status().await != 200 {
            looks.tick().await;
        }
    }
    deployment.end().await;
}
