use std::time::Duration;

use audit::{Kind, Record};

use crate::{
    given::{acme, append, draft, revoked, uid},
    place::Place,
};

const LONG: Duration = Duration::from_hours(1);

pub(crate) async fn one_holder_leads_until_its_time_is_up_or_it_resigns(place: &Place) {
    let store = place.open().await;
    let (one, other) = (uid(1), uid(2));
    assert!(store.lead(one, LONG).await.unwrap());
    assert!(store.lead(one, LONG).await.unwrap());
    assert!(!store.lead(other, LONG).await.unwrap());
    // Only its own lead can be given up.
    store.resign(other).await.unwrap();
    assert!(!store.lead(other, LONG).await.unwrap());
    store.resign(one).await.unwrap();
    assert!(store.lead(other, LONG).await.unwrap());
    assert!(!store.lead(one, LONG).await.unwrap());
    // As if an hour had passed without a word of the other.
    place.tamper("UPDATE leader SET until = until - 3600001").await;
    assert!(store.lead(one, LONG).await.unwrap());
    assert!(!store.lead(other, LONG).await.unwrap());
    // Somebody has written that nobody may lead for a long time.
    place.tamper("UPDATE leader SET until = until + 3600000").await;
    assert!(store.lead(other, LONG).await.unwrap());
}

pub(crate) async fn the_clock_of_the_database_is_told(place: &Place) {
    let store = place.open().await;
    acme(&*store).await;
    let (now, last) = (store.now().await.unwrap(), store.head().await.unwrap().time);
    assert!(now >= last);
    assert!(now.since(last) < LONG);
}

pub(crate) async fn changes_of_one_kind_are_found(place: &Place) {
    let store = place.open().await;
    let given_up = draft(Record {
        kind: Kind::CheckpointGivenUp.into(),
        tree_size: 9,
        tree_root: vec![1; 32].into(),
        ..Record::default()
    });
    append(&*store, vec![revoked(1), given_up, revoked(2)]).await;
    let found = async |kind| {
        let entries = store.changes_of_kind(kind).await.unwrap();
        entries.iter().map(|entry| entry.index).collect::<Vec<_>>()
    };
    assert_eq!(found(Kind::CheckpointGivenUp).await, [1]);
    assert_eq!(found(Kind::LeaseRevoked).await, [0, 2]);
    assert!(found(Kind::TenantCreated).await.is_empty());
}
