use std::slice;

use domain::{Period, Uid, Unit};
use store::{
    Change, CredentialRow, KeyPurpose, KeyRow, KeyWork, PersonRow, Place as Column, Resealed,
    Stale, Store, StoreError, TenantKey, TenantRow, TestRow, VersionRow,
};

use crate::{
    budgets::{self, budget},
    given::{
        acme, at, changed, credential, key, mac, sealed, tenant, tested, uid, version, virtual_key,
    },
    place::Place,
};

async fn apply(store: &dyn Store, change: Change) {
    store.apply(&change, &changed()).await.unwrap();
}

async fn refused(store: &dyn Store, change: Change) -> StoreError {
    store.apply(&change, &changed()).await.unwrap_err()
}

fn of(tenant: &TenantRow, key: KeyRow) -> TenantKey {
    TenantKey { tenant: tenant.id.clone(), key }
}

fn person(of: &TenantRow, key_version: u32) -> PersonRow {
    PersonRow {
        handle: [1; 32],
        commitment: [2; 32],
        tenant_uid: of.uid,
        sealed: sealed(key_version, 3),
        row_mac: [4; 32],
    }
}

fn test(of: &CredentialRow, key_version: u32) -> TestRow {
    TestRow {
        credential_uid: of.uid,
        version: 1,
        verdict: "valid".to_owned(),
        tested_at: at(20),
        row_mac: mac(key_version, 6),
    }
}

fn monthly() -> Change {
    Change::CreateBudget(budgets::row("monthly", budget(7, Period::Total, &[(Unit::Requests, 9)])))
}

/// A tenant that has one of everything that is under its key.
async fn full(store: &dyn Store) -> TenantRow {
    let acme = acme(store).await;
    let main = credential(5, &acme, "main");
    apply(store, Change::CreateCredential(main.clone(), version(&main, 1))).await;
    apply(store, Change::CreateVirtualKey(virtual_key("aaaabbbbccccdddd", &acme))).await;
    apply(store, monthly()).await;
    store.apply(&Change::KeepTest(test(&main, 1)), &tested(&main)).await.unwrap();
    store.put_person(&person(&acme, 1)).await.unwrap();
    acme
}

/// What each row is put to, as it would be under version 2.
fn anew(row: &Stale) -> Resealed {
    let under = |place, before: &[u8], after: Vec<u8>| {
        let before = before.to_vec();
        Resealed { place, before, after }
    };
    match row {
        Stale::Tenant(row) => under(Column::Tenant(row.uid), &row.row_mac, mac(2, 1).to_vec()),
        Stale::Credential(row) => {
            under(Column::Credential(row.uid), &row.row_mac, mac(2, 1).to_vec())
        }
        Stale::VirtualKey(row) => {
            under(Column::VirtualKey(row.id.clone()), &row.row_mac, mac(2, 1).to_vec())
        }
        Stale::Budget(row) => {
            under(Column::Budget(row.budget.id), &row.row_mac, mac(2, 1).to_vec())
        }
        Stale::Test(row) => {
            under(Column::Test(row.credential_uid), &row.row_mac, mac(2, 1).to_vec())
        }
        Stale::Version(row, _) => {
            under(Column::Version(row.credential_uid, row.version), &row.envelope, sealed(2, 1))
        }
        Stale::Person(row) => under(Column::Person(row.handle, [5; 32]), &row.sealed, sealed(2, 1)),
    }
}

pub(crate) async fn every_row_under_an_old_version_is_found_and_replaced(place: &Place) {
    let store = place.open().await;
    let acme = full(&*store).await;
    let newest = of(&acme, key(2, acme.uid, 2));
    assert_eq!(store.keys_in_rotation(9).await.unwrap(), []);
    apply(&*store, Change::AddKey(newest.key.clone())).await;
    assert_eq!(store.keys_in_rotation(9).await.unwrap(), slice::from_ref(&newest));
    assert_eq!(store.key_references(&acme.id, acme.uid).await.unwrap(), [(1, 7)]);

    let stale = store.stale(&newest, 9).await.unwrap();
    assert_eq!(stale.len(), 7);
    assert!(matches!(&stale[2], Stale::Version(row, provider)
        if row.version == 1 && provider.as_str() == "custom"));
    assert_eq!(store.stale(&newest, 2).await.unwrap(), stale[..2]);
    let replaced: Vec<_> = stale.iter().map(anew).collect();
    assert_eq!(store.reseal(&replaced).await.unwrap(), 7);
    assert_eq!(store.stale(&newest, 9).await.unwrap(), []);
    assert_eq!(store.key_references(&acme.id, acme.uid).await.unwrap(), [(2, 7)]);
    let person = store.person(&[1; 32]).await.unwrap().unwrap();
    assert_eq!((person.sealed, person.row_mac), (sealed(2, 1), [5; 32]));
    // Once more: what it stood in the place of is gone.
    assert_eq!(store.reseal(&replaced).await.unwrap(), 0);

    apply(&*store, Change::RetireKeys(newest.key.clone())).await;
    assert_eq!(store.keys(acme.uid, KeyPurpose::Kek).await.unwrap(), [newest.key]);
    assert_eq!(store.keys_in_rotation(9).await.unwrap(), []);
}

pub(crate) async fn a_change_that_comes_before_a_replacement_stays(place: &Place) {
    let store = place.open().await;
    let acme = full(&*store).await;
    let newest = of(&acme, key(2, acme.uid, 2));
    apply(&*store, Change::AddKey(newest.key.clone())).await;
    let replaced: Vec<_> = store.stale(&newest, 9).await.unwrap().iter().map(anew).collect();

    let mut main = store.credential(&acme.id, &"main".parse().unwrap()).await.unwrap().unwrap();
    (main.revision, main.current_version, main.row_mac) = (2, 2, mac(1, 77));
    apply(&*store, Change::UpdateCredential(main.clone(), Some(version(&main, 2)))).await;
    assert_eq!(store.reseal(&replaced).await.unwrap(), 6);
    let kept = store.credential(&acme.id, &main.id).await.unwrap().unwrap();
    assert_eq!(kept, main);
    let stale = store.stale(&newest, 9).await.unwrap();
    assert_eq!(stale.len(), 2, "the changed row and its new version");

    // A deletion leaves nothing to replace, and brings nothing back.
    main.revision = 3;
    apply(&*store, Change::DeleteCredential(main.clone())).await;
    let replaced: Vec<_> = stale.iter().map(anew).collect();
    assert_eq!(store.reseal(&replaced).await.unwrap(), 0);
    assert_eq!(store.version(main.uid, 2).await.unwrap(), None);
}

pub(crate) async fn a_version_is_deleted_when_nothing_is_under_it(place: &Place) {
    let store = place.open().await;
    let acme = full(&*store).await;
    let newest = of(&acme, key(2, acme.uid, 2));
    let retire = || Change::RetireKeys(newest.key.clone());
    assert!(matches!(refused(&*store, retire()).await, StoreError::Changed(_)));
    apply(&*store, Change::AddKey(newest.key.clone())).await;
    let stale = store.stale(&newest, 9).await.unwrap();
    for row in &stale {
        assert!(matches!(refused(&*store, retire()).await, StoreError::Changed(_)), "{row:?}");
        assert_eq!(store.reseal(&[anew(row)]).await.unwrap(), 1);
    }
    apply(&*store, retire()).await;
    assert!(matches!(refused(&*store, retire()).await, StoreError::Changed(_)));
    assert!(matches!(refused(&*store, Change::AddKey(newest.key)).await, StoreError::Exists(_)));
}

pub(crate) async fn nothing_is_written_under_a_version_that_is_gone(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let newest = of(&acme, key(2, acme.uid, 2));
    apply(&*store, Change::AddKey(newest.key.clone())).await;
    // While the old one is there it will do: the row is found and replaced.
    let late = TenantRow { revision: 2, ..acme.clone() };
    apply(&*store, Change::UpdateTenant(late)).await;
    let stale = store.stale(&newest, 9).await.unwrap();
    store.reseal(&stale.iter().map(anew).collect::<Vec<_>>()).await.unwrap();
    apply(&*store, Change::RetireKeys(newest.key)).await;

    let main = credential(5, &acme, "main");
    for change in [
        Change::UpdateTenant(TenantRow { revision: 3, ..acme.clone() }),
        Change::CreateCredential(main.clone(), version(&main, 1)),
        Change::CreateVirtualKey(virtual_key("aaaabbbbccccdddd", &acme)),
        monthly(),
    ] {
        assert!(matches!(refused(&*store, change).await, StoreError::Changed(_)));
    }
    assert_eq!(store.credential(&acme.id, &main.id).await.unwrap(), None);
    let first = VersionRow { envelope: sealed(2, 2), ..version(&main, 1) };
    let main = CredentialRow { row_mac: mac(2, 8), ..main };
    apply(&*store, Change::CreateCredential(main.clone(), first)).await;
    let keep =
        async |version| store.apply(&Change::KeepTest(test(&main, version)), &tested(&main)).await;
    assert!(matches!(keep(1).await, Err(StoreError::Changed(_))));
    keep(2).await.unwrap();
    store.put_person(&person(&acme, 1)).await.unwrap();
    assert_eq!(store.person(&[1; 32]).await.unwrap(), None);
    store.put_person(&person(&acme, 2)).await.unwrap();
    assert!(store.person(&[1; 32]).await.unwrap().is_some());
}

pub(crate) async fn a_key_is_wrapped_anew_in_the_place_of_what_was_read(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let (before, first) = (key(2, acme.uid, 1).wrapped, vec![7; 9]);
    let wrapped = |wrapped: &[u8]| KeyRow { wrapped: wrapped.to_vec(), ..key(2, acme.uid, 1) };
    apply(&*store, Change::RewrapKey(wrapped(&first), before.clone())).await;
    let again = Change::RewrapKey(wrapped(&[8; 9]), before);
    assert!(matches!(refused(&*store, again).await, StoreError::Changed(_)));
    assert_eq!(store.keys(acme.uid, KeyPurpose::Kek).await.unwrap(), [wrapped(&first)]);
}

pub(crate) async fn keys_are_listed_by_id_and_those_due_by_name(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let (umbrella, pepper) = (tenant(9, "umbrella"), key(3, uid(9), 1));
    let pepper = KeyRow { purpose: KeyPurpose::Pepper, ..pepper };
    let keys = vec![key(4, umbrella.uid, 1), pepper.clone()];
    apply(&*store, Change::CreateTenant(umbrella.clone(), keys)).await;
    apply(&*store, Change::AddKey(KeyRow { created_at: at(20), ..key(2, acme.uid, 2) })).await;

    let listed = |keys: Vec<TenantKey>| {
        keys.iter().map(|it| (it.key.uid, it.key.version)).collect::<Vec<(Uid, u32)>>()
    };
    let all = listed(store.wrapped_keys(None, 9).await.unwrap());
    assert_eq!(all, [(uid(2), 1), (uid(2), 2), (uid(3), 1), (uid(4), 1)]);
    let rest = store.wrapped_keys(Some(all[0]), 2).await.unwrap();
    assert_eq!(rest[1], of(&umbrella, pepper));
    assert_eq!(listed(rest), all[1..3]);
    let due = |time| store.keys_from_before(at(time), 9);
    assert_eq!(listed(due(12).await.unwrap()), []);
    assert_eq!(listed(due(13).await.unwrap()), [(uid(4), 1)]);
    assert_eq!(listed(due(21).await.unwrap()), [(uid(2), 2), (uid(4), 1)]);
}

pub(crate) async fn work_on_keys_is_kept_until_it_is_done(place: &Place) {
    let store = place.open().await;
    let work = |begun: i64, done| KeyWork {
        name: "rotate".to_owned(),
        request_id: Some("r-1".parse().unwrap()),
        begun_at: at(begun),
        done,
        row_mac: [if done { 8 } else { 7 }; 32],
    };
    apply(&*store, Change::BeginKeyWork(work(1, false))).await;
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.key_work().await.unwrap().rows, [work(1, false)]);
    apply(&*store, Change::BeginKeyWork(work(2, false))).await;
    // The end of what came before it is not its end.
    store.end_key_work(&work(1, true)).await.unwrap();
    assert_eq!(store.key_work().await.unwrap().rows, [work(2, false)]);
    store.end_key_work(&work(2, true)).await.unwrap();
    // One that cannot be read hides none.
    place
        .tamper("INSERT INTO key_work SELECT 'x', '', begun_at, done, row_mac FROM key_work")
        .await;
    let found = store.key_work().await.unwrap();
    assert_eq!(found.rows, [work(2, true)]);
    assert_eq!(found.illegible, ["key_work.request_id"]);
}
