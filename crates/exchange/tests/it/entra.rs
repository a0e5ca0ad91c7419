use providers::CredentialKind;
use serde_json::json;

use crate::world::{self, NOW, Scripted, mint, order, text, word};

const SECRET: &str = "abc8Q~notarealsecretnotarealsecretnotare";
const SETTINGS: &str =
    "resource=r tenant_id=t.example client_id=11111111-2222-3333-4444-555555555555";

fn credential(secret: &str) -> exchange::Order {
    order("azure", CredentialKind::EntraClient, SETTINGS, secret)
}

/// Entra's token endpoint, as far as client credentials go.
fn entra(request: &http::Request<bytes::Bytes>) -> world::Answer {
    let form = world::form(request);
    let refuse = |status, error: &str, number: u64| {
        let says = format!("AADSTS{number}: secret {SECRET} of the app");
        world::json(
            status,
            json!({ "error": error, "error_description": says, "error_codes": [number] }),
        )
    };
    if form["grant_type"] != "client_credentials" {
        return refuse(400, "unsupported_grant_type", 70003);
    }
    if form["client_id"] != "11111111-2222-3333-4444-555555555555" {
        return refuse(400, "unauthorized_client", 700_016);
    }
    if form["client_secret"] != SECRET {
        return refuse(401, "invalid_client", 7_000_215);
    }
    if form["scope"] != "https://cognitiveservices.azure.com/.default" {
        return refuse(400, "invalid_scope", 70011);
    }
    world::json(
        200,
        json!({ "token_type": "Bearer", "expires_in": 3599, "access_token": "eyJ.entra.token" }),
    )
}

#[tokio::test]
async fn a_client_secret_becomes_a_token_of_entra() {
    let courier = Scripted::new(entra);
    let token = mint(&courier, &credential(SECRET)).await.unwrap();
    assert_eq!(text(&token), "eyJ.entra.token");
    assert_eq!(token.expires_at().since(NOW).as_secs(), 3599);
    let url = "POST https://login.microsoftonline.com/t.example/oauth2/v2.0/token";
    assert_eq!(courier.seen(), [url]);
}

#[tokio::test]
async fn a_wrong_secret_is_the_credentials_fault_and_is_not_repeated() {
    let wrong = "abc8Q~anothersecretanothersecretanothers";
    let error = mint(&Scripted::new(entra), &credential(wrong)).await.unwrap_err();
    assert_eq!(word(&error, &[SECRET, wrong]), "invalid");
    assert!(error.to_string().contains("invalid_client 7000215"), "{error}");
    assert!(!error.is_passing());
}

#[tokio::test]
async fn each_refusal_says_whose_fault_it_is() {
    for (status, body, verdict, passing) in [
        (400, json!({ "error": "unauthorized_client" }), "region_or_permission", false),
        (400, json!({ "error": "invalid_scope" }), "region_or_permission", false),
        (400, json!({ "error": "something_new" }), "unverifiable", false),
        (401, json!({}), "invalid", false),
        (403, json!("no JSON object"), "region_or_permission", false),
        (429, json!({ "error": "invalid_client" }), "unreachable", true),
        (503, json!({ "error": "temporarily_unavailable" }), "unreachable", true),
        (400, json!({ "error": "temporarily_unavailable" }), "unreachable", true),
    ] {
        let told = body.to_string();
        let courier = Scripted::new(move |_| world::json(status, &body));
        let error = mint(&courier, &credential(SECRET)).await.unwrap_err();
        assert_eq!(word(&error, &[SECRET]), verdict, "{status} {told}");
        assert_eq!(error.is_passing(), passing, "{status} {told}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_not_taken_for_one() {
    for body in [
        "<html>sign in</html>".to_owned(),
        String::new(),
        json!({ "access_token": "a", "token_type": "Bearer" }).to_string(),
        json!({ "access_token": "", "token_type": "Bearer", "expires_in": 60 }).to_string(),
        json!({ "access_token": "a\r\nb", "token_type": "Bearer", "expires_in": 60 }).to_string(),
        json!({ "access_token": "a", "token_type": "mac", "expires_in": 60 }).to_string(),
        json!({ "access_token": "a", "token_type": "Bearer", "expires_in": 0 }).to_string(),
        json!({ "access_token": "a", "token_type": "Bearer", "expires_in": -5 }).to_string(),
        json!({ "access_token": ["a"], "token_type": "Bearer", "expires_in": 60 }).to_string(),
    ] {
        let told = body.clone();
        let courier = Scripted::new(move |_| world::json(200, &body));
        let error = mint(&courier, &credential(SECRET)).await.unwrap_err();
        assert_eq!(word(&error, &[SECRET]), "unverifiable", "{told}");
    }
}

#[tokio::test]
async fn a_token_is_not_thought_to_live_longer_than_the_provider_gives() {
    let courier = Scripted::new(|_| {
        world::json(
            200,
            json!({ "token_type": "bearer", "expires_in": "315360000", "access_token": "t" }),
        )
    });
    let token = mint(&courier, &credential(SECRET)).await.unwrap();
    assert_eq!(token.lifetime().as_secs(), 3600);
}
