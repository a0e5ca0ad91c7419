//! A tenant's own root key.

use std::{sync::Arc, time::Duration};

use audit::Reason;
use domain::{Dialect, RootName, TenantId};
use envelope::Roots;
use store::{KeyPurpose, KeyRow, Store as _};
use strongroom_proto::v1;
use testkit::{FailingKms, KmsFailure};
use tonic::Code;

use super::{Ask, Fixture, Refused, Target, check, core, failing_kms, name_of};

/// Tenants `acme`, under a root key of its own, and `globex`, under the deployment's.
struct Two {
    fixture: Fixture,
    theirs: Arc<FailingKms>,
}

impl Two {
    async fn new() -> Self {
        let (ours, theirs) = (failing_kms(), failing_kms());
        let roots = roots(&ours, &theirs, &["acme"]);
        let fixture = Fixture::over(ours, roots).await;
        fixture.furnish("acme").await;
        fixture.furnish("globex").await;
        Self { fixture, theirs }
    }

    async fn lend(&self, tenant: &str) -> Result<v1::Lease, Refused> {
        let Fixture { core, caller, session, .. } = &self.fixture;
        core.lend(caller, session, ask_of(tenant), None).await
    }

    async fn key(&self, tenant: &str) -> KeyRow {
        let row = self.fixture.store.tenant(&tenant.parse().unwrap()).await.unwrap().unwrap();
        self.fixture.store.keys(row.uid, KeyPurpose::Kek).await.unwrap().remove(0)
    }
}

fn roots(ours: &Arc<FailingKms>, theirs: &Arc<FailingKms>, tenants: &[&str]) -> Roots {
    let name: RootName = "acme-hsm".parse().unwrap();
    let tenants: Vec<TenantId> = tenants.iter().map(|tenant| tenant.parse().unwrap()).collect();
    Roots::only(Arc::clone(ours) as _).with(&name, &tenants, Arc::clone(theirs) as _).unwrap()
}

fn ask_of(tenant: &str) -> Ask {
    Ask {
        failed: vec![],
        allowance: None,
        target: Target::Credential(name_of(tenant)),
        dialect: Dialect::OpenAi,
        ttl: None,
        request_id: String::new(),
    }
}

#[tokio::test]
async fn a_tenant_that_closes_its_root_key_stops_its_leases_within_the_ttl_and_no_one_elses() {
    let two = Two::new().await;
    two.lend("acme").await.unwrap();
    two.lend("globex").await.unwrap();

    two.theirs.fail(KmsFailure::Refused);
    two.fixture.clock.advance(Duration::from_secs(299));
    two.lend("acme").await.unwrap();
    two.fixture.clock.advance(Duration::from_secs(2));
    for _ in 0..10 {
        check(two.lend("acme").await, Code::FailedPrecondition, Reason::KmsRefused);
        two.lend("globex").await.unwrap();
    }
    let told = two.lend("acme").await.unwrap_err().to_string();
    assert_eq!(told, "the KMS: the kms refuses: as told", "what the KMS said is in the log");
    two.theirs.recover();
    two.lend("acme").await.unwrap();
}

#[tokio::test]
async fn a_tenants_kms_that_does_not_answer_is_no_reason_to_spare_ours() {
    let two = Two::new().await;
    two.lend("acme").await.unwrap();
    two.theirs.fail(KmsFailure::Unavailable);
    two.fixture.clock.advance(Duration::from_mins(6));
    let before = two.theirs.calls();
    for _ in 0..20 {
        check(two.lend("acme").await, Code::Unavailable, Reason::KmsUnavailable);
    }
    assert_eq!(two.theirs.calls() - before, 5, "theirs is spared after five failures");
    two.lend("globex").await.unwrap();
}

#[tokio::test]
async fn the_deployments_kms_is_not_asked_for_the_keys_of_a_tenant_with_its_own() {
    let two = Two::new().await;
    two.fixture.clock.advance(Duration::from_mins(6));
    two.fixture.kms.fail(KmsFailure::Unavailable);
    two.lend("acme").await.unwrap();
    check(two.lend("globex").await, Code::Unavailable, Reason::KmsUnavailable);
}

#[tokio::test]
async fn a_root_that_is_not_configured_for_a_tenant_opens_none_of_its_keys() {
    let two = Two::new().await;
    assert!(two.key("acme").await.wrapped.starts_with(b"SRR1\x08acme-hsm"));
    assert!(two.key("globex").await.wrapped.starts_with(b"SREV"));

    // As when somebody with the root key and the database passed a key off as another tenant's: the
    // same stored keys, and a configuration that does not allow them.
    let Fixture { kms, clock, caller, .. } = &two.fixture;
    let other = roots(kms, &two.theirs, &["globex"]);
    let other = core(two.fixture.stores(), other, clock).await;
    let keys = sealing::ClientKeys::generate().unwrap();
    let (session, _) = other.sessions.establish(caller, &keys.public_key()).unwrap();
    let refused = other.lend(caller, &session, ask_of("acme"), None).await;
    check(refused, Code::FailedPrecondition, Reason::KmsRefused);
    // A tenant that has a root now, and a key from before.
    other.lend(caller, &session, ask_of("globex"), None).await.unwrap();
}
