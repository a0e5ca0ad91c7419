//! What a second person has approved is done once, and an attempt that does nothing costs no approval.

use std::time::Duration;

use audit::{Kind, Reason, Step};
use domain::{AccessPolicy, AccessRule, LONGEST_TTL, SpiffeId, Uid};
use strongroom_proto::v1;
use testkit::{Fault, KmsFailure, Operation};

use super::{Fixture, Refused, caller, name};
use crate::{access::InForce, approvals::Decision, caller::Caller, core::Core, refused::Why};

const ROTATE: &str = "Kms/RotateKek";
const SHRED: &str = "Credentials/ShredCredential";

fn rule(person: &str, methods: &[&str]) -> AccessRule {
    AccessRule {
        role: String::new(),
        identities: vec![format!("spiffe://a.b/p/{person}").parse().unwrap()],
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
        tenants: vec!["acme".to_owned()],
        providers: vec!["*".to_owned()],
        longest_lease_seconds: LONGEST_TTL,
    }
}

/// Puts in force what lets people act, two of them for each of the two methods.
async fn allow(core: &Core, rules: &[AccessRule]) {
    let two_people = vec![ROTATE.to_owned(), SHRED.to_owned()];
    let policy = AccessPolicy::new(rules.to_vec()).with_two_people(two_people);
    core.access.replace(InForce::of(&policy), async { true }).await;
}

fn olga() -> AccessRule {
    rule("olga", &["Kms/*", "Credentials/*"])
}

fn paul() -> AccessRule {
    rule("paul", &["Approvals/*"])
}

/// Of `acme`, with both people in their roles.
async fn fixture() -> Fixture {
    let fixture = Fixture::new().await;
    allow(&fixture.core, &[olga(), paul()]).await;
    fixture
}

async fn person(core: &Core, name: &str, method: &'static str) -> Caller {
    let identity: SpiffeId = format!("spiffe://a.b/p/{name}").parse().unwrap();
    let called = core.people.call(&identity).await.unwrap();
    Caller::new(identity, called, [1; 32], method, None)
}

async fn rotate(fixture: &Fixture) -> Result<v1::RotateKekResponse, Refused> {
    let request = v1::RotateKekRequest { tenant: "tenants/acme".into(), ..Default::default() };
    let olga = person(&fixture.core, "olga", ROTATE).await;
    fixture.core.rotate_kek(&olga, &request).await
}

async fn shred(fixture: &Fixture) -> Result<v1::Erasure, Refused> {
    let request = v1::ShredCredentialRequest { name: name().to_string(), ..Default::default() };
    let olga = person(&fixture.core, "olga", SHRED).await;
    fixture.core.shred_credential(&olga, &request).await
}

#[track_caller]
fn needed<T: std::fmt::Debug>(refused: Result<T, Refused>) -> Uid {
    let why = refused.unwrap_err().why;
    let Why::ApprovalNeeded(id) = why else { panic!("{why:?}") };
    id
}

async fn approve(core: &Core, id: Uid) {
    approve_as("paul", core, id).await.unwrap();
}

async fn approve_as(who: &str, core: &Core, id: Uid) -> Result<(), Refused> {
    let person = person(core, who, "Approvals/Approve").await;
    let request_sha256 = core.approval(&person, &id).unwrap().request_sha256;
    let name = format!("approvals/{}", hex::encode(id));
    core.decide_on(&person, &name, Decision::Approve(&request_sha256)).await.map(drop)
}

fn step(core: &Core, id: Uid) -> Step {
    core.directory.approvals(|approvals| approvals.get(&id).unwrap().step)
}

#[tokio::test]
async fn an_attempt_that_does_nothing_leaves_the_approval_and_one_that_does_uses_it_up() {
    let fixture = fixture().await;
    let id = needed(rotate(&fixture).await);
    approve(&fixture.core, id).await;
    fixture.kms.fail(KmsFailure::Unavailable);
    let refused = rotate(&fixture).await.unwrap_err();
    assert!(matches!(refused.why, Why::Kms(_)), "{refused:?}");
    fixture.kms.recover();
    for operation in [Operation::Read, Operation::Apply] {
        fixture.store.fail_once(operation, Fault::Before);
        assert_eq!(rotate(&fixture).await.unwrap_err().why.reason(), Reason::StoreUnavailable);
    }
    assert_eq!(step(&fixture.core, id), Step::Approved);
    assert_eq!(fixture.recorded(Kind::ApprovalUsed).await, 0);
    rotate(&fixture).await.unwrap();
    assert_eq!(step(&fixture.core, id), Step::Used);

    // It was done, and the answer of the store was lost: once is enough.
    let again = needed(rotate(&fixture).await);
    assert_ne!(again, id);
    approve(&fixture.core, again).await;
    fixture.store.fail_once(Operation::Apply, Fault::AfterPersisting);
    assert_eq!(rotate(&fixture).await.unwrap_err().why.reason(), Reason::StoreUnavailable);
    needed(rotate(&fixture).await);
    assert_eq!(step(&fixture.core, again), Step::Used);
    assert_eq!(fixture.recorded(Kind::KekRotated).await, 2);
}

#[tokio::test]
async fn an_erasure_that_was_not_begun_leaves_the_approval() {
    let fixture = fixture().await;
    let id = needed(shred(&fixture).await);
    approve(&fixture.core, id).await;
    fixture.store.fail_once(Operation::Apply, Fault::Before);
    assert_eq!(shred(&fixture).await.unwrap_err().why.reason(), Reason::StoreUnavailable);
    assert_eq!(step(&fixture.core, id), Step::Approved);
    shred(&fixture).await.unwrap();
    assert_eq!(step(&fixture.core, id), Step::Used);
    // How it stands is asked without anybody.
    shred(&fixture).await.unwrap();
    assert_eq!(fixture.recorded(Kind::CredentialShredded).await, 1);
}

#[tokio::test]
async fn of_many_attempts_at_once_one_approval_lets_one_through() {
    let fixture = fixture().await;
    let id = needed(rotate(&fixture).await);
    approve(&fixture.core, id).await;
    let attempts = futures_util::future::join_all((0..8).map(|_| rotate(&fixture))).await;
    assert_eq!(attempts.iter().filter(|attempt| attempt.is_ok()).count(), 1, "{attempts:?}");
    assert_eq!(fixture.recorded(Kind::KekRotated).await, 1);
    assert_eq!(fixture.recorded(Kind::ApprovalUsed).await, 1);
}

#[tokio::test]
async fn nobodys_part_outlasts_their_role() {
    let fixture = fixture().await;
    let core = &fixture.core;
    let id = needed(rotate(&fixture).await);
    approve(core, id).await;
    // Another may approve now, and Paul may only look.
    let looks = rule("paul", &["Approvals/GetApproval"]);
    allow(core, &[olga(), looks, rule("zoe", &["Approvals/*"])]).await;
    let refused = rotate(&fixture).await.unwrap_err();
    let Why::ApprovalLapsed(anew) = refused.why else { panic!("{refused:?}") };
    assert_eq!(needed(rotate(&fixture).await), anew);
    assert_eq!(fixture.recorded(Kind::ApprovalRequested).await, 2);
    approve_as("zoe", core, anew).await.unwrap();
    // Who proposed it needs the right to make the call.
    allow(core, &[rule("olga", &["Kms/GetStatus"]), rule("zoe", &["Approvals/*"])]).await;
    assert_eq!(rotate(&fixture).await.unwrap_err().why.reason(), Reason::NotPermitted);
    allow(core, &[olga(), rule("zoe", &["Approvals/*"])]).await;
    rotate(&fixture).await.unwrap();
    assert_eq!((step(core, id), step(core, anew)), (Step::Approved, Step::Used));
}

/// Does a step while its commit takes a minute, by far more than a lease would wait.
async fn slowly<T>(fixture: &Fixture, step: impl Future<Output = T>) -> T {
    fixture.store.fail_once(Operation::Append, Fault::Hang);
    let until = async {
        fixture.store.until_hanging(1).await;
        tokio::time::pause();
        tokio::time::sleep(Duration::from_mins(1)).await;
        tokio::time::resume();
        fixture.store.heal();
    };
    tokio::join!(step, until).0
}

#[tokio::test]
async fn nobody_is_told_that_a_step_failed_which_is_in_force() {
    let fixture = fixture().await;
    let read = caller(ROTATE).read();
    let refused = slowly(&fixture, fixture.core.log.record(read)).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::LogUnavailable, "the control: others do not wait");
    let id = needed(Box::pin(slowly(&fixture, rotate(&fixture))).await);
    slowly(&fixture, approve(&fixture.core, id)).await;
    assert_eq!(step(&fixture.core, id), Step::Approved);
    rotate(&fixture).await.unwrap();
}

#[tokio::test]
async fn who_decides_twice_is_told_what_became_of_it() {
    let fixture = fixture().await;
    let core = &fixture.core;
    let id = needed(rotate(&fixture).await);
    approve(core, id).await;
    let again = async || {
        let why = approve_as("paul", core, id).await.unwrap_err().why;
        assert_eq!(why.reason(), Reason::ApprovalIsOver);
        why.public()
    };
    let told = again().await;
    assert!(told.starts_with("it is approved already"), "{told}");
    rotate(&fixture).await.unwrap();
    assert_eq!(again().await, "it was done already");
}
