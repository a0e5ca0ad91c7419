//! Records hold commitments to people's names; who may read records is told the names.

use std::{fs, path::Path};

use audit::{Disclosure, Kind, Record};
use strongroom_proto::v1;

use crate::harness::Running;

const ADMIN: &str = "spiffe://strongroom.local/admin/local";

async fn create(running: &Running, tenant: &str) {
    let request = v1::CreateTenantRequest {
        tenant_id: tenant.to_owned(),
        ..v1::CreateTenantRequest::default()
    };
    running.admin.tenants().create_tenant(request).await.unwrap();
}

/// All records, and the names that were told with them.
async fn told(running: &Running) -> (Vec<Record>, Vec<Disclosure>) {
    let page = v1::ListRecordsRequest { page_size: 4096, ..v1::ListRecordsRequest::default() };
    let page = running.admin.audit().list_records(page).await.unwrap().into_inner();
    let records = page.entries.iter().map(|entry| audit::decode_record(&entry.body).unwrap());
    let check = |it: v1::Disclosure| Disclosure::check(&it.commitment, &it.salt, &it.value);
    (records.collect(), page.disclosures.into_iter().map(|it| check(it).unwrap()).collect())
}

fn of(kind: Kind, records: &[Record]) -> Record {
    records.iter().find(|record| record.kind() == kind).unwrap().clone()
}

#[tokio::test]
async fn of_a_person_a_record_has_a_commitment_and_readers_are_told_the_name() {
    let running = Running::start().await;
    create(&running, "acme").await;
    let (records, names) = told(&running).await;
    let created = of(Kind::TenantCreated, &records[1..]);
    assert_eq!(created.actor, "");
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].value(), ADMIN);
    assert_eq!(*created.actor_commitment, *names[0].commitment());

    let request = v1::ProveInclusionRequest { index: created.index, tree_size: created.index + 1 };
    let proof = running.admin.audit().prove_inclusion(request).await.unwrap().into_inner();
    assert_eq!(proof.disclosures[0].value, ADMIN);
    let request = v1::TailRecordsRequest { from_index: Some(created.index), ..Default::default() };
    let mut tail = running.admin.audit().tail_records(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    while told.is_empty() {
        told = tail.message().await.unwrap().unwrap().disclosures;
    }
    assert_eq!(told[0].value, ADMIN);
    drop(tail);
    // Verified without any name: what is forgotten breaks nothing.
    running.end().await;
}

#[tokio::test]
async fn no_file_of_the_broker_has_a_persons_name() {
    let running = Running::start().await;
    create(&running, "acme").await;
    let tenant = "tenants/acme".to_owned();
    let request = v1::SuspendTenantRequest { name: tenant };
    // A workload's refusal stands there in clear, which shows that the search can find something.
    running.proxy.tenants().suspend_tenant(request).await.unwrap_err();
    let (_, folder, layout) = running.end_and_keep().await;
    let found = |text: &str| holds(&layout.data, text.as_bytes());
    assert!(found("spiffe://strongroom.local/inference-proxy"));
    assert!(!found("admin/local"));
    drop(folder);
}

#[tokio::test]
async fn a_blocked_person_is_blocked_by_commitment_and_told_by_name() {
    let running = Running::start().await;
    let other = "spiffe://strongroom.local/admin/other".to_owned();
    let block = v1::BlockIdentityRequest { identity: other.clone() };
    running.admin.identities().block_identity(block).await.unwrap();
    let request = v1::ListBlockedIdentitiesRequest {};
    let listed = running.admin.identities().list_blocked_identities(request).await.unwrap();
    assert_eq!(listed.into_inner().identities[0].identity, other);
    let (records, names) = told(&running).await;
    let blocked = of(Kind::IdentityBlocked, &records);
    assert_eq!(blocked.subject, "");
    let found = names.iter().find(|it| *it.commitment() == *blocked.subject_commitment);
    assert_eq!(found.unwrap().value(), other);
    let unblock = v1::UnblockIdentityRequest { identity: other };
    running.admin.identities().unblock_identity(unblock).await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn who_was_blocked_before_being_a_person_stays_blocked_and_can_be_unblocked() {
    let other = "spiffe://strongroom.local/admin/other";
    let as_machine = |text: String| text.replace("people = [", "people = []\n# [");
    let running = Running::start_with(as_machine).await;
    let block = v1::BlockIdentityRequest { identity: other.to_owned() };
    running.admin.identities().block_identity(block).await.unwrap();
    let (records, folder, layout) = running.end_and_keep().await;
    assert_eq!(of(Kind::IdentityBlocked, &records).subject, other);

    let text = fs::read_to_string(&layout.broker_config).unwrap();
    fs::write(&layout.broker_config, text.replace("people = []\n# [", "people = [")).unwrap();
    let running = Running::start_in(folder, layout).await;
    let block = v1::BlockIdentityRequest { identity: other.to_owned() };
    let again = running.admin.identities().block_identity(block).await.unwrap().into_inner();
    assert_eq!(again.log_index, of(Kind::IdentityBlocked, &records).index);
    let unblock = v1::UnblockIdentityRequest { identity: other.to_owned() };
    running.admin.identities().unblock_identity(unblock).await.unwrap();
    let request = v1::ListBlockedIdentitiesRequest {};
    let listed = running.admin.identities().list_blocked_identities(request).await.unwrap();
    assert_eq!(listed.into_inner().identities, []);
    running.end().await;
}

fn holds(folder: &Path, needle: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        fs::read(&path).unwrap().windows(needle.len()).any(|window| window == needle)
    })
}
