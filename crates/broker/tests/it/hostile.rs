//! What an adversary with a certificate of its own tries.

use std::time::Duration;

use domain::{Secret, TenantId, VirtualKey};
use sealing::ClientKeys;
use strongroom_client::{Broker, Problem};
use strongroom_proto::v1;
use tonic::Code;

use crate::{
    harness::Running,
    lending::{spec, with_credential, with_key},
};

async fn session(broker: &Broker) -> Vec<u8> {
    let public_key = ClientKeys::generate().unwrap().public_key().to_vec().into();
    let opened = broker.leases().open_session(v1::OpenSessionRequest { public_key }).await;
    opened.unwrap().into_inner().session_id.to_vec()
}

fn ask(session: &[u8], key: &VirtualKey, seconds: i64) -> v1::AcquireLeaseRequest {
    let target = v1::VirtualKeyTarget {
        virtual_key_id: key.id().to_string(),
        key_sha256: key.digest().as_bytes().to_vec().into(),
        model: "gpt-4o".into(),
        provider: String::new(),
    };
    v1::AcquireLeaseRequest {
        failed: vec![],
        allowance: None,
        session_id: session.to_vec().into(),
        target: Some(v1::acquire_lease_request::Target::VirtualKey(target)),
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        dialect: v1::Dialect::Openai.into(),
        request_id: String::new(),
        checkpoint: String::new(),
    }
}

#[tokio::test]
async fn a_page_token_tells_nothing_of_other_tenants() {
    let grant = "[[grants]]\nrole = \"member\"\n\
                 to = [\"spiffe://strongroom.local/inference-proxy\"]\ntenants = [\"acme\"]\n";
    let running = Running::start_with_policy(|policy| policy + grant).await;
    for tenant in ["acme", "secret-customer"] {
        let request = v1::CreateTenantRequest { tenant_id: tenant.into(), ..Default::default() };
        running.admin.tenants().create_tenant(request).await.unwrap();
    }
    let mut request = v1::ListTenantsRequest { page_size: 1, ..Default::default() };
    let page = running.proxy.tenants().list_tenants(request.clone()).await.unwrap().into_inner();
    assert_eq!((page.tenants.len(), &*page.next_page_token), (1, ""));
    request.page_token = "platform".into();
    let page = running.proxy.tenants().list_tenants(request).await.unwrap().into_inner();
    assert_eq!((page.tenants.len(), &*page.next_page_token), (0, ""));
    running.end().await;
}

#[tokio::test]
async fn readers_from_beyond_the_log_are_told_so() {
    let running = Running::start().await;
    let from = 1_000_000;
    let watch = v1::WatchRevocationsRequest { from_index: Some(from) };
    let status = running.proxy.leases().watch_revocations(watch).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    let tail = v1::TailRecordsRequest { from_index: Some(from), ..Default::default() };
    let status = running.admin.audit().tail_records(tail).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    let list = v1::ListRecordsRequest { from_index: from, ..Default::default() };
    let status = running.admin.audit().list_records(list).await.unwrap_err();
    assert_eq!(Problem::from_status(&status).reason, "NOT_IN_TREE");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_races_renewals_ends_the_lease_in_the_log_too() {
    let running = Running::start().await;
    let (tenant, _) = with_credential(&running, "acme").await;
    let key = with_key(&running, &tenant, &[]).await;
    let session = session(&running.proxy).await;
    for _ in 0..40 {
        let lease = running.proxy.leases().acquire_lease(ask(&session, &key, 60)).await;
        let lease_id = lease.unwrap().into_inner().lease_id;
        let (proxy, session_id) = (running.proxy.clone(), bytes::Bytes::from(session.clone()));
        let release =
            v1::ReleaseLeaseRequest { session_id: session_id.clone(), lease_id: lease_id.clone() };
        let renew = v1::RenewLeaseRequest { session_id, lease_id, ..Default::default() };
        let (mut one, mut other, mut third) = (proxy.leases(), proxy.leases(), proxy.leases());
        let (released, _, _) = tokio::join!(
            one.release_lease(release),
            other.renew_lease(renew.clone()),
            third.renew_lease(renew),
        );
        released.unwrap();
    }
    // Which verifies that no renewal stands after its lease's release.
    running.end().await;
}

#[tokio::test]
async fn the_holder_of_a_managed_lease_hears_of_its_revocation() {
    let one_tenant =
        |policy: String| policy.replacen("\ntenants = [\"*\"]", "\ntenants = [\"acme\"]", 1);
    let running = Running::start_with_policy(one_tenant).await;
    let platform = TenantId::platform();
    let (id, secret) = ("openai".parse().unwrap(), Secret::new(b"sk-managed-0123456789".to_vec()));
    let managed = running.admin.create_credential(&platform, &id, spec("openai"), &secret, "r");
    let managed = managed.await.unwrap().name;
    let tenant =
        v1::Tenant { on_missing: v1::tenant::OnMissing::Managed.into(), ..Default::default() };
    let request = v1::CreateTenantRequest {
        tenant_id: "acme".into(),
        tenant: Some(tenant),
        ..Default::default()
    };
    running.admin.tenants().create_tenant(request).await.unwrap();
    let key = with_key(&running, &"acme".parse().unwrap(), &[]).await;
    let session = session(&running.proxy).await;
    let watch = v1::WatchRevocationsRequest { from_index: None };
    let watch = running.proxy.leases().watch_revocations(watch).await;
    let mut watch = watch.unwrap().into_inner();
    let lease = running.proxy.leases().acquire_lease(ask(&session, &key, 300)).await;
    assert_eq!(lease.unwrap().into_inner().credential, managed);

    let request = v1::DisableCredentialRequest { name: managed.clone(), ..Default::default() };
    running.admin.credentials().disable_credential(request).await.unwrap();
    let heard = loop {
        let message = watch.message().await.unwrap().unwrap();
        if let Some(revocation) = message.revocations.into_iter().next() {
            break revocation.target.unwrap();
        }
    };
    assert_eq!(heard, v1::revocation::Target::Credential(managed));
    drop(watch);
    running.end().await;
}

#[tokio::test]
async fn a_lease_ends_with_the_virtual_key_that_asked_for_it() {
    let running = Running::start().await;
    let (tenant, _) = with_credential(&running, "acme").await;
    let key = VirtualKey::generate().unwrap();
    let end = domain::Clock::now(&domain::SystemClock) + Duration::from_secs(30);
    let request = v1::CreateVirtualKeyRequest {
        parent: tenant.resource(),
        virtual_key_id: key.id().to_string(),
        virtual_key: Some(v1::VirtualKey {
            expire_time: Some(audit::proto_time(end)),
            ..Default::default()
        }),
        key_sha256: key.digest().as_bytes().to_vec().into(),
    };
    running.admin.virtual_keys().create_virtual_key(request).await.unwrap();
    let session = session(&running.proxy).await;
    let lease = running.proxy.leases().acquire_lease(ask(&session, &key, 300)).await;
    let expires = audit::timestamp(&lease.unwrap().into_inner().expire_time.unwrap());
    assert!(expires.unwrap() <= end);
    running.end().await;
}

#[tokio::test]
async fn a_negative_ttl_is_refused_and_on_record() {
    let running = Running::start().await;
    let (tenant, _) = with_credential(&running, "acme").await;
    let key = with_key(&running, &tenant, &[]).await;
    let session = session(&running.proxy).await;
    for seconds in [-1, i64::MIN] {
        let asked = running.proxy.leases().acquire_lease(ask(&session, &key, seconds)).await;
        assert_eq!(Problem::from_status(&asked.unwrap_err()).reason, "INVALID_FIELD");
    }
    let records = running.end().await;
    let refused = |record: &&audit::Record| record.reason() == audit::Reason::InvalidField;
    assert_eq!(records.iter().filter(refused).count(), 2);
}

#[tokio::test]
async fn what_cannot_be_decoded_is_on_record_too() {
    let running = Running::start().await;
    let request = v1::ListTenantsRequest { page_token: "x".repeat(200_000), ..Default::default() };
    let status = running.admin.tenants().list_tenants(request).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    // Nobody waited for that record. This one stands after it.
    let request = v1::GetTenantRequest { name: "tenants/acme".into() };
    running.proxy.tenants().get_tenant(request).await.unwrap_err();
    let records = running.end().await;
    let refused = |record: &&audit::Record| record.method == "Tenants/ListTenants";
    assert_eq!(records.iter().filter(refused).count(), 1);
}

#[tokio::test]
async fn a_credential_that_was_deleted_is_gone_and_its_name_free() {
    let running = Running::start().await;
    let (tenant, name) = with_credential(&running, "acme").await;
    let request = v1::DeleteCredentialRequest { name: name.to_string(), ..Default::default() };
    running.admin.credentials().delete_credential(request).await.unwrap();
    let request = v1::GetCredentialRequest { name: name.to_string() };
    let gone = running.admin.credentials().get_credential(request).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let secret = Secret::new(b"sk-proj-the-second-of-its-name".to_vec());
    let id = &name.credential;
    running.admin.create_credential(&tenant, id, spec("openai"), &secret, "r-2").await.unwrap();
    running.end().await;
}
