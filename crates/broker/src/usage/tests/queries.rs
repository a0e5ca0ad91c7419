use strongroom_proto::v1::query_usage_request::{Dimension, Order, Per};

use super::*;

pub(super) fn reader() -> Caller {
    caller("reader", "Usage/QueryUsage")
}

/// All of `acme` in the day before.
pub(super) fn question() -> v1::QueryUsageRequest {
    v1::QueryUsageRequest {
        parent: "tenants/acme".into(),
        start_time: Some(proto_time(Timestamp::from_millis(NOW - 24 * 60 * 60 * 1000))),
        ..Default::default()
    }
}

async fn ask(
    fixture: &Fixture,
    request: v1::QueryUsageRequest,
) -> Result<Vec<v1::UsageSum>, Refused> {
    fixture.core.query_usage(&reader(), &request).await.map(|answer| answer.sums)
}

fn of(id: u8, change: impl Fn(&mut v1::UsageRecord)) -> v1::UsageRecord {
    let mut record = record(id);
    change(&mut record);
    record
}

#[tokio::test]
async fn costs_add_up_exactly_and_what_is_unknown_is_not_nothing() {
    let fixture = Fixture::new().await;
    let unknown = of(3, |it| {
        it.cost_known = false;
        it.usage_known = false;
        it.cost_micro_usd = 0;
        it.cost_millionths = 7;
    });
    fixture.count(&[record(1), record(2), unknown]).await;
    let sums = ask(&fixture, question()).await.unwrap();
    let [sum] = sums.as_slice() else { panic!("{sums:?}") };
    assert_eq!((sum.calls, sum.cost_micro_usd, sum.cost_millionths), (3, 3, 7));
    assert_eq!((sum.calls_of_unknown_cost, sum.calls_of_unknown_usage), (1, 1));
    assert_eq!(sum.tokens.map(|it| (it.input, it.output)), Some((30, 15)));
    assert_eq!(sum.latency.map(|it| it.seconds), Some(2));
    assert_eq!((sum.period_start, &*sum.model, sum.source), (None, "", 0));
}

#[tokio::test]
async fn sums_are_told_apart_and_the_largest_comes_first() {
    let fixture = Fixture::new().await;
    let yesterday = proto_time(Timestamp::from_millis(NOW - 23 * 60 * 60 * 1000));
    let records = [
        of(1, |it| it.model = "small".into()),
        of(2, |it| it.model = "large".into()),
        of(3, |it| it.model = "large".into()),
        of(4, |it| {
            it.source = v1::Source::Managed.into();
            it.credential = "tenants/platform/credentials/openai".into();
            it.start_time = Some(yesterday);
        }),
    ];
    fixture.count(&records).await;
    let by =
        |dimension: Dimension| v1::QueryUsageRequest { by: vec![dimension.into()], ..question() };
    let models = ask(&fixture, by(Dimension::Model)).await.unwrap();
    let names: Vec<_> = models.iter().map(|it| (&*it.model, it.calls)).collect();
    assert_eq!(names, [("large", 2), ("gpt-4o", 1), ("small", 1)]);
    let top = v1::QueryUsageRequest { limit: 1, ..by(Dimension::Model) };
    assert_eq!(ask(&fixture, top).await.unwrap().len(), 1);
    let sources = ask(&fixture, by(Dimension::Source)).await.unwrap();
    let sources: Vec<_> = sources.iter().map(|it| (it.source(), it.calls)).collect();
    assert_eq!(sources, [(v1::Source::Byok, 3), (v1::Source::Managed, 1)]);
    let days = v1::QueryUsageRequest { per: Per::Day.into(), limit: 1, ..by(Dimension::Model) };
    let days = ask(&fixture, days).await.unwrap();
    let days: Vec<_> =
        days.iter().map(|it| (it.period_start.unwrap().seconds, &*it.model)).collect();
    // 2023-11-13 and 2023-11-14, UTC: one row of each.
    assert_eq!(days, [(1_699_833_600, "gpt-4o"), (1_699_920_000, "large")]);
    let filter = v1::UsageFilter { source: v1::Source::Managed.into(), ..Default::default() };
    let managed = v1::QueryUsageRequest { filter: Some(filter), ..question() };
    assert_eq!(ask(&fixture, managed).await.unwrap()[0].calls, 1);
    let by_calls = v1::QueryUsageRequest { order: Order::Calls.into(), ..by(Dimension::Model) };
    assert_eq!(ask(&fixture, by_calls).await.unwrap()[0].model, "large");
}

#[tokio::test]
async fn a_tenants_reader_sees_its_own_calls_and_no_one_elses() {
    let fixture = Fixture::new().await;
    let admin = caller("admin", "Leases/SettleUsage");
    let globex = of(2, |it| {
        it.tenant = "tenants/globex".into();
        it.virtual_key = String::new();
        it.credential = "tenants/globex/credentials/openai".into();
    });
    fixture.core.record_usage(&admin, &[record(1), globex]).await.unwrap();
    assert_eq!(ask(&fixture, question()).await.unwrap()[0].calls, 1);
    for parent in ["tenants/globex", "", "tenants/nobody", "acme"] {
        let request = v1::QueryUsageRequest { parent: parent.into(), ..question() };
        assert!(ask(&fixture, request).await.is_err(), "{parent}");
        let request = v1::ListCallsRequest { parent: parent.into(), ..Default::default() };
        let reader = caller("reader", "Usage/ListCalls");
        assert!(fixture.core.list_calls(&reader, &request).await.is_err(), "{parent}");
    }
    let all = v1::QueryUsageRequest {
        parent: String::new(),
        by: vec![Dimension::Tenant.into()],
        ..question()
    };
    let all = fixture.core.query_usage(&caller("admin", "Usage/QueryUsage"), &all).await.unwrap();
    let tenants: Vec<_> = all.sums.iter().map(|it| &*it.tenant).collect();
    assert_eq!(tenants, ["tenants/acme", "tenants/globex"]);
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_is_refused() {
    let fixture = Fixture::new().await;
    let wrong: Vec<&dyn Fn(&mut v1::QueryUsageRequest)> = vec![
        &|it| it.start_time = None,
        &|it| it.end_time = it.start_time,
        &|it| it.start_time = Some(prost_types::Timestamp { seconds: i64::MIN, nanos: 0 }),
        &|it| it.start_time = Some(prost_types::Timestamp::default()),
        &|it| it.by = vec![1, 2, 3, 4],
        &|it| it.by = vec![0],
        &|it| it.time_zone = "Mars/Olympus".into(),
        &|it| it.filter = Some(v1::UsageFilter { credential: "x".into(), ..Default::default() }),
        &|it| {
            it.per = Per::Hour.into();
            it.start_time = Some(proto_time(Timestamp::from_millis(NOW - 500 * 86_400_000)));
        },
    ];
    for (place, change) in wrong.iter().enumerate() {
        let mut request = question();
        change(&mut request);
        let refused = ask(&fixture, request).await.unwrap_err();
        assert!(matches!(refused.why, Why::InvalidField(_)), "{place}: {refused:?}");
    }
}

#[tokio::test]
async fn calls_are_listed_with_all_that_was_reported() {
    let fixture = Fixture::new().await;
    let records: Vec<_> = (1..=5).map(record).collect();
    fixture.count(&records).await;
    let reader = caller("reader", "Usage/ListCalls");
    let mut request =
        v1::ListCallsRequest { parent: "tenants/acme".into(), page_size: 2, ..Default::default() };
    let mut calls = Vec::new();
    loop {
        let page = fixture.core.list_calls(&reader, &request).await.unwrap();
        calls.extend(page.calls);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    calls.reverse();
    assert_eq!(calls, records);
    request.page_token = "x".into();
    assert!(fixture.core.list_calls(&reader, &request).await.is_err());
}
