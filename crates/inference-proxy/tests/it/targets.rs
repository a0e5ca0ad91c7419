use std::sync::atomic::Ordering;

use http::{Method, Request, StatusCode};
use providers::CredentialKind;
use serde_json::json;

use crate::harness::{SECRET, World, read};

const REGION: &[(&str, &str)] = &[("region", "eu-central-1")];
const PROJECT: &[(&str, &str)] = &[("location", "europe-west4"), ("project", "p-1")];

#[tokio::test]
async fn a_call_does_not_leave_the_origins_of_its_lease() {
    let world = World::start().await;
    world.leases.has_address.store(false, Ordering::SeqCst);
    world.hold("bedrock", CredentialKind::BedrockApiKey, REGION);
    let path = "/bedrock/model/amazon.nova-lite-v1:0/converse";
    // The lease is for the stand-in; the catalogue says Bedrock in Frankfurt.
    let (status, _, body) = world.call(path, "{}").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(body["error"]["code"], "upstream_address_refused");
    // Another region is another origin.
    let other = "https://bedrock-runtime.us-east-1.amazonaws.com".parse().unwrap();
    *world.leases.origins.lock().unwrap() = Some(vec![other]);
    let (status, _, body) = world.call(path, "{}").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(body["error"]["code"], "upstream_address_refused");
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_secret_goes_in_the_header_that_lease_and_catalogue_agree_on() {
    let world = World::start().await;
    world.leases.wrong_header.store(true, Ordering::SeqCst);
    let (status, headers, body) = world.call("/v1/chat/completions", r#"{"model":"gpt-4o"}"#).await;
    assert_eq!(status, StatusCode::FAILED_DEPENDENCY);
    assert_eq!(body["error"]["code"], "credential_unusable");
    assert_eq!(headers["x-should-retry"], "false");
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn what_a_credential_lacks_is_told_with_what_to_change() {
    let world = World::start().await;
    world.hold("azure", CredentialKind::ApiKey, &[]);
    let (status, headers, body) =
        world.call("/v1/chat/completions", r#"{"model":"azure/gpt-4o"}"#).await;
    assert_eq!(status, StatusCode::FAILED_DEPENDENCY);
    assert_eq!(headers["x-should-retry"], "false");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("lacks the setting `resource`: the name of your resource"),
        "{message}"
    );
    world.hold("vertex", CredentialKind::AccessToken, &[("project", "p-1")]);
    let (_, _, body) = world.call("/v1/messages", r#"{"model":"vertex/claude-opus-5"}"#).await;
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("lacks the setting `location`"), "{message}");
    world.hold("bedrock", CredentialKind::ApiKey, REGION);
    let (_, _, body) = world.call("/v1/chat/completions", r#"{"model":"bedrock/openai.x"}"#).await;
    assert_eq!(body["error"]["code"], "credential_unusable");
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn what_a_provider_does_not_serve_is_told_with_what_it_serves() {
    let world = World::start().await;
    for (path, model, code, says) in [
        ("/v1/messages", "openai/gpt-4o", "dialect_not_served", "it serves native, openai"),
        ("/v1/completions", "mistral/m", "operation_not_served", "chat completions, embeddings"),
        ("/v1/messages/count_tokens", "xai/grok-4", "operation_not_served", "it serves messages"),
    ] {
        let (status, _, body) = world.call(path, &format!(r#"{{"model":"{model}"}}"#)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{model}");
        assert!(body.to_string().contains(code), "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(says), "{body}");
    }
    let (status, _, body) = world.call("/openai/v1/files", "{}").await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("unknown_path")));
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("POST /openai/v1/responses"), "{message}");
    let (status, _, body) = world.call("/nobody/v1/responses", "{}").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["error"]["code"], "provider_not_found");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("vercel, vertex, xai"), "{message}");
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_model_that_policy_puts_in_the_place_of_another_stands_in_the_path_too() {
    let world = World::start().await;
    world.hold("azure", CredentialKind::ApiKey, &[("resource", "r")]);
    world.hold("bedrock", CredentialKind::BedrockApiKey, REGION);
    world.hold("vertex", CredentialKind::AccessToken, PROJECT);
    let vertex = "/v1/projects/p-1/locations/europe-west4/publishers/google/models";
    for (model, path, body, there, sent) in [
        (
            "gemini-2.5-flash",
            "/google/v1beta/models/gemini-2.5-pro:countTokens",
            r#"{"model":"models/gemini-2.5-pro"}"#,
            "/v1beta/models/gemini-2.5-flash:countTokens".to_owned(),
            r#"{"model":"models/gemini-2.5-flash"}"#,
        ),
        (
            "gemini-2.5-flash",
            "/vertex/v1/publishers/google/models/gemini-2.5-pro:generateContent",
            "{}",
            format!("{vertex}/gemini-2.5-flash:generateContent"),
            "{}",
        ),
        (
            "amazon.nova-lite-v1:0",
            "/bedrock/model/amazon.nova-pro-v1%3A0/converse",
            "{}",
            "/model/amazon.nova-lite-v1%3A0/converse".to_owned(),
            "{}",
        ),
        (
            "small",
            "/azure/openai/deployments/large/chat/completions?api-version=2024-10-21",
            r#"{"model":"large"}"#,
            "/openai/deployments/small/chat/completions?api-version=2024-10-21".to_owned(),
            r#"{"model":"small"}"#,
        ),
        (
            "gpt-4o-mini",
            "/openai/v1/chat/completions",
            r#"{"model":"gpt-4o"}"#,
            "/v1/chat/completions".to_owned(),
            r#"{"model":"gpt-4o-mini"}"#,
        ),
    ] {
        *world.leases.model.lock().unwrap() = Some(model.to_owned());
        world.upstream.answer(&there, 200, &[], "{}");
        let (status, _, answer) = world.call(path, body).await;
        let seen = world.upstream.seen();
        let seen = seen.last().unwrap();
        assert_eq!((status, &*seen.path), (StatusCode::OK, &*there), "{answer}");
        assert_eq!(seen.body, sent);
    }
}

#[tokio::test]
async fn a_model_that_no_path_could_hold_is_not_put_in_one() {
    let world = World::start().await;
    for (model, path) in [
        ("../../v1/files", "/google/v1beta/models/gemini-2.5-pro:generateContent"),
        ("a:b", "/google/v1beta/models/gemini-2.5-pro:generateContent"),
        // The model stands in each item of such a body as well.
        ("other", "/google/v1beta/models/text-embedding-004:batchEmbedContents"),
    ] {
        *world.leases.model.lock().unwrap() = Some(model.to_owned());
        let (status, _, body) = world.call(path, "{}").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(body["error"]["code"], "model_not_replaceable");
        assert!(body.to_string().contains(model), "{body}");
    }
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_asks_for_no_secret_gets_none() {
    let world = World::start().await;
    world.hold("custom", CredentialKind::None, &[]);
    world.upstream.answer("/chat/completions", 200, &[], "{}");
    let (status, ..) = world.call("/v1/chat/completions", r#"{"model":"custom/llama"}"#).await;
    assert_eq!(status, StatusCode::OK);
    let seen = world.upstream.seen();
    assert!(!format!("{:?}", seen[0].headers).contains(SECRET));
    assert!(!seen[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn every_providers_own_api_is_reached_behind_its_name() {
    let world = World::start().await;
    world.hold("azure", CredentialKind::ApiKey, &[("resource", "r")]);
    world.hold("bedrock", CredentialKind::BedrockApiKey, REGION);
    world.hold("cloudflare", CredentialKind::ApiKey, &[("account_id", ACCOUNT)]);
    world.hold("vertex", CredentialKind::AccessToken, PROJECT);
    for (provider, path, upstream, header) in NATIVE {
        world.upstream.answer(upstream, 200, &[], r#"{"id":"1"}"#);
        let body = if path.contains("/m") { "{}" } else { r#"{"model":"m"}"# };
        let (status, _, answer) = world.call(&format!("/{provider}{path}"), body).await;
        let seen = world.upstream.seen();
        let seen = seen.last().unwrap();
        assert_eq!(
            (status, answer),
            (StatusCode::OK, json!({"id": "1"})),
            "{provider}: {}",
            seen.path
        );
        let expected = match *header {
            "authorization" => format!("Bearer {SECRET}"),
            _ => SECRET.to_owned(),
        };
        assert_eq!(seen.headers[*header], expected, "{provider}");
        let carriers = ["authorization", "x-api-key", "api-key", "x-goog-api-key"].iter();
        assert_eq!(carriers.filter(|name| seen.headers.contains_key(**name)).count(), 1);
        assert_eq!(seen.body, body, "{provider}");
    }
}

#[tokio::test]
async fn googles_own_header_carries_a_virtual_key() {
    let world = World::start().await;
    world.upstream.answer("/v1beta/models?pageSize=5", 200, &[], "{}");
    let uri = format!("http://{}/google/v1beta/models?pageSize=5&key=x", world.address);
    let request = Request::builder()
        .method(Method::GET)
        .uri(uri)
        .header("x-goog-api-key", world.key.expose());
    let (status, ..) = read(world.send(request, "").await).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(world.upstream.seen()[0].headers["x-goog-api-key"], SECRET);
}

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

/// Provider, path here, path there, and the header that carries the secret.
const NATIVE: &[(&str, &str, &str, &str)] = &[
    ("anthropic", "/v1/messages", "/v1/messages", "x-api-key"),
    ("azure", "/openai/v1/responses", "/openai/v1/responses", "api-key"),
    ("bedrock", "/model/m/invoke", "/model/m/invoke", "authorization"),
    (
        "cloudflare",
        "/ai/run/@cf/meta/m",
        "/client/v4/accounts/0123456789abcdef0123456789abcdef/ai/run/@cf/meta/m",
        "authorization",
    ),
    ("cohere", "/v2/chat", "/v2/chat", "authorization"),
    ("deepseek", "/chat/completions", "/chat/completions", "authorization"),
    ("google", "/v1/models/m:generateContent", "/v1/models/m:generateContent", "x-goog-api-key"),
    ("mistral", "/v1/fim/completions", "/v1/fim/completions", "authorization"),
    ("openai", "/v1/embeddings", "/v1/embeddings", "authorization"),
    ("openrouter", "/api/v1/chat/completions", "/api/v1/chat/completions", "authorization"),
    ("perplexity", "/v1/responses", "/v1/responses", "authorization"),
    ("vercel", "/v1/messages", "/v1/messages", "authorization"),
    (
        "vertex",
        "/v1/publishers/google/models/m:countTokens",
        "/v1/projects/p-1/locations/europe-west4/publishers/google/models/m:countTokens",
        "authorization",
    ),
    ("xai", "/v1/responses", "/v1/responses", "authorization"),
];
