//! No call leaves without a record: neither what is done, nor what is read, nor what is refused.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use audit::{Kind, PolicyDocument, Record};
use domain::{Clock as _, CredentialName, ManualClock, SystemClock, VirtualKey};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use sealing::ClientKeys;
use strongroom_proto::v1;
use tokio::net::TcpStream;
use tonic::Status;

use crate::{
    harness::{Running, layout},
    lending::{with_credential, with_key},
};

/// Every method of the contract.
fn contract() -> BTreeSet<String> {
    let contract = FileDescriptorSet::decode(strongroom_proto::DESCRIPTORS).unwrap();
    let ours = contract.file.iter().filter(|file| file.package() == "strongroom.v1");
    ours.flat_map(|file| &file.service)
        .flat_map(|service| {
            service.method.iter().map(|method| format!("{}/{}", service.name(), method.name()))
        })
        .collect()
}

/// Calls methods and writes down which: those that were answered, and those that were refused.
#[derive(Default)]
struct Calls {
    answered: BTreeSet<String>,
    refused: Vec<String>,
}

impl Calls {
    async fn answered<T>(
        &mut self,
        method: &str,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> T {
        self.answered.insert(method.to_owned());
        call.await.unwrap().into_inner()
    }

    async fn refused<T: std::fmt::Debug>(
        &mut self,
        method: &str,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) {
        self.refused.push(method.to_owned());
        call.await.unwrap_err();
    }
}

fn methods(records: &[Record], of: impl Fn(Kind) -> bool) -> Vec<String> {
    records.iter().filter(|record| of(record.kind())).map(|record| record.method.clone()).collect()
}

/// Calls `$client.$service().$call($request)` and writes it down under its name in the contract.
macro_rules! answered {
    ($calls:ident, $client:expr, $service:ident.$call:ident, $name:expr, $request:expr) => {{
        let mut client = $client.$service();
        $calls.answered($name, client.$call($request)).await
    }};
}

/// The same for calls that are refused, with an empty request each.
macro_rules! refused {
    ($calls:ident, $client:expr, $service:ident: $($call:ident $request:ident $name:literal,)*) => {
        $({
            let mut client = $client.$service();
            $calls.refused($name, client.$call(v1::$request::default())).await;
        })*
    };
}

mod approvals;
mod erasure;
mod keys;
mod refused;
mod usage;

/// What is not answered by this machine's clock: nothing is pruned that is younger than a day. It has
/// a test of its own, by a clock that is put forward.
const NEVER_HERE: &str = "Audit/PruneRecords";

/// Answered only where there are two people (`approvals`).
const OF_TWO: [&str; 3] = ["Approvals/Approve", "Approvals/Decline", "Approvals/GetApproval"];

#[tokio::test]
async fn every_method_that_is_answered_leaves_a_record() {
    let running = Running::start().await;
    let mut calls = Calls::default();
    let (tenant, credential) = with_credential(&running, "acme").await;
    let virtual_key = with_key(&running, &tenant, &[]).await;
    calls.answered.extend(
        ["Tenants/CreateTenant", "Credentials/CreateCredential", "VirtualKeys/CreateVirtualKey"]
            .map(str::to_owned),
    );
    lend(&mut calls, &running, &virtual_key).await;
    read(&mut calls, &running, &virtual_key).await;
    usage::usage_and_prices(&mut calls, &running).await;
    audit(&mut calls, &running).await;
    approvals::admit(&mut calls, &running).await;
    spend(&mut calls, &running, &virtual_key).await;
    let secret = domain::Secret::new(b"sk-proj-another-0123456789".to_vec());
    running.admin.rotate_credential(&credential, &secret, None, "r-2").await.unwrap();
    calls.answered.insert("Credentials/RotateCredential".to_owned());
    rotate(&mut calls, &running, &credential).await;
    keys::rotate_keys(&mut calls, &running).await;
    change(&mut calls, &running, &credential.to_string(), &virtual_key).await;
    erasure::erase(&mut calls, &running).await;

    let answered: BTreeSet<_> = contract()
        .into_iter()
        .filter(|it| it != NEVER_HERE && !OF_TWO.contains(&it.as_str()))
        .collect();
    assert_eq!(calls.answered, answered);
    let records = running.end().await;
    let done: BTreeSet<_> = methods(&records, |kind| kind != Kind::Refused).into_iter().collect();
    let missing: Vec<_> = answered.into_iter().filter(|method| !done.contains(method)).collect();
    assert_eq!(missing, Vec::<String>::new(), "answered, and not on record");
    let refused = methods(&records, |kind| kind == Kind::Refused);
    assert!(refused.iter().all(|method| method == "Audit/GetCheckpoint"), "{refused:?}");
}

#[tokio::test]
async fn pruning_leaves_a_record_whether_or_not_there_is_something_to_prune() {
    let (folder, layout) = layout();
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    fs::write(&layout.broker_config, text.replace("[log]\n", "[log]\nkeep = \"24h\"\n")).unwrap();
    let clock = ManualClock::at(SystemClock.now() + Duration::from_hours(25));
    let running = Running::start_by(folder, layout, Arc::new(clock)).await;
    let admin = &running.admin;
    for _ in 0..256 {
        admin.tenants().list_tenants(v1::ListTenantsRequest::default()).await.unwrap();
    }
    // Waits until they are signed.
    running.records().await;
    let newest = admin.audit().get_checkpoint(v1::GetCheckpointRequest {}).await.unwrap();
    let checkpoint = newest.into_inner().checkpoint;
    let request = v1::PruneRecordsRequest { before_index: 256, checkpoint };
    let pruned = admin.audit().prune_records(request.clone()).await.unwrap().into_inner();
    assert_eq!(pruned.first_index, 256);
    let again = admin.audit().prune_records(request).await.unwrap().into_inner();
    assert_eq!((again.first_index, again.log_index), (256, 0));

    let request = v1::ListRecordsRequest { from_index: pruned.log_index, ..Default::default() };
    let page = admin.audit().list_records(request).await.unwrap().into_inner();
    let records = page.entries.iter().map(|entry| audit::decode_record(&entry.body).unwrap());
    let kinds: Vec<Kind> = records
        .filter(|record| record.method == NEVER_HERE)
        .inspect(|record| {
            assert_eq!((record.actor_commitment.len(), record.broker.len()), (32, 16));
        })
        .map(|record| record.kind())
        .collect();
    assert_eq!(kinds, [Kind::LogPruned, Kind::Read]);
}

async fn lend(calls: &mut Calls, running: &Running, virtual_key: &VirtualKey) {
    let public_key = ClientKeys::generate().unwrap().public_key().to_vec().into();
    let request = v1::OpenSessionRequest { public_key };
    let session =
        answered!(calls, running.proxy, leases.open_session, "Leases/OpenSession", request);
    let session_id = session.session_id;
    let acquire = || v1::AcquireLeaseRequest {
        session_id: session_id.clone(),
        target: Some(v1::acquire_lease_request::Target::VirtualKey(v1::VirtualKeyTarget {
            virtual_key_id: virtual_key.id().to_string(),
            key_sha256: virtual_key.digest().as_bytes().to_vec().into(),
            model: "gpt-4o".into(),
            provider: String::new(),
        })),
        dialect: v1::Dialect::Openai.into(),
        ..Default::default()
    };
    let lease =
        answered!(calls, running.proxy, leases.acquire_lease, "Leases/AcquireLease", acquire());
    let (session_id, lease_id) = (session_id.clone(), lease.lease_id);
    let request = v1::ReportFailuresRequest { session_id: session_id.clone(), reports: vec![] };
    answered!(calls, running.proxy, leases.report_failures, "Leases/ReportFailures", request);
    let request = v1::RenewLeaseRequest {
        session_id: session_id.clone(),
        lease_id: lease_id.clone(),
        ..Default::default()
    };
    answered!(calls, running.proxy, leases.renew_lease, "Leases/RenewLease", request);
    let request = v1::ReleaseLeaseRequest { session_id, lease_id };
    // Twice: what changes nothing is on record as well.
    answered!(calls, running.proxy, leases.release_lease, "Leases/ReleaseLease", request.clone());
    answered!(calls, running.proxy, leases.release_lease, "Leases/ReleaseLease", request);
    let lease =
        answered!(calls, running.proxy, leases.acquire_lease, "Leases/AcquireLease", acquire());
    let request = v1::ListLeasesRequest { parent: "tenants/acme".into(), ..Default::default() };
    answered!(calls, running.admin, leases.list_leases, "Leases/ListLeases", request);
    let request = v1::RevokeLeaseRequest { lease_hash: lease.lease_hash };
    answered!(calls, running.admin, leases.revoke_lease, "Leases/RevokeLease", request);
    let request = v1::WatchRevocationsRequest::default();
    answered!(calls, running.proxy, leases.watch_revocations, "Leases/WatchRevocations", request);
}

async fn spend(calls: &mut Calls, running: &Running, key: &VirtualKey) {
    let admin = &running.admin;
    let parent = || "tenants/acme".to_owned();
    let limits = vec![v1::Limit { unit: v1::Unit::Requests.into(), cap: 9 }];
    let length = v1::period::Length::Total.into();
    let period = Some(v1::Period { length, ..Default::default() });
    let budget = Some(v1::Budget { limits, period, ..Default::default() });
    let (budget_id, request_id) = ("once".to_owned(), "r-9".to_owned());
    let request = v1::CreateBudgetRequest { parent: parent(), budget_id, budget, request_id };
    let budget = answered!(calls, admin, budgets.create_budget, "Budgets/CreateBudget", request);
    let public_key = ClientKeys::generate().unwrap().public_key().to_vec().into();
    let request = v1::OpenSessionRequest { public_key };
    let session =
        answered!(calls, running.proxy, leases.open_session, "Leases/OpenSession", request);
    let need = Some(v1::Amounts { requests: 2, ..Default::default() });
    let allowance_id: bytes::Bytes = vec![7; 16].into();
    let id = allowance_id.clone();
    let allowance = v1::AllowanceRequest { allowance_id: id, need, wanted: None };
    let request = v1::DrawAllowanceRequest {
        session_id: session.session_id.clone(),
        virtual_key_id: key.id().to_string(),
        key_sha256: key.digest().as_bytes().to_vec().into(),
        allowance: Some(allowance),
    };
    answered!(calls, running.proxy, leases.draw_allowance, "Leases/DrawAllowance", request);
    let settlement = v1::Settlement {
        allowance_id,
        sequence: 1,
        covered: need,
        returned: None,
        spent: Some(v1::Spent { requests: 2, ..Default::default() }),
        managed: None,
    };
    let (session_id, settlements) = (session.session_id, vec![settlement]);
    let request = v1::SettleUsageRequest { session_id, settlements, usage: vec![] };
    let settled =
        answered!(calls, running.proxy, leases.settle_usage, "Leases/SettleUsage", request);
    assert_eq!(settled.not_accepted, []);
    let request = v1::GetBudgetRequest { name: budget.name.clone() };
    let known = answered!(calls, admin, budgets.get_budget, "Budgets/GetBudget", request);
    let account = known.accounts.first().unwrap();
    assert_eq!((account.spent, account.reserved), (2, 0));
    let request = v1::ListBudgetsRequest { parent: parent(), ..Default::default() };
    answered!(calls, admin, budgets.list_budgets, "Budgets/ListBudgets", request);
    let request = v1::ListUnknownAllowancesRequest { parent: parent(), ..Default::default() };
    answered!(
        calls,
        admin,
        budgets.list_unknown_allowances,
        "Budgets/ListUnknownAllowances",
        request
    );
    let found = vec![v1::Found { allowance_id: vec![8; 16].into(), ..Default::default() }];
    let request = v1::ReconcileAllowancesRequest { parent: parent(), found };
    answered!(calls, admin, budgets.reconcile_allowances, "Budgets/ReconcileAllowances", request);
    let request = v1::UpdateBudgetRequest { budget: Some(known) };
    let known = answered!(calls, admin, budgets.update_budget, "Budgets/UpdateBudget", request);
    let request = v1::DeleteBudgetRequest { name: known.name, etag: known.etag };
    answered!(calls, admin, budgets.delete_budget, "Budgets/DeleteBudget", request);
}

async fn read(calls: &mut Calls, running: &Running, virtual_key: &VirtualKey) {
    let admin = &running.admin;
    let request = v1::ListModelsRequest {
        virtual_key_id: virtual_key.id().to_string(),
        key_sha256: virtual_key.digest().as_bytes().to_vec().into(),
    };
    answered!(calls, running.proxy, leases.list_models, "Leases/ListModels", request);
    let target = v1::TenantModel {
        tenant: "tenants/acme".to_owned(),
        model: "gpt-4o".to_owned(),
        provider: String::new(),
    };
    let target = Some(v1::explain_route_request::Target::Tenant(target));
    let request = v1::ExplainRouteRequest { target, ..Default::default() };
    answered!(calls, running.admin, leases.explain_route, "Leases/ExplainRoute", request);
    let name = || "tenants/acme".to_owned();
    let request = v1::GetTenantRequest { name: name() };
    answered!(calls, admin, tenants.get_tenant, "Tenants/GetTenant", request);
    answered!(
        calls,
        admin,
        tenants.list_tenants,
        "Tenants/ListTenants",
        v1::ListTenantsRequest::default()
    );
    let request = v1::GetCredentialRequest { name: name() + "/credentials/openai" };
    answered!(calls, admin, credentials.get_credential, "Credentials/GetCredential", request);
    let request = v1::TestCredentialRequest { name: name() + "/credentials/openai" };
    answered!(calls, admin, credentials.test_credential, "Credentials/TestCredential", request);
    let request = v1::ListCredentialsRequest { parent: name(), ..Default::default() };
    answered!(calls, admin, credentials.list_credentials, "Credentials/ListCredentials", request);
    let key = format!("{}/virtualKeys/{}", name(), virtual_key.id());
    let request = v1::GetVirtualKeyRequest { name: key };
    answered!(calls, admin, virtual_keys.get_virtual_key, "VirtualKeys/GetVirtualKey", request);
    let request = v1::ListVirtualKeysRequest { parent: name(), ..Default::default() };
    answered!(calls, admin, virtual_keys.list_virtual_keys, "VirtualKeys/ListVirtualKeys", request);
}

async fn audit(calls: &mut Calls, running: &Running) {
    let admin = &running.admin;
    answered!(
        calls,
        admin,
        audit.list_records,
        "Audit/ListRecords",
        v1::ListRecordsRequest::default()
    );
    answered!(
        calls,
        admin,
        audit.tail_records,
        "Audit/TailRecords",
        v1::TailRecordsRequest::default()
    );
    // Waits until the first checkpoint is signed.
    running.records().await;
    answered!(
        calls,
        admin,
        audit.get_checkpoint,
        "Audit/GetCheckpoint",
        v1::GetCheckpointRequest::default()
    );
    answered!(
        calls,
        admin,
        audit.prove_inclusion,
        "Audit/ProveInclusion",
        v1::ProveInclusionRequest::default()
    );
    let records = running.records().await;
    let loaded = records.iter().find(|record| record.kind() == Kind::PolicyLoaded).unwrap();
    let request = v1::GetPolicyRequest { policy_sha256: loaded.policy_sha256.clone() };
    let policy = answered!(calls, admin, audit.get_policy, "Audit/GetPolicy", request);
    let policy = PolicyDocument::parse(policy.document.to_vec()).unwrap();
    assert_eq!(*policy.sha256(), *loaded.policy_sha256);
    let request = v1::ProveConsistencyRequest { old_size: 1, new_size: 2 };
    answered!(calls, admin, audit.prove_consistency, "Audit/ProveConsistency", request);
}

async fn rotate(calls: &mut Calls, running: &Running, credential: &CredentialName) {
    let admin = &running.admin;
    let secret = domain::Secret::new(b"sk-proj-a-third-0123456789".to_vec());
    for _ in 0..2 {
        let plan = v1::RotationPlan::default();
        admin.start_rotation(credential, &secret, plan, None, "op-1", false).await.unwrap();
    }
    let (name, etag) = (credential.to_string(), String::new());
    let request = v1::PromoteRotationRequest { name: name.clone(), etag: etag.clone() };
    answered!(calls, admin, credentials.promote_rotation, "Credentials/PromoteRotation", request);
    let request = v1::CancelRotationRequest { name, etag };
    answered!(calls, admin, credentials.cancel_rotation, "Credentials/CancelRotation", request);
    calls.answered.insert("Credentials/StartRotation".to_owned());
}

async fn change(calls: &mut Calls, running: &Running, credential: &str, key: &VirtualKey) {
    let admin = &running.admin;
    let (name, etag) = (|| credential.to_owned(), String::new);
    let request = v1::DisableCredentialRequest { name: name(), etag: etag() };
    answered!(
        calls,
        admin,
        credentials.disable_credential,
        "Credentials/DisableCredential",
        request
    );
    let request = v1::EnableCredentialRequest { name: name(), etag: etag() };
    answered!(calls, admin, credentials.enable_credential, "Credentials/EnableCredential", request);
    let request = v1::DeleteCredentialRequest { name: name(), etag: etag() };
    answered!(calls, admin, credentials.delete_credential, "Credentials/DeleteCredential", request);
    keys::change_key(calls, running, &format!("tenants/acme/virtualKeys/{}", key.id())).await;
    let name = || "tenants/acme".to_owned();
    let tenant = v1::Tenant { name: name(), ..Default::default() };
    let request = v1::UpdateTenantRequest { tenant: Some(tenant), update_mask: None };
    answered!(calls, admin, tenants.update_tenant, "Tenants/UpdateTenant", request);
    let request = v1::SuspendTenantRequest { name: name() };
    answered!(calls, admin, tenants.suspend_tenant, "Tenants/SuspendTenant", request.clone());
    answered!(calls, admin, tenants.suspend_tenant, "Tenants/SuspendTenant", request);
    let request = v1::ResumeTenantRequest { name: name() };
    answered!(calls, admin, tenants.resume_tenant, "Tenants/ResumeTenant", request);

    let identity = || "spiffe://strongroom.local/other".to_owned();
    let request = v1::BlockIdentityRequest { identity: identity() };
    answered!(calls, admin, identities.block_identity, "Identities/BlockIdentity", request);
    let list = v1::ListBlockedIdentitiesRequest {};
    answered!(
        calls,
        admin,
        identities.list_blocked_identities,
        "Identities/ListBlockedIdentities",
        list
    );
    let request = v1::UnblockIdentityRequest { identity: identity() };
    answered!(calls, admin, identities.unblock_identity, "Identities/UnblockIdentity", request);
    let request = v1::RevokeSessionRequest { session_key_sha256: vec![1; 32].into() };
    answered!(calls, admin, identities.revoke_session, "Identities/RevokeSession", request);
}

#[tokio::test]
async fn every_method_that_is_refused_leaves_a_record() {
    let running = Running::start().await;
    let mut calls = Calls::default();
    // By one who may not call it, or else with a request that says nothing.
    refused!(calls, running.proxy, kms:
        get_status GetKmsStatusRequest "Kms/GetStatus",
        rewrap_keys RewrapKeysRequest "Kms/RewrapKeys",
        rotate_kek RotateKekRequest "Kms/RotateKek",
    );
    refused::refuse_credentials(&mut calls, &running).await;
    refused::refuse_budgets(&mut calls, &running).await;
    refused::refuse_administration(&mut calls, &running).await;
    refused!(calls, running.proxy, audit:
        check_rows CheckRowsRequest "Audit/CheckRows",
        get_checkpoint GetCheckpointRequest "Audit/GetCheckpoint",
        get_policy GetPolicyRequest "Audit/GetPolicy",
        list_records ListRecordsRequest "Audit/ListRecords",
        prune_records PruneRecordsRequest "Audit/PruneRecords",
        prove_consistency ProveConsistencyRequest "Audit/ProveConsistency",
        prove_inclusion ProveInclusionRequest "Audit/ProveInclusion",
        tail_records TailRecordsRequest "Audit/TailRecords",
    );
    refused!(calls, running.proxy, leases:
        acquire_lease AcquireLeaseRequest "Leases/AcquireLease",
        draw_allowance DrawAllowanceRequest "Leases/DrawAllowance",
        settle_usage SettleUsageRequest "Leases/SettleUsage",
        list_leases ListLeasesRequest "Leases/ListLeases",
        explain_route ExplainRouteRequest "Leases/ExplainRoute",
        list_models ListModelsRequest "Leases/ListModels",
        open_session OpenSessionRequest "Leases/OpenSession",
        release_lease ReleaseLeaseRequest "Leases/ReleaseLease",
        renew_lease RenewLeaseRequest "Leases/RenewLease",
        report_failures ReportFailuresRequest "Leases/ReportFailures",
        revoke_lease RevokeLeaseRequest "Leases/RevokeLease",
    );
    refused::refuse_the_rest(&mut calls, &running).await;
    let beyond = v1::WatchRevocationsRequest { from_index: Some(1_000_000) };
    let mut watch = running.proxy.leases();
    calls.refused("Leases/WatchRevocations", watch.watch_revocations(beyond)).await;

    let named: BTreeSet<_> = calls.refused.iter().cloned().collect();
    assert_eq!(named, contract());
    let records = running.end().await;
    // As many as there were, and in their order; then those of the auditor who waits.
    let recorded = methods(&records, |kind| kind == Kind::Refused);
    let (ours, waiting) = recorded.split_at(calls.refused.len());
    assert_eq!(ours, calls.refused);
    assert!(waiting.iter().all(|method| method == "Audit/GetCheckpoint"), "{waiting:?}");
}

#[tokio::test]
async fn a_handshake_that_fails_is_on_record() {
    let running = Running::start().await;
    for _ in 0..3 {
        let stranger = TcpStream::connect(&running.address).await.unwrap();
        drop(stranger);
    }
    let failed = |records: &[Record]| {
        let named = |record: &&Record| record.reason() == audit::Reason::HandshakeFailed;
        records.iter().filter(named).map(|record| record.count).sum::<u32>()
    };
    while failed(&running.records().await) < 3 {
        tokio::task::yield_now().await;
    }
    let records = running.end().await;
    assert_eq!(failed(&records), 3);
    let refused = methods(&records, |kind| kind == Kind::Refused);
    assert!(refused.iter().any(|method| method.starts_with("Handshake/")), "{refused:?}");
}
