use std::{sync::Arc, time::Duration};

use domain::{Failure, Health, PROBE_ANSWERS, Rest, Timestamp};
use store::{Change, HealthRow, Store, StoreError};

use crate::{
    given::{acme, at, changed, credential, uid, version},
    place::Place,
};

/// A store with a credential, of uid 4.
async fn furnished(place: &Place) -> Arc<dyn Store> {
    let store = place.open().await;
    let acme = acme(&*store).await;
    let main = credential(4, &acme, "main");
    let version = version(&main, 1);
    store.apply(&Change::CreateCredential(main, version), &changed()).await.unwrap();
    store
}

fn resting(revision: u64, since: Timestamp) -> HealthRow {
    let until = since + Duration::from_mins(1);
    let why = Failure::CredentialRefused;
    let health = Health::of(3, Some(Rest { since, until, why, probe: None }));
    HealthRow { credential_uid: uid(4), revision, since, health, changed_at: at(0) }
}

fn ended(revision: u64, since: Timestamp) -> HealthRow {
    HealthRow { health: Health::default(), ..resting(revision, since) }
}

pub(crate) async fn how_a_credential_fares_is_told_to_all(place: &Place) {
    let one = furnished(place).await;
    let other = place.beside(&one).await;
    assert_eq!(other.health(uid(4)).await.unwrap(), None);
    let before = one.now().await.unwrap();
    one.put_health(&resting(2, at(10))).await.unwrap();
    let kept = other.health(uid(4)).await.unwrap().unwrap();
    assert!(kept.changed_at >= before);
    assert_eq!(kept, HealthRow { changed_at: kept.changed_at, ..resting(2, at(10)) });
    assert_eq!(other.healths(kept.changed_at).await.unwrap(), std::slice::from_ref(&kept));
    let later = kept.changed_at + Duration::from_millis(1);
    assert_eq!(other.healths(later).await.unwrap(), []);
    // Of nothing that is kept, nothing is told.
    let unknown = HealthRow { credential_uid: uid(99), ..resting(2, at(10)) };
    assert!(matches!(one.put_health(&unknown).await, Err(StoreError::Changed(_))));
}

pub(crate) async fn what_is_known_of_a_later_rest_or_revision_stays(place: &Place) {
    let store = furnished(place).await;
    let puts = [
        (resting(2, at(10)), true),
        (resting(2, at(9)), false),
        (resting(1, at(99)), false),
        (ended(2, at(10)), true),
        (resting(2, at(11)), true),
        (ended(2, at(10)), false),
        (ended(3, at(1)), true),
    ];
    for (row, stays) in puts {
        store.put_health(&row).await.unwrap();
        let kept = store.health(uid(4)).await.unwrap().unwrap();
        let row = HealthRow { changed_at: kept.changed_at, ..row };
        assert_eq!(kept == row, stays, "{row:?}");
    }
}

pub(crate) async fn one_of_all_brokers_claims_a_probe(place: &Place) {
    let one = furnished(place).await;
    let other = place.beside(&one).await;
    let lost = |now: Timestamp| {
        let answers = i64::try_from(PROBE_ANSWERS.as_millis()).unwrap();
        Timestamp::from_millis(now.as_millis() - answers)
    };
    // Of what nobody told, there is nothing to claim.
    assert!(!one.claim_probe(uid(4), at(10), at(99), lost(at(99))).await.unwrap());
    one.put_health(&resting(2, at(10))).await.unwrap();
    assert!(!one.claim_probe(uid(4), at(10), at(69), lost(at(69))).await.unwrap());
    assert!(!one.claim_probe(uid(4), at(9), at(70), lost(at(70))).await.unwrap());
    let (first, second) = tokio::join!(
        one.claim_probe(uid(4), at(10), at(70), lost(at(70))),
        other.claim_probe(uid(4), at(10), at(70), lost(at(70))),
    );
    assert!(first.unwrap() != second.unwrap());
    let kept = other.health(uid(4)).await.unwrap().unwrap();
    assert_eq!(kept.health.rest().unwrap().probe, Some(at(70)));
    // One that nobody heard of again is given up.
    assert!(!other.claim_probe(uid(4), at(10), at(129), lost(at(129))).await.unwrap());
    assert!(other.claim_probe(uid(4), at(10), at(130), lost(at(130))).await.unwrap());
    one.put_health(&ended(2, at(10))).await.unwrap();
    assert!(!one.claim_probe(uid(4), at(10), at(999), lost(at(999))).await.unwrap());
}
