use domain::{KeyTerms, RateLimits};
use store::{Change, CredentialRow, KeyPurpose, Page, Store, StoreError, TestRow};

use crate::{
    given::{
        acme, at, changed, credential, key, mac, pending, tenant, tested, uid, version, virtual_key,
    },
    log::check_tree,
    place::Place,
};

pub(crate) async fn every_row_reads_back_as_written(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let (main, id) = (credential(3, &acme, "main"), "aaaabbbbccccdddd");
    let (first, virtual_key) = (version(&main, 1), virtual_key(id, &acme));
    apply(&*store, Change::CreateCredential(main.clone(), first.clone())).await;
    apply(&*store, Change::CreateVirtualKey(virtual_key.clone())).await;

    assert_eq!(store.tenant(&acme.id).await.unwrap().as_ref(), Some(&acme));
    let keys = store.keys(acme.uid, KeyPurpose::Kek).await.unwrap();
    assert_eq!(keys, [key(2, acme.uid, 1)]);
    assert_eq!(store.keys(acme.uid, KeyPurpose::Pepper).await.unwrap(), []);
    let found = store.credential(&acme.id, &main.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&main));
    assert_eq!(store.version(main.uid, 1).await.unwrap(), Some(first));
    assert_eq!(store.version(main.uid, 2).await.unwrap(), None);
    assert_eq!(store.virtual_key(&virtual_key.id).await.unwrap(), Some(virtual_key));
    assert_eq!(store.tenant(&"umbrella".parse().unwrap()).await.unwrap(), None);
}

pub(crate) async fn the_last_test_of_a_credential_is_kept_as_long_as_it(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let main = credential(3, &acme, "main");
    apply(&*store, Change::CreateCredential(main.clone(), version(&main, 1))).await;
    assert_eq!(store.credential_tests(&acme.id).await.unwrap(), []);
    let test = |verdict: &str, version| TestRow {
        credential_uid: main.uid,
        version,
        verdict: verdict.to_owned(),
        tested_at: at(20),
        row_mac: mac(1, 6),
    };
    for (verdict, version) in [("valid", 1), ("no_quota", 2)] {
        let found = test(verdict, version);
        store.apply(&Change::KeepTest(found.clone()), &tested(&main)).await.unwrap();
        assert_eq!(store.credential_tests(&acme.id).await.unwrap(), [found]);
    }
    // Each has its own record, and only that one.
    let size = store.head().await.unwrap().frontier.size();
    let wrong = store.apply(&Change::KeepTest(test("valid", 1)), &changed()).await;
    assert!(matches!(wrong, Err(StoreError::InvalidRecord(_))));
    let wrong = store.apply(&Change::UpdateTenant(acme.clone()), &tested(&main)).await;
    assert!(matches!(wrong, Err(StoreError::InvalidRecord(_))));
    let alone = store.append(&[pending(tested(&main))]).await;
    assert!(matches!(alone, Err(StoreError::InvalidRecord(_))));
    // No state that leases rest on has changed.
    assert!(store.head().await.unwrap().changed < size);

    let gone = CredentialRow { revision: 2, ..main.clone() };
    apply(&*store, Change::DeleteCredential(gone)).await;
    assert_eq!(store.credential_tests(&acme.id).await.unwrap(), []);
    let late = store.apply(&Change::KeepTest(test("valid", 1)), &tested(&main)).await;
    assert!(matches!(late, Err(StoreError::Changed(_))));
}

pub(crate) async fn a_name_is_taken_once(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let (main, id) = (credential(3, &acme, "main"), "aaaabbbbccccdddd");
    apply(&*store, Change::CreateCredential(main.clone(), version(&main, 1))).await;
    apply(&*store, Change::CreateVirtualKey(virtual_key(id, &acme))).await;

    let other = credential(4, &acme, "main");
    for (change, name) in [
        (Change::CreateTenant(tenant(9, "acme"), vec![]), "tenants/acme"),
        (
            Change::CreateCredential(other.clone(), version(&other, 1)),
            "tenants/acme/credentials/main",
        ),
        (
            Change::CreateVirtualKey(virtual_key(id, &acme)),
            "tenants/acme/virtualKeys/aaaabbbbccccdddd",
        ),
    ] {
        let refused = store.apply(&change, &changed()).await;
        assert!(matches!(refused, Err(StoreError::Exists(taken)) if taken == name), "{name}");
    }
    assert_eq!(store.version(other.uid, 1).await.unwrap(), None);
    check_tree(&*store, 3).await;
}

pub(crate) async fn an_update_needs_the_revision_before(place: &Place) {
    let store = place.open().await;
    let mut acme = acme(&*store).await;
    let (mut main, id) = (credential(3, &acme, "main"), "aaaabbbbccccdddd");
    let mut ci = virtual_key(id, &acme);
    apply(&*store, Change::CreateCredential(main.clone(), version(&main, 1))).await;
    apply(&*store, Change::CreateVirtualKey(ci.clone())).await;

    (acme.revision, acme.display_name, acme.preferred_provider) = (2, "New".to_owned(), None);
    (main.revision, main.enabled, main.current_version) = (2, false, 2);
    (ci.revision, ci.revoked, ci.terms, ci.previous) = (2, true, KeyTerms::default(), vec![]);
    (ci.group, ci.rates) = (None, RateLimits::default());
    let second = version(&main, 2);
    let updates = [
        (Change::UpdateTenant(acme.clone()), "tenants/acme"),
        (
            Change::UpdateCredential(main.clone(), Some(second.clone())),
            "tenants/acme/credentials/main",
        ),
        (Change::UpdateVirtualKey(ci.clone()), "tenants/acme/virtualKeys/aaaabbbbccccdddd"),
    ];
    for (update, _) in updates.clone() {
        apply(&*store, update).await;
    }
    assert_eq!(store.tenant(&acme.id).await.unwrap().as_ref(), Some(&acme));
    assert_eq!(store.credential(&acme.id, &main.id).await.unwrap().as_ref(), Some(&main));
    assert_eq!(store.version(main.uid, 2).await.unwrap(), Some(second));
    assert_eq!(store.virtual_key(&ci.id).await.unwrap().as_ref(), Some(&ci));

    for (update, name) in updates {
        let refused = store.apply(&update, &changed()).await;
        assert!(matches!(refused, Err(StoreError::Changed(row)) if row == name), "{name}");
    }
    main.revision = 4;
    let refused = store.apply(&Change::UpdateCredential(main, None), &changed()).await;
    assert!(matches!(refused, Err(StoreError::Changed(_))));
    check_tree(&*store, 6).await;
}

pub(crate) async fn a_deleted_credential_takes_its_versions_along(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let main = credential(3, &acme, "main");
    apply(&*store, Change::CreateCredential(main.clone(), version(&main, 1))).await;

    // Its revision is 1, so that only a deletion that makes it 2 knows what it deletes.
    for revision in [0, 1, 3] {
        let stale = CredentialRow { revision, ..main.clone() };
        let refused = store.apply(&Change::DeleteCredential(stale), &changed()).await;
        assert!(matches!(refused, Err(StoreError::Changed(_))), "{revision}");
    }
    assert!(store.version(main.uid, 1).await.unwrap().is_some());

    let last = CredentialRow { revision: 2, ..main.clone() };
    apply(&*store, Change::DeleteCredential(last.clone())).await;
    assert_eq!(store.credential(&acme.id, &main.id).await.unwrap(), None);
    assert_eq!(store.version(main.uid, 1).await.unwrap(), None);
    let refused = store.apply(&Change::DeleteCredential(last), &changed()).await;
    assert!(matches!(refused, Err(StoreError::Changed(_))));

    let again = credential(4, &acme, "main");
    apply(&*store, Change::CreateCredential(again.clone(), version(&again, 1))).await;
    check_tree(&*store, 4).await;
}

pub(crate) async fn a_failing_change_leaves_nothing_behind(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;

    // Its second key repeats the first: the rows before it must go again.
    let umbrella = tenant(5, "umbrella");
    let keys = vec![key(6, umbrella.uid, 1), key(7, umbrella.uid, 1)];
    let refused = store.apply(&Change::CreateTenant(umbrella.clone(), keys), &changed()).await;
    assert!(matches!(refused, Err(StoreError::Exists(_))));
    assert_eq!(store.tenant(&umbrella.id).await.unwrap(), None);
    assert_eq!(store.keys(umbrella.uid, KeyPurpose::Kek).await.unwrap(), []);

    let orphan = credential(8, &umbrella, "main");
    let change = Change::CreateCredential(orphan.clone(), version(&orphan, 1));
    let refused = store.apply(&change, &changed()).await;
    assert!(matches!(refused, Err(StoreError::Changed(_))));
    assert_eq!(store.credential(&umbrella.id, &orphan.id).await.unwrap(), None);

    check_tree(&*store, 1).await;
    assert_eq!(store.head().await.unwrap().changed, 1);
    assert_eq!(store.tenants(Page { after: "", limit: 9 }).await.unwrap(), [acme]);
}

pub(crate) async fn a_failing_record_leaves_no_change_behind(place: &Place) {
    let store = place.open().await;
    let mut acme = acme(&*store).await;
    // The next index is taken, so that the record cannot be inserted.
    place
        .tamper(
            "INSERT INTO record (idx, body, leaf_hash, kind, mutates, batch) \
             SELECT 1, body, leaf_hash, kind, mutates, batch FROM record",
        )
        .await;
    (acme.revision, acme.updated_at) = (2, at(50));
    let refused = store.apply(&Change::UpdateTenant(acme.clone()), &changed()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    assert_eq!(store.tenant(&acme.id).await.unwrap().unwrap().revision, 1);
    assert_eq!(store.head().await.unwrap().frontier.size(), 1);

    place.tamper("DELETE FROM record WHERE idx = 1").await;
    apply(&*store, Change::UpdateTenant(acme)).await;
    check_tree(&*store, 2).await;
}

pub(crate) async fn lists_are_ordered_by_the_bytes_of_names(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    for (number, name) in (10..).zip(["ab", "a-c", "a1", "b"]) {
        let credential = credential(number, &acme, name);
        let first = version(&credential, 1);
        let first_key = key(number, uid(number + 10), 1);
        apply(&*store, Change::CreateCredential(credential, first)).await;
        apply(&*store, Change::CreateTenant(tenant(number + 10, name), vec![first_key])).await;
    }
    for id in ["bbbbbbbbbbbbbbbb", "2222222222222222"] {
        apply(&*store, Change::CreateVirtualKey(virtual_key(id, &acme))).await;
    }

    let credentials = async |after, limit| {
        let rows = store.credentials(&acme.id, Page { after, limit }).await.unwrap();
        rows.into_iter().map(|row| row.id.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(credentials("", 9).await, ["a-c", "a1", "ab", "b"]);
    assert_eq!(credentials("a-c", 2).await, ["a1", "ab"]);
    assert_eq!(credentials("b", 2).await, [""; 0]);

    let tenants = store.tenants(Page { after: "a1", limit: 2 }).await.unwrap();
    assert_eq!(tenants.iter().map(|row| row.uid).collect::<Vec<_>>(), [uid(20), uid(1)]);
    let keys = store.virtual_keys(&acme.id, Page { after: "", limit: 9 }).await.unwrap();
    let ids: Vec<_> = keys.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["2222222222222222", "bbbbbbbbbbbbbbbb"]);
}

async fn apply(store: &dyn Store, change: Change) {
    store.apply(&change, &changed()).await.unwrap();
}
