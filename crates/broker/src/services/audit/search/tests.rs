use audit::{Kind, Reason, RecordDraft, proto_time};
use store::{Pending, SqliteStore};
use strongroom_proto::v1;

use super::*;

/// Records by `kind` and provider; every tenth is by another provider.
async fn log(size: u64) -> SqliteStore {
    let store = SqliteStore::in_memory().await.unwrap();
    let records: Vec<Pending> = (0..size).map(record).map(pending).collect();
    for batch in records.chunks(4096) {
        store.append(batch).await.unwrap();
    }
    store
}

fn record(place: u64) -> Record {
    Record {
        kind: Kind::Refused.into(),
        reason: Reason::NotPermitted.into(),
        provider: if place.is_multiple_of(10) { "anthropic" } else { "openai" }.into(),
        tenant: if place.is_multiple_of(2) { "even" } else { "odd" }.into(),
        lease_hash: if place % 100 < 2 { vec![7; 32] } else { vec![] }.into(),
        ..Record::default()
    }
}

fn pending(record: Record) -> Pending {
    Pending { record: RecordDraft::new(record).unwrap(), as_of: None, tenants: Vec::new() }
}

fn provider(name: &str) -> v1::RecordFilter {
    v1::RecordFilter { provider: name.into(), ..Default::default() }
}

/// All that is found, and in how many pages.
async fn all(store: &SqliteStore, asked: v1::RecordFilter, newest_first: bool) -> (Vec<u64>, u32) {
    let filter = RecordFilter::new(asked).unwrap();
    let size = store.head().await.unwrap().frontier.size();
    let search = Search { store, tenant: None, filter: &filter, first: 0, size };
    let (mut indexes, mut pages) = (Vec::new(), 0);
    let mut at = if newest_first { size } else { 0 };
    loop {
        let page = if newest_first {
            search.backwards(at, 100).await.unwrap()
        } else {
            search.forwards(at, 100).await.unwrap()
        };
        pages += 1;
        assert!(page.entries.len() <= 100);
        indexes.extend(page.entries.iter().map(|entry| entry.index));
        at = page.next;
        if at == if newest_first { 0 } else { size } {
            return (indexes, pages);
        }
    }
}

#[tokio::test]
async fn a_page_may_be_empty_although_there_is_more() {
    let size = u64::from(BUDGET) + 5000;
    let store = log(size).await;
    // One record that matches, at the very end, and one call does not look that far.
    let last = Record { provider: "mistral".into(), ..record(1) };
    store.append(&[pending(last)]).await.unwrap();
    assert_eq!(all(&store, provider("mistral"), false).await, (vec![size], 2));
    let (none, pages) = all(&store, provider("nobody"), true).await;
    assert_eq!((none.len(), pages), (0, 2));
}

#[tokio::test]
async fn both_ways_find_the_same_records_once() {
    let store = log(2500).await;
    let expected: Vec<u64> = (0..2500).step_by(10).collect();
    let (found, _) = all(&store, provider("anthropic"), false).await;
    assert_eq!(found, expected);
    let (mut found, _) = all(&store, provider("anthropic"), true).await;
    found.reverse();
    assert_eq!(found, expected);
    let (mut everything, _) = all(&store, v1::RecordFilter::default(), true).await;
    everything.reverse();
    assert_eq!(everything, (0..2500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lease_is_found_by_its_index_in_pages() {
    let store = log(20_000).await;
    let asked = v1::RecordFilter { lease_hash: vec![7; 32].into(), ..Default::default() };
    let expected: Vec<u64> = (0..20_000).filter(|place| place % 100 < 2).collect();
    let (found, pages) = all(&store, asked.clone(), false).await;
    assert_eq!((found, pages), (expected.clone(), 4));
    let (mut found, pages) = all(&store, asked.clone(), true).await;
    found.reverse();
    assert_eq!((found, pages), (expected, 4));

    // Another tenant's part of it is not shown.
    let (filter, odd) = (RecordFilter::new(asked).unwrap(), "odd".parse().unwrap());
    let search =
        Search { store: &store, tenant: Some(&odd), filter: &filter, first: 0, size: 20_000 };
    let found = search.forwards(0, 4096).await.unwrap();
    assert!(found.entries.iter().all(|entry| entry.index % 2 == 1));
    assert_eq!(found.entries.len(), 200);
}

#[tokio::test]
async fn times_are_found_by_halving() {
    let store = SqliteStore::in_memory().await.unwrap();
    let mut times = Vec::new();
    for place in 0..40 {
        store.append(&[pending(record(place)), pending(record(place))]).await.unwrap();
        let entry = store.records(place * 2, 1, None).await.unwrap().remove(0);
        times.push(time(&entry.record().unwrap()).unwrap());
        tokio::task::yield_now().await;
    }
    let (start, end) = (times[11], times[30]);
    let expected: Vec<u64> = (0..80)
        .filter(|index| {
            let at = times[usize::try_from(index / 2).unwrap()];
            at >= start && at < end
        })
        .collect();
    let asked = v1::RecordFilter {
        start_time: Some(proto_time(start)),
        end_time: Some(proto_time(end)),
        ..Default::default()
    };
    let (found, _) = all(&store, asked.clone(), false).await;
    assert_eq!(found, expected);
    let (mut found, _) = all(&store, asked, true).await;
    found.reverse();
    assert_eq!(found, expected);
}
