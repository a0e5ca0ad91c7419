//! What becomes of a credential that failed and that no other one stands in for.

use std::time::Duration;

use audit::Reason;
use domain::Failure;
use strongroom_proto::v1;
use tonic::Code;

use super::{Ask, Failed, Fixture, Refused, Target, Why, ask, caller, check, name};

impl Fixture {
    async fn lend_openai(&self) -> Result<v1::Lease, Refused> {
        let (tenant, provider) = ("acme".parse().unwrap(), "openai".to_owned());
        let ask = Ask { target: Target::Provider { tenant, provider }, ..ask() };
        self.core.lend(&self.caller, &self.session, ask, None).await
    }

    /// A call with the one credential fails.
    async fn fails(&self, failure: Failure) {
        let tenant = self.core.directory.tenant(&"acme".parse().unwrap()).await.unwrap().unwrap();
        let failed = Failed { credential: name(), version: 1, failure, begun: self.clock_now() };
        self.clock.advance(Duration::from_millis(10));
        self.core.note_failures(&tenant, &[failed]).await.unwrap();
    }

    async fn steps(&self) -> String {
        let target = v1::TenantModel {
            tenant: "tenants/acme".to_owned(),
            model: "openai/gpt-4o".to_owned(),
            provider: String::new(),
        };
        let request = v1::ExplainRouteRequest {
            target: Some(v1::explain_route_request::Target::Tenant(target)),
            dialect: v1::Dialect::Openai.into(),
        };
        let explained = self.core.explain_route(&caller("Leases/ExplainRoute"), request).await;
        explained.unwrap().steps.join("; ")
    }
}

#[tokio::test]
async fn a_dead_key_is_not_asked_again_and_again_and_soon_after_it_is_mended_it_serves() {
    let fixture = Fixture::new().await;
    fixture.lend_openai().await.unwrap();
    for failure in [Failure::CredentialRefused, Failure::NoQuota] {
        fixture.fails(failure).await;
        let refused = fixture.lend_openai().await;
        let why = refused.as_ref().map_err(|refused| &refused.why).unwrap_err();
        let Why::CredentialsExhausted { failure: told, retry_after } = why else {
            panic!("{why:?}")
        };
        assert_eq!((*told, *retry_after), (Some(failure), Some(Duration::from_secs(30))));
        check(refused, Code::FailedPrecondition, Reason::CredentialsExhausted);
        assert!(fixture.steps().await.contains(failure.as_str()));
        fixture.clock.advance(Duration::from_secs(30));
        // Whoever comes, not one of them only: nobody else serves meanwhile.
        for _ in 0..3 {
            assert_eq!(fixture.lend_openai().await.unwrap().because, "last_resort");
        }
    }
    // A change of the credential ends its rest.
    fixture.fails(Failure::CredentialRefused).await;
    fixture.lend_openai().await.unwrap_err();
    fixture.disable().await;
    fixture.enable().await;
    fixture.lend_openai().await.unwrap();
}

#[tokio::test]
async fn an_only_key_is_not_locked_out_by_limits_or_by_a_provider_in_trouble() {
    let fixture = Fixture::new().await;
    let limited = Failure::RateLimited { retry_after: Some(Duration::from_mins(5)) };
    for failure in [limited, Failure::ProviderTrouble, Failure::TimedOut, Failure::Unreachable] {
        for _ in 0..5 {
            fixture.fails(failure).await;
            fixture.lend_openai().await.unwrap();
        }
    }
    // What is known of it is told all the same.
    assert_eq!(fixture.lend_openai().await.unwrap().because, "last_resort");
    assert!(fixture.steps().await.contains("rests after"));
}
