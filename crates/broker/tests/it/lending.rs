use domain::{CredentialName, Dialect, ProviderId, Secret, TenantId, VirtualKey, VirtualKeyName};
use strongroom_client::{LeaseCache, LeaseCacheConfig, LeaseError, LeaseKey, Problem};
use strongroom_proto::v1;
use tonic::Code;

use crate::harness::Running;

pub(crate) const SECRET: &str = "sk-proj-0123456789abcdefghijklmnop";

pub(crate) fn spec(provider: &str) -> v1::Credential {
    v1::Credential { provider: provider.to_owned(), ..v1::Credential::default() }
}

pub(crate) fn key(virtual_key: &VirtualKey, model: &str) -> LeaseKey {
    LeaseKey {
        virtual_key: virtual_key.id().clone(),
        digest: virtual_key.digest(),
        dialect: Dialect::OpenAi,
        provider: None,
        model: model.to_owned(),
    }
}

pub(crate) async fn with_credential(running: &Running, tenant: &str) -> (TenantId, CredentialName) {
    let tenant: TenantId = tenant.parse().unwrap();
    let request = v1::CreateTenantRequest { tenant_id: tenant.to_string(), ..Default::default() };
    running.admin.tenants().create_tenant(request).await.unwrap();
    let name = CredentialName { tenant: tenant.clone(), credential: "openai".parse().unwrap() };
    let secret = Secret::new(SECRET.into());
    let id = &name.credential;
    running.admin.create_credential(&tenant, id, spec("openai"), &secret, "r-1").await.unwrap();
    (tenant, name)
}

pub(crate) async fn with_key(running: &Running, tenant: &TenantId, models: &[&str]) -> VirtualKey {
    let key = VirtualKey::generate().unwrap();
    let request = v1::CreateVirtualKeyRequest {
        parent: tenant.resource(),
        virtual_key_id: key.id().to_string(),
        virtual_key: Some(v1::VirtualKey {
            models: models.iter().map(|&model| model.to_owned()).collect(),
            ..Default::default()
        }),
        key_sha256: key.digest().as_bytes().to_vec().into(),
    };
    running.admin.virtual_keys().create_virtual_key(request).await.unwrap();
    key
}

pub(crate) fn cache(running: &Running) -> LeaseCache {
    let clock = std::sync::Arc::new(domain::SystemClock);
    LeaseCache::new(running.proxy.clone(), LeaseCacheConfig::default(), clock)
}

#[track_caller]
pub(crate) fn refused(result: Result<impl std::fmt::Debug, LeaseError>) -> (Code, String) {
    match result.unwrap_err() {
        LeaseError::Refused { code, reason, .. } => (code, reason),
        error @ (LeaseError::Unavailable { .. } | LeaseError::BadLease) => {
            panic!("not a refusal: {error:?}")
        }
    }
}

#[tokio::test]
async fn a_stored_secret_comes_back_as_a_lease_and_in_no_other_way() {
    let running = Running::start().await;
    let (tenant, name) = with_credential(&running, "acme").await;
    let virtual_key = with_key(&running, &tenant, &[]).await;

    let lease = cache(&running).lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    assert_eq!(lease.unseal().unwrap().expose(), SECRET.as_bytes());
    assert_eq!(lease.base_url(), "https://api.openai.com/v1");
    assert_eq!((lease.header_name().as_str(), lease.header_prefix()), ("authorization", "Bearer "));
    assert_eq!(lease.credential(), &name);
    assert_eq!(lease.source(), domain::Source::Byok);

    let request = v1::GetCredentialRequest { name: name.to_string() };
    let shown = running.admin.credentials().get_credential(request).await.unwrap().into_inner();
    assert_eq!(shown.last_four, "mnop");
    assert!(!format!("{shown:?}").contains(SECRET));
    running.end().await;
}

#[tokio::test]
async fn every_way_for_a_virtual_key_to_be_wrong_gives_the_same_answer() {
    let running = Running::start().await;
    let (tenant, _) = with_credential(&running, "acme").await;
    let known = with_key(&running, &tenant, &[]).await;
    let unknown = VirtualKey::generate().unwrap();
    let wrong = LeaseKey { digest: unknown.digest(), ..key(&known, "gpt-4o") };
    let cache = cache(&running);
    let expected = (Code::Unauthenticated, "VIRTUAL_KEY_REFUSED".to_owned());

    assert_eq!(refused(cache.lease(&key(&unknown, "gpt-4o")).await), expected);
    assert_eq!(refused(cache.lease(&wrong).await), expected);
    let name = VirtualKeyName { tenant, id: known.id().clone() };
    let request = v1::RevokeVirtualKeyRequest { name: name.to_string() };
    running.admin.virtual_keys().revoke_virtual_key(request).await.unwrap();
    assert_eq!(refused(cache.lease(&key(&known, "gpt-4o")).await), expected);
    running.end().await;
}

#[tokio::test]
async fn a_key_reaches_its_models_only() {
    let running = Running::start().await;
    let (tenant, _) = with_credential(&running, "acme").await;
    let virtual_key = with_key(&running, &tenant, &["gpt-4o-mini"]).await;
    let cache = cache(&running);

    assert!(cache.lease(&key(&virtual_key, "gpt-4o-mini")).await.is_ok());
    let expected = (Code::PermissionDenied, "MODEL_NOT_IN_SCOPE".to_owned());
    assert_eq!(refused(cache.lease(&key(&virtual_key, "gpt-4o")).await), expected);
    running.end().await;
}

#[tokio::test]
async fn a_missing_credential_is_not_replaced_unless_policy_says_so() {
    let running = Running::start().await;
    with_credential(&running, "umbrella").await;
    let platform = TenantId::platform();
    let (id, secret) = ("openai".parse().unwrap(), Secret::new(b"sk-managed-0123456789".to_vec()));
    running.admin.create_credential(&platform, &id, spec("openai"), &secret, "r").await.unwrap();
    let request = v1::CreateTenantRequest { tenant_id: "acme".into(), ..Default::default() };
    running.admin.tenants().create_tenant(request).await.unwrap();
    let tenant: TenantId = "acme".parse().unwrap();
    let virtual_key = with_key(&running, &tenant, &[]).await;

    let expected = (Code::FailedPrecondition, "NO_CREDENTIAL".to_owned());
    assert_eq!(refused(cache(&running).lease(&key(&virtual_key, "gpt-4o")).await), expected);

    let asked = v1::Tenant {
        name: tenant.resource(),
        on_missing: v1::tenant::OnMissing::Managed.into(),
        ..Default::default()
    };
    let mask = prost_types::FieldMask { paths: vec!["on_missing".into()] };
    let request = v1::UpdateTenantRequest { tenant: Some(asked), update_mask: Some(mask) };
    running.admin.tenants().update_tenant(request).await.unwrap();
    let lease = cache(&running).lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    assert_eq!(lease.source(), domain::Source::Managed);
    assert_eq!(lease.credential().tenant, platform);
    assert_eq!(lease.tenant(), &tenant);
    assert_eq!(lease.unseal().unwrap().expose(), b"sk-managed-0123456789");
    running.end().await;
}

#[tokio::test]
async fn a_request_sent_twice_is_carried_out_once() {
    let running = Running::start().await;
    let (tenant, name) = with_credential(&running, "acme").await;
    let secret = Secret::new(SECRET.into());
    let again = |request_id: &'static str| {
        let (admin, tenant, id) = (&running.admin, &tenant, &name.credential);
        let secret = &secret;
        async move { admin.create_credential(tenant, id, spec("openai"), secret, request_id).await }
    };
    assert_eq!(again("r-1").await.unwrap().current_version, 1);
    assert!(again("r-2").await.is_err());

    let rotated = running.admin.rotate_credential(&name, &secret, None, "r-3").await.unwrap();
    assert_eq!(rotated.current_version, 2);
    let rotated = running.admin.rotate_credential(&name, &secret, None, "r-3").await.unwrap();
    assert_eq!(rotated.current_version, 2);
    running.end().await;
}

#[tokio::test]
async fn what_no_rule_allows_is_refused_and_on_record() {
    let running = Running::start().await;
    with_credential(&running, "acme").await;
    let request = v1::ListTenantsRequest::default();
    let status = running.proxy.tenants().list_tenants(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(Problem::from_status(&status).reason, "NOT_PERMITTED");

    let records = running.end().await;
    let refusal = records.iter().find(|record| record.kind() == audit::Kind::Refused).unwrap();
    assert_eq!(refusal.method, "Tenants/ListTenants");
    assert_eq!(refusal.actor, "spiffe://strongroom.local/inference-proxy");
    assert_eq!(refusal.reason(), audit::Reason::NotPermitted);
}

#[tokio::test]
async fn a_box_opens_for_what_it_was_sealed_for_only() {
    let running = Running::start().await;
    with_credential(&running, "acme").await;
    let request = v1::CreateCredentialRequest {
        parent: "tenants/acme".into(),
        credential_id: "other".into(),
        credential: Some(spec("openai")),
        secret: Some(v1::SealedBox {
            session_id: vec![0; 16].into(),
            box_id: vec![0; 16].into(),
            ciphertext: vec![0; 48].into(),
        }),
        request_id: String::new(),
        test: false,
    };
    let status = running.admin.credentials().create_credential(request).await.unwrap_err();
    assert_eq!(Problem::from_status(&status).reason, "NO_SUCH_SESSION");

    let (tenant, id) = ("acme".parse().unwrap(), "empty".parse().unwrap());
    let secret = Secret::new(b"sk-with\nline".to_vec());
    let made = running.admin.create_credential(&tenant, &id, spec("openai"), &secret, "").await;
    let error = format!("{:?}", made.unwrap_err());
    assert!(error.contains("SECRET_MALFORMED"), "{error}");
    running.end().await;
}

#[tokio::test]
async fn a_custom_endpoint_is_https_and_wins_over_everything() {
    let running = Running::start().await;
    let (tenant, _) = with_credential(&running, "acme").await;
    let id = "own".parse().unwrap();
    let secret = Secret::new(b"own-endpoint-token-1".to_vec());
    let custom = |base_url: &str| v1::Credential {
        base_url: base_url.to_owned(),
        models: vec!["gpt-4o".to_owned()],
        ..spec("custom")
    };
    let plain = custom("http://llm.acme.internal/v1");
    assert!(running.admin.create_credential(&tenant, &id, plain, &secret, "").await.is_err());
    let secure = custom("https://llm.acme.internal/v1");
    running.admin.create_credential(&tenant, &id, secure, &secret, "").await.unwrap();

    let virtual_key = with_key(&running, &tenant, &[]).await;
    let lease = cache(&running).lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    assert_eq!(lease.source(), domain::Source::Custom);
    assert_eq!(lease.base_url(), "https://llm.acme.internal/v1");
    assert_eq!(lease.provider(), &"custom".parse::<ProviderId>().unwrap());
    running.end().await;
}

#[tokio::test]
async fn a_scope_that_names_a_provider_is_held_against_the_one_that_is_chosen() {
    let running = Running::start().await;
    let (tenant, _) = with_credential(&running, "acme").await;
    let id = "anthropic".parse().unwrap();
    let secret = Secret::new(b"sk-ant-api03-0123456789abcdef".to_vec());
    let made = running.admin.create_credential(&tenant, &id, spec("anthropic"), &secret, "").await;
    made.unwrap();
    let virtual_key = with_key(&running, &tenant, &["openai/*"]).await;
    let cache = cache(&running);

    assert!(cache.lease(&key(&virtual_key, "openai/gpt-4o")).await.is_ok());
    assert!(cache.lease(&key(&virtual_key, "gpt-4o")).await.is_ok());
    let by_path = LeaseKey {
        dialect: Dialect::Anthropic,
        provider: Some("anthropic".parse().unwrap()),
        ..key(&virtual_key, "openai/claude-opus-5")
    };
    let expected = (Code::InvalidArgument, "INVALID_FIELD".to_owned());
    assert_eq!(refused(cache.lease(&by_path).await), expected);
    let by_path = LeaseKey { model: "claude-opus-5".to_owned(), ..by_path };
    let expected = (Code::PermissionDenied, "MODEL_NOT_IN_SCOPE".to_owned());
    assert_eq!(refused(cache.lease(&by_path).await), expected);
    running.end().await;
}
