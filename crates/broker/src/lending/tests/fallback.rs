//! What is lent when the credential before it has failed.

use std::{sync::Arc, time::Duration};

use audit::{Kind, Reason, timestamp};
use domain::{CredentialName, Dialect, Failure};
use envelope::Roots;
use prost_types::FieldMask;
use sealing::ClientKeys;
use store::Store as _;
use strongroom_proto::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{Ask, Failed, Fixture, Refused, Target, Why, ask, caller, check, core, named};

const LIMITED: Failure = Failure::RateLimited { retry_after: Some(Duration::from_secs(20)) };

/// Tenant `acme` with credentials `openai`, `second` and `third`, of which the policy lists `second`.
struct Three(Fixture);

impl Three {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        fixture.put(&named("second")).await;
        fixture.put(&named("third")).await;
        let three = Self(fixture);
        three.list(&["second"]).await;
        three
    }

    async fn list(&self, to: &[&str]) {
        let to = to.iter().map(|&one| one.to_owned()).collect();
        let rule = v1::FallbackRule { provider: "openai".to_owned(), to };
        let tenant = v1::Tenant {
            name: "tenants/acme".to_owned(),
            fallbacks: vec![rule],
            ..v1::Tenant::default()
        };
        let mask = FieldMask { paths: vec!["fallbacks".to_owned()] };
        let request = v1::UpdateTenantRequest { tenant: Some(tenant), update_mask: Some(mask) };
        let core = &self.0.core;
        core.update_tenant(&caller("Tenants/UpdateTenant"), request).await.unwrap();
    }

    async fn after(&self, failed: &[(&str, Failure)]) -> Result<v1::Lease, Refused> {
        let begun = self.0.clock_now();
        let failed = failed.iter().map(|(name, failure)| Failed {
            credential: named(name),
            version: 0,
            failure: *failure,
            begun,
        });
        let ask = Ask {
            target: Target::Provider {
                tenant: "acme".parse().unwrap(),
                provider: "openai".to_owned(),
            },
            dialect: Dialect::OpenAi,
            ttl: Some(Duration::from_mins(1)),
            request_id: String::new(),
            failed: failed.collect(),
            allowance: None,
        };
        // A call takes its time.
        self.0.clock.advance(Duration::from_millis(10));
        self.0.core.lend(&self.0.caller, &self.0.session, ask, None).await
    }
}

#[tokio::test]
async fn what_the_policy_lists_is_lent_for_as_long_as_the_first_rests() {
    let three = Three::new().await;
    let first = three.after(&[]).await.unwrap();
    assert_eq!((&*first.credential, first.has_fallback), ("tenants/acme/credentials/openai", true));
    let second = three.after(&[("openai", LIMITED)]).await.unwrap();
    assert_eq!(second.credential, "tenants/acme/credentials/second");
    assert_eq!((&*second.because, second.has_fallback), ("fallback.rate_limited", false));
    assert!(second.ttl.unwrap().seconds <= 20);
    // Whoever comes meanwhile is lent the second at once.
    assert_eq!(three.after(&[]).await.unwrap().credential, second.credential);
    // One lease shows whether the first works again; the others wait for what comes of it.
    three.0.clock.advance(Duration::from_secs(20));
    assert_eq!(three.after(&[]).await.unwrap().credential, first.credential);
    assert_eq!(three.after(&[]).await.unwrap().credential, second.credential);
}

#[tokio::test]
async fn what_the_policy_does_not_list_is_never_lent_in_its_place() {
    let three = Three::new().await;
    let all = [("openai", Failure::CredentialRefused), ("second", Failure::NoQuota)];
    let refused = three.after(&all).await;
    let why = refused.as_ref().map_err(|refused| &refused.why).unwrap_err();
    let Why::CredentialsExhausted { failure, retry_after } = why else { panic!("{why:?}") };
    // The first of the two rests for a minute, of which the call has taken nothing yet.
    assert_eq!(*failure, Some(Failure::NoQuota));
    assert_eq!(*retry_after, Some(Duration::from_mins(1)));
    check(refused, Code::FailedPrecondition, Reason::CredentialsExhausted);
    // The control: listed, it is lent.
    three.list(&["second", "third"]).await;
    let third = three.after(&all).await.unwrap();
    assert_eq!(third.credential, "tenants/acme/credentials/third");
}

#[tokio::test]
async fn a_report_about_anothers_credential_is_no_report() {
    let three = Three::new().await;
    three.0.furnish("globex").await;
    let begun = three.0.clock_now();
    let credential: CredentialName = "tenants/globex/credentials/openai".parse().unwrap();
    let tenant = three.0.core.directory.tenant(&"acme".parse().unwrap()).await.unwrap().unwrap();
    let failed = [Failed { credential, version: 0, failure: Failure::CredentialRefused, begun }];
    three.0.clock.advance(Duration::from_millis(10));
    three.0.core.note_failures(&tenant, &failed).await.unwrap();
    let globex = three.0.core.directory.tenant(&"globex".parse().unwrap()).await.unwrap().unwrap();
    let now = three.0.clock_now();
    assert!(three.0.core.healths.readiness(&globex.credentials[0].row, now).0.is_usable());
}

#[tokio::test]
async fn the_record_says_why_and_the_lease_ends_when_it_says() {
    let three = Three::new().await;
    let lease = three.after(&[("openai", Failure::NotAllowed)]).await.unwrap();
    assert_eq!(lease.ttl.unwrap().seconds, 10);
    let entries = three.0.store.records(lease.log_index, 1, None).await.unwrap();
    let record = entries[0].record().unwrap();
    assert_eq!(record.kind(), Kind::LeaseGranted);
    assert_eq!(record.because, "fallback.not_allowed");
    assert!(timestamp(record.lease_expire_time.as_ref().unwrap()).is_some());
}

#[tokio::test]
async fn a_report_counts_once_however_often_the_lease_is_decided() {
    let three = Three::new().await;
    let fixture = &three.0;
    let roots = Roots::only(Arc::clone(&fixture.kms) as _);
    let other = core(fixture.stores(), roots, &fixture.clock).await;
    let keys = ClientKeys::generate().unwrap();
    let (session, _) = other.sessions.establish(&fixture.caller, &keys.public_key()).unwrap();
    let credential = named("openai");
    let openai = Target::Provider { tenant: "acme".parse().unwrap(), provider: "openai".into() };
    let report = |begun| {
        let failed = Failed {
            credential: named("openai"),
            version: 0,
            failure: Failure::ProviderTrouble,
            begun,
        };
        Ask { target: openai.clone(), failed: vec![failed], ..ask() }
    };
    other.lend(&fixture.caller, &session, ask(), None).await.unwrap();
    let tenant = other.directory.tenant(&credential.tenant).await.unwrap().unwrap();
    let row = &tenant.credential(&credential.credential).unwrap().row;
    let usable = || other.healths.readiness(row, fixture.clock_now()).0.is_usable();
    for _ in 0..2 {
        // What it decides first is stale by then.
        three.list(&["second", "third"]).await;
        let begun = fixture.clock_now();
        fixture.clock.advance(Duration::from_millis(10));
        other.lend(&fixture.caller, &session, report(begun), None).await.unwrap();
    }
    assert!(usable());
    // The control: a third makes it rest.
    let begun = fixture.clock_now();
    fixture.clock.advance(Duration::from_millis(10));
    other.lend(&fixture.caller, &session, report(begun), None).await.unwrap();
    assert!(!usable());
}

#[tokio::test]
async fn when_all_rest_the_refusal_says_which_failure_and_when_to_come_back() {
    let three = Three::new().await;
    let all = [("openai", LIMITED), ("second", Failure::NoQuota)];
    three.after(&all).await.unwrap_err();
    three.0.clock.advance(Duration::from_secs(5));
    let refused = three.after(&[]).await;
    // Nothing that policy does not list is lent, and the listed ones rest; the unlisted third is of the
    // same provider and comes last in order, healthy first.
    let third = refused.unwrap();
    assert_eq!(third.credential, "tenants/acme/credentials/third");
    three.after(&[("third", Failure::CredentialRefused)]).await.unwrap_err();
    let status = tonic::Status::from(three.after(&[]).await.unwrap_err());
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (&*info.reason, &*info.metadata["failure"]),
        ("CREDENTIALS_EXHAUSTED", "rate_limited")
    );
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(wait > Duration::from_secs(14) && wait <= Duration::from_secs(15), "{wait:?}");
}
