//! What ends many leases at once: each is one record, and watchers hear of it.

use audit::{Kind, Record};
use sha2::{Digest as _, Sha256};
use strongroom_client::LeaseCache;
use strongroom_proto::v1;
use tonic::Code;

use crate::{
    harness::Running,
    lending::{self, cache, key, refused, with_credential, with_key},
};

const PROXY: &str = "spiffe://strongroom.local/inference-proxy";

/// A lease that is held, and its cache.
async fn held(running: &Running) -> (LeaseCache, domain::VirtualKey, domain::CredentialName) {
    let (tenant, credential) = with_credential(running, "acme").await;
    let virtual_key = with_key(running, &tenant, &[]).await;
    let cache = cache(running);
    assert!(cache.lease(&key(&virtual_key, "gpt-4o")).await.unwrap().is_live());
    (cache, virtual_key, credential)
}

fn of(kind: Kind, records: &[Record]) -> Vec<&Record> {
    records.iter().filter(|record| record.kind() == kind).collect()
}

#[tokio::test]
async fn a_blocked_identity_holds_and_may_do_nothing_until_it_is_unblocked() {
    let running = Running::start().await;
    let (cache, virtual_key, _) = held(&running).await;
    let lease = cache.lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    let block = || v1::BlockIdentityRequest { identity: PROXY.to_owned() };
    let blocked = running.admin.identities().block_identity(block()).await.unwrap().into_inner();
    let again = running.admin.identities().block_identity(block()).await.unwrap().into_inner();
    assert_eq!(blocked, again);
    while lease.is_live() {
        tokio::task::yield_now().await;
    }
    let expected = (Code::PermissionDenied, "IDENTITY_IS_BLOCKED".to_owned());
    assert_eq!(refused(cache.lease(&key(&virtual_key, "gpt-4o")).await), expected);
    let request = v1::ListBlockedIdentitiesRequest {};
    let listed = running.admin.identities().list_blocked_identities(request).await.unwrap();
    assert_eq!(listed.into_inner().identities, [blocked]);

    let unblock = || v1::UnblockIdentityRequest { identity: PROXY.to_owned() };
    running.admin.identities().unblock_identity(unblock()).await.unwrap();
    let status = running.admin.identities().unblock_identity(unblock()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    // The session of before is gone; the client opens another by itself.
    let other = lending::cache(&running);
    assert!(other.lease(&key(&virtual_key, "gpt-4o")).await.unwrap().is_live());
    assert!(!lease.is_live());
    let records = running.end().await;
    assert_eq!(of(Kind::IdentityBlocked, &records).len(), 1);
    assert_eq!(of(Kind::SessionOpened, &records).len(), 3);
}

#[tokio::test]
async fn nobody_blocks_itself() {
    let running = Running::start().await;
    let identity = "spiffe://strongroom.local/admin/local".to_owned();
    let request = v1::BlockIdentityRequest { identity };
    let status = running.admin.identities().block_identity(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    running.end().await;
}

#[tokio::test]
async fn a_revoked_session_takes_its_leases_along() {
    let running = Running::start().await;
    let (cache, virtual_key, _) = held(&running).await;
    let lease = cache.lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    let page = v1::ListRecordsRequest::default();
    let entries = running.admin.audit().list_records(page).await.unwrap().into_inner().entries;
    let opened = entries
        .iter()
        .map(|entry| audit::decode_record(&entry.body).unwrap())
        .find(|record| record.kind() == Kind::SessionOpened && record.actor == PROXY)
        .unwrap();
    let session_key_sha256 = opened.session_key_sha256.clone();
    let request = v1::RevokeSessionRequest { session_key_sha256 };
    running.admin.identities().revoke_session(request).await.unwrap();
    while lease.is_live() {
        tokio::task::yield_now().await;
    }
    let next = cache.lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    assert!(next.is_live() && next.log_index() > lease.log_index());
    let other = v1::RevokeSessionRequest { session_key_sha256: vec![1; 31].into() };
    let status = running.admin.identities().revoke_session(other).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_ne!(*opened.session_key_sha256, *Sha256::digest(b"another"));
    running.end().await;
}

#[tokio::test]
async fn a_suspended_tenant_is_lent_nothing_until_it_is_resumed() {
    let running = Running::start().await;
    let (cache, virtual_key, _) = held(&running).await;
    let lease = cache.lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    let name = || "tenants/acme".to_owned();
    let suspend = || v1::SuspendTenantRequest { name: name() };
    let tenant = running.admin.tenants().suspend_tenant(suspend()).await.unwrap().into_inner();
    assert!(tenant.suspended);
    let again = running.admin.tenants().suspend_tenant(suspend()).await.unwrap().into_inner();
    assert_eq!(tenant.etag, again.etag);
    while lease.is_live() {
        tokio::task::yield_now().await;
    }
    let expected = (Code::FailedPrecondition, "TENANT_IS_SUSPENDED".to_owned());
    assert_eq!(refused(cache.lease(&key(&virtual_key, "gpt-4o")).await), expected);
    let request = v1::ResumeTenantRequest { name: name() };
    running.admin.tenants().resume_tenant(request).await.unwrap();
    // A cache remembers a refusal for a moment; a new one has none.
    let other = lending::cache(&running);
    assert!(other.lease(&key(&virtual_key, "gpt-4o")).await.unwrap().is_live());
    running.end().await;
}

#[tokio::test]
async fn a_watcher_that_kept_nothing_hears_all_that_still_matters() {
    let running = Running::start().await;
    let (_, _, credential) = held(&running).await;
    let request =
        v1::DisableCredentialRequest { name: credential.to_string(), etag: String::new() };
    running.admin.credentials().disable_credential(request).await.unwrap();
    let request = v1::WatchRevocationsRequest { from_index: None };
    let mut stream = running.proxy.leases().watch_revocations(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let ended = v1::revocation::Target::Credential(credential.to_string());
    assert!(first.revocations.iter().any(|it| it.target.as_ref() == Some(&ended)));
    drop(stream);
    running.end().await;
}

#[tokio::test]
async fn a_watcher_of_one_tenant_hears_that_its_own_session_or_identity_ended() {
    let one_tenant = |text: String| {
        let (before, after) = text.split_once("\ntenants = [\"*\"]").unwrap();
        format!("{before}\ntenants = [\"acme\"]{after}")
    };
    let running = Running::start_with_policy(one_tenant).await;
    let (cache, virtual_key, _) = held(&running).await;
    let lease = cache.lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    let block = v1::BlockIdentityRequest { identity: PROXY.to_owned() };
    running.admin.identities().block_identity(block).await.unwrap();
    while lease.is_live() {
        tokio::task::yield_now().await;
    }
    running.end().await;
}
