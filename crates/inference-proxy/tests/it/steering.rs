//! Bodies by which a caller would choose what its key and its tenant choose.

use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::World;

const CHAT: &str = "/v1/chat/completions";
/// Where calls arrive at the provider, by how they are made.
const OPENROUTER: [(&str, &str, &str); 5] = [
    (CHAT, "/api/v1/chat/completions", "openrouter/openai/gpt-4o-mini"),
    ("/v1/responses", "/api/v1/responses", "openrouter/openai/gpt-4o-mini"),
    ("/v1/messages", "/api/v1/messages", "openrouter/openai/gpt-4o-mini"),
    ("/openrouter/api/v1/chat/completions", "/api/v1/chat/completions", "openai/gpt-4o-mini"),
    ("/openrouter/api/v1/messages", "/api/v1/messages", "openai/gpt-4o-mini"),
];
const VERCEL: [(&str, &str, &str); 4] = [
    (CHAT, CHAT, "vercel/openai/gpt-4o-mini"),
    ("/v1/messages", "/v1/messages", "vercel/openai/gpt-4o-mini"),
    ("/vercel/v1/chat/completions", CHAT, "openai/gpt-4o-mini"),
    ("/vercel/v1/responses", "/v1/responses", "openai/gpt-4o-mini"),
];

fn body(model: &str, more: &Value) -> String {
    let mut body = json!({"model": model, "max_tokens": 9, "messages": []});
    let members = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(members);
    body.to_string()
}

/// That what is harmless is sent as it is, and that the rest is refused and never sent.
#[expect(clippy::indexing_slicing, reason = "a helper that fails is a failed test")]
async fn check(paths: &[(&str, &str, &str)], harmless: &[Value], steering: &[(&str, Value)]) {
    for (path, there, model) in paths {
        let world = World::start().await;
        world.upstream.answer(there, 200, &[], "{}");
        for more in harmless {
            let (status, _, answer) = world.call(path, &body(model, more)).await;
            assert_eq!(status, StatusCode::OK, "{path} {more}: {answer}");
            let sent: Value =
                serde_json::from_slice(&world.upstream.seen().pop().unwrap().body).unwrap();
            for (name, value) in more.as_object().unwrap() {
                assert_eq!(&sent[name], value);
            }
            assert!(sent["model"].as_str().unwrap().ends_with("gpt-4o-mini"), "{sent}");
        }
        for (place, more) in steering {
            let (status, _, answer) = world.call(path, &body(model, more)).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {more}");
            let (code, message) = if path.contains("messages") && answer["type"] == "error" {
                (&answer["error"]["details"]["error_code"], &answer["error"]["message"])
            } else {
                assert_eq!(answer["error"]["param"], *place);
                (&answer["error"]["code"], &answer["error"]["message"])
            };
            assert_eq!(code, "field_not_allowed", "{answer}");
            assert!(message.as_str().unwrap().starts_with(&format!("`{place}` ")), "{message}");
        }
        assert_eq!(world.upstream.seen().len(), harmless.len());
        // Nothing of it is about the credential.
        assert!(world.leases.alone.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_key_for_one_model_does_not_reach_another_through_openrouter() {
    let harmless = [
        json!({}),
        json!({"provider": {"zdr": true, "data_collection": "deny"}, "models": null}),
        json!({"plugins": [{"id": "web", "max_results": 2}], "user": "u"}),
    ];
    let steering = [
        ("models", json!({"models": ["openai/o1-pro"]})),
        ("route", json!({"route": "fallback"})),
        ("preset", json!({"preset": "expensive"})),
        ("provider", json!({"provider": {"order": ["azure"], "allow_fallbacks": false}})),
        ("plugins.*.id", json!({"plugins": [{"id": "auto-router"}]})),
    ];
    check(&OPENROUTER, &harmless, &steering).await;
}

#[tokio::test]
async fn a_callers_own_key_does_not_take_the_place_of_the_lent_one_at_vercel() {
    let harmless = [
        json!({"providerOptions": {"gateway": {"tags": ["a"], "user": "u"}}}),
        json!({"providerOptions": {"anthropic": {"thinking": {"type": "enabled"}}}}),
        json!({"provider": {"order": ["azure"]}}),
    ];
    let own = json!({"anthropic": [{"apiKey": "sk-ant-the-callers-own"}]});
    let gateway = |options: Value| json!({"providerOptions": {"gateway": options}});
    let place = "providerOptions.gateway";
    let steering = [
        (place, gateway(json!({"byok": own}))),
        (place, gateway(json!({"tags": ["a"], "models": ["openai/o1-pro"]}))),
        (place, gateway(json!({"order": ["bedrock"]}))),
        (place, gateway(json!({"only": ["bedrock"]}))),
        ("models", json!({"models": ["openai/o1-pro"]})),
    ];
    check(&VERCEL, &harmless, &steering).await;
}
