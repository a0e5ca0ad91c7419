use http::StatusCode;

use crate::harness::{World, read};

const CHAT: (&str, &str) = ("/v1/chat/completions", r#"{"model":"gpt-4o"}"#);
const MESSAGES: (&str, &str) = ("/v1/messages", r#"{"model":"claude-opus-5"}"#);
const NATIVE: (&str, &str) = ("/openai/v1/responses", r#"{"model":"gpt-4o"}"#);
const EXPLAIN: (&str, &str) = ("/strongroom/v1/route:explain", r#"{"model":"gpt-4o"}"#);

/// A proxy before a provider that answers these calls.
async fn world(config: &str) -> World {
    let world = World::with(config).await;
    for path in ["/v1/chat/completions", "/v1/responses", "/v1/models"] {
        world.upstream.answer(path, 200, &[], "{}");
    }
    world
}

fn limit(world: &World, endpoints: &[&str], networks: &[&str]) {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    *world.leases.places.lock().unwrap() = (owned(endpoints), owned(networks));
}

async fn call(world: &World, (path, body): (&str, &str)) -> (StatusCode, String) {
    let (status, _, answer) = world.call(path, body).await;
    let code = answer.pointer("/error/code").and_then(serde_json::Value::as_str);
    (status, code.unwrap_or_default().to_owned())
}

async fn call_from(world: &World, forwarded: &str) -> StatusCode {
    let request = world.post(CHAT.0).header("x-forwarded-for", forwarded);
    read(world.send(request, CHAT.1).await).await.0
}

#[tokio::test]
async fn a_key_serves_the_kinds_of_calls_that_it_is_for() {
    let world = world("").await;
    let refused = (StatusCode::FORBIDDEN, "endpoint_not_in_scope".to_owned());
    limit(&world, &["chat_completions"], &[]);
    assert_eq!(call(&world, CHAT).await.0, StatusCode::OK);
    assert_eq!(call(&world, NATIVE).await, refused);
    let (status, _, body) = world.call(MESSAGES.0, MESSAGES.1).await;
    assert_eq!((status, &body["error"]["type"]), (refused.0, &"permission_error".into()));
    let (status, _, body) = world.get("/v1/models").await;
    assert_eq!((status, &body["error"]["code"]), (refused.0, &"endpoint_not_in_scope".into()));
    assert_eq!(world.upstream.seen().len(), 1);

    limit(&world, &["native"], &[]);
    assert_eq!(call(&world, NATIVE).await.0, StatusCode::OK);
    assert_eq!(call(&world, CHAT).await, refused);
    limit(&world, &["models"], &[]);
    assert_eq!(world.get("/v1/models").await.0, StatusCode::OK);
    assert_eq!(world.get("/openai/v1/models").await.0, refused.0);
    assert_eq!(world.upstream.seen().len(), 2);
}

#[tokio::test]
async fn a_key_of_a_network_serves_nobody_elsewhere() {
    let world = world("").await;
    limit(&world, &[], &["10.0.0.0/8"]);
    let refused = (StatusCode::FORBIDDEN, "source_not_in_scope".to_owned());
    for what in [CHAT, MESSAGES, NATIVE, EXPLAIN] {
        assert_eq!(call(&world, what).await.0, refused.0, "{}", what.0);
    }
    assert_eq!(call(&world, CHAT).await, refused);
    assert_eq!(world.get("/v1/models").await.0, refused.0);
    // Anybody can write the header: without a trusted proxy it says nothing.
    assert_eq!(call_from(&world, "10.1.2.3").await, refused.0);
    assert!(world.upstream.seen().is_empty());

    limit(&world, &[], &["127.0.0.1/32"]);
    assert_eq!(call(&world, CHAT).await.0, StatusCode::OK);
    assert_eq!(call(&world, EXPLAIN).await.0, StatusCode::OK);
    assert_eq!(call_from(&world, "192.0.2.1").await, StatusCode::OK);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_caller_is_whom_it_names() {
    let world = world("trusted_proxies = [\"127.0.0.0/8\"]").await;
    limit(&world, &[], &["10.0.0.0/8"]);
    assert_eq!(call_from(&world, "10.1.2.3").await, StatusCode::OK);
    // What stands to the left is the caller's own word.
    assert_eq!(call_from(&world, "10.1.2.3, 192.0.2.1").await, StatusCode::FORBIDDEN);
    assert_eq!(call_from(&world, "192.0.2.1, 10.1.2.3").await, StatusCode::OK);
    assert_eq!(call_from(&world, "unknown").await, StatusCode::FORBIDDEN);
    assert_eq!(call(&world, CHAT).await.0, StatusCode::FORBIDDEN);
    assert_eq!(world.upstream.seen().len(), 2);
}
