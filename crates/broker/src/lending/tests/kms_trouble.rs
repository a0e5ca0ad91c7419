//! What a KMS that fails costs, and whom.

use std::{sync::Arc, time::Duration};

use audit::{Kind, Reason};
use envelope::{KeyringSettings, Roots};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use store::Store as _;
use testkit::{Fault, KmsFailure, Operation};
use tonic::Code;

use super::{Fixture, ask, caller, check, core_keyed, name};

#[tokio::test]
async fn warm_leases_ask_neither_kms_nor_rows() {
    let fixture = Fixture::new().await;
    fixture.lend().await.unwrap();
    let calls = fixture.kms.calls();
    fixture.store.fail(Operation::Read, Fault::Before);
    for _ in 0..100 {
        fixture.lend().await.unwrap();
    }
    assert_eq!(fixture.kms.calls(), calls);
}

#[tokio::test]
async fn a_cold_key_and_no_kms_is_unavailable() {
    let fixture = Fixture::new().await;
    fixture.kms.fail(KmsFailure::Unavailable);
    assert!(fixture.lend().await.is_ok(), "the key is still cached");
    fixture.clock.advance(Duration::from_mins(6));
    check(fixture.lend().await, Code::Unavailable, Reason::KmsUnavailable);
    fixture.kms.recover();
    assert!(fixture.lend().await.is_ok());
}

#[tokio::test]
async fn five_hundred_first_leases_of_a_tenant_are_one_call() {
    let fixture = Fixture::new().await;
    let mut costs = Vec::new();
    for at_once in [1, 500] {
        // A broker that has just started knows neither key nor row.
        let roots = Roots::only(Arc::clone(&fixture.kms) as _);
        let keyring = KeyringSettings::default();
        let core = core_keyed(fixture.stores(), roots, &fixture.clock, keyring).await;
        let keys = sealing::ClientKeys::generate().unwrap();
        let session = core.sessions.establish(&fixture.caller, &keys.public_key()).unwrap().0;
        let session = core.sessions.keep(session);
        let lend = || core.lend(&fixture.caller, &session, ask(), None);
        let before = (fixture.kms.calls(), fixture.store.reads());
        let leases: FuturesUnordered<_> = (0..at_once).map(|_| lend()).collect();
        let leases: Vec<_> = leases.collect().await;
        let failed: Vec<_> = leases.iter().filter_map(|lease| lease.as_ref().err()).collect();
        assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
        costs.push((fixture.kms.calls() - before.0, fixture.store.reads() - before.1));
        for _ in 0..1_000 {
            lend().await.unwrap();
        }
        assert_eq!(fixture.kms.calls() - before.0, 1, "a warm lease makes none");
    }
    let [alone, together] = costs[..] else { unreachable!() };
    assert_eq!((alone.0, together), (1, alone), "calls of the KMS and of the store");
}

#[tokio::test]
async fn a_silent_kms_stops_leases_when_the_key_is_past_its_time_and_then_quickly() {
    let fixture = Fixture::new().await;
    fixture.lend().await.unwrap();
    fixture.kms.fail(KmsFailure::Silent);
    fixture.clock.advance(Duration::from_secs(288));
    for _ in 0..100 {
        fixture.lend().await.unwrap();
    }
    fixture.clock.advance(Duration::from_secs(12));
    let before = fixture.kms.calls();
    for _ in 0..20 {
        // Time runs by itself while everything waits for the KMS.
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        check(fixture.lend().await, Code::Unavailable, Reason::KmsUnavailable);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        tokio::time::resume();
    }
    assert_eq!(fixture.kms.calls() - before, 5, "then it is spared");
    fixture.kms.recover();
    fixture.clock.advance(Duration::from_secs(3));
    fixture.lend().await.unwrap();
}

#[tokio::test]
async fn the_grace_for_outages_lends_and_says_so_and_stores_nothing() {
    let fixture = Fixture::new().await;
    let outage_grace = Duration::from_mins(10);
    let settings = KeyringSettings { outage_grace, ..KeyringSettings::default() };
    let roots = Roots::only(Arc::clone(&fixture.kms) as _);
    let core = core_keyed(fixture.stores(), roots, &fixture.clock, settings).await;
    let keys = sealing::ClientKeys::generate().unwrap();
    let session = core.sessions.establish(&fixture.caller, &keys.public_key()).unwrap().0;
    let session = core.sessions.keep(session);
    let lend = || core.lend(&fixture.caller, &session, ask(), None);
    lend().await.unwrap();
    fixture.kms.fail(KmsFailure::Unavailable);
    fixture.clock.advance(Duration::from_mins(6));
    check(fixture.lend().await, Code::Unavailable, Reason::KmsUnavailable);
    lend().await.unwrap();
    let admin = caller("Credentials/DisableCredential");
    let refused = core.switch(&admin, &name().to_string(), "", false).await.unwrap_err();
    assert_eq!(refused.why.reason(), Reason::KmsUnavailable);
    fixture.clock.advance(Duration::from_mins(9));
    check(lend().await, Code::Unavailable, Reason::KmsUnavailable);
    fixture.kms.recover();
    fixture.clock.advance(Duration::from_secs(3));
    lend().await.unwrap();

    let entries = fixture.store.records(0, 1_000, None).await.unwrap();
    let records = entries.iter().map(|entry| entry.record().unwrap());
    let granted = records.filter(|record| record.kind() == Kind::LeaseGranted);
    let overdue: Vec<_> = granted.map(|record| record.kek_overdue).collect();
    assert_eq!(overdue, [false, true, false]);
}
