use domain::Dialect;
use http::StatusCode;
use serde_json::json;

use crate::harness::{World, refused};

const PATH: &str = "/strongroom/v1/route:explain";

#[tokio::test]
async fn a_route_is_explained_and_nobody_is_called() {
    let world = World::start().await;
    let question = r#"{"model":"gpt-4o","provider":"open-ai","dialect":"native"}"#;
    let (status, _, body) = world.call(PATH, question).await;
    assert_eq!(status, StatusCode::OK);
    let attempt = json!({
        "credential": "tenants/acme/credentials/openai-prod", "provider": "openai", "source": "byok",
        "model": "gpt-4o", "because": "detected", "origin": "https://api.openai.com",
    });
    assert_eq!(body, json!({"steps": ["one"], "attempts": [attempt], "refusal": null}));
    {
        let asked = world.leases.asked.lock().unwrap();
        assert_eq!(asked[0].provider.as_ref().unwrap().as_str(), "openai");
        assert_eq!(asked[0].dialect, Dialect::Native);
    }
    let (status, ..) = world.call(PATH, r#"{"model":"gpt-4o"}"#).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(world.leases.asked.lock().unwrap()[1].dialect, Dialect::OpenAi);
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_question_that_cannot_be_read_is_told_how_to_ask() {
    let world = World::start().await;
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(300));
    for question in
        ["", "{", "{}", r#"{"model":"a","x":1}"#, r#"{"model":"a","dialect":"x"}"#, &long]
    {
        let (status, _, body) = world.call(PATH, question).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{question:.40}");
        assert!(body["error"]["message"].as_str().unwrap().contains("{\"model\":"));
    }
    let (status, _, body) = world.call(PATH, r#"{"model":"a","provider":"nobody"}"#).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["error"]["code"], "provider_not_found");
    assert!(body["error"]["message"].as_str().unwrap().contains("anthropic, azure, bedrock"));
    assert!(world.leases.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_model_of_nobody_or_of_several_is_told_in_the_shape_of_the_sdk() {
    let world = World::start().await;
    let body = r#"{"model":"who-knows"}"#;
    for (reason, status, code) in [
        ("NO_SUCH_MODEL", 404, "model_not_found"),
        ("MODEL_IS_AMBIGUOUS", 400, "model_ambiguous"),
        ("DIALECT_NOT_SERVED", 400, "dialect_not_served"),
    ] {
        world.refuse(refused(reason));
        let (told, _, answer) = world.call("/v1/chat/completions", body).await;
        assert_eq!((told.as_u16(), &answer["error"]["code"]), (status, &json!(code)));
        let (told, _, answer) = world.call("/v1/messages", body).await;
        assert_eq!(told.as_u16(), status);
        assert_eq!(answer["error"]["details"]["error_code"], code);
    }
}
