use audit::{Kind, Record, RecordDraft};
use store::{Change, KeyPurpose, KeyRow, RowMac, SqliteStore, TenantRow, VersionRow};
use testkit::{FailingStore, Fault, Operation};

use super::*;

const LIMITED: Failure = Failure::RateLimited { retry_after: Some(Duration::from_secs(10)) };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1000 * seconds)
}

/// Two brokers of one database with one credential.
struct Two {
    store: Arc<FailingStore>,
    one: Healths,
    other: Healths,
    row: CredentialRow,
}

impl Two {
    async fn new() -> Self {
        let store = Arc::new(SqliteStore::in_memory().await.unwrap());
        let store = Arc::new(FailingStore::new(store));
        let row = keep_a_credential(&*store).await;
        let healths = || Healths::new(Arc::clone(&store) as _);
        Self { one: healths(), other: healths(), row, store }
    }

    fn readiness(&self, of: &Healths, now: i64) -> Readiness {
        of.readiness(&self.row, at(now)).0
    }
}

/// A MAC under the first version of the tenant's key, as far as the store looks at it.
const FIRST: RowMac = {
    let mut mac = [0; 36];
    mac[3] = 1;
    mac
};

fn key(tenant_uid: Uid) -> KeyRow {
    KeyRow {
        uid: Uid::from_bytes([3; 16]),
        tenant_uid,
        purpose: KeyPurpose::Kek,
        version: 1,
        wrapped: vec![1],
        request_id: None,
        created_at: at(0),
    }
}

/// Keeps a tenant with one credential.
pub(crate) async fn keep_a_credential(store: &dyn Store) -> CredentialRow {
    let (uid, other) = (Uid::from_bytes([1; 16]), Uid::from_bytes([2; 16]));
    let tenant = TenantRow {
        uid,
        id: "acme".parse().unwrap(),
        display_name: String::new(),
        preferred_provider: None,
        on_missing: domain::OnMissing::Refuse,
        rules: domain::RoutingRules::default(),
        suspended: false,
        revision: 1,
        request_id: None,
        created_at: at(0),
        updated_at: at(0),
        row_mac: FIRST,
    };
    let row = CredentialRow {
        uid: other,
        tenant_uid: uid,
        tenant: tenant.id.clone(),
        id: "main".parse().unwrap(),
        provider: "openai".parse().unwrap(),
        kind: "api_key".to_owned(),
        settings: vec![],
        enabled: true,
        priority: 0,
        base_url: None,
        models: vec![],
        last_four: String::new(),
        current_version: 1,
        rotation: None,
        revision: 1,
        created_at: at(0),
        updated_at: at(0),
        row_mac: FIRST,
    };
    let version = VersionRow {
        credential_uid: other,
        version: 1,
        envelope: vec![1],
        request_id: None,
        created_at: at(0),
    };
    let draft = || {
        let kind = Kind::TenantUpdated.into();
        let record = Record { kind, tenant: "acme".to_owned(), ..Record::default() };
        RecordDraft::new(record).unwrap()
    };
    let made = Change::CreateTenant(tenant, vec![key(uid)]);
    store.apply(&made, &draft()).await.unwrap();
    let made = Change::CreateCredential(row.clone(), version);
    store.apply(&made, &draft()).await.unwrap();
    row
}

#[tokio::test]
async fn what_failed_at_one_broker_rests_at_the_other_too() {
    let two = Two::new().await;
    two.one.failed(&two.row, LIMITED, at(1), at(2)).await;
    assert_eq!(two.readiness(&two.other, 3), Readiness::Ready);
    two.other.catch_up().await.unwrap();
    assert!(
        matches!(two.readiness(&two.other, 3), Readiness::Resting { until, .. } if until == at(12))
    );
    // A broker that starts knows it as well.
    let third = Healths::new(Arc::clone(&two.store) as _);
    third.catch_up().await.unwrap();
    // Written when the database's clock says that it was long ago, so only its own time counts.
    assert_eq!(two.readiness(&third, 12), Readiness::Probe);
    two.one.succeeded(two.row.uid, at(13)).await;
    two.other.catch_up().await.unwrap();
    assert_eq!(two.readiness(&two.other, 13), Readiness::Ready);
}

#[tokio::test]
async fn one_lease_of_all_brokers_shows_whether_it_works_again() {
    let two = Two::new().await;
    let uid = two.row.uid;
    two.one.failed(&two.row, LIMITED, at(1), at(2)).await;
    two.other.catch_up().await.unwrap();
    assert_eq!(two.readiness(&two.one, 12), Readiness::Probe);
    assert_eq!(two.readiness(&two.other, 12), Readiness::Probe);
    assert!(two.one.claim(uid, at(12)).await);
    assert!(!two.other.claim(uid, at(12)).await);
    assert!(!two.one.claim(uid, at(12)).await);
    assert!(matches!(two.readiness(&two.other, 12), Readiness::Resting { .. }));
    // Of a probe that was lost, the next one is any broker's.
    assert!(two.other.claim(uid, at(72)).await);
    assert!(!two.one.claim(uid, at(72)).await);
    two.other.succeeded(uid, at(73)).await;
    // Who has not heard of the end yet finds out with the claim.
    assert!(!two.one.claim(uid, at(999)).await);
    assert_eq!(two.readiness(&two.one, 999), Readiness::Ready);
}

#[tokio::test]
async fn without_the_database_a_broker_goes_on_with_what_it_knows() {
    let two = Two::new().await;
    two.store.fail(Operation::Health, Fault::Before);
    two.one.failed(&two.row, LIMITED, at(1), at(2)).await;
    assert!(matches!(two.readiness(&two.one, 3), Readiness::Resting { .. }));
    assert!(two.one.claim(two.row.uid, at(12)).await);
    assert!(!two.one.claim(two.row.uid, at(12)).await);
    two.one.succeeded(two.row.uid, at(13)).await;
    assert_eq!(two.readiness(&two.one, 13), Readiness::Ready);
}

#[tokio::test]
async fn calls_that_go_well_are_not_written() {
    let two = Two::new().await;
    two.store.fail(Operation::Health, Fault::Hang);
    for second in 1..9 {
        two.one.failed(&two.row, Failure::ProviderTrouble, at(second), at(second)).await;
        two.one.succeeded(two.row.uid, at(second) + Duration::from_millis(1)).await;
    }
    assert_eq!(two.readiness(&two.one, 9), Readiness::Ready);
    // The control: a rest is.
    two.store.heal();
    two.one.failed(&two.row, LIMITED, at(10), at(10)).await;
    assert!(two.store.health(two.row.uid).await.unwrap().is_some());
}

#[tokio::test]
async fn a_credential_that_was_changed_begins_anew() {
    let two = Two::new().await;
    two.one.failed(&two.row, Failure::CredentialRefused, at(1), at(2)).await;
    let changed = CredentialRow { revision: 2, updated_at: at(5), ..two.row.clone() };
    assert_eq!(two.one.readiness(&changed, at(5)).0, Readiness::Ready);
    // What was on its way with the old secret says nothing of the new one.
    two.one.failed(&changed, Failure::CredentialRefused, at(4), at(6)).await;
    assert_eq!(two.one.readiness(&changed, at(6)).0, Readiness::Ready);
    two.one.failed(&changed, Failure::CredentialRefused, at(6), at(7)).await;
    assert!(matches!(two.one.readiness(&changed, at(7)).0, Readiness::Resting { .. }));
    two.other.catch_up().await.unwrap();
    assert!(matches!(two.other.readiness(&changed, at(7)).0, Readiness::Resting { .. }));
}

#[tokio::test]
async fn a_renewal_of_a_lease_that_calls_failed_under_is_no_success() {
    let two = Two::new().await;
    for second in 1..4 {
        two.one.failed(&two.row, Failure::TimedOut, at(second), at(second)).await;
        two.one.succeeded(two.row.uid, at(0)).await;
    }
    assert!(matches!(two.readiness(&two.one, 4), Readiness::Resting { .. }));
    two.one.succeeded(two.row.uid, at(4)).await;
    assert_eq!(two.readiness(&two.one, 4), Readiness::Ready);
}
