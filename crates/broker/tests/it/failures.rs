//! What proxies report of calls that failed.

use audit::Kind;
use sealing::ClientKeys;
use strongroom_proto::v1::{self, failed_attempt::Failure};

use crate::{
    harness::Running,
    lending::{cache, key, with_credential, with_key},
};

#[tokio::test]
async fn a_secret_in_an_answer_is_on_record_and_the_credential_is_lent_on() {
    let running = Running::start().await;
    let (tenant, credential) = with_credential(&running, "acme").await;
    let (_, foreign) = with_credential(&running, "other").await;
    let virtual_key = with_key(&running, &tenant, &[]).await;
    let public_key = ClientKeys::generate().unwrap().public_key().to_vec().into();
    let mut leases = running.proxy.leases();
    let opened = leases.open_session(v1::OpenSessionRequest { public_key }).await.unwrap();
    let session_id = opened.into_inner().session_id;
    let mut report = async |credential: &str, failure: Failure, key_sha256: &[u8]| {
        let attempt = v1::FailedAttempt {
            credential: credential.to_owned(),
            failure: failure.into(),
            credential_version: 1,
            ..Default::default()
        };
        let report = v1::FailureReport {
            virtual_key_id: virtual_key.id().to_string(),
            key_sha256: key_sha256.to_vec().into(),
            attempt: Some(attempt),
        };
        let (session_id, reports) = (session_id.clone(), vec![report; 3]);
        let request = v1::ReportFailuresRequest { session_id, reports };
        leases.report_failures(request).await.unwrap();
    };
    let (own, digest) = (credential.to_string(), *virtual_key.digest().as_bytes());
    report(&own, Failure::SecretInAnswer, &digest).await;
    // Of another tenant's credential, with a wrong key, or of what is no matter of record.
    report(&foreign.to_string(), Failure::SecretInAnswer, &digest).await;
    report(&own, Failure::SecretInAnswer, &[7; 32]).await;
    report(&own, Failure::ProviderTrouble, &digest).await;
    let lease = cache(&running).lease(&key(&virtual_key, "gpt-4o")).await.unwrap();
    assert_eq!((lease.credential(), lease.because()), (&credential, "last_resort"));

    let records = running.end().await;
    let found: Vec<_> =
        records.iter().filter(|record| record.kind() == Kind::SecretInAnswer).collect();
    assert_eq!(found.len(), 3);
    for record in found {
        assert_eq!((&*record.tenant, &record.credential), ("acme", &own));
        assert_eq!((record.credential_version, &*record.provider), (1, "openai"));
        assert_eq!(record.virtual_key, virtual_key.id().to_string());
        assert_eq!(record.method, "Leases/ReportFailures");
        assert!(record.actor.ends_with("/inference-proxy"), "{}", record.actor);
    }
    assert!(!records.iter().any(|record| record.kind() == Kind::CredentialDisabled));
}
