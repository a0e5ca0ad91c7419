//! Traces that are continued, and the operations listener.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;

use http::HeaderMap;
use telemetry::{
    Guard, LogFormat, Readiness, TelemetryConfig, continue_trace, inject_trace, serve_ops, trace_id,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinSet,
};

fn init() -> Guard {
    telemetry::init(&TelemetryConfig::default(), "test").unwrap()
}

#[test]
fn a_trace_goes_on_from_one_service_to_the_next() {
    let _guard = init();
    let mut incoming = HeaderMap::new();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    incoming.insert("traceparent", parent.parse().unwrap());
    let span = tracing::info_span!("call");
    continue_trace(&span, &incoming);
    span.in_scope(|| {
        let id = trace_id().unwrap();
        assert_eq!(u128::from_be_bytes(id), 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        let mut outgoing = HeaderMap::new();
        inject_trace(&mut outgoing);
        let text = outgoing["traceparent"].to_str().unwrap();
        assert!(text.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{text}");
        assert!(text.ends_with("-01"), "{text}");
        assert_ne!(text, parent, "the next service's parent is this span");

        let next = tracing::info_span!(parent: None, "next");
        continue_trace(&next, &outgoing);
        next.in_scope(|| assert_eq!(trace_id(), Some(id)));
    });
}

#[test]
fn a_trace_begins_where_none_is_named() {
    let _guard = init();
    assert_eq!(trace_id(), None);
    let mut seen = Vec::new();
    for parent in ["", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent.parse().unwrap());
        let span = tracing::info_span!("call");
        continue_trace(&span, &headers);
        seen.push(span.in_scope(trace_id).unwrap());
    }
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

async fn ask(address: SocketAddr, path: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_listener_tells_operators_how_things_are() {
    let guard = init();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ready, readiness) = watch::channel(Readiness::NotReady("no database yet".to_owned()));
    let (stop, stopped) = oneshot::channel::<()>();
    let mut serving = JoinSet::new();
    let shutdown = async { drop(stopped.await) };
    serving.spawn(serve_ops(listener, guard.metrics(), readiness, shutdown));

    assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let answer = ask(address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("no database yet"), "{answer}");
    ready.send(Readiness::Ready).unwrap();
    assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    drop(ready);
    assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(ask(address, "/other").await.starts_with("HTTP/1.1 404"));

    metrics::counter!("test_calls_total", "outcome" => "ok").increment(3);
    metrics::histogram!("test_call_seconds").record(0.002);
    let answer = ask(address, "/metrics").await;
    assert!(answer.contains("test_calls_total{outcome=\"ok\"} 3"), "{answer}");
    assert!(answer.contains("test_call_seconds_bucket{le=\"0.001\"} 0"), "{answer}");
    assert!(answer.contains("test_call_seconds_bucket{le=\"0.0025\"} 1"), "{answer}");

    stop.send(()).unwrap();
    serving.join_next().await.unwrap().unwrap().unwrap();
}

#[test]
fn a_second_call_reuses_the_first_one() {
    let first = init();
    let second = init();
    metrics::counter!("test_reuse_total").increment(1);
    assert!(first.metrics().render().contains("test_reuse_total 1"));
    assert!(second.metrics().render().contains("test_reuse_total 1"));
}

#[test]
fn unknown_settings_are_refused() {
    let config: TelemetryConfig =
        toml::from_str("log = \"text\"\nmetrics_listen = \"127.0.0.1:9464\"").unwrap();
    assert_eq!(config.log, LogFormat::Text);
    assert!(toml::from_str::<TelemetryConfig>("log = \"xml\"").is_err());
    assert!(toml::from_str::<TelemetryConfig>("prompts = true").is_err());
}
