use e2e::{Deployment, Sdk, Seen, refused};
use serde_json::json;

use crate::{ANTHROPIC_KEY, OPENAI_KEY, furnish, on_both_stacks};

on_both_stacks![
    a_key_may_be_limited_to_models,
    a_refusal_is_an_error_of_the_sdks_own_classes,
    the_anthropic_sdk_calls_and_streams_with_a_virtual_key,
    the_openai_sdk_calls_and_streams_with_a_virtual_key,
];

async fn the_openai_sdk_calls_and_streams_with_a_virtual_key(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;

    let got = Sdk::OpenAi.call(&deployment, &key, "every").await;

    assert_eq!(got["chat"]["text"], "Hello from upstream.");
    assert_eq!(got["stream"]["pieces"], json!(["Hello", " from", " upstream."]));
    assert_eq!((&got["stream"]["usage"], &got["stream"]["finish"]), (&json!(6), &json!("stop")));
    assert_eq!(got["embedding"], 3);
    assert_eq!(got["response"], "Hello from upstream.");
    assert!(got["response_stream"].as_array().unwrap().contains(&json!("response.completed")));
    let models = got["models"].as_array().unwrap();
    assert!(models.iter().any(|model| model.as_str().unwrap().ends_with("gpt-4o-mini")));
    let headers = &got["chat"]["headers"];
    assert_eq!(headers["x-strongroom-source"], "byok");
    assert_eq!(headers["x-strongroom-provider"], "openai");
    assert!(headers["x-strongroom-credential"].as_str().unwrap().ends_with("openai-prod"));

    let seen = deployment.upstream().seen();
    assert!(!seen.is_empty() && seen.iter().all(|call| call.key == OPENAI_KEY), "{seen:?}");
    deployment.end().await;
}

async fn the_anthropic_sdk_calls_and_streams_with_a_virtual_key(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;

    let got = Sdk::Anthropic.call(&deployment, &key, "every").await;

    assert_eq!(got["message"]["text"], "Hello from upstream.");
    assert_eq!(got["message"]["headers"]["x-strongroom-provider"], "anthropic");
    assert_eq!(got["stream"]["pieces"], json!(["Hello", " from", " upstream."]));
    assert_eq!(
        (&got["stream"]["usage"], &got["stream"]["finish"]),
        (&json!(3), &json!("end_turn"))
    );

    let call = Seen { path: "/v1/messages".to_owned(), key: ANTHROPIC_KEY.to_owned() };
    assert_eq!(deployment.upstream().seen(), [call.clone(), call]);
    deployment.end().await;
}

async fn a_refusal_is_an_error_of_the_sdks_own_classes(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    deployment.create_tenant("poor").await;
    let (poor, _) = deployment.create_key("poor", &[]).await;
    let poor = [("STRONGROOM_POOR_KEY", &*poor)];

    let openai = Sdk::OpenAi.call_with(&deployment, &key, "errors", &poor).await;
    let anthropic = Sdk::Anthropic.call_with(&deployment, &key, "errors", &poor).await;

    assert_eq!(openai["typo"]["class"], "AuthenticationError");
    assert_eq!(openai["foreign key"]["class"], "AuthenticationError");
    assert_eq!(openai["unknown model"]["class"], "NotFoundError");
    assert_eq!(openai["unknown model"]["code"], "model_not_found");
    assert_eq!(openai["no credential"]["code"], "no_credential");
    assert_eq!(anthropic["foreign key"]["class"], "AuthenticationError");
    assert_eq!(anthropic["foreign key"]["shape"], "error");
    assert_eq!(anthropic["foreign key"]["type"], "authentication_error");
    assert_eq!(anthropic["unknown model"]["class"], "NotFoundError");
    assert_eq!(anthropic["unknown model"]["type"], "not_found_error");
    // Names what would work.
    assert!(openai["unknown model"]["message"].as_str().unwrap().contains("gpt-"), "{openai}");
    // What was refused went nowhere, and what the caller sent in place of a key is not repeated.
    assert_eq!(deployment.upstream().seen(), []);
    assert!(!openai.to_string().contains("sk-proj-0123456789"), "{openai}");
    deployment.end().await;
}

async fn a_key_may_be_limited_to_models(deployment: Deployment) {
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &["gpt-4o-mini"]).await;

    let allowed = Sdk::OpenAi.call(&deployment, &key, "once").await;
    let other = [("STRONGROOM_MODEL", "gpt-4o")];
    let other = Sdk::OpenAi.call_with(&deployment, &key, "once", &other).await;

    assert_eq!(allowed["text"], "Hello from upstream.");
    assert_eq!(refused(&other)["class"], "PermissionDeniedError", "{other}");
    assert_eq!(deployment.upstream().seen().len(), 1);
    deployment.end().await;
}
