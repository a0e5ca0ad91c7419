use audit::{Finding, Kind, Reason};
use domain::{Clock as _, SystemClock};
use e2e::{Deployment, Sdk};
use serde_json::Value;
use strongroom_proto::v1::{ListRecordsRequest, Source};

use crate::{OPENAI_KEY, furnish, on_both_stacks};

on_both_stacks![
    a_client_that_is_not_ours_leases_by_the_documents_alone,
    a_refusal_is_on_record_with_its_reason,
    a_stranger_verifies_the_served_files_by_the_specifications_alone,
    the_log_catches_a_changed_missing_or_reordered_record,
    the_log_names_who_used_which_key_when,
];

async fn the_log_names_who_used_which_key_when(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, name) = deployment.create_key("acme", &[]).await;
    let started = SystemClock.now();
    Sdk::OpenAi.call(&deployment, &key, "once").await;

    let export = deployment.end().await;

    let records = export.records();
    let granted =
        records.iter().filter(|record| record.kind() == Kind::LeaseGranted).collect::<Vec<_>>();
    assert_eq!(granted.len(), 1);
    let lease = granted[0];
    assert_eq!(lease.actor, "spiffe://strongroom.local/inference-proxy");
    assert_eq!(lease.credential, "tenants/acme/credentials/openai-prod");
    assert_eq!((lease.credential_version, &*lease.tenant), (1, "acme"));
    assert_eq!(lease.provider, "openai");
    assert_eq!(lease.source(), Source::Byok);
    assert!(name.ends_with(&lease.virtual_key), "{lease:?}");
    let time = lease.time.unwrap().seconds;
    assert!((time - started.as_millis() / 1000).abs() < 60, "{time}");
    // The log knows of the key what its owner may know, and not more.
    assert!(!export.bodies.concat().windows(8).any(|part| part == &OPENAI_KEY.as_bytes()[8..16]));
}

async fn a_stranger_verifies_the_served_files_by_the_specifications_alone(deployment: Deployment) {
    furnish(&deployment).await;
    let service = deployment.connect("service");
    for _ in 0..300 {
        // Refused, and on record.
        service.audit().list_records(ListRecordsRequest::default()).await.unwrap_err();
    }
    let address = deployment.tiles().to_string();
    let layout = deployment.layout();
    let vkey = std::fs::read_to_string(&layout.log_verifier).unwrap();
    let pki = layout.pki.to_str().unwrap();
    let mut arguments = [&*address, vkey.trim(), "--pki", pki, "admin"];
    let read: Value = loop {
        let printed = e2e::run("static_log.py", &arguments).await;
        let read: Value = serde_json::from_str(&printed).unwrap();
        if read["size"].as_u64().unwrap() >= 300 {
            break read;
        }
    };
    assert!(read["tiles"].as_u64().unwrap() >= 3, "{read}");
    let [.., name] = &mut arguments;
    *name = "service";
    assert!(e2e::fails("static_log.py", &arguments).await.contains("403"));
    let other = audit::SignerKey::generate("strongroom.local/log").unwrap().verifier().to_string();
    let arguments = [&*address, &other, "--pki", pki, "admin"];
    assert!(e2e::fails("static_log.py", &arguments).await.contains("not signed"));
    deployment.end().await;
}

async fn a_refusal_is_on_record_with_its_reason(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, name) = deployment.create_key("acme", &[]).await;
    deployment.revoke_key(&name).await;
    Sdk::OpenAi.call(&deployment, &key, "once").await;

    let export = deployment.end().await;

    let refused = export.records().into_iter().find(|record| record.kind() == Kind::Refused);
    let refused = refused.unwrap();
    assert_eq!(refused.reason(), Reason::VirtualKeyRefused);
    assert_eq!(refused.actor, "spiffe://strongroom.local/inference-proxy");
}

async fn the_log_catches_a_changed_missing_or_reordered_record(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    Sdk::OpenAi.call(&deployment, &key, "once").await;

    let log = deployment.end().await;
    assert!(log.verify().unwrap().leases == 1);

    for at in 0..log.bodies.len() {
        let mut changed = log.clone();
        let last = changed.bodies[at].last_mut().unwrap();
        *last ^= 1;
        assert!(changed.verify().is_err(), "record {at} changed");

        let mut missing = log.clone();
        missing.bodies.remove(at);
        assert!(missing.verify().is_err(), "record {at} missing");

        let mut doubled = log.clone();
        doubled.bodies.insert(at, log.bodies[at].clone());
        assert!(doubled.verify().is_err(), "record {at} twice");

        if at > 0 {
            let mut reordered = log.clone();
            reordered.bodies.swap(at - 1, at);
            assert!(reordered.verify().is_err(), "record {at} moved");
        }
    }
    let mut cut = log.clone();
    cut.bodies.pop();
    assert!(matches!(cut.verify(), Err(Finding::Truncated { .. })));
}

async fn a_client_that_is_not_ours_leases_by_the_documents_alone(deployment: Deployment) {
    furnish(&deployment).await;

    let address = format!("{}", deployment.broker());
    let pki = deployment.layout().pki.to_str().unwrap();
    let printed = e2e::run("grpc_lease.py", &[&address, pki, "service", "acme", "openai"]).await;

    let got: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(got["secret"], OPENAI_KEY);
    assert_eq!(got["identity"], "spiffe://strongroom.local/service");
    assert_eq!(got["origins"], serde_json::json!([deployment.upstream().origin()]));
    assert_eq!(got["header"], "authorization");
    let index = usize::try_from(got["log_index"].as_u64().unwrap()).unwrap();
    let log = deployment.end().await;
    let lease = &log.records()[index];
    assert_eq!(
        (lease.kind(), &*lease.actor),
        (Kind::LeaseGranted, "spiffe://strongroom.local/service")
    );
    assert!(log.records().iter().any(|record| record.kind() == Kind::LeaseReleased));
}
