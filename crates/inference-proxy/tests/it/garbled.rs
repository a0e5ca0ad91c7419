use http::StatusCode;
use testkit::Upstream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use crate::harness::{Next, SECRET, World, refused};

const PATH: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o"}"#;

/// A provider that reads something and answers every connection with these bytes.
async fn answering(bytes: Vec<u8>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            if tcp.read(&mut buffer).await.is_ok() {
                drop(tcp.write_all(&bytes).await);
                drop(tcp.shutdown().await);
            }
        }
    });
    (base, tasks)
}

#[tokio::test]
async fn an_upstream_that_speaks_garbage_is_a_clear_error() {
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(2 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: 1\r\n".repeat(1000));
    for (bytes, code) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", "upstream_garbled"),
        ("\u{0}\u{1}\u{2} garbage\r\n\r\n", "upstream_garbled"),
        ("HTTP/1.1 9999 What\r\n\r\n", "upstream_garbled"),
        (&*huge, "upstream_garbled"),
        (&*many, "upstream_garbled"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nx",
            "upstream_garbled",
        ),
        ("", "upstream_failed"),
        ("HTTP/1.1 200 OK\r\nconte", "upstream_failed"),
    ] {
        let (base, _tasks) = answering(bytes.as_bytes().to_vec()).await;
        let world = World::at(Upstream::start().await.unwrap(), base, "").await;
        let (status, _, body) = world.call(PATH, BODY).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
        assert_eq!(body["error"]["code"], code, "{body}");
        assert_eq!(body["error"]["type"], "server_error");
        assert!(!body.to_string().contains(SECRET));
    }
}

#[tokio::test]
async fn what_comes_before_an_answer_does_not_stand_for_it() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let bytes = format!("{early}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}");
    let (base, _tasks) = answering(bytes.into_bytes()).await;
    let world = World::at(Upstream::start().await.unwrap(), base, "").await;
    let (status, headers, body) = world.call(PATH, BODY).await;
    assert_eq!((status, &*body.to_string()), (StatusCode::OK, "{}"));
    assert!(!headers.contains_key("link"));
}

#[tokio::test]
async fn garbage_is_the_providers_trouble_and_may_be_fallen_back_from() {
    let (base, _tasks) = answering(b"garbage\r\n\r\n".to_vec()).await;
    let world = World::at(Upstream::start().await.unwrap(), base, "").await;
    world.then(Next::Refuse(refused("CREDENTIALS_EXHAUSTED")));
    let (status, headers, _) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let told = headers["x-strongroom-fallback"].to_str().unwrap();
    assert_eq!(told, "provider_trouble of tenants/acme/credentials/openai-prod");
}

#[tokio::test]
async fn an_error_that_is_no_json_is_told_without_its_text() {
    let world = World::start().await;
    for (status, body) in
        [(502, "<html>nginx</html>"), (500, "{\"error\":"), (404, "\u{0}\u{1}"), (429, "")]
    {
        world.upstream.answer(PATH, status, &[("content-type", "text/html")], body);
        let (told, headers, answer) = world.call(PATH, BODY).await;
        assert_eq!(told.as_u16(), status);
        assert_eq!(headers["content-type"], "application/json");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.ends_with("and no explanation"), "{message}");
    }
}
