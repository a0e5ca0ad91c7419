//! What an application is told of its virtual key: which models it reaches, and which way a call would go.

use e2e::Deployment;
use serde_json::{Value, json};

use crate::{furnish, on_both_stacks};

on_both_stacks![an_application_is_told_its_models_and_the_way_of_its_calls];

async fn an_application_is_told_its_models_and_the_way_of_its_calls(deployment: Deployment) {
    furnish(&deployment).await;
    let (all, _) = deployment.create_key("acme", &[]).await;
    let (some, _) = deployment.create_key("acme", &["openai/*"]).await;
    let listed = async |key: &str| deployment.get("/v1/models", key).await["data"].clone();
    let found = |list: &Value, model: &str| {
        let one = list.as_array().unwrap().iter().find(|one| one["id"] == model);
        one.map(|one| (one["provider"].clone(), one["source"].clone()))
    };
    let by = |provider: &str| Some((json!(provider), json!("byok")));
    let models = listed(&all).await;
    assert_eq!(found(&models, "gpt-4o"), by("openai"), "{models}");
    assert_eq!(found(&models, "claude-sonnet-5"), by("anthropic"), "{models}");
    assert_eq!(found(&models, "grok-4.3"), None, "{models}");
    let models = listed(&some).await;
    assert_eq!(found(&models, "gpt-4o"), by("openai"), "{models}");
    assert_eq!(found(&models, "claude-sonnet-5"), None, "{models}");

    let explain = async |key: &str, model: &str| {
        deployment.post("/strongroom/v1/route:explain", key, &json!({ "model": model })).await
    };
    let way = explain(&all, "claude-sonnet-5").await;
    let attempt = &way["attempts"][0];
    assert_eq!(attempt["credential"], "tenants/acme/credentials/anthropic-prod", "{way}");
    let told = [&attempt["source"], &attempt["model"], &attempt["because"], &way["refusal"]];
    assert_eq!(told, [&json!("byok"), &json!("claude-sonnet-5"), &json!("detected"), &Value::Null]);
    let way = explain(&some, "claude-sonnet-5").await;
    assert_eq!((&way["attempts"], way["refusal"].is_string()), (&json!([]), true), "{way}");
    assert!(deployment.upstream().seen().is_empty());

    // A credential that is disabled is none.
    deployment.disable("tenants/acme/credentials/openai-prod").await;
    assert_eq!(found(&listed(&all).await, "gpt-4o"), None);
    deployment.end().await;
}
