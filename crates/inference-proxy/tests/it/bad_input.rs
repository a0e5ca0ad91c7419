//! What goes wrong through no fault of the network, told in the shape that each SDK reads.

use http::StatusCode;
use serde_json::Value;
use testkit::Upstream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use crate::harness::{World, refused};

/// A call in each format.
const CALLS: [(&str, &str); 5] = [
    ("/v1/chat/completions", r#"{"model":"openai/gpt-4o"}"#),
    ("/v1/messages", r#"{"model":"claude-opus-5"}"#),
    ("/google/v1/models/gemini-2.5-flash:generateContent", "{}"),
    ("/cohere/v2/chat", r#"{"model":"command-a"}"#),
    ("/anthropic/v1/messages", r#"{"model":"claude-opus-5"}"#),
];

/// What the SDK of a call shows its users: the text, and our word for the error.
#[track_caller]
fn told(path: &str, body: &Value) -> (String, String) {
    let text = |place: &str| {
        let found = body.pointer(place).and_then(Value::as_str);
        assert!(found.is_some(), "{path} {place}: {body}");
        found.unwrap().to_owned()
    };
    if path.contains("messages") {
        assert_eq!(body["type"], "error", "{body}");
        text("/error/type");
        return (text("/error/message"), text("/error/details/error_code"));
    }
    if path.starts_with("/cohere") {
        assert_eq!(text("/message"), text("/error/message"));
    }
    if path.starts_with("/google") {
        text("/error/status");
    }
    (text("/error/message"), text("/error/code"))
}

#[tokio::test]
async fn each_way_to_ask_for_what_is_not_there_is_told_in_each_sdks_shape() {
    for (reason, status, word) in [
        ("NO_SUCH_PROVIDER", 404, "provider_not_found"),
        ("NO_SUCH_MODEL", 404, "model_not_found"),
        ("MODEL_IS_AMBIGUOUS", 400, "model_ambiguous"),
        ("MODEL_NOT_IN_SCOPE", 403, "model_not_in_scope"),
        ("NO_CREDENTIAL", 424, "no_credential"),
        ("CREDENTIAL_IS_DISABLED", 424, "credential_disabled"),
        ("DIALECT_NOT_SERVED", 400, "dialect_not_served"),
        ("INVALID_FIELD", 400, "invalid_request"),
    ] {
        let world = World::start().await;
        world.refuse(refused(reason));
        for (path, body) in CALLS {
            let (found, _, answer) = world.call(path, body).await;
            assert_eq!(found.as_u16(), status, "{reason} {path}");
            let (text, code) = told(path, &answer);
            assert_eq!(code, word, "{path}");
            assert!(text.contains("the broker's words"), "{path}: {text}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_inside_the_own_network_is_told_in_each_sdks_shape() {
    let world = World::with("[egress]\nallow = []").await;
    for (path, body) in CALLS {
        let (status, headers, answer) = world.call(path, body).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert_eq!(headers["x-should-retry"], "false");
        let (text, code) = told(path, &answer);
        assert_eq!(code, "upstream_address_refused");
        assert!(text.contains("`egress.allow`"), "{text}");
    }
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn garbage_is_told_in_each_sdks_shape() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            if tcp.read(&mut buffer).await.is_ok() {
                drop(tcp.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await);
            }
        }
    });
    let world = World::at(Upstream::start().await.unwrap(), base, "").await;
    for (path, body) in CALLS {
        let (status, _, answer) = world.call(path, body).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        let (text, code) = told(path, &answer);
        assert_eq!(code, "upstream_garbled");
        assert!(text.contains("is not HTTP"), "{text}");
    }
}
