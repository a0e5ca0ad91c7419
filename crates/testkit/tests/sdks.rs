//! Official SDKs call the stand-ins themselves, without a proxy between: so what the stand-ins take and
//! answer is what the SDKs send and read. The SDKs are there when `tests/run` runs the tests.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Map, Value, json};
use testkit::{SAID, StandIn, call_with_sdk};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
};

#[tokio::test]
async fn openais_python_sdk_agrees_with_everyone_who_speaks_its_format() {
    let mut cases = Cases::default();
    for (slug, path, model) in CHAT {
        cases.add(slug, path, model, json!({})).await;
    }
    let dated = json!({ "api_version": "2024-10-21" });
    cases.add_as("azure by dated paths", "azure", "", "my-gpt-4o", dated).await;
    // A member of OpenAI's that Mistral does not know.
    let store = json!({ "extra": { "store": false } });
    cases.add_as("strict", "mistral", "/v1", "mistral-small-latest", store).await;

    let Some(mut got) = cases.run("openai_cases.py").await else { return };

    let strict = got.as_object_mut().unwrap().remove("strict").unwrap();
    assert_eq!(strict["plain"]["failed"]["class"], "UnprocessableEntityError", "{strict}");
    for (name, got) in got.as_object().unwrap() {
        served(name, got, "stop");
        assert_eq!(got["plain"]["tokens"], 6, "{name}");
        // xAI and Google say so with 400.
        let class = if name == "xai" || name == "google" { "BadRequest" } else { "Authentication" };
        let class = if name == "bedrock" { "PermissionDenied" } else { class };
        assert_eq!(got["refused"]["class"], format!("{class}Error"), "{name}: {got}");
    }
    cases.were_checked();
}

#[tokio::test]
async fn openais_node_sdk_agrees_with_its_stand_in() {
    let mut cases = Cases::default();
    cases.add("openai", "/v1", "gpt-4o-mini", json!({ "responses": true })).await;
    cases.add("openrouter", "/api/v1", "openai/gpt-4o-mini", json!({ "responses": true })).await;
    cases.add("deepseek", "", "deepseek-chat", json!({})).await;

    let Some(got) = cases.run("openai_cases.cjs").await else { return };

    for (name, got) in got.as_object().unwrap() {
        served(name, got, "stop");
        assert_eq!(got["refused"]["class"], "AuthenticationError", "{name}: {got}");
    }
    assert_eq!(got["openai"]["response"]["text"], SAID.concat());
    cases.were_checked();
}

#[tokio::test]
async fn vercels_ai_sdk_agrees_with_its_stand_ins() {
    let mut cases = Cases::default();
    cases.add("openai", "/v1", "gpt-4o-mini", json!({ "responses": true })).await;
    cases.add_as("chat", "openai", "/v1", "gpt-4o-mini", json!({})).await;
    cases.add("vercel", "/v1", "openai/gpt-4o-mini", json!({ "responses": true })).await;

    let Some(got) = cases.run("ai_sdk_cases.cjs").await else { return };

    for (name, got) in got.as_object().unwrap() {
        served(name, got, "stop");
        assert_eq!((&got["plain"]["tokens"], &got["stream"]["tokens"]), (&json!(6), &json!(6)));
        assert_eq!(got["refused"]["name"], "AI_APICallError", "{name}: {got}");
        assert_eq!(got["refused"]["status"], 401, "{name}: {got}");
    }
    cases.were_checked();
}

#[tokio::test]
async fn anthropics_sdk_agrees_with_everyone_who_speaks_its_format() {
    let mut cases = Cases::default();
    for (slug, path, model, more) in [
        ("anthropic", "", "claude-sonnet-4-5", json!({})),
        ("azure", "/anthropic", "my-claude", json!({ "client": "foundry" })),
        ("bedrock", "/anthropic", BEDROCK_MODEL, json!({})),
        ("deepseek", "/anthropic", "deepseek-chat", json!({})),
        ("openrouter", "/api", "anthropic/claude-sonnet-4.5", json!({})),
        ("vercel", "", "anthropic/claude-sonnet-4.5", json!({})),
        ("vertex", "/v1", "claude-sonnet-4-5@20250929", json!({ "client": "vertex" })),
        ("xai", "", "grok-4.3", json!({})),
    ] {
        cases.add(slug, path, model, more).await;
    }

    let Some(got) = cases.run("anthropic_cases.py").await else { return };

    for (name, got) in got.as_object().unwrap() {
        served(name, got, "end_turn");
        assert_eq!(got["stream"]["tokens"], 6, "{name}");
        assert_eq!(got["refused"]["class"], "AuthenticationError", "{name}: {got}");
    }
    cases.were_checked();
}

#[tokio::test]
async fn googles_sdk_agrees_with_both_ways_to_gemini() {
    let mut cases = Cases::default();
    cases.add("google", "", "gemini-2.5-flash", json!({})).await;
    let beta = json!({ "api_version": "v1beta" });
    cases.add_as("google beta", "google", "", "gemini-2.5-flash", beta).await;
    cases.add("vertex", "", "gemini-2.5-flash", json!({})).await;

    let Some(got) = cases.run("google_cases.py").await else { return };

    for (name, got) in got.as_object().unwrap() {
        served(name, got, "STOP");
        assert_eq!(got["stream"]["tokens"], 6, "{name}");
        let status = if name == "vertex" { 401 } else { 400 };
        assert_eq!(got["refused"]["class"], "ClientError", "{name}: {got}");
        assert_eq!(got["refused"]["status"], status, "{name}: {got}");
    }
    cases.were_checked();
}

#[tokio::test]
async fn mistrals_sdk_agrees_with_its_stand_in() {
    let mut cases = Cases::default();
    cases.add("mistral", "", "mistral-small-latest", json!({})).await;

    let Some(got) = cases.run("mistral_cases.py").await else { return };

    served("mistral", &got["mistral"], "stop");
    assert_eq!(got["mistral"]["stream"]["tokens"], 6);
    assert_eq!(got["mistral"]["refused"]["class"], "SDKError", "{got}");
    assert_eq!(got["mistral"]["refused"]["status"], 401, "{got}");
    cases.were_checked();
}

#[tokio::test]
async fn coheres_sdk_agrees_with_its_stand_in() {
    let mut cases = Cases::default();
    cases.add("cohere", "", "command-a-03-2025", json!({})).await;

    let Some(got) = cases.run("cohere_cases.py").await else { return };

    served("cohere", &got["cohere"], "COMPLETE");
    assert_eq!(got["cohere"]["stream"]["tokens"], 6);
    assert_eq!(got["cohere"]["refused"]["class"], "UnauthorizedError", "{got}");
    cases.were_checked();
}

#[tokio::test]
async fn awss_sdk_agrees_with_its_stand_in_down_to_each_frame() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("ca.pem");
    let bedrock = StandIn::start_tls("bedrock", certificate(&trusted)).await.unwrap();
    let mut cases = Cases { trusted: Some(trusted), ..Cases::default() };
    cases.push("bedrock", bedrock, "", BEDROCK_MODEL, json!({}));

    let Some(got) = cases.run("bedrock_cases.py").await else { return };

    let got = &got["bedrock"];
    served("bedrock", got, "end_turn");
    assert_eq!(got["stream"]["tokens"], 6);
    assert_eq!(got["invoke"]["text"], SAID.concat(), "{got}");
    assert_eq!(got["invoke_stream"]["pieces"], json!(SAID), "{got}");
    assert_eq!(got["refused"]["status"], 403, "{got}");
    let message = got["refused"]["message"].as_str().unwrap();
    assert!(message.contains("UnrecognizedClientException"), "{message}");
    cases.were_checked();
}

/// What one script is to call.
#[derive(Default)]
struct Cases {
    each: Vec<Value>,
    stand_ins: Vec<StandIn>,
    /// Whose certificates are trusted.
    trusted: Option<PathBuf>,
}

impl Cases {
    async fn add(&mut self, slug: &str, path: &str, model: &str, more: Value) {
        self.add_as(slug, slug, path, model, more).await;
    }

    async fn add_as(&mut self, name: &str, slug: &str, path: &str, model: &str, more: Value) {
        let stand_in = StandIn::start(slug).await.unwrap();
        self.push(name, stand_in, path, model, more);
    }

    fn push(&mut self, name: &str, stand_in: StandIn, path: &str, model: &str, more: Value) {
        let key = stand_in.key();
        let mut case: Map<String, Value> = serde_json::from_value(more).unwrap();
        let settings = stand_in.settings().iter();
        case.extend(settings.map(|(name, value)| ((*name).to_owned(), (*value).into())));
        for (member, value) in [
            ("name", name),
            ("base_url", &*format!("{}{path}", stand_in.url())),
            ("key", key),
            ("wrong_key", &*format!("{}X", &key[..key.len() - 1])),
            ("model", model),
        ] {
            case.insert(member.to_owned(), value.into());
        }
        self.each.push(case.into());
        self.stand_ins.push(stand_in);
    }

    /// Calls them all; gives what came of it, or nothing where there are no SDKs.
    async fn run(&self, script: &str) -> Option<Value> {
        let got = call_with_sdk(script, &self.each, self.trusted.as_deref()).await.unwrap();
        if got.is_none() {
            eprintln!("not tested without SDKs: run tests/run");
        }
        got
    }

    /// The control: of what each stand-in was asked, it has refused what came with the wrong key.
    fn were_checked(&self) {
        for stand_in in &self.stand_ins {
            let wrong = stand_in.calls().into_iter().filter_map(|call| call.wrong);
            let wrong = wrong.collect::<Vec<_>>();
            let keys = wrong.iter().filter(|wrong| wrong.starts_with("the wrong key"));
            assert_eq!(keys.count(), 1, "{}: {wrong:?}", stand_in.slug());
        }
    }
}

/// Both calls were served, with every word of it, and ended as they should.
#[track_caller]
fn served(name: &str, got: &Value, finish: &str) {
    assert_eq!(got["plain"]["text"], SAID.concat(), "{name}: {got}");
    assert_eq!(got["stream"]["pieces"], json!(SAID), "{name}: {got}");
    for call in ["plain", "stream"] {
        assert_eq!(got[call]["finish"], finish, "{name}: {got}");
    }
}

/// What serves with a certificate of its own, which is written down for those who are to trust it.
fn certificate(trusted: &Path) -> ServerConfig {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(trusted, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], key)
        .unwrap()
}

const BEDROCK_MODEL: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";

/// Everyone who speaks OpenAI's format: where, and one model.
const CHAT: [(&str, &str, &str); 14] = [
    ("openai", "/v1", "gpt-4o-mini"),
    ("anthropic", "/v1", "claude-sonnet-4-5"),
    ("google", "/v1beta/openai", "gemini-2.5-flash"),
    (
        "vertex",
        "/v1/projects/stand-in-123/locations/europe-west4/endpoints/openapi",
        "google/gemini-2.5-flash",
    ),
    ("bedrock", "/openai/v1", "openai.gpt-oss-120b-1:0"),
    ("azure", "/openai/v1", "my-gpt-4o"),
    ("openrouter", "/api/v1", "openai/gpt-4o-mini"),
    ("xai", "/v1", "grok-4.3"),
    ("vercel", "/v1", "openai/gpt-4o-mini"),
    ("mistral", "/v1", "mistral-small-latest"),
    ("deepseek", "", "deepseek-chat"),
    ("perplexity", "", "sonar"),
    ("cohere", "/compatibility/v1", "command-a-03-2025"),
    (
        "cloudflare",
        "/client/v4/accounts/00112233445566778899aabbccddeeff/ai/v1",
        "@cf/meta/llama-3.2-3b-instruct",
    ),
];
