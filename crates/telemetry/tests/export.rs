//! Traces that are sent, in a process of its own: telemetry is set up once a process.

use telemetry::{TelemetryConfig, TelemetryError};
use tokio::{io::AsyncReadExt, net::TcpListener};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_reaches_the_collector() {
    let encrypted = TelemetryConfig {
        otlp_endpoint: Some("https://127.0.0.1:4317".to_owned()),
        ..TelemetryConfig::default()
    };
    let refused = telemetry::init(&encrypted, "test").err().unwrap();
    assert!(matches!(refused, TelemetryError::Endpoint(_)));

    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = collector.local_addr().unwrap();
    let config = TelemetryConfig {
        otlp_endpoint: Some(format!("http://{address}")),
        ..TelemetryConfig::default()
    };
    let guard = telemetry::init(&config, "test").unwrap();
    tracing::info_span!("call").in_scope(|| {});
    let collected = async {
        let (mut tcp, _) = collector.accept().await.unwrap();
        let mut preface = [0; 24];
        tcp.read_exact(&mut preface).await.unwrap();
        preface
    };
    let (preface, ()) = tokio::join!(collected, guard.flush());
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}
