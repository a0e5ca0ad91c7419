use std::time::Duration;

use domain::{CredentialName, Rotation, RotationPlan, SetBack};
use store::{Change, CredentialRow, Store, StoreError};

use crate::{
    given::{acme, at, changed, credential, version},
    log::check_tree,
    place::Place,
};

fn begun(operation: &str, hold: u64) -> Rotation {
    let (hold, overlap) = (Duration::from_secs(hold), Duration::from_secs(7));
    let plan = RotationPlan::new(9, hold, overlap, false).unwrap();
    Rotation::begin(operation.parse().unwrap(), (1, 2), plan, ("zyxw".to_owned(), true), at(100))
}

async fn apply(store: &dyn Store, change: Change) {
    store.apply(&change, &changed()).await.unwrap();
}

pub(crate) async fn a_rotation_reads_back_in_each_of_its_states(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let main = CredentialRow { rotation: None, ..credential(3, &acme, "main") };
    apply(&*store, Change::CreateCredential(main.clone(), version(&main, 1))).await;
    let read = async || store.credential(&acme.id, &main.id).await.unwrap().unwrap();
    assert_eq!(read().await, main);
    let canary = begun("op-1", 60);
    let more = canary.next_step(at(160)).unwrap();
    let overlap = more.promoted(at(161)).unwrap();
    let done = overlap.promoted(at(162)).unwrap();
    let back = overlap.set_back(SetBack::CredentialRefused, at(163)).unwrap();
    for (revision, rotation) in (2..).zip([canary, more, overlap, done, back]) {
        let row = CredentialRow { rotation: Some(rotation), revision, ..main.clone() };
        apply(&*store, Change::UpdateCredential(row.clone(), None)).await;
        assert_eq!(read().await, row);
    }
    place.tamper("UPDATE credential SET rotation = '{\"operation\":\"x\"}'").await;
    let found = store.credential(&acme.id, &main.id).await;
    assert!(matches!(found, Err(StoreError::Corrupt(what)) if what == "credential.rotation"));
}

pub(crate) async fn what_is_due_is_found_by_name_in_pages(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    for (number, (name, hold, enabled)) in
        (3..).zip([("late", 50, true), ("early", 20, true), ("off", 10, false), ("far", 90, true)])
    {
        let rotation = Some(begun("op-1", hold));
        let row = CredentialRow { rotation, enabled, ..credential(number, &acme, name) };
        apply(&*store, Change::CreateCredential(row.clone(), version(&row, 1))).await;
    }
    // One that is over is never due.
    let over = credential(9, &acme, "over");
    apply(&*store, Change::CreateCredential(over.clone(), version(&over, 1))).await;
    let due = async |seconds, after: Option<&str>, limit| {
        let after = after
            .map(|id| CredentialName { tenant: acme.id.clone(), credential: id.parse().unwrap() });
        let names = store.rotations_due(at(seconds), after.as_ref(), limit).await.unwrap();
        names.iter().map(|name| name.credential.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(due(119, None, 9).await, [""; 0]);
    assert_eq!(due(120, None, 9).await, ["early"]);
    assert_eq!(due(150, None, 9).await, ["early", "late"]);
    assert_eq!(due(150, None, 1).await, ["early"]);
    assert_eq!(due(150, Some("early"), 1).await, ["late"]);
    assert_eq!(due(150, Some("late"), 1).await, [""; 0]);
}

pub(crate) async fn a_version_is_dropped_with_the_change_that_says_so(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let main = credential(3, &acme, "main");
    apply(&*store, Change::CreateCredential(main.clone(), version(&main, 1))).await;
    let row = CredentialRow { revision: 2, ..main.clone() };
    apply(&*store, Change::UpdateCredential(row, Some(version(&main, 2)))).await;

    // What is not there cannot be dropped, and then the state stays as it is, too.
    let row = CredentialRow { revision: 3, current_version: 2, ..main.clone() };
    let refused = store.apply(&Change::DropVersion(row.clone(), 7), &changed()).await;
    assert!(matches!(refused, Err(StoreError::Changed(_))));
    assert_eq!(store.credential(&acme.id, &main.id).await.unwrap().unwrap().revision, 2);

    apply(&*store, Change::DropVersion(row.clone(), 1)).await;
    assert_eq!(store.credential(&acme.id, &main.id).await.unwrap(), Some(row));
    assert_eq!(store.version(main.uid, 1).await.unwrap(), None);
    assert!(store.version(main.uid, 2).await.unwrap().is_some());
    check_tree(&*store, 4).await;
}
