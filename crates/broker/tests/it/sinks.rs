use std::{fs, path::Path};

use serde_json::Value;
use strongroom_proto::v1;
use tokio::{net::TcpListener, task::yield_now};

use crate::harness::Running;

async fn create_tenants(running: &Running, count: usize) {
    for number in 0..count {
        let tenant_id = format!("tenant-{number}");
        let request = v1::CreateTenantRequest { tenant_id, ..Default::default() };
        running.admin.tenants().create_tenant(request).await.unwrap();
    }
}

/// The lines of a file once there are so many of them.
async fn lines(path: &Path, count: usize) -> Vec<Value> {
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        yield_now().await;
    }
}

#[tokio::test]
async fn every_record_goes_out_as_it_stands_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let sink = format!(
        "\n[[log.sinks]]\nname = \"archive\"\n\
         to = {{ kind = \"file\", format = \"jsonl\", path = \"{}\" }}\n",
        path.display()
    );
    let running = Running::start_with(|config| config + &sink).await;
    create_tenants(&running, 3).await;
    // The start is a record, too.
    let out = lines(&path, 4).await;
    let records = running.end().await;
    for (line, record) in out.iter().zip(&records) {
        assert_eq!(line["index"], record.index);
        assert_eq!(line["kind"], record.kind().as_str_name());
        assert_eq!(line["tenant"].as_str().unwrap_or_default(), record.tenant);
    }
}

#[tokio::test]
async fn a_sink_that_is_blocked_holds_no_call_up() {
    // Connections come up, as the system accepts them, and nobody ever reads from one.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = format!(
        "\n[[log.sinks]]\nname = \"siem\"\n\
         to = {{ kind = \"otlp\", endpoint = \"http://{}\" }}\n",
        silent.local_addr().unwrap()
    );
    let running = Running::start_with(|config| config + &sink).await;
    create_tenants(&running, 20).await;
    let records = running.end().await;
    assert!(records.len() > 20);
}
