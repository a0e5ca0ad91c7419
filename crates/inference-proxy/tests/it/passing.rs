use domain::Dialect;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::harness::{SECRET, World, last_dialect, read};

const CHAT: &str = r#"{"messages":[{"role":"user","content":"hi"}],"model":"gpt-4o"}"#;

#[tokio::test]
async fn a_call_reaches_the_provider_with_its_real_key() {
    let world = World::start().await;
    let headers = [
        ("content-type", "application/json"),
        ("x-request-id", "req_1"),
        ("set-cookie", "a=b"),
        ("openai-organization", "org-x"),
        ("x-ratelimit-remaining-requests", "9"),
    ];
    world.upstream.answer("/v1/chat/completions", 200, &headers, r#"{"id":"c1"}"#);

    let (status, headers, body) = world.call("/v1/chat/completions", CHAT).await;

    assert_eq!((status, body), (StatusCode::OK, json!({"id": "c1"})));
    assert_eq!(headers["x-strongroom-source"], "byok");
    assert_eq!(headers["x-strongroom-provider"], "openai");
    assert_eq!(headers["x-strongroom-credential"], "tenants/acme/credentials/openai-prod");
    assert_eq!(headers["x-strongroom-route"], "detected");
    assert!(!headers.contains_key("x-strongroom-fallback"));
    assert!(headers.contains_key("x-strongroom-request-id"));
    assert_eq!(headers["x-request-id"], "req_1");
    assert_eq!(headers["x-ratelimit-remaining-requests"], "9");
    assert!(!headers.contains_key("set-cookie"));
    assert!(!headers.contains_key("openai-organization"));
    let seen = world.upstream.seen();
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {SECRET}"));
    assert_eq!(seen[0].headers["content-length"], CHAT.len().to_string());
    assert_eq!(seen[0].body, CHAT);
    assert_eq!(last_dialect(&world), Dialect::OpenAi);
}

#[tokio::test]
async fn of_a_callers_headers_only_the_list_goes_on() {
    let world = World::start().await;
    world.upstream.answer("/v1/messages", 200, &[], "{}");
    let request = Request::post(format!("http://{}/v1/messages", world.address))
        .header("x-api-key", world.key.expose())
        .header("anthropic-version", "2026-10-21")
        .header("anthropic-beta", "files-1")
        .header("idempotency-key", "i1")
        .header("accept", "application/json")
        .header("cookie", "session=1")
        .header("x-forwarded-for", "10.0.0.1")
        .header("forwarded", "for=10.0.0.1")
        .header("x-goog-user-project", "project-evil")
        .header("proxy-authorization", "Basic x")
        .header("openai-organization", "org-evil")
        .header("anthropic-workspace-id", "wrkspc_evil")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("x-stainless-os", "Linux")
        .header("accept-encoding", "gzip")
        .header("user-agent", "their-app/1")
        .header("te", "trailers");
    let body = r#"{"model":"claude-opus-5","api_base":"http://evil","base_url":"http://evil","api_key":"x"}"#;
    let (status, ..) = read(world.send(request, body).await).await;
    assert_eq!(status, StatusCode::OK);

    let seen = world.upstream.seen();
    let mut names: Vec<_> = seen[0].headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "anthropic-beta",
            "anthropic-version",
            "content-length",
            "content-type",
            "host",
            "idempotency-key",
            "user-agent",
            "x-api-key"
        ]
    );
    assert_eq!(seen[0].headers["anthropic-version"], "2026-10-21");
    assert_eq!(seen[0].headers["x-api-key"], SECRET);
    assert_eq!(seen[0].headers["user-agent"], "strongroom");
    assert_eq!(seen[0].headers["accept-encoding"], "identity");
    assert_eq!(seen[0].headers["host"], world.upstream.url().trim_start_matches("http://"));
    assert_eq!(last_dialect(&world), Dialect::Anthropic);
}

#[tokio::test]
async fn a_missing_anthropic_version_is_filled_in() {
    let world = World::start().await;
    world.upstream.answer("/v1/messages", 200, &[], "{}");
    world.call("/v1/messages", r#"{"model":"claude-opus-5"}"#).await;
    assert_eq!(world.upstream.seen()[0].headers["anthropic-version"], "2023-06-01");
}

#[tokio::test]
async fn a_provider_in_front_of_the_model_is_taken_off_and_nothing_else_changes() {
    let world = World::start().await;
    world.upstream.answer("/v1/chat/completions", 200, &[], "{}");
    let body = r#"{ "temperature": 1.0e0, "model" : "openai\/gpt-4o" , "n":1}"#;
    world.call("/v1/chat/completions", body).await;
    let seen = world.upstream.seen();
    assert_eq!(seen[0].body, r#"{ "temperature": 1.0e0, "model" : "gpt-4o" , "n":1}"#);
    assert_eq!(seen[0].headers["content-length"], seen[0].body.len().to_string());
    assert_eq!(world.leases.asked.lock().unwrap()[0].model, "openai/gpt-4o");
}

#[tokio::test]
async fn a_native_path_goes_to_its_provider() {
    let world = World::start().await;
    world.upstream.answer("/v1/responses", 200, &[], "{}");
    world.upstream.answer("/v1/models?limit=2", 200, &[], "{}");
    let (status, ..) = world.call("/openai/v1/responses", r#"{"model":"gpt-4o"}"#).await;
    assert_eq!(status, StatusCode::OK);
    let (status, ..) = world.get("/anthropic/v1/models?limit=2&key=sk-1").await;
    assert_eq!(status, StatusCode::OK);
    let asked = world.leases.asked.lock().unwrap().clone();
    let provider = |at: usize| asked[at].provider.as_ref().unwrap().to_string();
    assert_eq!((provider(0), provider(1)), ("openai".to_owned(), "anthropic".to_owned()));
    assert_eq!(asked[0].dialect, Dialect::Native);
    assert_eq!(world.upstream.seen()[1].headers["x-api-key"], SECRET);
}

#[tokio::test]
async fn models_are_listed_in_the_shape_of_the_sdk() {
    let world = World::start().await;
    let (status, _, body) = world.get("/v1/models").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["object"], "list");
    assert_eq!(body["data"][0]["id"], "gpt-4o");
    assert_eq!(body["data"][1]["owned_by"], "anthropic");
    assert_eq!(body["data"][1]["provider"], "anthropic");
    assert_eq!(body["data"][1]["source"], "byok");
    let (_, _, body) = world.get("/v1/models/gpt-4o").await;
    assert_eq!(body["id"], "gpt-4o");
    let (status, _, body) = world.get("/v1/models/gpt-9").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["error"]["code"], "model_not_found");
    assert!(body["error"]["message"].as_str().unwrap().contains("claude-opus-5"));

    let request = Request::get(format!("http://{}/v1/models", world.address))
        .header("x-api-key", world.key.expose())
        .header("anthropic-version", "2023-06-01");
    let (_, _, body): (_, _, Value) = read(world.send(request, "").await).await;
    assert_eq!(body["data"][1]["type"], "model");
    assert_eq!(body["last_id"], "claude-opus-5");
    assert!(world.upstream.seen().is_empty());
}
