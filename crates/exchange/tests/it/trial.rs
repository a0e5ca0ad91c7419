//! Whether a credential works, as each way of asking finds it out. What each provider's answers mean
//! stands in the tables of `providers`.

use std::sync::Arc;

use domain::{Clock, Secret};
use exchange::{Courier, Finding, Minter, Obstacle, Trial};
use http::{Method, Request, header::AUTHORIZATION};
use providers::{Catalogue, CredentialKind, Settings, Verdict};
use serde_json::json;

use crate::world::{Answer, Scripted, clock, json as answer};

async fn try_out(
    courier: &Arc<Scripted>,
    (slug, kind): (&str, CredentialKind),
    settings: &str,
    secret: &str,
) -> Verdict {
    find_out(courier, (slug, kind), settings, secret).await.verdict
}

async fn find_out(
    courier: &Arc<Scripted>,
    (slug, kind): (&str, CredentialKind),
    settings: &str,
    secret: &str,
) -> Finding {
    let catalogue = Catalogue::builtin().unwrap();
    let settings: Settings =
        settings.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect();
    let trial = Trial {
        provider: catalogue.named(slug).unwrap(),
        kind,
        settings: &settings,
        base_url: (slug == "custom").then_some("https://llm.acme.example/v1"),
        secret: &Secret::new(secret.as_bytes().to_vec()),
    };
    let courier = Arc::clone(courier) as Arc<dyn Courier>;
    Minter::new(courier, clock() as Arc<dyn Clock>, None).try_out(&trial).await
}

fn bearer(request: &Request<bytes::Bytes>) -> &str {
    let value = request.headers().get(AUTHORIZATION).unwrap();
    assert!(value.is_sensitive());
    value.to_str().unwrap()
}

#[tokio::test]
async fn a_key_is_tried_with_the_request_that_the_catalogue_names() {
    let openai = Scripted::new(|request| match bearer(request) {
        "Bearer sk-good-0123456789abcdefghij" => answer(200, json!({ "object": "list" })),
        _ => answer(401, json!({ "error": { "code": "invalid_api_key" } })),
    });
    let kind = ("openai", CredentialKind::ApiKey);
    let good = try_out(&openai, kind, "", "sk-good-0123456789abcdefghij").await;
    let bad = try_out(&openai, kind, "", "sk-bad-0123456789abcdefghij").await;
    assert_eq!((good, bad), (Verdict::Valid, Verdict::Invalid));
    assert_eq!(openai.seen(), ["GET https://api.openai.com/v1/models"; 2]);
}

#[tokio::test]
async fn an_endpoint_that_answers_anybody_proves_nothing() {
    let own = Scripted::new(|_| answer(200, json!({ "object": "list" })));
    let found = try_out(&own, ("custom", CredentialKind::ApiKey), "", "whatever").await;
    assert_eq!(found, Verdict::Unverifiable);
    assert_eq!(own.seen(), ["GET https://llm.acme.example/v1/models"]);
}

#[tokio::test]
async fn what_is_exchanged_is_exchanged_first_and_the_token_is_tried() {
    let entra = |token: &'static str| {
        Scripted::new(move |request| -> Answer {
            if request.method() == Method::POST {
                let granted = json!({
                    "access_token": token, "token_type": "Bearer", "expires_in": 3600,
                });
                return answer(200, granted);
            }
            assert_eq!(bearer(request), format!("Bearer {token}"));
            if token == "good" { answer(200, json!({ "data": [] })) } else { answer(401, "{}") }
        })
    };
    let kind = ("azure", CredentialKind::EntraClient);
    let settings = "resource=r tenant_id=t.example client_id=11111111-2222-3333-4444-555555555555";
    let good = entra("good");
    assert_eq!(try_out(&good, kind, settings, "a-secret").await, Verdict::Valid);
    assert_eq!(
        good.seen(),
        [
            "POST https://login.microsoftonline.com/t.example/oauth2/v2.0/token",
            "GET https://r.openai.azure.com/openai/v1/models",
        ]
    );
    // The secret has made the token: that the resource does not take it is a matter of roles.
    let found = try_out(&entra("bad"), kind, settings, "a-secret").await;
    assert_eq!(found, Verdict::RegionOrPermission);
    let refuses = Scripted::new(|_| answer(401, json!({ "error": "invalid_client" })));
    assert_eq!(try_out(&refuses, kind, settings, "a-secret").await, Verdict::Invalid);
    let is_down = Scripted::new(|_| answer(503, ""));
    assert_eq!(try_out(&is_down, kind, settings, "a-secret").await, Verdict::Unreachable);
}

#[tokio::test]
async fn an_access_key_signs_a_question_who_it_is() {
    let sts = Scripted::new(|request| {
        let signature = bearer(request);
        assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIA"), "{signature}");
        assert!(signature.contains("/eu-west-1/sts/aws4_request"), "{signature}");
        assert_eq!(&request.body()[..], b"Action=GetCallerIdentity&Version=2011-06-15");
        let code =
            "<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>";
        answer(403, code)
    });
    let kind = ("bedrock", CredentialKind::AwsAccessKey);
    let settings = "region=eu-west-1 access_key_id=AKIAEXAMPLEEXAMPLE00";
    let found = try_out(&sts, kind, settings, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY").await;
    assert_eq!(found, Verdict::Invalid);
    assert_eq!(sts.seen(), ["POST https://sts.eu-west-1.amazonaws.com/"]);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told_and_condemns_no_key() {
    let kind = ("bedrock", CredentialKind::AwsAccessKey);
    let settings = "region=eu-west-1 access_key_id=AKIAEXAMPLEEXAMPLE00";
    for (says, expected) in [
        ("Signature expired: 20260102T030405Z is now earlier than", Some(Obstacle::Clock)),
        ("Signature not yet current: 20260102T050405Z is still later", Some(Obstacle::Clock)),
        ("The request signature we calculated does not match", None),
    ] {
        let sts = Scripted::new(move |_| {
            let error = format!("<Code>SignatureDoesNotMatch</Code><Message>{says}</Message>");
            answer(403, format!("<ErrorResponse><Error>{error}</Error></ErrorResponse>"))
        });
        let found = find_out(&sts, kind, settings, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let verdict = if expected.is_some() { Verdict::Unverifiable } else { Verdict::Invalid };
        assert_eq!(found.await, Finding { verdict, obstacle: expected }, "{says}");
    }
}

#[tokio::test]
async fn a_role_needs_an_identity_of_the_broker_and_is_not_judged_without() {
    let sts = Scripted::new(|_| answer(500, ""));
    let kind = ("bedrock", CredentialKind::AwsRole);
    let settings = "region=eu-west-1 role_arn=arn:aws:iam::123456789012:role/strongroom";
    assert_eq!(try_out(&sts, kind, settings, "customer-42").await, Verdict::Unverifiable);
    assert!(sts.seen().is_empty());
}

#[tokio::test]
async fn what_an_admin_key_makes_to_be_tried_is_deleted_again() {
    let openai = Scripted::new(|request| {
        if request.method() == Method::DELETE {
            return answer(200, json!({ "deleted": true }));
        }
        answer(200, json!({ "id": "key_1", "value": "sk-svcacct-made" }))
    });
    let kind = ("openai", CredentialKind::AdminKey);
    let settings = "project=proj_1 service_account=user-1";
    let admin = "sk-admin-0123456789012345678901234567890123456789";
    assert_eq!(try_out(&openai, kind, settings, admin).await, Verdict::Valid);
    let seen = openai.seen();
    assert_eq!(
        seen.last().unwrap(),
        "DELETE https://api.openai.com/v1/organization/projects/proj_1/api_keys/key_1"
    );
    assert_eq!(seen.len(), 2);
}
