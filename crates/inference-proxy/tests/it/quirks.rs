use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use providers::CredentialKind;
use serde_json::{Value, json};

use crate::harness::{SECRET, World, read};

const CHAT: &str = "/v1/chat/completions";
const REGION: &[(&str, &str)] = &[("region", "eu-central-1")];
const PROJECT: &[(&str, &str)] = &[("location", "europe-west4"), ("project", "p-1")];

/// Makes a call that must arrive at this path there; the body and the headers that arrived.
async fn arrives(world: &World, path: &str, body: &str, there: &str) -> (Value, http::HeaderMap) {
    world.upstream.answer(there, 200, &[], "{}");
    let (status, ..) = world.call(path, body).await;
    let seen = world.upstream.seen().last().unwrap().clone();
    assert_eq!((status, &*seen.path), (StatusCode::OK, there));
    (serde_json::from_slice(&seen.body).unwrap(), seen.headers)
}

#[tokio::test]
async fn perplexity_has_a_version_in_front_of_some_paths() {
    let world = World::start().await;
    arrives(&world, CHAT, r#"{"model":"sonar"}"#, "/chat/completions").await;
    let body = r#"{"model":"perplexity/pplx-embed-v1"}"#;
    arrives(&world, "/v1/embeddings", body, "/v1/embeddings").await;
    let body = r#"{"model":"perplexity/openai/gpt-5.1"}"#;
    let (sent, _) = arrives(&world, "/v1/responses", body, "/v1/responses").await;
    assert_eq!(sent, json!({"model": "openai/gpt-5.1"}));
}

#[tokio::test]
async fn mistral_gets_no_field_that_it_would_refuse() {
    let world = World::start().await;
    let body = r#"{"model":"mistral-large-latest","user":"u","seed":7,"store":true,"metadata":{},
        "logit_bias":{},"stream":true,"stream_options":{"include_usage":true},
        "tool_choice":"required","temperature":1.0e0}"#;
    let (sent, _) = arrives(&world, CHAT, body, CHAT).await;
    let expected = json!({"model": "mistral-large-latest", "random_seed": 7, "stream": true,
        "tool_choice": "any", "temperature": 1.0});
    assert_eq!(sent, expected);
    let native = r#"{"model":"mistral-large-latest","random_seed":7}"#;
    let (sent, _) = arrives(&world, "/mistral/v1/chat/completions", native, CHAT).await;
    assert_eq!(sent.to_string(), native);
}

#[tokio::test]
async fn azure_has_deployments_and_versions() {
    let world = World::start().await;
    let model = r#"{"model":"azure/my-gpt"}"#;
    world.hold("azure", CredentialKind::ApiKey, &[("resource", "r")]);
    let (sent, headers) = arrives(&world, CHAT, model, "/openai/v1/chat/completions").await;
    assert_eq!((sent, &headers["api-key"]), (json!({"model": "my-gpt"}), &SECRET.parse().unwrap()));

    let version = [("api_version", "2024-10-21"), ("resource", "r")];
    world.hold("azure", CredentialKind::ApiKey, &version);
    let there = "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21";
    arrives(&world, &format!("{CHAT}?api-version=2099-01-01"), model, there).await;

    // A deployment that is set takes the place of whatever model a call names.
    world.hold("azure", CredentialKind::ApiKey, &[("deployment", "only"), ("resource", "r")]);
    let (sent, _) = arrives(&world, CHAT, model, "/openai/v1/chat/completions").await;
    assert_eq!(sent, json!({"model": "only"}));
    let (_, headers) = arrives(&world, "/v1/messages", model, "/anthropic/v1/messages").await;
    assert_eq!(headers["x-api-key"], SECRET);

    // Azure's own SDKs write the version themselves.
    let here = "/azure/openai/deployments/my-gpt/chat/completions?api-version=2025-01-01-preview";
    let there = here.strip_prefix("/azure").unwrap();
    arrives(&world, here, r#"{"messages":[]}"#, there).await;
}

#[tokio::test]
async fn gemini_is_served_under_both_versions_with_its_own_streams() {
    let world = World::start().await;
    let events = "data: {\"candidates\":[],\"usageMetadata\":{\"totalTokenCount\":3}}\r\n\r\n";
    for version in ["v1", "v1beta"] {
        let path = format!("/{version}/models/gemini-2.5-pro:streamGenerateContent?alt=sse");
        world.upstream.answer(&path, 200, &[("content-type", "text/event-stream")], events);
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}/google{path}&key=none", world.address))
            .header("x-goog-api-key", world.key.expose());
        let answer = world.send(request, r#"{"contents":[]}"#).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), events);
        let seen = world.upstream.seen();
        assert_eq!(seen.last().unwrap().path, path);
        assert_eq!(seen.last().unwrap().headers["x-goog-api-key"], SECRET);
        assert_eq!(world.leases.asked.lock().unwrap().last().unwrap().model, "gemini-2.5-pro");
    }
    let there = "/v1beta/openai/chat/completions";
    let (sent, headers) = arrives(&world, CHAT, r#"{"model":"gemini-2.5-pro"}"#, there).await;
    assert_eq!(sent, json!({"model": "gemini-2.5-pro"}));
    assert_eq!(headers["authorization"], format!("Bearer {SECRET}"));
    // The body of an embedding repeats the model as a resource.
    let here = "/google/v1beta/models/gemini-embedding-001:embedContent";
    let body = r#"{"model":"models/gemini-embedding-001"}"#;
    let (sent, _) = arrives(&world, here, body, here.strip_prefix("/google").unwrap()).await;
    assert_eq!(sent.to_string(), body);
}

#[tokio::test]
async fn a_key_that_google_refuses_with_400_is_a_refused_credential() {
    let world = World::start().await;
    let path = "/v1/models/m:generateContent";
    let body = r#"[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT",
        "details":[{"reason":"API_KEY_INVALID"}]}}]"#;
    world.upstream.answer(path, 400, &[], body);
    let (status, _, body) = world.call(&format!("/google{path}"), "{}").await;
    assert_eq!(status, StatusCode::FAILED_DEPENDENCY, "{body}");
}

#[tokio::test]
async fn bedrock_takes_inference_profiles_and_its_event_streams_pass_untouched() {
    let world = World::start().await;
    world.hold("bedrock", CredentialKind::BedrockApiKey, REGION);
    for (written, model) in [
        ("eu.anthropic.claude-sonnet-4-5-v1%3A0", "eu.anthropic.claude-sonnet-4-5-v1:0"),
        (
            "arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3Ainference-profile%2Feu.x",
            "arn:aws:bedrock:eu-central-1:123456789012:inference-profile/eu.x",
        ),
    ] {
        let path = format!("/model/{written}/converse-stream");
        let frames = "\u{0}\u{0}\u{0}\u{7f}\u{0}\u{1}:event-type\u{7}\u{0}\"usage\"\n\n\u{2}";
        let kind = [("content-type", "application/vnd.amazon.eventstream")];
        world.upstream.answer(&path, 200, &kind, frames);
        let answer = world.send(world.post(&format!("/bedrock{path}")), r#"{"messages":[]}"#).await;
        assert_eq!(answer.headers()["content-type"], kind[0].1);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), frames);
        assert_eq!(world.leases.asked.lock().unwrap().last().unwrap().model, model);
    }
    let body = r#"{"model":"bedrock/openai.gpt-oss-120b-1:0"}"#;
    let (sent, _) = arrives(&world, CHAT, body, "/openai/v1/chat/completions").await;
    assert_eq!(sent, json!({"model": "openai.gpt-oss-120b-1:0"}));
    let body = r#"{"model":"eu.anthropic.claude-sonnet-4-5-v1:0"}"#;
    let (_, headers) = arrives(&world, "/v1/messages", body, "/anthropic/v1/messages").await;
    assert_eq!(headers["anthropic-version"], "2023-06-01");
}

#[tokio::test]
async fn claude_on_vertex_has_its_model_in_the_path() {
    let world = World::start().await;
    world.hold("vertex", CredentialKind::AccessToken, PROJECT);
    let models = "/v1/projects/p-1/locations/europe-west4/publishers/anthropic/models";
    let there = format!("{models}/claude-sonnet-4-5@20250929:rawPredict");
    let body = r#"{"model":"claude-sonnet-4-5@20250929","max_tokens":9}"#;
    let (sent, _) = arrives(&world, "/v1/messages", body, &there).await;
    assert_eq!(sent, json!({"anthropic_version": "vertex-2023-10-16", "max_tokens": 9}));

    let there = format!("{models}/claude-sonnet-4-5@20250929:streamRawPredict");
    let body = r#"{"model":"claude-sonnet-4-5@20250929","stream":true}"#;
    let (sent, _) = arrives(&world, "/v1/messages?beta=true", body, &there).await;
    assert_eq!(sent, json!({"anthropic_version": "vertex-2023-10-16", "stream": true}));

    let there = format!("{models}/count-tokens:rawPredict");
    let body = r#"{"model":"vertex/claude-opus-5"}"#;
    let (sent, _) = arrives(&world, "/v1/messages/count_tokens", body, &there).await;
    assert_eq!(sent["model"], "claude-opus-5");
}

#[tokio::test]
async fn vertex_puts_the_credentials_own_project_into_a_callers_path() {
    let world = World::start().await;
    world.hold("vertex", CredentialKind::AccessToken, PROJECT);
    let here = "/vertex/v1/projects/evil/locations/us-east1/publishers/google/models/gemini-2.5-pro:generateContent";
    let there = "/v1/projects/p-1/locations/europe-west4/publishers/google/models/gemini-2.5-pro:generateContent";
    arrives(&world, here, "{}", there).await;
    let there = "/v1/projects/p-1/locations/europe-west4/endpoints/openapi/chat/completions";
    let (sent, _) = arrives(&world, CHAT, r#"{"model":"vertex/gemini-2.5-pro"}"#, there).await;
    assert_eq!(sent, json!({"model": "google/gemini-2.5-pro"}));
}

#[tokio::test]
async fn who_pays_is_the_credentials_to_say() {
    let world = World::start().await;
    world.hold("openai", CredentialKind::ApiKey, &[("organization", "org-own")]);
    world.upstream.answer(CHAT, 200, &[], "{}");
    let request = world.post(CHAT).header("openai-organization", "org-evil");
    read(world.send(request, r#"{"model":"gpt-4o"}"#).await).await;
    let seen = world.upstream.seen();
    assert_eq!(seen[0].headers.get_all("openai-organization").iter().count(), 1);
    assert_eq!(seen[0].headers["openai-organization"], "org-own");
}

#[tokio::test]
async fn a_page_for_people_becomes_a_proper_error() {
    let world = World::start().await;
    let page = [("content-type", "text/html")];
    world.upstream.answer("/chat/completions", 401, &page, "<html>401 Authorization</html>");
    let (status, headers, body) = world.call(CHAT, r#"{"model":"sonar"}"#).await;
    assert_eq!(status, StatusCode::FAILED_DEPENDENCY);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(body["error"]["code"], "upstream_credential_refused");
}

#[tokio::test]
async fn anthropics_format_is_served_by_others_at_their_own_paths() {
    let world = World::start().await;
    for (model, there) in [
        ("deepseek/deepseek-chat", "/anthropic/v1/messages"),
        ("openrouter/anthropic/claude-opus-5", "/api/v1/messages"),
        ("xai/grok-4", "/v1/messages"),
        ("vercel/anthropic/claude-opus-5", "/v1/messages"),
    ] {
        let body = format!(r#"{{"model":"{model}"}}"#);
        let (sent, _) = arrives(&world, "/v1/messages", &body, there).await;
        assert_eq!(sent["model"], model.split_once('/').unwrap().1);
    }
}
