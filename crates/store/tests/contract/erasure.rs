use std::slice;

use domain::{Key, Uid};
use store::{Change, ErasureRow, PersonRow, Share, Store, StoreError, TenantRow};

use crate::{
    given::{
        acme, append, at, changed, credential, granted, key, refusal, revoked, sealed, tenant, uid,
        version, virtual_key,
    },
    place::Place,
};

fn share(byte: u8) -> Key {
    Key::take(&mut [byte; 32])
}

pub(crate) async fn a_share_is_kept_until_it_is_destroyed_and_never_again(place: &Place) {
    let shares = place.open_shares().await;
    shares.put_share(uid(1), &share(7)).await.unwrap();
    let Share::Held(held) = shares.share(uid(1)).await.unwrap() else { panic!("it was kept") };
    assert_eq!(held.expose(), &[7; 32]);
    let again = shares.put_share(uid(1), &share(8)).await.unwrap_err();
    assert!(matches!(again, StoreError::Exists(_)), "{again:?}");
    assert!(matches!(shares.share(uid(2)).await.unwrap(), Share::Unknown));

    shares.put_share(uid(3), &share(9)).await.unwrap();
    assert_eq!(shares.destroy_shares(&[uid(1), uid(2)], at(5)).await.unwrap(), at(5));
    // Asked again, it is told when it happened.
    assert_eq!(shares.destroy_shares(&[uid(1)], at(6)).await.unwrap(), at(5));
    drop(shares);
    let shares = place.open_shares().await;
    for id in [uid(1), uid(2)] {
        let Share::Destroyed(when) = shares.share(id).await.unwrap() else { panic!("{id}") };
        assert_eq!(when, at(5));
        let refused = shares.put_share(id, &share(1)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Exists(_)), "{refused:?}");
    }
    let Share::Held(other) = shares.share(uid(3)).await.unwrap() else { panic!("another's") };
    assert_eq!(other.expose(), &[9; 32]);
}

fn person(of: &TenantRow, number: u8) -> PersonRow {
    PersonRow {
        handle: [number; 32],
        commitment: [number + 100; 32],
        tenant_uid: of.uid,
        sealed: sealed(1, 3),
        row_mac: [4; 32],
    }
}

fn erasure(of: &TenantRow, id: Uid) -> ErasureRow {
    ErasureRow {
        id,
        tenant: of.id.clone(),
        credential: None,
        shares: vec![id, uid(5)],
        begun_at: at(3),
        row_mac: [6; 32],
    }
}

async fn apply(store: &dyn Store, change: Change) -> Result<(), StoreError> {
    store.apply(&change, &changed()).await.map(drop)
}

pub(crate) async fn a_tenant_is_erased_with_all_that_it_owns_and_nothing_else(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let other = tenant(8, "globex");
    let keys = vec![key(9, other.uid, 1)];
    apply(&*store, Change::CreateTenant(other.clone(), keys)).await.unwrap();
    for (of, id, virtual_id) in [(&acme, 5, "aaaabbbbccccdddd"), (&other, 6, "bbbbbbbbccccdddd")] {
        let row = credential(id, of, "main");
        let stored = version(&row, 1);
        apply(&*store, Change::CreateCredential(row, stored)).await.unwrap();
        apply(&*store, Change::CreateVirtualKey(virtual_key(virtual_id, of))).await.unwrap();
        store.put_person(&person(of, id)).await.unwrap();
    }
    let row = TenantRow { revision: acme.revision + 1, ..acme.clone() };
    let erasure = erasure(&acme, acme.uid);
    // Somebody of the tenant's is left out: nothing is erased.
    let refused = apply(&*store, Change::EraseTenant(row.clone(), vec![], erasure.clone())).await;
    assert!(matches!(refused.unwrap_err(), StoreError::Changed(_)));
    assert!(store.tenant(&acme.id).await.unwrap().is_some());
    let nameless =
        PersonRow { tenant_uid: other.uid, sealed: vec![], row_mac: [8; 32], ..person(&acme, 5) };
    let change = Change::EraseTenant(row, vec![nameless.clone()], erasure.clone());
    apply(&*store, change.clone()).await.unwrap();
    assert!(matches!(apply(&*store, change).await.unwrap_err(), StoreError::Changed(_)));

    assert_eq!(store.tenant(&acme.id).await.unwrap(), None);
    assert_eq!(store.version(uid(5), 1).await.unwrap(), None);
    assert_eq!(store.people(acme.uid, None, 9).await.unwrap(), []);
    assert_eq!(store.people(other.uid, None, 1).await.unwrap(), slice::from_ref(&nameless));
    let rest = store.people(other.uid, Some(nameless.handle), 9).await.unwrap();
    assert_eq!(rest, [person(&other, 6)]);
    assert!(store.version(uid(6), 1).await.unwrap().is_some());
    let page = store::Page { after: "", limit: 9 };
    assert_eq!(store.virtual_keys(&other.id, page).await.unwrap().len(), 1);
    assert_eq!(store.strays().await.unwrap(), []);

    assert_eq!(store.erasures().await.unwrap().rows, slice::from_ref(&erasure));
    // One that cannot be read hides none.
    place.tamper(FOREIGN).await;
    let found = store.erasures().await.unwrap();
    assert_eq!((&*found.rows, &*found.illegible), (&[erasure][..], &["erasure.id".to_owned()][..]));
    apply(&*store, Change::EndErasure(acme.uid)).await.unwrap();
    assert_eq!(store.erasures().await.unwrap().rows, []);
    let again = apply(&*store, Change::EndErasure(acme.uid)).await.unwrap_err();
    assert!(matches!(again, StoreError::Changed(_)), "{again:?}");
}

pub(crate) async fn an_erased_credential_waits_for_its_receipt(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let mut main = credential(5, &acme, "main");
    apply(&*store, Change::CreateCredential(main.clone(), version(&main, 1))).await.unwrap();
    let erasure = ErasureRow { credential: Some(main.name()), ..erasure(&acme, main.uid) };
    let change = Change::EraseCredential(main.clone(), erasure.clone());
    let refused = apply(&*store, change).await.unwrap_err();
    assert!(matches!(refused, StoreError::Changed(_)), "by the revision before: {refused:?}");
    main.revision += 1;
    apply(&*store, Change::EraseCredential(main.clone(), erasure.clone())).await.unwrap();
    assert_eq!(store.version(main.uid, 1).await.unwrap(), None);
    assert_eq!(store.credential(&acme.id, &main.id).await.unwrap(), None);
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.erasures().await.unwrap().rows, [erasure]);
}

/// An erasure that no broker has written, by an id that is none.
const FOREIGN: &str = "\
    INSERT INTO erasure (id, tenant, credential, shares, begun_at, row_mac) \
    SELECT substr(shares, 1, 3), tenant, credential, shares, begun_at, row_mac FROM erasure";

pub(crate) async fn columns_that_find_a_record_are_held_against_it(place: &Place) {
    let store = place.open().await;
    append(&*store, vec![refusal("acme"), granted("acme", 1, at(9)), revoked(1)]).await;
    let seen = store.check_records(0..3).await.unwrap();
    assert_eq!((seen.leaves.len(), &*seen.wrong), (3, &[][..]));
    assert_eq!(seen.leaves, store.leaf_hashes(0..3).await.unwrap());
    assert_eq!(seen.last, Some(store.head().await.unwrap().time));
    for (change, back, index, column) in [
        (
            "UPDATE record SET tenant = 'globex' WHERE idx = 0",
            "UPDATE record SET tenant = 'acme' WHERE idx = 0",
            0,
            "record.tenant",
        ),
        (
            "UPDATE record SET expires_at = expires_at + 1 WHERE idx = 1",
            "UPDATE record SET expires_at = expires_at - 1 WHERE idx = 1",
            1,
            "record.expires_at",
        ),
        (
            "UPDATE record SET kind = kind + 1 WHERE idx = 2",
            "UPDATE record SET kind = kind - 1 WHERE idx = 2",
            2,
            "record.kind",
        ),
    ] {
        place.tamper(change).await;
        assert_eq!(store.check_records(0..3).await.unwrap().wrong, [(index, column)]);
        place.tamper(back).await;
        assert_eq!(store.check_records(0..3).await.unwrap().wrong, []);
    }
    place.tamper("DELETE FROM record WHERE idx = 1").await;
    assert_eq!(store.check_records(0..3).await.unwrap().leaves.len(), 1, "up to what is not there");
}

pub(crate) async fn a_row_that_is_nobodys_is_a_stray(place: &Place) {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let main = credential(5, &acme, "main");
    apply(&*store, Change::CreateCredential(main.clone(), version(&main, 1))).await.unwrap();
    assert_eq!(store.strays().await.unwrap(), []);
    place.tamper("UPDATE credential SET tenant = 'nobody'").await;
    assert_eq!(store.strays().await.unwrap(), [("credential", uid(5).as_bytes().to_vec())]);
}
