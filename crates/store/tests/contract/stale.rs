use store::Appended;

use crate::{
    given::{acme, append, decided, pending, refusal, revoked, revoked_of},
    log::check_tree,
    place::Place,
};

pub(crate) async fn what_was_decided_before_a_change_is_stale(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![refusal("a")]).await;
    acme(&*store).await;
    assert_eq!(store.head().await.unwrap().changed, 2);

    let appended = store.append(&[decided(1, &[])]).await.unwrap();
    assert!(matches!(appended[..], [Appended::Stale { changed: 2 }]));
    assert_eq!(store.head().await.unwrap().frontier.size(), 2);

    let batch = [decided(2, &[]), decided(1, &[]), pending(revoked(1)), decided(2, &[])];
    let appended = store.append(&batch).await.unwrap();
    let [first, stale, revocation, late] = &appended[..] else { panic!("{appended:?}") };
    assert!(matches!(first, Appended::Recorded(entry) if entry.index == 2));
    assert!(matches!(stale, Appended::Stale { changed: 2 }));
    assert!(matches!(revocation, Appended::Recorded(entry) if entry.index == 3));
    assert!(matches!(late, Appended::Stale { changed: 4 }));
    assert_eq!(store.head().await.unwrap().changed, 4);
    assert_eq!(recorded(&store.append(&[decided(4, &[])]).await.unwrap()), [true]);
    check_tree(&*store, 5).await;
}

pub(crate) async fn a_change_of_another_tenant_makes_nothing_stale(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![revoked_of("a", 1), refusal("c"), revoked_of("b", 2)]).await;

    let batch = [
        decided(0, &["a"]),
        decided(1, &["a"]),
        decided(2, &["b"]),
        decided(3, &["b"]),
        decided(0, &["c"]),
        decided(2, &["a", "b"]),
        decided(1, &["a", "c"]),
        decided(2, &[]),
    ];
    let appended = store.append(&batch).await.unwrap();
    assert_eq!(recorded(&appended), [false, true, false, true, true, false, true, false]);
    assert!(matches!(appended[0], Appended::Stale { changed: 3 }));
    check_tree(&*store, 7).await;
}

pub(crate) async fn a_change_in_the_same_batch_makes_its_tenant_stale(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![refusal("a")]).await;
    let batch = [
        decided(1, &["a"]),
        pending(revoked_of("a", 1)),
        decided(1, &["a"]),
        decided(1, &["b"]),
        decided(1, &[]),
    ];
    let appended = store.append(&batch).await.unwrap();
    assert_eq!(recorded(&appended), [true, true, false, true, false]);
    assert!(matches!(appended[2], Appended::Stale { changed: 3 }));
}

pub(crate) async fn a_change_that_names_no_tenant_is_every_tenants(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![revoked(1)]).await;
    let appended = store.append(&[decided(0, &["a"]), decided(1, &["a"])]).await.unwrap();
    assert_eq!(recorded(&appended), [false, true]);
}

pub(crate) async fn what_was_decided_too_many_changes_ago_is_stale(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![revoked_of("b", 1); 1500]).await;
    let batch = [decided(499, &["a"]), decided(500, &["a"]), decided(1499, &["b"])];
    assert_eq!(recorded(&store.append(&batch).await.unwrap()), [false, true, false]);
    check_tree(&*store, 1501).await;
}

pub(crate) async fn what_was_decided_by_a_log_that_is_gone_is_stale(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![revoked_of("b", 1), refusal("a")]).await;
    // What the batch itself adds was known to nobody, even if it makes the log long enough.
    let batch = [pending(refusal("a")), decided(3, &["a"]), decided(3, &[]), decided(2, &["a"])];
    let appended = store.append(&batch).await.unwrap();
    assert_eq!(recorded(&appended), [true, false, false, true]);
    assert!(matches!(appended[1], Appended::Stale { changed: 1 }));
    check_tree(&*store, 4).await;
}

fn recorded(appended: &[Appended]) -> Vec<bool> {
    appended.iter().map(|appended| matches!(appended, Appended::Recorded(_))).collect()
}
