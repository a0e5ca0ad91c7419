use store::StoreError;

use crate::{
    given::{acme, append, pending, refusal},
    log::check_tree,
    place::Place,
};

pub(crate) async fn a_corrupt_value_is_named(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    place.tamper("UPDATE tenant SET on_missing = 'anything'").await;
    let read = store.tenant(&acme.id).await;
    assert!(matches!(read, Err(StoreError::Corrupt(place)) if place == "tenant.on_missing"));
    place.tamper("UPDATE tenant SET on_missing = 'refuse', revision = -1").await;
    let read = store.tenant(&acme.id).await;
    assert!(matches!(read, Err(StoreError::Corrupt(place)) if place == "tenant.revision"));
}

pub(crate) async fn a_corrupt_head_stops_the_log(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![refusal("a")]).await;
    place.tamper("UPDATE head SET size = 7").await;
    let refused = store.append(&[pending(refusal("a"))]).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(place)) if place == "head.size"));
    place.tamper("UPDATE head SET size = 1").await;
    assert_eq!(append(&*store, vec![refusal("a")]).await, [1]);
}

pub(crate) async fn a_locked_database_is_unavailable_and_records_nothing(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![refusal("a")]).await;
    let intruder = place.intrude().await;
    let refused = store.append(&[pending(refusal("b"))]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    intruder.leave().await;
    check_tree(&*store, 1).await;
    assert_eq!(append(&*store, vec![refusal("c")]).await, [1]);
}
