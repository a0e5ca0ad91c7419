//! Several brokers on one `PostgreSQL`, and commits whose answer is lost.

use std::{collections::BTreeSet, sync::Arc};

use audit::timestamp;
use domain::Timestamp;
use store::{Appended, PostgresStore, Store, StoreError};
use tokio::task::JoinSet;

use crate::{
    given::{append, pending, refusal, revoked_of},
    log::check_tree,
    place::Place,
    postgres_only::behind_proxy,
    proxy::Cut,
};

#[tokio::test]
async fn three_brokers_at_once_leave_no_gap_and_number_nothing_twice() {
    let Some(place) = Place::server().await else { return };
    let mut writers = JoinSet::new();
    for broker in 0..3 {
        let store = place.open().await;
        for writer in 0..4 {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                let mut indexes = Vec::new();
                for round in 0..15 {
                    let name = format!("b{broker}-{writer}");
                    let mut batch = vec![refusal(&name); 1 + round % 4];
                    if round % 5 == 0 {
                        batch.push(revoked_of(&name, 1));
                    }
                    let appended = append(&*store, batch).await;
                    // A batch stands together, and after what this writer wrote before.
                    assert!(appended.windows(2).all(|pair| pair[0] + 1 == pair[1]));
                    assert!(indexes.last() < appended.first());
                    indexes.extend(appended);
                }
                indexes
            });
        }
    }
    let all: Vec<u64> = writers.join_all().await.into_iter().flatten().collect();
    let distinct: BTreeSet<u64> = all.iter().copied().collect();
    let size = u64::try_from(all.len()).unwrap();
    assert_eq!(distinct, (0..size).collect());
    let store = place.open().await;
    check_tree(&*store, size).await;
    check_times(&*store).await;
}

#[tokio::test]
async fn whatever_becomes_of_a_commit_the_writer_is_told_the_truth() {
    let Some((proxy, store)) = behind_proxy().await else { return };
    let other = PostgresStore::connect(&proxy.server_url, 2).await.unwrap();
    let mut size = 0;
    for round in 0..24_u32 {
        let cut = [None, Some(Cut::BeforeCommit), Some(Cut::AfterCommit)][round as usize % 3];
        if let Some(cut) = cut {
            proxy.cut(cut);
        }
        let batch = vec![pending(refusal(&format!("r{round}"))); 1 + round as usize % 5];
        // Another broker writes at the same moment, and may get in between.
        let others = [pending(refusal("other"))];
        let (appended, between) = tokio::join!(store.append(&batch), other.append(&others));
        size += u64::try_from(between.unwrap().len()).unwrap();
        assert!(proxy.has_cut());
        let told = match appended {
            Ok(appended) => {
                assert!(appended.iter().all(|it| matches!(it, Appended::Recorded(_))));
                appended.len()
            }
            Err(StoreError::Unavailable(_)) => 0,
            Err(error) => panic!("{error:?}"),
        };
        let persisted = !matches!(cut, Some(Cut::BeforeCommit));
        assert_eq!(told > 0, persisted, "round {round}");
        size += u64::try_from(told).unwrap();
        check_tree(&other, size).await;
    }
    check_times(&other).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_connections_break_under_load() {
    let Some((proxy, store)) = behind_proxy().await else { return };
    let store: Arc<dyn Store> = Arc::new(store);
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let (store, cues) = (Arc::clone(&store), proxy.cues());
        writers.spawn(async move {
            let mut told = Vec::new();
            for round in 0..20 {
                if (round + writer) % 4 == 0 {
                    cues.cut(if round % 2 == 0 { Cut::AfterCommit } else { Cut::BeforeCommit });
                }
                let name = format!("w{writer}-{round}");
                if let Ok(appended) = store.append(&[pending(refusal(&name))]).await {
                    let [Appended::Recorded(entry)] = &appended[..] else { panic!("{appended:?}") };
                    told.push((entry.index, name));
                }
            }
            told
        });
    }
    let told: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    // Past the proxy: a cue may be left.
    let store = PostgresStore::connect(&proxy.server_url, 2).await.unwrap();
    let size = store.head().await.unwrap().frontier.size();
    check_tree(&store, size).await;
    check_times(&store).await;
    let records = store.records(0, u32::MAX, None).await.unwrap();
    for (index, name) in told {
        let record = records[usize::try_from(index).unwrap()].record().unwrap();
        assert_eq!(record.tenant, name, "what a writer was told stands where it was told");
    }
    let names: BTreeSet<_> = records.iter().map(|entry| entry.record().unwrap().tenant).collect();
    assert_eq!(names.len(), records.len(), "and nothing stands there twice");
}

async fn check_times(store: &dyn Store) {
    let entries = store.records(0, u32::MAX, None).await.unwrap();
    let time = |record: audit::Record| timestamp(&record.time.unwrap()).unwrap();
    let times: Vec<Timestamp> = entries.iter().map(|it| time(it.record().unwrap())).collect();
    assert!(times.is_sorted());
}
