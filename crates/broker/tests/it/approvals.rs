//! What needs a second person is done once, as another has approved it, and in no other way.

use std::{fs, sync::Arc, time::Duration};

use audit::{Kind, Reason, Record};
use broker::{Broker, Config};
use domain::{ADMIT_POLICY, Clock, ManualClock, SystemClock, TWO_PERSON_METHODS};
use setup::{Layout, Pki};
use strongroom_client::Problem;
use strongroom_proto::v1::{self, approval::State};
use tonic::{Code, Status};

use crate::{
    harness::{Running, connect, layout},
    lending::with_credential,
};

const DAY: Duration = Duration::from_hours(24);
const POLL: Duration = Duration::from_millis(20);

/// The usual policy, in which two people change it, with a member so that another text is another policy.
fn two_people(policy: &str) -> String {
    policy.replace("two_people = []", &format!("two_people = [\"{ADMIT_POLICY}\"]"))
}

fn with_member(policy: &str) -> String {
    format!(
        "{policy}\n[[grants]]\nrole = \"member\"\n\
         to = [\"spiffe://strongroom.local/inference-proxy\"]\ntenants = [\"*\"]\n"
    )
}

/// Another person, with the same rights as the admin unless the policy says otherwise.
fn person(running: &Running, name: &str) -> strongroom_client::Broker {
    issue(&running.layout, name);
    connect(&running.layout, &running.address, name)
}

fn issue(layout: &Layout, name: &str) {
    let pki = Pki::open(&layout.pki, &layout.trust_domain, Arc::new(SystemClock)).unwrap();
    pki.issue(&layout.pki, name, &format!("admin/{name}"), DAY).unwrap();
}

async fn start() -> (Running, strongroom_client::Broker, String) {
    let running = Running::start_with_policy(|policy| two_people(&policy)).await;
    let policy = fs::read_to_string(&running.layout.policy).unwrap();
    let second = person(&running, "second");
    (running, second, policy)
}

async fn admit(
    broker: &strongroom_client::Broker,
    policy: &str,
) -> Result<v1::AdmitPolicyResponse, Status> {
    let request = v1::AdmitPolicyRequest { policy: policy.to_owned() };
    broker.approvals().admit_policy(request).await.map(tonic::Response::into_inner)
}

#[track_caller]
fn reason(refused: &Status) -> String {
    Problem::from_status(refused).reason
}

/// Proposes, and gives the name of what was kept.
async fn propose(broker: &strongroom_client::Broker, policy: &str) -> String {
    let refused = admit(broker, policy).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::FailedPrecondition, "APPROVAL_NEEDED"));
    proposed(&refused)
}

/// The name under which a refused call is kept.
#[track_caller]
fn proposed(refused: &Status) -> String {
    let metadata = Problem::from_status(refused).metadata;
    let name = metadata.into_iter().find(|(key, _)| key == "approval").unwrap().1;
    assert!(refused.message().contains(&name), "{}", refused.message());
    name
}

async fn get(broker: &strongroom_client::Broker, name: &str) -> Result<v1::Approval, Status> {
    let request = v1::GetApprovalRequest { name: name.to_owned() };
    broker.approvals().get_approval(request).await.map(tonic::Response::into_inner)
}

async fn approve(broker: &strongroom_client::Broker, name: &str) -> Result<v1::Approval, Status> {
    let request_sha256 = get(broker, name).await?.request_sha256;
    let request = v1::ApproveRequest { name: name.to_owned(), request_sha256 };
    broker.approvals().approve(request).await.map(tonic::Response::into_inner)
}

async fn decline(broker: &strongroom_client::Broker, name: &str) -> Result<v1::Approval, Status> {
    let request = v1::DeclineRequest { name: name.to_owned() };
    broker.approvals().decline(request).await.map(tonic::Response::into_inner)
}

fn steps(records: &[Record]) -> Vec<Kind> {
    let steps = [
        Kind::ApprovalRequested,
        Kind::ApprovalGiven,
        Kind::ApprovalDeclined,
        Kind::ApprovalUsed,
        Kind::PolicyAdmitted,
    ];
    records.iter().map(Record::kind).filter(|kind| steps.contains(kind)).collect()
}

#[tokio::test]
async fn what_another_has_approved_is_done_once() {
    let (running, second, policy) = start().await;
    let wanted = with_member(&policy);
    let name = propose(&running.admin, &wanted).await;
    // Asked again before anybody has approved, it is the same.
    assert_eq!(propose(&running.admin, &wanted).await, name);
    let seen = get(&second, &name).await.unwrap();
    assert_eq!((seen.state(), &*seen.method), (State::Proposed, ADMIT_POLICY));
    assert_eq!(seen.proposer, "spiffe://strongroom.local/admin/local");
    let kept: v1::AdmitPolicyRequest = prost::Message::decode(seen.request.clone()).unwrap();
    assert_eq!(kept.policy, wanted);

    assert_eq!(approve(&second, &name).await.unwrap().state(), State::Approved);
    // Another request is not what was approved, nor is the same by somebody else.
    assert_ne!(propose(&running.admin, &format!("{wanted}\n# x\n")).await, name);
    assert_ne!(propose(&second, &wanted).await, name);
    admit(&running.admin, &wanted).await.unwrap();
    let used = get(&running.admin, &name).await.unwrap();
    assert_eq!(
        (used.state(), &*used.decider),
        (State::Used, "spiffe://strongroom.local/admin/second")
    );
    assert_ne!(propose(&running.admin, &wanted).await, name, "once");
    let listed = running.admin.approvals().list_approvals(v1::ListApprovalsRequest {}).await;
    assert_eq!(listed.unwrap().into_inner().approvals.len(), 4);

    let records = running.end().await;
    let expected = [
        Kind::PolicyAdmitted,
        Kind::ApprovalRequested,
        Kind::ApprovalGiven,
        Kind::ApprovalRequested,
        Kind::ApprovalRequested,
        Kind::ApprovalUsed,
        Kind::PolicyAdmitted,
        Kind::ApprovalRequested,
    ];
    assert_eq!(steps(&records), expected);
}

#[tokio::test]
async fn nobody_is_their_own_second_person_and_no_workload_is_one() {
    let running = Running::start_with_policy(|policy| {
        two_people(&policy)
            + "[[grants]]\nrole = \"owner\"\n\
               to = [\"spiffe://strongroom.local/inference-proxy\"]\ntenants = [\"*\"]\n"
    })
    .await;
    let policy = fs::read_to_string(&running.layout.policy).unwrap();
    let wanted = with_member(&policy);
    let name = propose(&running.admin, &wanted).await;
    let refused = approve(&running.admin, &name).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::PermissionDenied, "SAME_PERSON"));
    // The proxy has the role, and is no person.
    let refused = approve(&running.proxy, &name).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::PermissionDenied, "NOT_A_PERSON"));
    let refused = admit(&running.proxy, &wanted).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_A_PERSON");
    assert_eq!(propose(&running.admin, &wanted).await, name, "still waits");
    // One who has no such role.
    let stranger = Running::start_with_policy(|policy| {
        two_people(&policy).replace(
            "\"spiffe://strongroom.local/admin/*\"",
            "\"spiffe://strongroom.local/admin/local\"",
        )
    })
    .await;
    let name = propose(&stranger.admin, &wanted).await;
    let refused = get(&person(&stranger, "eve"), &name).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_PERMITTED");
    stranger.end().await;
    // With a second person it goes on: it was these that were refused.
    let name = propose(&running.admin, &wanted).await;
    approve(&person(&running, "second"), &name).await.unwrap();
    admit(&running.admin, &wanted).await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn what_was_declined_or_given_by_somebody_who_is_blocked_since_is_over() {
    let (running, second, policy) = start().await;
    let wanted = with_member(&policy);
    let first = propose(&running.admin, &wanted).await;
    decline(&second, &first).await.unwrap();
    assert_eq!(reason(&approve(&second, &first).await.unwrap_err()), "APPROVAL_IS_OVER");
    assert_eq!(reason(&decline(&second, &first).await.unwrap_err()), "APPROVAL_IS_OVER");

    let name = propose(&running.admin, &wanted).await;
    assert_ne!(name, first);
    let unseen = v1::ApproveRequest { name: name.clone(), request_sha256: vec![1; 32].into() };
    let refused = second.approvals().approve(unseen).await.unwrap_err();
    assert_eq!(reason(&refused), "ETAG_MISMATCH");
    approve(&second, &name).await.unwrap();
    let identity = "spiffe://strongroom.local/admin/second".to_owned();
    let request = v1::BlockIdentityRequest { identity: identity.clone() };
    running.admin.identities().block_identity(request).await.unwrap();
    let refused = admit(&running.admin, &wanted).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::FailedPrecondition, "APPROVAL_LAPSED"));
    // It is proposed anew, once.
    let anew = proposed(&refused);
    assert_ne!(anew, name);
    assert_eq!(propose(&running.admin, &wanted).await, anew);
    // Unblocked, the approval counts again: it was that.
    let request = v1::UnblockIdentityRequest { identity };
    running.admin.identities().unblock_identity(request).await.unwrap();
    admit(&running.admin, &wanted).await.unwrap();

    let name = propose(&running.admin, &wanted).await;
    decline(&running.admin, &name).await.unwrap();
    assert_eq!(reason(&get(&second, "approvals/7").await.unwrap_err()), "NO_SUCH_APPROVAL");
    running.end().await;
}

#[tokio::test]
async fn an_approval_ends_with_the_role_of_who_gave_it() {
    let grant = "\n[[grants]]\nrole = \"approver\"\n\
                 to = [\"spiffe://strongroom.local/admin/second\"]\ntenants = [\"*\"]\n";
    let alone = |policy: &str| {
        policy
            .replace(
                "\"spiffe://strongroom.local/admin/*\"",
                "\"spiffe://strongroom.local/admin/local\"",
            )
            .replace("two_people = []", "two_people = [\"Kms/RotateKek\"]")
    };
    let running = Running::start_with_policy(|policy| alone(&policy) + grant).await;
    let with = fs::read_to_string(&running.layout.policy).unwrap();
    let without = with.replace(grant, "");
    assert_ne!(with, without);
    let second = person(&running, "second");
    let rotate = async || {
        let request =
            v1::RotateKekRequest { tenant: "tenants/platform".to_owned(), ..Default::default() };
        running.admin.kms().rotate_kek(request).await
    };
    let name = proposed(&rotate().await.unwrap_err());
    approve(&second, &name).await.unwrap();

    let put = async |policy: &str, approves: bool| {
        fs::write(&running.layout.policy, policy).unwrap();
        while get(&second, &name).await.is_ok() != approves {
            tokio::time::sleep(POLL).await;
        }
    };
    put(&without, false).await;
    let refused = rotate().await.unwrap_err();
    assert_eq!(reason(&refused), "APPROVAL_LAPSED");
    let anew = proposed(&refused);
    assert_eq!(proposed(&rotate().await.unwrap_err()), anew);
    // With the role, either will do: the one that was given, and then the one that is.
    put(&with, true).await;
    rotate().await.unwrap();
    assert_eq!(proposed(&rotate().await.unwrap_err()), anew);
    approve(&second, &anew).await.unwrap();
    rotate().await.unwrap();
    let records = running.end().await;
    let refusals = records.iter().filter(|it| it.reason() == Reason::ApprovalLapsed);
    assert_eq!(refusals.count(), 1);
    let rotated = records.iter().filter(|it| it.kind() == Kind::KekRotated);
    assert_eq!(rotated.count(), 2);
}

async fn lists_tenants(broker: &strongroom_client::Broker) -> bool {
    broker.tenants().list_tenants(v1::ListTenantsRequest::default()).await.is_ok()
}

#[tokio::test]
async fn a_policy_that_two_people_have_not_admitted_does_not_come_into_force() {
    let (running, second, policy) = start().await;
    let wanted = with_member(&policy);
    let next = running.layout.policy.with_extension("next");
    fs::write(&next, &wanted).unwrap();
    fs::rename(next, &running.layout.policy).unwrap();
    // The broker reports what it finds in the file, and goes on by what it had.
    let found = |record: &Record| record.reason() == Reason::PolicyNotAdmitted;
    while !running.records().await.iter().any(found) {
        tokio::time::sleep(POLL).await;
    }
    assert!(!lists_tenants(&running.proxy).await);

    let name = propose(&running.admin, &wanted).await;
    approve(&second, &name).await.unwrap();
    admit(&running.admin, &wanted).await.unwrap();
    while !lists_tenants(&running.proxy).await {
        tokio::time::sleep(POLL).await;
    }
    let records = running.end().await;
    assert_eq!(records.iter().filter(|record| found(record)).count(), 1, "reported once");
}

async fn start_fails(layout: &Layout) -> Option<String> {
    let (config, sha256) = Config::load(&layout.broker_config).unwrap();
    Broker::open(config, sha256).await.err().map(|error| format!("{error:#}"))
}

#[tokio::test]
async fn a_restart_does_not_get_round_the_second_person() {
    let (running, _, policy) = start().await;
    let (_, folder, layout) = running.end_and_keep().await;
    // Nor does a policy that asks for nobody.
    fs::write(&layout.policy, policy.replace(&format!("[\"{ADMIT_POLICY}\"]"), "[]")).unwrap();
    let error = start_fails(&layout).await.unwrap();
    assert!(error.contains("is not the one that was admitted last"), "{error}");
    fs::write(&layout.policy, &policy).unwrap();
    let running = Running::start_in(folder, layout).await;
    let (_, folder, layout) = running.end_and_keep().await;

    // Whoever runs the machine can, and it is on record.
    fs::write(&layout.policy, with_member(&policy)).unwrap();
    assert!(start_fails(&layout).await.is_some());
    let (config, _) = Config::load(&layout.broker_config).unwrap();
    broker::admit_policy(config).await.unwrap();
    let running = Running::start_in(folder, layout).await;
    assert!(lists_tenants(&running.proxy).await);
    let records = running.end().await;
    let admitted: Vec<_> =
        records.iter().filter(|record| record.kind() == Kind::PolicyAdmitted).collect();
    assert_eq!(admitted.len(), 2);
    assert!(admitted.iter().all(|it| it.actor.is_empty() && it.actor_commitment.is_empty()));
}

#[tokio::test]
async fn where_nobody_asks_for_two_people_one_is_enough() {
    let running = Running::start().await;
    let policy = fs::read_to_string(&running.layout.policy).unwrap();
    admit(&running.admin, &policy).await.unwrap();
    let refused = admit(&running.admin, "[roles").await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "INVALID_FIELD"));
    assert_eq!(steps(&running.end().await), [Kind::PolicyAdmitted]);
}

/// One that may be listed and did not ask would be a promise in the policy that nobody keeps.
#[tokio::test]
async fn every_method_that_can_ask_for_two_people_does() {
    let methods: Vec<_> = TWO_PERSON_METHODS.iter().map(|it| format!("\"{it}\"")).collect();
    let methods = format!("two_people = [{}]", methods.join(", "));
    let running =
        Running::start_with_policy(|policy| policy.replace("two_people = []", &methods)).await;
    let policy = fs::read_to_string(&running.layout.policy).unwrap();
    with_credential(&running, "acme").await;
    for method in TWO_PERSON_METHODS {
        let refused = call(&running.admin, method, &policy).await.unwrap_err();
        assert_eq!(reason(&refused), "APPROVAL_NEEDED", "{method}");
    }
    let records = running.end().await;
    let asked = steps(&records).into_iter().filter(|kind| *kind == Kind::ApprovalRequested);
    assert_eq!(asked.count(), TWO_PERSON_METHODS.len());
    // Where the policy does not ask, they are done.
    let running = Running::start().await;
    with_credential(&running, "acme").await;
    for method in TWO_PERSON_METHODS {
        call(&running.admin, method, &policy).await.unwrap();
    }
    running.end().await;
}

async fn call(
    broker: &strongroom_client::Broker,
    method: &str,
    policy: &str,
) -> Result<(), Status> {
    match method {
        ADMIT_POLICY => admit(broker, policy).await.map(drop),
        "Kms/RewrapKeys" => {
            broker.kms().rewrap_keys(v1::RewrapKeysRequest::default()).await.map(drop)
        }
        "Credentials/ShredCredential" => {
            let name = "tenants/acme/credentials/openai".to_owned();
            let request = v1::ShredCredentialRequest { name, ..Default::default() };
            broker.credentials().shred_credential(request).await.map(drop)
        }
        "Tenants/ShredTenant" => {
            let request =
                v1::ShredTenantRequest { name: "tenants/acme".to_owned(), ..Default::default() };
            broker.tenants().shred_tenant(request).await.map(drop)
        }
        "Kms/RotateKek" => broker.kms().rotate_kek(v1::RotateKekRequest::default()).await.map(drop),
        method => panic!("{method} has no case here"),
    }
}

#[tokio::test]
async fn a_request_that_was_carried_out_is_answered_again_without_a_second_person() {
    let running = Running::start_with_policy(|policy| {
        policy.replace("two_people = []", "two_people = [\"Kms/RotateKek\"]")
    })
    .await;
    let rotate = async || {
        let request = v1::RotateKekRequest {
            tenant: "tenants/platform".to_owned(),
            request_id: "r-1".to_owned(),
        };
        running.admin.kms().rotate_kek(request).await.map(tonic::Response::into_inner)
    };
    let refused = rotate().await.unwrap_err();
    let name = Problem::from_status(&refused).metadata.into_iter().next().unwrap().1;
    approve(&person(&running, "second"), &name).await.unwrap();
    assert!(rotate().await.unwrap().log_index > 0);
    assert_eq!(rotate().await.unwrap().log_index, 0);
    let records = running.end().await;
    let used = Kind::ApprovalUsed;
    let at = |kind: Kind| records.iter().position(|record| record.kind() == kind).unwrap();
    assert_eq!(at(Kind::KekRotated), at(used) + 1, "and nothing stands between");
    assert_eq!(records[at(used)].tenant, "platform");
}

/// The database's clock decides what is over; a broker whose clock is a day ahead changes nothing.
#[tokio::test]
async fn the_brokers_own_clock_ends_no_approval() {
    let (folder, layout) = layout();
    let policy = two_people(&fs::read_to_string(&layout.policy).unwrap());
    fs::write(&layout.policy, &policy).unwrap();
    let clock = ManualClock::at(SystemClock.now() + Duration::from_hours(25));
    let running = Running::start_by(folder, layout, Arc::new(clock)).await;
    let name = propose(&running.admin, &with_member(&policy)).await;
    assert_eq!(get(&running.admin, &name).await.unwrap().state(), State::Proposed);
    running.end().await;
}
