use std::time::Duration;

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::harness::World;

const PATH: &str = "/v1/chat/completions";
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let world = World::with("[limits]\nbody_bytes = 1000").await;
    let body = format!("{{\"model\":\"gpt-4o\",\"a\":\"{}\"}}", "x".repeat(2000));
    let (status, _, answer) = world.call(PATH, &body).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer["error"]["code"], "request_too_large");
    assert!(world.leases.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn more_calls_than_can_be_in_hand_are_told_to_come_back() {
    let world = World::with("[limits]\nconcurrent_calls = 1").await;
    let stream = world.upstream.stream(PATH);
    let body = r#"{"model":"gpt-4o"}"#;
    let first = world.send(world.post(PATH), body).await;
    let (status, headers, answer) = world.call(PATH, body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(answer["error"]["code"], "overloaded");
    drop((stream, first));
}

#[tokio::test]
async fn all_bodies_together_have_a_limit() {
    let world = World::with("[limits]\nall_bodies_bytes = 100").await;
    let body = format!("{{\"model\":\"gpt-4o\",\"a\":\"{}\"}}", "x".repeat(200));
    let (status, _, answer) = world.call(PATH, &body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer["error"]["code"], "overloaded");
}

/// Sends the beginning of a request and waits for the connection to end.
async fn ends(world: &World, beginning: &[u8]) -> String {
    let mut tcp = TcpStream::connect(world.address).await.unwrap();
    tcp.write_all(beginning).await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(SOON, tcp.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "still open: {}", String::from_utf8_lossy(beginning));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let world = World::with("[limits]\nheader_read = \"100ms\"").await;
    for beginning in [
        &b"P"[..],
        b"POST / HTTP/1.1\r\nHost: a\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        ends(&world, beginning).await;
    }
}

#[tokio::test]
async fn a_connection_between_two_calls_outlives_the_limit_of_a_head() {
    let world = World::with("[limits]\nheader_read = \"500ms\"").await;
    world.upstream.answer(PATH, 200, &[], "{}");
    let key = world.key.expose();
    let body = r#"{"model":"gpt-4o"}"#;
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nHost: a\r\nx-api-key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut tcp = TcpStream::connect(world.address).await.unwrap();
    let mut buffer = vec![0; 4096];
    for _ in 0..2 {
        tcp.write_all(request.as_bytes()).await.unwrap();
        let read = timeout(SOON, tcp.read(&mut buffer)).await.unwrap().unwrap();
        assert!(
            buffer[..read].starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&buffer[..read])
        );
        // Nothing arrives, and the connection does not end, for longer than a head may take.
        let quiet = timeout(Duration::from_secs(1), tcp.read(&mut buffer)).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
}

#[tokio::test]
async fn a_body_that_pauses_is_not_waited_for() {
    let world = World::with("[limits]\nbody_idle = \"100ms\"").await;
    let key = world.key.expose();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: a\r\nx-api-key: {key}\r\nContent-Length: 100\r\n\r\n{{"
    );
    assert!(ends(&world, head.as_bytes()).await.starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn doubtful_heads_are_refused() {
    let world = World::start().await;
    let get = "GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let post = "POST /v1/messages HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    for (head, status) in [
        (format!("{get}Host: b\r\n\r\n"), 400),
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "a".repeat(9000)),
            414,
        ),
        (format!("{get}x: {}\r\n\r\n", "a".repeat(50_000)), 431),
        (format!("{get}x: a\r\n b\r\n\r\n"), 400),
        (format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 400),
        (format!("{post}Content-Length: -1\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: gzip\r\n\r\n"), 400),
        (format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"), 400),
    ] {
        let answer = ends(&world, head.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head:.120}: {answer:.80}");
    }
}

#[tokio::test]
async fn a_request_of_two_lengths_ends_its_connection_and_hides_nothing_behind_it() {
    let world = World::start().await;
    world.upstream.answer(PATH, 200, &[], "{}");
    let body = r#"{"model":"gpt-4o"}"#;
    let (key, length) = (world.key.expose(), body.len());
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nx-api-key: {key}\r\n");
    let plain = format!("{head}Content-Length: {length}\r\n\r\n{body}");
    let chunked =
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
    let both = chunked.replace("\r\n\r\n12", "\r\nContent-Length: 9\r\n\r\n12");
    assert!(both.contains("Content-Length"));
    let answer = ends(&world, format!("{both}{plain}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("ambiguous_length") && answer.contains("connection: close"));
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert!(world.leases.asked.lock().unwrap().is_empty());
    // Either one by itself is a call, and one after the other is two.
    let last = plain.replace("Host: a", "Host: a\r\nConnection: close");
    let answer = ends(&world, format!("{chunked}{plain}{last}").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
}

#[tokio::test]
async fn connections_end_soon_after_their_lease() {
    let world = World::with("[egress]\nallow = [\"127.0.0.1/32\"]\ndanger_plain_http_to_loopback = true\nidle_connection = \"1h\"").await;
    let stream = world.upstream.stream(PATH);
    let answer = world.send(world.post(PATH), r#"{"model":"gpt-4o"}"#).await;
    drop(stream);
    drop(http_body_util::BodyExt::collect(answer.into_body()).await.unwrap());
    world.leases.live.store(false, std::sync::atomic::Ordering::SeqCst);
    timeout(SOON, world.upstream.until_idle()).await.unwrap();
}
