use std::sync::Arc;

use domain::Clock;
use exchange::{Courier, Minter, Order};
use http::Method;
use providers::CredentialKind;
use serde_json::{Value, json};

use crate::world::{self, NOW, Scripted, clock, mint, order, text, word};

const ADMIN: &str = "sk-admin-0123456789012345678901234567890123456789";

fn credential(slug: &str) -> Order {
    let settings = match slug {
        "openai" => "project=proj_1 service_account=sa_1",
        "xai" => "team_id=team-1",
        _ => "",
    };
    order(slug, CredentialKind::AdminKey, settings, ADMIN)
}

/// All three providers of keys.
fn maker(request: &http::Request<bytes::Bytes>) -> world::Answer {
    let bearer = request.headers().get("authorization").unwrap();
    if bearer != &format!("Bearer {ADMIN}") {
        return world::json(401, json!({ "error": { "code": "invalid_api_key" } }));
    }
    assert!(bearer.is_sensitive());
    if request.method() == Method::DELETE {
        return world::json(200, json!({ "deleted": true }));
    }
    let body: Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(body["name"], "strongroom-1767323045000");
    match request.uri().host().unwrap() {
        "openrouter.ai" if body["expires_at"] == "2026-01-02T04:04:05Z" => {
            world::json(201, json!({ "key": "sk-or-v1-made", "data": { "hash": "h4sh" } }))
        }
        "api.openai.com" if body["expires_in_seconds"] == 3600 => world::json(
            200,
            json!({ "id": "key_1", "value": "sk-svcacct-made", "expires_at": 1_767_326_645 }),
        ),
        "management-api.x.ai" if body["expireTime"] == "2026-01-02T04:04:05Z" => {
            assert_eq!(body["acls"], json!(["api-key:model:*", "api-key:endpoint:*"]));
            world::json(200, json!({ "apiKey": "xai-made", "apiKeyId": "id-1" }))
        }
        _ => world::json(400, json!({})),
    }
}

#[tokio::test]
async fn an_admin_key_makes_keys_that_end() {
    for (slug, made, url) in [
        ("openrouter", "sk-or-v1-made", "https://openrouter.ai/api/v1/keys"),
        (
            "openai",
            "sk-svcacct-made",
            "https://api.openai.com/v1/organization/projects/proj_1/service_accounts/sa_1/api_keys",
        ),
        ("xai", "xai-made", "https://management-api.x.ai/auth/teams/team-1/api-keys"),
    ] {
        let courier = Scripted::new(maker);
        let token = mint(&courier, &credential(slug)).await.unwrap();
        assert_eq!(text(&token), made);
        assert_eq!(token.expires_at().since(NOW).as_secs(), 3600);
        assert_eq!(courier.seen(), [format!("POST {url}")]);
    }
}

#[tokio::test]
async fn a_key_is_deleted_by_its_name_where_the_provider_can() {
    let courier = Scripted::new(maker);
    let minter =
        Minter::new(Arc::clone(&courier) as Arc<dyn Courier>, clock() as Arc<dyn Clock>, None);
    minter.delete("h4sh", &credential("openrouter")).await.unwrap();
    minter.delete("key_1", &credential("openai")).await.unwrap();
    minter.delete("id-1", &credential("xai")).await.unwrap_err();
    assert_eq!(
        courier.seen(),
        [
            "DELETE https://openrouter.ai/api/v1/keys/h4sh",
            "DELETE https://api.openai.com/v1/organization/projects/proj_1/api_keys/key_1",
        ]
    );
}

#[tokio::test]
async fn a_refusal_says_whose_fault_it_is() {
    for (status, verdict) in [
        (401, "region_or_permission"),
        (402, "no_quota"),
        (403, "region_or_permission"),
        (404, "region_or_permission"),
        (400, "unverifiable"),
        (429, "unreachable"),
        (500, "unreachable"),
    ] {
        let courier = Scripted::new(move |_| {
            world::json(status, json!({ "error": { "code": "c", "message": ADMIN } }))
        });
        let error = mint(&courier, &credential("openrouter")).await.unwrap_err();
        assert_eq!(word(&error, &[ADMIN]), verdict, "{status}");
    }
}

#[tokio::test]
async fn only_what_a_provider_says_of_the_key_condemns_it() {
    for (slug, body, verdict) in [
        ("openai", json!({ "error": { "code": "invalid_api_key" } }), "invalid"),
        ("openrouter", json!({ "error": { "code": 401 } }), "invalid"),
        ("openai", json!({ "error": { "code": "ip_not_authorized" } }), "region_or_permission"),
        ("xai", json!("<html>no</html>"), "region_or_permission"),
    ] {
        let told = body.to_string();
        let courier = Scripted::new(move |_| world::json(401, &body));
        let error = mint(&courier, &credential(slug)).await.unwrap_err();
        assert_eq!(word(&error, &[ADMIN]), verdict, "{slug} {told}");
    }
}

#[tokio::test]
async fn a_key_whose_name_would_change_an_address_is_not_taken() {
    for hash in ["../../evil", "", "a?b", "a b"] {
        let courier = Scripted::new(move |_| {
            world::json(201, json!({ "key": "sk-or-v1-made", "data": { "hash": hash } }))
        });
        let error = mint(&courier, &credential("openrouter")).await.unwrap_err();
        assert_eq!(word(&error, &["sk-or-v1-made"]), "unverifiable");
    }
}
