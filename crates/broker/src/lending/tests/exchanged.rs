//! Leases of credentials that are exchanged for the provider's own short-lived tokens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use audit::{Kind, Reason};
use domain::Dialect;
use envelope::Roots;
use prost_types::FieldMask;
use sealing::ClientKeys;
use strongroom_proto::v1;
use testkit::{Fault, Operation};
use tonic::Code;

use super::{Ask, Fixture, Refused, Target, caller, check, core_with, named};
use crate::outside::scripted::Scripted;

const CLIENT_SECRET: &str = "a1b8Q~0123456789012345678901234567890123";
const MANAGEMENT_KEY: &str =
    "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";

/// An application in Entra, which speaks for a resource of Azure.
fn entra() -> v1::Credential {
    let settings = [
        ("client_id", "11111111-2222-3333-4444-555555555555"),
        ("resource", "acme"),
        ("tenant_id", "acme.example"),
    ];
    let setting =
        |(name, value): (&str, &str)| v1::Setting { name: name.into(), value: value.into() };
    v1::Credential {
        provider: "azure".into(),
        kind: "entra_client".into(),
        settings: settings.map(setting).into(),
        ..v1::Credential::default()
    }
}

/// Entra grants tokens that live so long.
fn grants(fixture: &Fixture, seconds: u64) {
    let number = AtomicU32::new(0);
    fixture.outside.answer_by(move |request| {
        assert_eq!(request.uri().host(), Some("login.microsoftonline.com"));
        let number = number.fetch_add(1, Relaxed) + 1;
        let token = format!("token-{number}");
        let granted =
            format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{seconds}}}"#);
        (200, granted)
    });
}

async fn azure() -> Fixture {
    let fixture = Fixture::new().await;
    fixture.put_as(&named("azure"), entra(), CLIENT_SECRET, false).await.unwrap();
    fixture
}

impl Fixture {
    async fn lend_as(&self, name: &str) -> Result<v1::Lease, Refused> {
        let ask = Ask {
            target: Target::Credential(named(name)),
            ttl: Some(Duration::from_mins(5)),
            dialect: Dialect::OpenAi,
            request_id: String::new(),
            failed: vec![],
            allowance: None,
        };
        self.core.lend(&self.caller, &self.session, ask, None).await
    }

    async fn disable_and_enable(&self, name: &str) {
        for enabled in [false, true] {
            let admin = caller("Credentials/DisableCredential");
            self.core.switch(&admin, &named(name).to_string(), "", enabled).await.unwrap();
        }
    }
}

fn seconds(lease: &v1::Lease) -> i64 {
    lease.ttl.as_ref().unwrap().seconds
}

#[tokio::test]
async fn a_lease_ends_when_the_token_that_it_carries_does() {
    let fixture = azure().await;
    grants(&fixture, 3600);
    let lease = fixture.lend_as("azure").await.unwrap();
    assert_eq!((seconds(&lease), &*lease.header_prefix), (300, "Bearer "));
    // A minute before its end it is lent for half a minute, and the next one is on its way.
    fixture.outside.vanish();
    fixture.clock.advance(Duration::from_mins(59));
    assert_eq!(seconds(&fixture.lend_as("azure").await.unwrap()), 30);
    fixture.clock.advance(Duration::from_secs(30));
    check(fixture.lend_as("azure").await, Code::Unavailable, Reason::TokenServiceUnavailable);
    // The lease is no longer than its token in the record either.
    let entries = store::Store::records(&*fixture.store, 0, 1000, None).await.unwrap();
    let grants = entries.iter().map(|entry| entry.record().unwrap());
    let mut ends = grants
        .filter(|it| it.kind() == Kind::LeaseGranted)
        .filter_map(|it| it.lease_expire_time.as_ref().and_then(audit::timestamp));
    assert_eq!(ends.next_back().unwrap(), fixture.clock_now());
}

#[tokio::test]
async fn a_warm_lease_of_a_token_calls_nobody() {
    let fixture = azure().await;
    grants(&fixture, 3600);
    fixture.lend_as("azure").await.unwrap();
    fixture.store.fail(Operation::Read, Fault::Before);
    for _ in 0..100 {
        fixture.lend_as("azure").await.unwrap();
    }
    assert_eq!(fixture.outside.seen().len(), 1);
}

#[tokio::test]
async fn no_token_no_lease_and_the_refusal_says_what_to_change() {
    let fixture = azure().await;
    fixture.outside.answer(401, r#"{"error":"invalid_client","error_description":"wrong"}"#);
    let refused = fixture.lend_as("azure").await.unwrap_err().why;
    let expected = (Code::FailedPrecondition, Reason::CredentialNotExchanged);
    assert_eq!((refused.code(), refused.reason()), expected);
    let text = refused.public();
    assert!(text.contains("azure") && text.contains("invalid_client"), "{text}");
    assert!(text.contains("store a new one") && !text.contains(CLIENT_SECRET), "{text}");
    // A moment later it is down: that is nobody's fault, and trying again may help.
    fixture.clock.advance(Duration::from_secs(31));
    fixture.outside.answer(503, "");
    check(fixture.lend_as("azure").await, Code::Unavailable, Reason::TokenServiceUnavailable);
    assert_eq!(fixture.recorded(Kind::LeaseGranted).await, 0);
}

#[tokio::test]
async fn a_token_is_not_lent_before_its_record_is_durable() {
    let fixture = azure().await;
    grants(&fixture, 3600);
    fixture.store.fail_once(Operation::Append, Fault::Before);
    check(fixture.lend_as("azure").await, Code::Unavailable, Reason::LogUnavailable);
    assert!(fixture.lend_as("azure").await.is_ok());
    assert_eq!((fixture.outside.seen().len(), fixture.recorded(Kind::LeaseGranted).await), (1, 1));
}

#[tokio::test]
async fn what_was_made_is_over_when_the_credential_is_disabled_or_rotated() {
    let fixture = azure().await;
    grants(&fixture, 3600);
    fixture.lend_as("azure").await.unwrap();
    fixture.disable_and_enable("azure").await;
    fixture.lend_as("azure").await.unwrap();
    assert_eq!(fixture.outside.seen().len(), 2);
    let request = v1::RotateCredentialRequest {
        name: named("azure").to_string(),
        secret: Some(fixture.sealed_for(&named("azure"), "azure", CLIENT_SECRET.as_bytes())),
        ..Default::default()
    };
    let admin = caller("Credentials/RotateCredential");
    fixture.core.rotate_credential(&admin, request).await.unwrap();
    fixture.lend_as("azure").await.unwrap();
    assert_eq!(fixture.outside.seen().len(), 3);
}

#[tokio::test]
async fn what_another_broker_has_made_is_over_too() {
    let fixture = azure().await;
    let outside = Arc::<Scripted>::default();
    outside.answer(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#);
    let roots = Roots::only(Arc::clone(&fixture.kms) as _);
    let courier = Arc::clone(&outside) as _;
    let other = core_with(fixture.stores(), roots, &fixture.clock, courier).await;
    let keys = ClientKeys::generate().unwrap();
    let (session, _) = other.sessions.establish(&fixture.caller, &keys.public_key()).unwrap();
    let lend = async || {
        let ask = Ask { target: Target::Credential(named("azure")), ..super::ask() };
        other.lend(&fixture.caller, &session, ask, None).await.unwrap()
    };
    lend().await;
    lend().await;
    assert_eq!(outside.seen().len(), 1);
    fixture.disable_and_enable("azure").await;
    lend().await;
    assert_eq!(outside.seen().len(), 2);
}

#[tokio::test]
async fn a_rotation_while_the_token_is_being_made_is_no_refusal() {
    let fixture = azure().await;
    grants(&fixture, 3600);
    let gate = fixture.outside.hold();
    let rotated = async {
        fixture.outside.asked().await;
        let request = v1::RotateCredentialRequest {
            name: named("azure").to_string(),
            secret: Some(fixture.sealed_for(&named("azure"), "azure", CLIENT_SECRET.as_bytes())),
            ..Default::default()
        };
        let admin = caller("Credentials/RotateCredential");
        fixture.core.rotate_credential(&admin, request).await.unwrap();
        gate.add_permits(10);
    };
    let (lease, ()) = tokio::join!(fixture.lend_as("azure"), rotated);
    assert_eq!(lease.unwrap().credential_version, 2);
}

#[tokio::test]
async fn made_keys_are_deleted_at_the_provider_when_their_credential_ends() {
    let fixture = Fixture::new().await;
    let spec = v1::Credential {
        provider: "openrouter".into(),
        kind: "admin_key".into(),
        ..v1::Credential::default()
    };
    fixture.put_as(&named("router"), spec, MANAGEMENT_KEY, false).await.unwrap();
    fixture.outside.answer_by(|request| {
        if request.method() == http::Method::DELETE {
            return (200, String::new());
        }
        (201, r#"{"key":"sk-or-v1-made","data":{"hash":"h4sh"}}"#.to_owned())
    });
    let deleted = "DELETE https://openrouter.ai/api/v1/keys/h4sh";
    let times = || fixture.outside.seen().iter().filter(|it| *it == deleted).count();
    fixture.lend_as("router").await.unwrap();
    fixture.disable_and_enable("router").await;
    fixture.core.clear_leftovers().await.unwrap();
    while times() < 1 {
        tokio::task::yield_now().await;
    }
    // Once more, and the credential itself goes.
    fixture.lend_as("router").await.unwrap();
    let admin = caller("Credentials/DeleteCredential");
    let name = named("router").to_string();
    let request = v1::DeleteCredentialRequest { name, etag: String::new() };
    fixture.core.delete_credential(&admin, &request).await.unwrap();
    while times() < 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn without_a_token_the_next_credential_of_the_policy_is_lent() {
    let fixture = azure().await;
    let second = v1::Credential {
        provider: "azure".into(),
        settings: vec![v1::Setting { name: "resource".into(), value: "acme".into() }],
        priority: 200,
        ..v1::Credential::default()
    };
    let key = "00112233445566770011223344556677";
    fixture.put_as(&named("second"), second, key, false).await.unwrap();
    let rule = v1::FallbackRule { provider: "azure".to_owned(), to: vec!["second".to_owned()] };
    let tenant = v1::Tenant {
        name: "tenants/acme".to_owned(),
        fallbacks: vec![rule],
        ..v1::Tenant::default()
    };
    let mask = FieldMask { paths: vec!["fallbacks".to_owned()] };
    let request = v1::UpdateTenantRequest { tenant: Some(tenant), update_mask: Some(mask) };
    fixture.core.update_tenant(&caller("Tenants/UpdateTenant"), request).await.unwrap();

    let ask = || Ask {
        target: Target::Provider { tenant: "acme".parse().unwrap(), provider: "azure".into() },
        dialect: Dialect::OpenAi,
        ttl: None,
        request_id: String::new(),
        failed: vec![],
        allowance: None,
    };
    let lend =
        async || fixture.core.lend(&fixture.caller, &fixture.session, ask(), None).await.unwrap();
    fixture.outside.answer(503, "");
    let lease = lend().await;
    assert_eq!(lease.credential, named("second").to_string());
    assert_eq!(lease.because, "fallback.provider_trouble");
    // As long as the first rests, nobody asks for its token again.
    assert_eq!(lend().await.credential, named("second").to_string());
    assert_eq!(fixture.outside.seen().len(), 1);
}
