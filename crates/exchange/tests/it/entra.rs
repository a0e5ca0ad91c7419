use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use domain::{Clock, SystemClock};
use exchange::Minter;
use providers::CredentialKind;
use serde_json::json;

use crate::world::{self, NOW, Scripted, at_this_machine, mint, order, text, word};

const SECRET: &str = "abc8Q~notarealsecret+&=%notarealsecretnot";
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
        (401, json!({}), "region_or_permission", false),
        (401, json!("<html>sign in</html>"), "region_or_permission", false),
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

/// The token endpoint of somebody else's package, which `TEST_NODE_MODULES` names the folder of; without that
/// variable there is nothing to test against. It ends with this.
struct Oidc(Child, u16);

impl Oidc {
    #[expect(clippy::disallowed_methods, reason = "the test runner names the folder this way")]
    fn start() -> Option<Self> {
        let folder = std::env::var("TEST_NODE_MODULES").ok()?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients/entra.mjs");
        let mut child = Command::new("node")
            .args([script, &folder])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            port = line.unwrap().parse().ok();
            if port.is_some() {
                break;
            }
        }
        Some(Self(child, port.unwrap()))
    }
}

impl Drop for Oidc {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_token_endpoint_that_is_not_ours_understands_us() {
    let Some(oidc) = Oidc::start() else { return };
    let mint = async |settings: &str, secret: &str| {
        let mut order = order("azure", CredentialKind::EntraClient, settings, secret);
        let url = order.minting.url.take().unwrap();
        let here = format!("http://127.0.0.1:{}", oidc.1);
        order.minting.url = Some(url.replace("https://login.microsoftonline.com", &here));
        let clock = Arc::new(SystemClock) as Arc<dyn Clock>;
        Minter::new(at_this_machine(), clock, None).mint(&order).await
    };
    let token = mint(SETTINGS, SECRET).await.unwrap();
    assert_eq!(token.lifetime(), Duration::from_mins(30));
    assert!(!token.secret().is_empty());

    let error = mint(SETTINGS, "abc8Q~anothersecret").await.unwrap_err();
    assert_eq!(word(&error, &["anothersecret"]), "invalid");
    assert!(error.to_string().contains("(invalid_client)"), "{error}");
    let stranger = SETTINGS.replace("11111111", "99999999");
    assert_eq!(word(&mint(&stranger, SECRET).await.unwrap_err(), &[SECRET]), "invalid");
    let elsewhere = SETTINGS.replace("t.example", "other.example");
    let error = mint(&elsewhere, SECRET).await.unwrap_err();
    assert_eq!(word(&error, &[SECRET]), "region_or_permission");
}
