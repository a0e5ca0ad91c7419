use std::{sync::Arc, time::Duration};

use domain::SystemClock;
use serde_json::Value;
use strongroom_client::{Broker, ClientConfig};
use strongroom_proto::v1::{GetCheckpointRequest, ListTenantsRequest};

use crate::{Running, answer};

const DAY: Duration = Duration::from_hours(24);

/// Leaves so many records, of which each call that reads is one, and waits until they are signed.
pub(crate) fn read(running: &Running, times: usize) {
    let layout = &running.layout;
    let address = std::fs::read_to_string(&layout.cli_config).unwrap();
    let address = address.lines().find_map(|line| line.strip_prefix("broker = ")).unwrap();
    let file = |ending: &str| layout.pki.join(format!("admin.{ending}"));
    let config = ClientConfig {
        broker: address.trim_matches('"').to_owned(),
        tls: mtls::TlsFiles {
            certificate: file("pem"),
            key: file("key"),
            ca: layout.pki.join("ca.pem").into(),
            crl: None,
        }
        .into(),
        trust_domains: mtls::TrustDomains::new([layout.trust_domain.as_str()]).unwrap(),
        broker_id: format!("spiffe://{}/broker", layout.trust_domain).parse().unwrap(),
        log_key: None,
        timeout: Duration::from_secs(20),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let broker = Broker::connect(&config, Arc::new(SystemClock)).unwrap();
        let mut client = broker.tenants();
        for _ in 0..times {
            client.list_tenants(ListTenantsRequest::default()).await.unwrap();
        }
        while signed(&broker).await < times {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// The size of the newest checkpoint.
async fn signed(broker: &Broker) -> usize {
    let answer = broker.audit().get_checkpoint(GetCheckpointRequest {}).await;
    let note = answer.map(|answer| answer.into_inner().checkpoint).unwrap_or_default();
    note.lines().nth(1).map_or(0, |size| size.parse().unwrap())
}

fn rotate(running: &Running) {
    let rotate = ["credentials", "rotate", "acme/openai", "--no-test"];
    answer(&rotate, &running.give(&rotate, b"sk-proj-another-0123456789abcdef"));
}

/// Exports, and verifies with what else is named.
fn export(running: &Running, name: &str, archives: &[&str]) -> (Value, Value) {
    let directory = running.path(name);
    let exported = running.json(&["audit", "export", &directory]);
    (exported, verify(running, &directory, archives))
}

fn verify(running: &Running, directory: &str, archives: &[&str]) -> Value {
    let vkey = running.layout.log_verifier.to_str().unwrap();
    let mut arguments = vec!["audit", "verify", directory, "--vkey-file", vkey];
    for archive in archives {
        arguments.extend(["--archive", archive]);
    }
    running.json(&arguments)
}

#[test]
fn a_log_is_exported_pruned_and_verified_as_the_manual_says() {
    let running = Running::start(DAY + Duration::from_mins(1));
    running.json(&["tenants", "create", "acme"]);
    let put = ["credentials", "put", "acme/openai", "--provider", "openai", "--no-test"];
    answer(&put, &running.give(&put, b"sk-proj-0123456789abcdef0123456789"));
    read(&running, 600);
    let old = running.path("old");
    let (exported, verified) = export(&running, "old", &[]);
    assert!(exported["size"].as_u64().unwrap() >= 600, "{exported}");
    assert_eq!(verified["pruned"], Value::Null);

    let vkey = running.layout.log_verifier.to_str().unwrap();
    let prune = ["audit", "prune", &old, "--before", "600", "--vkey-file", vkey];
    // Nobody is there to be asked.
    assert_eq!(running.refused(&prune).0, 1);
    let prune = [&prune[..], &["--yes"]].concat();
    let pruned = running.json(&prune);
    assert_eq!((&pruned["first_index"], &pruned["entries"]), (&512.into(), &512.into()));
    let on_record = pruned["log_index"].clone();
    let again = running.json(&prune);
    assert_eq!((&again["first_index"], &again["entries"]), (&512.into(), &0.into()));

    // What is gone is said to be gone, and what is there is proved.
    let (code, said) = running.refused(&["audit", "prove", "5", "-o", &running.path("5.proof")]);
    assert!(code == 6 && said.contains("before 512 have been pruned"), "{code}: {said}");
    running.json(&["audit", "prove", "512", "-o", &running.path("512.proof")]);

    // A change of what began in the part that is gone.
    rotate(&running);
    let (exported, verified) = export(&running, "new", &[]);
    assert_eq!(exported["first_index"], 512);
    assert_eq!(verified["pruned"]["before"], 512);
    assert_eq!(verified["pruned"]["recorded_at_index"], on_record);
    let new = running.path("new");
    let whole = verify(&running, &new, &[&old]);
    assert_eq!((&whole["pruned"], &whole["size"]), (&Value::Null, &verified["size"]));
    // The older folder is continued as if nothing had been pruned.
    let (exported, verified) = export(&running, "old", &[]);
    assert_eq!((&exported["first_index"], &verified["pruned"]), (&Value::Null, &Value::Null));
    assert_eq!(verified["kinds"]["LOG_PRUNED"], 1);

    // Questions say how far the answer goes, and an older export answers the rest.
    let admin = "spiffe://strongroom.local/admin/local";
    let asked = ["audit", "what-did", admin];
    let did = running.json(&asked);
    assert_eq!(did["searched"]["first_index"], 512);
    assert_eq!(did["summary"]["TENANT_CREATED"], Value::Null);
    let from = ["--from", &new, "--archive", &old, "--vkey-file", vkey];
    let did = running.json(&[&asked[..], &from].concat());
    assert_eq!(
        (&did["searched"]["first_index"], &did["summary"]["TENANT_CREATED"]),
        (&0.into(), &1.into())
    );
    running.end();
}

#[test]
fn an_export_that_was_changed_or_records_that_are_young_are_not_pruned() {
    let running = Running::start(Duration::ZERO);
    read(&running, 300);
    let directory = running.path("log");
    export(&running, "log", &[]);
    let vkey = running.layout.log_verifier.to_str().unwrap();
    let prune = ["audit", "prune", &directory, "--yes", "--vkey-file", vkey, "--before"];
    let before_256 = [&prune[..], &["256"]].concat();
    let (code, said) = running.refused(&before_256);
    assert!(code == 1 && said.contains("younger than `keep`"), "{code}: {said}");
    // All of it is younger than a day.
    let pruned = running.json(&[&prune[..], &["1d"]].concat());
    assert_eq!((&pruned["first_index"], &pruned["entries"]), (&0.into(), &0.into()));

    let bundle = running.folder.path().join("log/tile/entries/000");
    let mut bytes = std::fs::read(&bundle).unwrap();
    let last = bytes.last_mut().unwrap();
    *last ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    assert_eq!(running.refused(&before_256).0, 3);
    running.end();
}
