//! Every provider through the proxy, called with the SDKs that applications use. The stand-ins take one
//! proof only, so an answer says that the right one went out, and nothing of the caller's with it.

use e2e::{Backing, Deployment};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use testkit::{SAID, StandIn, call_with_sdk};

#[tokio::test(flavor = "multi_thread")]
async fn every_sdk_reaches_its_providers_through_the_proxy() {
    if !Backing::Embedded.is_available() {
        return eprintln!("not tested without SDKs: run tests/run");
    }
    let stand_ins = start(|slug| slug != "bedrock").await;
    let deployment = Deployment::before(Backing::Embedded, &stand_ins).await;
    let key = furnish(&deployment, &stand_ins).await;
    let proxy = format!("http://{}", deployment.proxy());
    let case = |model: &str, path: &str, more: Value| {
        let mut case = json!({
            "name": model, "base_url": format!("{proxy}{path}"), "model": model,
            "key": key, "wrong_key": mistyped(&key),
        });
        case.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        case
    };
    let each = |models: &[&str], path: &str| {
        models.iter().map(|model| case(model, path, json!({}))).collect::<Vec<_>>()
    };
    let native = |name: &str, model: &str, path: &str, more: Value| {
        let mut case = case(model, path, more);
        case["name"] = name.into();
        case
    };
    let place = json!({ "project": "somebodys", "location": "us" });
    let beta = json!({ "api_version": "v1beta" });
    let runs = [
        ("openai_cases.py", each(&CHAT, "/v1")),
        ("openai_cases.cjs", vec![case("openai/gpt-4o-mini", "/v1", json!({ "responses": true }))]),
        (
            "ai_sdk_cases.cjs",
            vec![
                case("openai/gpt-4o-mini", "/v1", json!({ "responses": true })),
                case("vercel/openai/gpt-4o-mini", "/v1", json!({})),
            ],
        ),
        ("anthropic_cases.py", each(&MESSAGES, "")),
        (
            "google_cases.py",
            vec![
                native("google", "gemini-2.5-flash", "/google", json!({})),
                native("google beta", "gemini-2.5-flash", "/google", beta),
                native("vertex", "gemini-2.5-flash", "/vertex", place),
            ],
        ),
        ("mistral_cases.py", vec![case("mistral-small-latest", "/mistral", json!({}))]),
        ("cohere_cases.py", vec![case("command-a-03-2025", "/cohere", json!({}))]),
    ];

    // Each interpreter starts once; two at a time are as many as a small machine has room for.
    let runs = stream::iter(runs)
        .map(async |(script, cases)| (script, call_with_sdk(script, &cases, None).await.unwrap()));
    let got = runs.buffer_unordered(2).collect::<Vec<_>>().await;

    for (script, got) in &got {
        for (name, got) in got.as_ref().and_then(Value::as_object).into_iter().flatten() {
            served(&format!("{script} {name}"), got);
            refused(&format!("{script} {name}"), got, 401);
        }
    }
    nothing_was_wrong(&stand_ins);
    deployment.end().await;
}

/// AWS's SDK shows a message only where AWS has it, and checks each frame of a stream.
#[tokio::test(flavor = "multi_thread")]
async fn awss_sdk_reaches_bedrock_through_the_proxy() {
    if !Backing::Embedded.is_available() {
        return eprintln!("not tested without SDKs: run tests/run");
    }
    let stand_ins = start(|slug| slug == "bedrock").await;
    let deployment = Deployment::before(Backing::Embedded, &stand_ins).await;
    let key = furnish(&deployment, &stand_ins).await;
    let case = json!({
        "name": "bedrock", "region": "us-east-1", "model": BEDROCK_MODEL,
        "base_url": format!("https://localhost:{}/bedrock", deployment.proxy().port()),
        "key": key, "wrong_key": mistyped(&key),
    });
    let trusted = deployment.layout().pki.join("ca.pem");

    let got = call_with_sdk("bedrock_cases.py", &[case], Some(&trusted)).await.unwrap().unwrap();

    let got = &got["bedrock"];
    served("bedrock", got);
    assert_eq!(got["invoke"]["text"], SAID.concat(), "{got}");
    assert_eq!(got["invoke_stream"]["pieces"], json!(SAID), "{got}");
    refused("bedrock", got, 401);
    nothing_was_wrong(&stand_ins);
    deployment.end().await;
}

/// What one broker was told, another one lends: `PostgreSQL`, AWS KMS, two brokers, and a proxy at each.
#[tokio::test(flavor = "multi_thread")]
async fn sdks_reach_their_providers_by_each_of_two_brokers() {
    if !Backing::Scaled.is_available() {
        return eprintln!("not tested on this stack: run tests/run");
    }
    let chosen = ["openai", "anthropic", "cohere"];
    let stand_ins = start(|slug| chosen.contains(&slug)).await;
    let mut deployment = Deployment::before(Backing::Scaled, &stand_ins).await;
    let beside = deployment.start_beside().await;
    let key = furnish(&deployment, &stand_ins).await;
    let cases = |path: &str, model: &str| {
        let each = [("one", deployment.proxy()), ("other", beside)].map(|(name, proxy)| {
            json!({
                "name": name, "base_url": format!("http://{proxy}{path}"), "model": model,
                "key": key, "wrong_key": mistyped(&key),
            })
        });
        each.to_vec()
    };
    for (script, cases) in [
        ("openai_cases.py", cases("/v1", "openai/gpt-4o-mini")),
        ("anthropic_cases.py", cases("", "anthropic/claude-sonnet-4-5")),
        ("cohere_cases.py", cases("/cohere", "command-a-03-2025")),
    ] {
        let got = call_with_sdk(script, &cases, None).await.unwrap().unwrap();
        for name in ["one", "other"] {
            served(&format!("{script} {name}"), &got[name]);
            refused(&format!("{script} {name}"), &got[name], 401);
        }
    }
    nothing_was_wrong(&stand_ins);
    deployment.end().await;
}

async fn start(chosen: impl Fn(&str) -> bool) -> Vec<StandIn> {
    let mut stand_ins = Vec::new();
    for slug in StandIn::slugs().filter(|slug| chosen(slug)) {
        stand_ins.push(StandIn::start(slug).await.unwrap());
    }
    stand_ins
}

/// A tenant with a credential for each of them, and a virtual key.
async fn furnish(deployment: &Deployment, stand_ins: &[StandIn]) -> String {
    deployment.create_tenant("acme").await;
    for stand_in in stand_ins {
        deployment.store_for("acme", stand_in).await;
    }
    deployment.create_key("acme", &[]).await.0
}

/// One character changed: the check at the end no longer fits.
fn mistyped(key: &str) -> String {
    let other = if key[30..].starts_with('a') { "b" } else { "a" };
    format!("{}{other}{}", &key[..30], &key[31..])
}

#[track_caller]
fn served(name: &str, got: &Value) {
    assert_eq!(got["plain"]["text"], SAID.concat(), "{name}: {got}");
    assert_eq!(got["stream"]["pieces"], json!(SAID), "{name}: {got}");
}

/// It was an error of the SDK's own, with our words in it.
#[track_caller]
fn refused(name: &str, got: &Value, status: u16) {
    let refused = &got["refused"];
    assert_eq!(refused["status"], status, "{name}: {got}");
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(message.contains("the virtual key is unknown"), "{name}: {got}");
}

/// Every stand-in was called, and never in a way that it does not know.
fn nothing_was_wrong(stand_ins: &[StandIn]) {
    for stand_in in stand_ins {
        let calls = stand_in.calls();
        assert!(!calls.is_empty(), "{} was not called", stand_in.slug());
        let wrong = calls.iter().filter_map(|call| Some((&call.path, call.wrong.as_ref()?)));
        assert_eq!(wrong.collect::<Vec<_>>(), [], "{}", stand_in.slug());
        let virtual_key = |value: &[u8]| memchr::memmem::find(value, b"vk_").is_some();
        let mut headers = calls.iter().flat_map(|call| &call.headers);
        let leaked = headers.find(|(_, value)| virtual_key(value.as_bytes()));
        assert_eq!(leaked, None, "{}", stand_in.slug());
    }
}

const BEDROCK_MODEL: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";

/// Everyone who speaks OpenAI's format, but for Amazon.
const CHAT: [&str; 13] = [
    "openai/gpt-4o-mini",
    "anthropic/claude-sonnet-4-5",
    "google/gemini-2.5-flash",
    "vertex/gemini-2.5-flash",
    "azure/my-gpt-4o",
    "openrouter/openai/gpt-4o-mini",
    "xai/grok-4.3",
    "vercel/openai/gpt-4o-mini",
    "mistral/mistral-small-latest",
    "deepseek/deepseek-chat",
    "perplexity/sonar",
    "cohere/command-a-03-2025",
    "cloudflare/@cf/meta/llama-3.2-3b-instruct",
];

/// Everyone who speaks Anthropic's format, but for Amazon.
const MESSAGES: [&str; 7] = [
    "anthropic/claude-sonnet-4-5",
    "azure/my-claude",
    "deepseek/deepseek-chat",
    "openrouter/anthropic/claude-sonnet-4.5",
    "vercel/anthropic/claude-sonnet-4.5",
    "vertex/claude-sonnet-4-5@20250929",
    "xai/grok-4.3",
];
