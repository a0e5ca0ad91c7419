//! The broker that leads tests credentials by itself.

use std::{fs, sync::Arc, time::Duration};

use audit::{Kind, Record, Verdict};
use domain::{ManualClock, Secret, SystemClock};
use strongroom_proto::v1;
use testkit::StandIn;

use crate::harness::{Running, layout};

#[tokio::test]
async fn a_credential_that_its_provider_withdraws_is_found_and_disabled() {
    let openai = StandIn::start("openai").await.unwrap();
    let (folder, layout) = layout();
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    let more = format!(
        "\n[key_tests]\nevery = \"4m\"\nconfirm_after = \"1m\"\n\
         [egress]\nallow = [\"127.0.0.0/8\"]\ndanger_plain_http_to_loopback = true\n\
         [providers.openai]\norigin = \"{}\"\n",
        openai.url()
    );
    fs::write(&layout.broker_config, text + &more).unwrap();
    let clock = Arc::new(ManualClock::at(domain::Clock::now(&SystemClock)));
    let running = Running::start_by(folder, layout, Arc::clone(&clock) as _).await;
    let request =
        v1::CreateTenantRequest { tenant_id: "acme".into(), ..v1::CreateTenantRequest::default() };
    running.admin.tenants().create_tenant(request).await.unwrap();
    let (tenant, id) = ("acme".parse().unwrap(), "openai".parse().unwrap());
    let spec = v1::Credential { provider: "openai".into(), ..v1::Credential::default() };
    let secret = Secret::new(openai.key().as_bytes().to_vec());
    running.admin.create_credential(&tenant, &id, spec, &secret, "").await.unwrap();

    clock.advance(Duration::from_hours(1));
    let tested = until(&running, Kind::CredentialTested, 1).await;
    assert_eq!((tested.verdict(), &*tested.actor, &*tested.method), (Verdict::Valid, "", ""));
    let name = "tenants/acme/credentials/openai".parse().unwrap();
    let gone = Secret::new(b"sk-proj-gone0123456789abcdefghij".to_vec());
    running.admin.rotate_credential(&name, &gone, None, "").await.unwrap();
    clock.advance(Duration::from_hours(1));
    let tested = until(&running, Kind::CredentialTested, 2).await;
    assert_eq!((tested.verdict(), tested.credential_version), (Verdict::Invalid, 2));
    clock.advance(Duration::from_mins(1));
    let disabled = until(&running, Kind::CredentialDisabled, 1).await;
    assert_eq!((disabled.verdict(), &*disabled.actor), (Verdict::Invalid, ""));
    running.end().await;
}

/// The last record of a kind, once there are so many. The broker looks every five seconds.
async fn until(running: &Running, kind: Kind, count: usize) -> Record {
    loop {
        let mut found = running.records().await;
        found.retain(|record| record.kind() == kind);
        if found.len() >= count {
            return found.pop().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
