use std::time::Duration;

use domain::Failure;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::json;
use strongroom_client::LeaseError;
use testkit::Upstream;
use tokio::{net::TcpSocket, time::timeout};

use crate::harness::{Next, SECRET, World, refused};

const PATH: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"openai/gpt-4o"}"#;
const OTHER: &str = "sk-proj-Another1Secret2Material3Zyxwvutsr";
const FIRST: &str = "tenants/acme/credentials/openai-prod";
const SOON: Duration = Duration::from_secs(10);

/// A second provider's place, where the credential `other` is at home.
async fn other(world: &World) -> Upstream {
    let upstream = Upstream::start().await.unwrap();
    world.then(Next::Lend {
        credential: "other",
        provider: "openai",
        base: upstream.url(),
        secret: OTHER,
    });
    upstream
}

#[track_caller]
fn check_reported(world: &World, expected: &[(&str, Failure)]) {
    let reported = world.leases.reported.lock().unwrap();
    let last = reported.last().unwrap().iter();
    let last: Vec<_> = last.map(|(credential, failure)| (&**credential, *failure)).collect();
    assert_eq!(last, expected);
}

#[tokio::test]
async fn a_failed_attempt_is_reported_and_the_call_goes_on_with_what_the_broker_lends() {
    let wait = Some(Duration::from_secs(7));
    for (status, failure) in [
        (401, Failure::CredentialRefused),
        (402, Failure::NoQuota),
        (403, Failure::NotAllowed),
        (408, Failure::TimedOut),
        (429, Failure::RateLimited { retry_after: wait }),
        (500, Failure::ProviderTrouble),
        (503, Failure::ProviderTrouble),
        (504, Failure::TimedOut),
    ] {
        let world = World::start().await;
        let second = other(&world).await;
        world.upstream.answer(PATH, status, &[("retry-after", "7")], "{}");
        second.answer(PATH, 200, &[], r#"{"id":"c2"}"#);
        let (answered, headers, body) = world.call(PATH, BODY).await;
        assert_eq!((answered, body), (StatusCode::OK, json!({"id": "c2"})), "{status}");
        assert_eq!(headers["x-strongroom-credential"], "tenants/acme/credentials/other");
        assert_eq!(headers["x-strongroom-route"], "fallback");
        assert_eq!(headers["x-strongroom-fallback"], format!("{failure} of {FIRST}"));
        check_reported(&world, &[(FIRST, failure)]);
        let (seen, seen_second) = (world.upstream.seen(), second.seen());
        assert_eq!((seen.len(), seen_second.len()), (1, 1));
        assert_eq!(seen_second[0].body, r#"{"model":"gpt-4o"}"#);
        assert_eq!(seen[0].headers["authorization"], format!("Bearer {SECRET}"));
        assert_eq!(seen_second[0].headers["authorization"], format!("Bearer {OTHER}"));
    }
}

#[tokio::test]
async fn what_is_the_callers_fault_is_tried_once() {
    for status in [400, 404, 409, 413, 422] {
        let world = World::start().await;
        let second = other(&world).await;
        world.upstream.answer(PATH, status, &[], r#"{"error":{"message":"no"}}"#);
        let (answered, headers, _) = world.call(PATH, BODY).await;
        assert_eq!(answered.as_u16(), status);
        assert!(!headers.contains_key("x-strongroom-fallback"));
        assert!(world.leases.reported.lock().unwrap().is_empty());
        assert!(second.seen().is_empty());
    }
}

#[tokio::test]
async fn without_a_fallback_the_caller_gets_the_providers_own_error() {
    let world = World::start().await;
    let body = r#"{"error":{"message":"Slow down","code":"rate_limit_exceeded"}}"#;
    world.upstream.answer(PATH, 429, &[("retry-after", "7")], body);
    let (status, headers, answer) = world.call(PATH, BODY).await;
    assert_eq!((status.as_u16(), &headers["retry-after"]), (429, &"7".parse().unwrap()));
    assert_eq!(answer["error"]["code"], "rate_limit_exceeded");
    assert!(!headers.contains_key("x-strongroom-fallback"));
    assert!(world.leases.reported.lock().unwrap().is_empty());
    // The broker hears of it all the same, and of nothing that is the caller's fault.
    world.upstream.answer(PATH, 400, &[], "{}");
    world.call(PATH, BODY).await;
    let limited = Failure::RateLimited { retry_after: Some(Duration::from_secs(7)) };
    assert_eq!(*world.leases.alone.lock().unwrap(), [(FIRST.to_owned(), limited)]);
}

#[tokio::test]
async fn a_credential_that_rests_is_told_with_its_end_in_the_shape_of_each_sdk() {
    let world = World::start().await;
    world.refuse(LeaseError::Refused {
        code: tonic::Code::FailedPrecondition,
        reason: "CREDENTIALS_EXHAUSTED".to_owned(),
        message: "the broker's words".to_owned(),
        metadata: [("failure".to_owned(), "rate_limited".to_owned())].into(),
        retry_after: Some(Duration::from_millis(8200)),
    });
    for (path, body, kind) in [
        (PATH, BODY, "/error/type"),
        ("/v1/messages", r#"{"model":"claude-opus-5"}"#, "/error/type"),
        ("/bedrock/model/m/converse", "{}", "/error/type"),
    ] {
        let (status, headers, answer) = world.call(path, body).await;
        assert_eq!((status.as_u16(), &headers["retry-after"]), (429, &"9".parse().unwrap()));
        assert_eq!(answer.pointer(kind), Some(&json!("rate_limit_error")), "{path}");
        let text = answer.pointer("/error/message").and_then(serde_json::Value::as_str).unwrap();
        assert!(text.contains("rests after failures (the last: rate_limited)"), "{text}");
    }
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn silence_and_closed_doors_lead_on_to_the_next() {
    let world = World::with("[limits]\nfirst_byte = \"2s\"").await;
    // Bound and not listening: nobody answers there, and nobody else can.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let base = format!("http://{}", closed.local_addr().unwrap());
    world.then(Next::Lend { credential: "gone", provider: "openai", base, secret: OTHER });
    let third = other(&world).await;
    world.upstream.stay_silent(PATH);
    third.answer(PATH, 200, &[], "{}");
    let (status, headers, _) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::OK);
    let gone = "tenants/acme/credentials/gone";
    check_reported(&world, &[(FIRST, Failure::TimedOut), (gone, Failure::Unreachable)]);
    let told = format!("timed_out of {FIRST}, unreachable of {gone}");
    assert_eq!(headers["x-strongroom-fallback"], told);
}

#[tokio::test]
async fn after_the_first_byte_nothing_goes_out_again() {
    let world = World::start().await;
    let second = other(&world).await;
    let stream = world.upstream.stream(PATH);
    let body = r#"{"model":"gpt-4o","stream":true}"#;
    let mut answer = world.send(world.post(PATH), body).await.into_body();
    assert!(stream.send("data: 1\n\n").await);
    timeout(SOON, answer.frame()).await.unwrap().unwrap().unwrap();
    stream.cut().await;
    assert!(timeout(SOON, answer.frame()).await.unwrap().unwrap().is_err());
    assert!(world.leases.reported.lock().unwrap().is_empty());
    assert_eq!((world.upstream.seen().len(), second.seen().len()), (1, 0));
}

#[tokio::test]
async fn a_stream_may_begin_with_the_next_credential() {
    let world = World::start().await;
    let second = other(&world).await;
    world.upstream.answer(PATH, 503, &[], "");
    let stream = second.stream(PATH);
    let body = r#"{"model":"gpt-4o","stream":true}"#;
    let answer = world.send(world.post(PATH), body).await;
    assert_eq!(answer.headers()["x-strongroom-credential"], "tenants/acme/credentials/other");
    assert!(stream.send("data: 1\n\n").await);
    drop(stream);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "data: 1\n\n");
}

#[tokio::test]
async fn a_body_that_is_too_long_to_keep_is_sent_once() {
    let world = World::start().await;
    let second = other(&world).await;
    world.upstream.answer(PATH, 503, &[], r#"{"error":{"message":"trouble"}}"#);
    let body = format!(r#"{{"model":"gpt-4o","x":"{}"}}"#, "x".repeat(1 << 20));
    let (status, headers, answer) = world.call(PATH, &body).await;
    assert_eq!((status.as_u16(), &answer["error"]["message"]), (503, &json!("trouble")));
    let told = headers["x-strongroom-fallback"].to_str().unwrap();
    assert_eq!(told, "not tried: the request's body is longer than 1048576 bytes");
    assert!(second.seen().is_empty());
    assert!(world.leases.reported.lock().unwrap().is_empty());
}

#[tokio::test]
async fn when_all_have_failed_the_caller_is_told_so_in_the_shape_of_its_sdk() {
    let limited = [("retry-after", "9")];
    let world = World::start().await;
    world.upstream.answer(PATH, 429, &limited, "{}");
    world.then(Next::Refuse(refused("CREDENTIALS_EXHAUSTED")));
    let (status, headers, body) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body["error"]["code"], "credentials_exhausted");
    assert_eq!(headers["retry-after"], "9");
    assert_eq!(headers["x-strongroom-fallback"], format!("rate_limited of {FIRST}"));

    let world = World::start().await;
    world.upstream.answer("/v1/messages", 401, &[], "{}");
    world.then(Next::Refuse(refused("CREDENTIALS_EXHAUSTED")));
    let (status, headers, body) = world.call("/v1/messages", r#"{"model":"claude-opus-5"}"#).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(body["error"]["details"]["error_code"], "credentials_exhausted");
    assert_eq!(headers["x-should-retry"], "false");

    // The broker may know it before anything was tried.
    let world = World::start().await;
    let mut error = refused("CREDENTIALS_EXHAUSTED");
    if let LeaseError::Refused { retry_after, .. } = &mut error {
        *retry_after = Some(Duration::from_secs(30));
    }
    world.refuse(error);
    let (status, headers, body) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["error"]["code"], "credentials_exhausted");
    assert_eq!(headers["retry-after"], "30");
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn the_broker_hears_of_the_last_failure_too() {
    let world = World::start().await;
    let second = other(&world).await;
    world.upstream.answer(PATH, 503, &[], "{}");
    second.answer(PATH, 402, &[], "{}");
    let (_, headers, body) = world.call(PATH, BODY).await;
    assert_eq!(body["error"]["code"], "credentials_exhausted");
    let spare = "tenants/acme/credentials/other";
    check_reported(&world, &[(FIRST, Failure::ProviderTrouble), (spare, Failure::NoQuota)]);
    let told = format!("provider_trouble of {FIRST}, no_quota of {spare}");
    assert_eq!(headers["x-strongroom-fallback"], told);

    // When it cannot be heard, the caller still learns what there was.
    let world = World::start().await;
    let second = other(&world).await;
    world.then(Next::Refuse(LeaseError::BadLease));
    world.upstream.answer(PATH, 503, &[], "{}");
    second.answer(PATH, 402, &[], "{}");
    let (status, headers, _) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    let why = "not tried: the broker refused another credential";
    assert_eq!(headers["x-strongroom-fallback"], format!("{told}; {why}"));
}

#[tokio::test]
async fn nothing_goes_out_on_a_lease_that_the_broker_did_not_give() {
    let unavailable = LeaseError::Unavailable { retry_after: Duration::from_secs(1) };
    for error in [unavailable, LeaseError::BadLease, refused("NO_CREDENTIAL")] {
        let world = World::start().await;
        world.upstream.answer(PATH, 500, &[], r#"{"error":{"message":"trouble"}}"#);
        world.then(Next::Refuse(error));
        let (status, headers, body) = world.call(PATH, BODY).await;
        assert_eq!((status.as_u16(), &body["error"]["message"]), (500, &json!("trouble")));
        let told = headers["x-strongroom-fallback"].to_str().unwrap();
        assert!(told.starts_with("not tried: the broker"), "{told}");
        assert_eq!(world.upstream.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_credential_that_has_failed_is_not_used_twice_for_one_call() {
    let world = World::start().await;
    world.upstream.answer(PATH, 500, &[], "{}");
    let base = world.upstream.url();
    world.then(Next::Lend { credential: "openai-prod", provider: "openai", base, secret: SECRET });
    let (status, headers, _) = world.call(PATH, BODY).await;
    assert_eq!(status.as_u16(), 500);
    assert!(headers["x-strongroom-fallback"].to_str().unwrap().starts_with("not tried"));
    assert_eq!(world.upstream.seen().len(), 1);
}

#[tokio::test]
async fn the_other_version_of_a_credential_is_another_key() {
    let world = World::start().await;
    let second = Upstream::start().await.unwrap();
    let (credential, provider) = ("openai-prod@2", "openai");
    world.then(Next::Lend { credential, provider, base: second.url(), secret: OTHER });
    world.upstream.answer(PATH, 401, &[], "{}");
    second.answer(PATH, 200, &[], r#"{"id":"c2"}"#);
    let (status, headers, body) = world.call(PATH, BODY).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"id": "c2"})));
    assert_eq!(headers["x-strongroom-credential"], FIRST);
    check_reported(&world, &[(FIRST, Failure::CredentialRefused)]);
    assert_eq!(*world.leases.versions.lock().unwrap(), [1]);
    assert_eq!(second.seen()[0].headers["authorization"], format!("Bearer {OTHER}"));
}

#[tokio::test]
async fn another_provider_gets_the_call_as_it_wants_it() {
    let world = World::start().await;
    let base = world.upstream.url();
    let (credential, provider) = ("spare", "mistral");
    world.then(Next::Lend { credential, provider, base, secret: OTHER });
    world.upstream.answer(PATH, 500, &[], "{}");
    // The same path there, and the stand-in tells the two apart by nothing: both fail.
    world.then(Next::Refuse(refused("CREDENTIALS_EXHAUSTED")));
    let body = r#"{"model":"openai/gpt-4o","seed":7,"user":"u"}"#;
    let (status, ..) = world.call(PATH, body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let seen = world.upstream.seen();
    assert_eq!(seen[0].body, r#"{"model":"gpt-4o","seed":7,"user":"u"}"#);
    assert_eq!(seen[1].body, r#"{"model":"gpt-4o","random_seed":7}"#);
    assert_eq!(seen[1].headers["authorization"], format!("Bearer {OTHER}"));
}

#[tokio::test]
async fn an_answer_never_repeats_the_secret_of_an_attempt() {
    let world = World::start().await;
    let second = other(&world).await;
    let echo = format!(r#"{{"error":{{"message":"wrong key {SECRET}"}}}}"#);
    world.upstream.answer(PATH, 401, &[], &echo);
    let echo = format!(r#"{{"error":{{"message":"wrong key {OTHER}"}}}}"#);
    second.answer(PATH, 401, &[("x-request-id", OTHER)], &echo);
    let (_, headers, body) = world.call(PATH, BODY).await;
    for secret in [SECRET, OTHER] {
        assert!(!body.to_string().contains(secret), "{body}");
        assert!(!format!("{headers:?}").contains(secret), "{headers:?}");
    }
}

#[tokio::test]
async fn whatever_fails_each_secret_goes_to_its_own_place_only_and_once() {
    const STATUSES: [u16; 5] = [200, 400, 401, 429, 503];
    for (first, second) in
        STATUSES.iter().flat_map(|first| STATUSES.iter().map(move |second| (*first, *second)))
    {
        let world = World::start().await;
        let spare = other(&world).await;
        world.upstream.answer(PATH, first, &[], "{}");
        spare.answer(PATH, second, &[], "{}");
        let (status, headers, _) = world.call(PATH, BODY).await;
        let goes_on = first > 400;
        let credential = headers["x-strongroom-credential"].to_str().unwrap();
        assert_eq!(credential.ends_with("/other"), goes_on, "{first} {second}");
        let told = match (first, second) {
            (200 | 400, _) => first,
            (_, 200 | 400) => second,
            (401, 401) => 502,
            (429, 429) => 429,
            _ => 503,
        };
        assert_eq!(status.as_u16(), told, "{first} {second}");
        for (upstream, secret, calls) in
            [(&world.upstream, SECRET, 1), (&spare, OTHER, usize::from(goes_on))]
        {
            let seen = upstream.seen();
            assert_eq!(seen.len(), calls, "{first} {second}");
            let own = format!("Bearer {secret}");
            assert!(seen.iter().all(|seen| seen.headers["authorization"] == own));
        }
    }
}
