use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::Request;
use providers::CredentialKind;
use serde_json::{Value, json};

use crate::world::{self, NOW, Scripted, mint, order, text, word};

const AUDIENCE: &str = "https://oauth2.googleapis.com/token";
static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).unwrap());

fn pem(key: &KeyPair) -> String {
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let text = BASE64_STANDARD.encode(der.as_ref());
    let lines = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap());
    let lines = lines.collect::<Vec<_>>().join("\n");
    format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n")
}

fn file(private_key: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": "p-1",
        "private_key_id": "key-1",
        "private_key": private_key,
        "client_email": "x@p-1.iam.gserviceaccount.com",
        "token_uri": AUDIENCE,
    })
}

fn credential(file: &str) -> exchange::Order {
    order("vertex", CredentialKind::GoogleServiceAccount, "project=p-1 location=eu", file)
}

/// Google's side of the grant: it knows the account's public key, the time and itself.
fn google(request: &Request<Bytes>) -> world::Answer {
    let refuse = |says: &str| {
        world::json(400, json!({ "error": "invalid_grant", "error_description": says }))
    };
    let form = world::form(request);
    if form["grant_type"] != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
        return world::json(400, json!({ "error": "unsupported_grant_type" }));
    }
    let (signed, signature) = form["assertion"].rsplit_once('.').unwrap();
    let (head, claims) = signed.split_once('.').unwrap();
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let head: Value = serde_json::from_slice(&decode(head)).unwrap();
    let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
    if (head["alg"].as_str(), head["kid"].as_str()) != (Some("RS256"), Some("key-1")) {
        return refuse("Invalid JWT header");
    }
    let public: PublicKeyX509Der<'_> = KEY.public_key().as_der().unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public.as_ref());
    if public.verify(signed.as_bytes(), &decode(signature)).is_err() {
        return refuse("Invalid JWT Signature.");
    }
    let now = NOW.as_millis() / 1000;
    let (issued, ends) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    if issued > now || ends <= now || ends - issued > 3600 {
        return refuse(
            "Invalid JWT: Token must be a short-lived token and in a reasonable timeframe",
        );
    }
    if claims["aud"] != AUDIENCE || claims["iss"] != "x@p-1.iam.gserviceaccount.com" {
        return refuse("Invalid JWT: audience or issuer");
    }
    if claims["scope"] != "https://www.googleapis.com/auth/cloud-platform" {
        return world::json(400, json!({ "error": "invalid_scope" }));
    }
    world::json(
        200,
        json!({ "access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer" }),
    )
}

#[tokio::test]
async fn a_service_account_becomes_a_token_of_google() {
    let courier = Scripted::new(google);
    let token = mint(&courier, &credential(&file(&pem(&KEY)).to_string())).await.unwrap();
    assert_eq!(text(&token), "ya29.token");
    assert_eq!(token.expires_at().since(NOW).as_secs(), 3599);
    assert_eq!(courier.seen(), ["POST https://oauth2.googleapis.com/token"]);
}

#[tokio::test]
async fn another_accounts_key_is_found_out() {
    let other = pem(&KeyPair::generate(KeySize::Rsa2048).unwrap());
    let error = mint(&Scripted::new(google), &credential(&file(&other).to_string())).await;
    assert_eq!(word(&error.unwrap_err(), &[&other]), "invalid");
}

#[tokio::test]
async fn a_clock_that_is_wrong_condemns_no_key() {
    let courier = Scripted::new(|_| {
        let says = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable \
                    timeframe. Check your iat and exp values in the JWT claim.";
        world::json(400, json!({ "error": "invalid_grant", "error_description": says }))
    });
    let error = mint(&courier, &credential(&file(&pem(&KEY)).to_string())).await.unwrap_err();
    assert_eq!(word(&error, &[]), "unverifiable");
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_never_quoted_and_never_sent() {
    let good = file(&pem(&KEY));
    let with = |name: &str, value: Value| {
        let mut file = good.clone();
        file[name] = value;
        file.to_string()
    };
    let half = good.to_string();
    let half = half.get(..half.len() / 2).unwrap();
    for bad in [
        "SECRETfile".to_owned(),
        half.to_owned(),
        with("private_key", json!("SECRETkey")),
        with("private_key", json!(pem(&KEY).replace('A', "SECRETkey"))),
        with("private_key", json!(["SECRETkey"])),
        with("token_uri", json!("https://evil.example/token")),
        with("token_uri", json!("http://oauth2.googleapis.com/token")),
        with("token_uri", json!("https://oauth2.googleapis.com.evil.example/token")),
        with("type", json!("external_account")),
    ] {
        let courier = Scripted::new(google);
        let error = mint(&courier, &credential(&bad)).await.unwrap_err();
        assert_eq!(word(&error, &["SECRET", "BEGIN", "evil"]), "invalid", "{error}");
        assert!(courier.seen().is_empty());
    }
}
