use std::{sync::atomic::Ordering, time::Duration};

use http::{Request, StatusCode};
use serde_json::Value;
use strongroom_client::LeaseError;

use crate::harness::{SECRET, World, read, refused};

const PATH: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o"}"#;

#[tokio::test]
async fn a_wrong_key_is_refused_alike_whatever_is_wrong_with_it() {
    let world = World::start().await;
    let unknown = domain::VirtualKey::generate().unwrap();
    let mut answers = Vec::new();
    for key in [unknown.expose(), "vk_nonsense", "sk-proj-abcdefghijklmnopqrstuvwxyz"] {
        let request =
            Request::post(format!("http://{}{PATH}", world.address)).header("api-key", key);
        let (status, _, body) = read(world.send(request, BODY).await).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(body["error"]["code"], "invalid_api_key");
        answers.push(body.to_string());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn errors_have_the_shape_of_the_callers_sdk() {
    let world = World::start().await;
    world.refuse(refused("MODEL_NOT_IN_SCOPE"));
    let (status, _, body) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(body["error"]["type"], "permission_error");
    assert_eq!(body["error"]["param"], "model");
    assert!(body["error"]["message"].as_str().unwrap().contains("gpt-4o"));
    for path in ["/v1/messages", "/anthropic/v1/messages"] {
        let (status, _, body) = world.call(path, r#"{"model":"claude-opus-5"}"#).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], "permission_error");
    }
    world.refuse(LeaseError::Unavailable { retry_after: Duration::from_secs(3) });
    let (status, headers, _) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["retry-after"], "3");
}

#[tokio::test]
async fn bad_bodies_are_refused_before_anyone_is_asked() {
    let world = World::start().await;
    let deep = format!("{{\"model\":\"gpt-4o\",\"a\":{}", "[".repeat(10_000));
    for body in [
        "",
        "[]",
        "{",
        "{}",
        r#"{"model":1}"#,
        r#"{"model":"a","model":"b"}"#,
        r#"{"model":"a","mod\u0065l":"b"}"#,
        r#"{"model":"a","MODEL":"b"}"#,
        &*deep,
    ] {
        let (status, _, answer) = world.call(PATH, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body:.40}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    assert!(world.leases.asked.lock().unwrap().is_empty());
    let (status, _, answer) = world.call(PATH, r#"{"model":"who-knows"}"#).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (StatusCode::NOT_FOUND, &Value::from("model_not_found"))
    );
}

#[tokio::test]
async fn what_is_not_on_the_list_is_not_served() {
    let world = World::start().await;
    for path in [
        "/",
        "/v1/files",
        "/openai/v1/files",
        "/openai/v1/organization/users",
        "/openai/v1/responses/../files",
        "/openai/v1/responses/%2e%2e/files",
        "/v1/proxy/x",
    ] {
        let (status, _, body) = world.call(path, BODY).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(body["error"]["code"], "unknown_path");
    }
    assert!(world.leases.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_is_an_error_and_is_not_followed() {
    let world = World::start().await;
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}/elsewhere", world.upstream.url());
        world.upstream.answer(PATH, status, &[("location", &to)], "");
        let (status, headers, body) = world.call(PATH, BODY).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert_eq!(body["error"]["code"], "upstream_redirect_refused");
        assert!(!headers.contains_key("location"));
    }
    assert!(world.upstream.seen().iter().all(|seen| seen.path == PATH));
}

#[tokio::test]
async fn a_credential_that_the_provider_refuses_is_not_the_callers_fault() {
    let world = World::start().await;
    let echo = format!(
        r#"{{"error":{{"message":"Incorrect API key provided: {SECRET} or sk-proj-****efgh","code":"invalid_api_key"}}}}"#
    );
    world.upstream.answer(PATH, 401, &[("x-request-id", SECRET)], &echo);
    let (status, headers, body) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::FAILED_DEPENDENCY);
    assert_eq!(headers["x-should-retry"], "false");
    assert!(!headers.contains_key("x-request-id"));
    assert_eq!(body["error"]["code"], "upstream_credential_refused");
    assert!(!body.to_string().contains("efgh"), "{body}");
    assert_eq!(world.leases.forgotten.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_providers_error_keeps_its_status_and_takes_the_callers_shape() {
    let world = World::start().await;
    let anthropic =
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    world.upstream.answer("/v1/messages", 529, &[("request-id", "r")], anthropic);
    let (status, headers, body) = world.call("/v1/messages", r#"{"model":"claude-opus-5"}"#).await;
    assert_eq!(status.as_u16(), 529);
    assert_eq!(headers["request-id"], "r");
    assert_eq!(body["error"]["type"], "overloaded_error");
    let limited =
        r#"{"error":{"message":"Slow down","type":"requests","code":"rate_limit_exceeded"}}"#;
    world.upstream.answer(PATH, 429, &[("retry-after", "7"), ("retry-after-ms", "6500")], limited);
    let (status, headers, body) = world.call(PATH, BODY).await;
    assert_eq!(status.as_u16(), 429);
    assert_eq!(
        (&headers["retry-after"], &headers["retry-after-ms"]),
        (&"7".parse().unwrap(), &"6500".parse().unwrap())
    );
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test]
async fn headers_that_echo_the_secret_do_not_pass() {
    let world = World::start().await;
    world.upstream.answer(PATH, 200, &[("x-request-id", SECRET)], "{}");
    let (status, _, body) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(!body.to_string().contains(SECRET));
}

#[tokio::test]
async fn a_provider_that_is_not_there_or_not_allowed_is_a_bad_gateway() {
    let world = World::start().await;
    *world.leases.origins.lock().unwrap() = Some(vec!["https://api.openai.com".parse().unwrap()]);
    let (status, _, body) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(body["error"]["code"], "upstream_address_refused");

    let world = World::with("[egress]\nallow = []").await;
    let (status, _, body) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(body["error"]["code"], "upstream_address_refused");
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_provider_that_does_not_begin_its_answer_times_out() {
    let world = World::with("[limits]\nfirst_byte = \"100ms\"").await;
    world.upstream.stay_silent(PATH);
    let (status, _, body) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(body["error"]["code"], "upstream_timeout");
}
