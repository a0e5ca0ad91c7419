//! Providers whose answers hold the credential that the call went out with.

use domain::Failure;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use strongroom_proto::v1::usage_record::Outcome;

use crate::harness::{SECRET, World};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const GEMINI: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const STREAM: &[(&str, &str)] = &[("content-type", "text/event-stream")];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const OPENAI: &str = "tenants/acme/credentials/openai-prod";

/// That the secret was told of so often, and of nothing else.
#[track_caller]
fn check_reported(world: &World, credential: &str, times: usize) {
    let told = world.leases.alone.lock().unwrap().clone();
    assert_eq!(told, vec![(credential.to_owned(), Failure::SecretInAnswer); times]);
    assert!(world.leases.reported.lock().unwrap().is_empty());
}

#[track_caller]
fn check_withheld((status, headers, answer): &(StatusCode, HeaderMap, Value), code: &str) {
    assert_eq!(*status, StatusCode::BAD_GATEWAY, "{answer}");
    assert_eq!(answer.pointer(code).unwrap(), "secret_in_answer", "{answer}");
    assert_eq!(headers["x-should-retry"], "false");
    assert!(headers.contains_key("x-strongroom-request-id"));
    assert!(!answer.to_string().contains(&SECRET[..12]));
}

#[tokio::test]
async fn a_whole_answer_with_the_secret_is_replaced_by_an_error_of_the_callers_dialect() {
    for (path, there, body, credential, code) in [
        (CHAT, CHAT, r#"{"model":"gpt-4o"}"#, OPENAI, "/error/code"),
        (
            MESSAGES,
            MESSAGES,
            r#"{"model":"claude-opus-5"}"#,
            "tenants/acme/credentials/anthropic-prod",
            "/error/details/error_code",
        ),
        (
            "/google/v1beta/models/gemini-2.5-flash:generateContent",
            GEMINI,
            "{}",
            "tenants/acme/credentials/google-prod",
            "/error/code",
        ),
    ] {
        let world = World::start().await;
        // At the end of what was held back, too.
        let long = "x".repeat(60_000);
        for text in [String::new(), long] {
            let answer = format!(r#"{{"id":"{text}","echo":"{SECRET}"}}"#);
            world.upstream.answer(there, 200, JSON, &answer);
            check_withheld(&world.call(path, body).await, code);
        }
        check_reported(&world, credential, 2);
        // What only resembles it passes.
        let harmless = format!(r#"{{"echo":"{}"}}"#, &SECRET[..SECRET.len() - 1]);
        world.upstream.answer(there, 200, JSON, &harmless);
        let (status, headers, answer) = world.call(path, body).await;
        assert_eq!((status, answer.to_string()), (StatusCode::OK, harmless.clone()));
        assert_eq!(headers["content-length"], harmless.len().to_string());
        check_reported(&world, credential, 2);
    }
}

#[tokio::test]
async fn what_was_withheld_says_so_in_the_records_of_usage() {
    let world = World::start().await;
    let answer = format!(r#"{{"usage":{{"prompt_tokens":7}},"echo":"{SECRET}"}}"#);
    world.upstream.answer(CHAT, 200, JSON, &answer);
    world.call(CHAT, r#"{"model":"gpt-4o"}"#).await;
    let records = world.leases.till.usage(1).await;
    // The status is the caller's.
    assert_eq!((records[0].outcome(), records[0].status), (Outcome::Withheld, 502));
    // The provider charges for it all the same.
    assert_eq!(records[0].tokens.unwrap().input, 7);
    // Of a long one, the beginning has gone out.
    let long = format!(r#"{{"id":"{}","echo":"{SECRET}"}}"#, "x".repeat(3 << 20));
    world.upstream.answer(CHAT, 200, JSON, &long);
    let answer = world.send(world.post(CHAT), r#"{"model":"gpt-4o"}"#).await;
    assert!(answer.into_body().collect().await.is_err());
    let records = world.leases.till.usage(2).await;
    assert_eq!((records[1].outcome(), records[1].status), (Outcome::Withheld, 200));
}

#[tokio::test]
async fn a_long_answer_that_has_begun_is_cut() {
    let world = World::start().await;
    let long = format!(r#"{{"id":"{}","echo":"{SECRET}"}}"#, "x".repeat(3 << 20));
    world.upstream.answer(CHAT, 200, JSON, &long);
    let answer = world.send(world.post(CHAT), r#"{"model":"gpt-4o"}"#).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.into_body().collect().await.is_err());
    check_reported(&world, OPENAI, 1);
    // Long ones pass.
    let long = long.replace(SECRET, "harmless");
    world.upstream.answer(CHAT, 200, JSON, &long);
    let answer = world.send(world.post(CHAT), r#"{"model":"gpt-4o"}"#).await;
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), long);
}

#[tokio::test]
async fn a_stream_with_the_secret_ends_in_an_event_that_says_so() {
    for (path, body, begins) in [
        (CHAT, r#"{"model":"gpt-4o","stream":true}"#, "data: "),
        (MESSAGES, r#"{"model":"claude-opus-5","stream":true}"#, "event: error\ndata: "),
    ] {
        let world = World::start().await;
        let first = "data: {\"type\":\"content_block_delta\",\"choices\":[{}]}\n\n";
        let text = format!("{first}data: {{\"echo\":\"{SECRET}\"}}\n\ndata: {{\"n\":2}}\n\n");
        world.upstream.answer(path, 200, STREAM, &text);
        let answer = world.send(world.post(path), body).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let seen = answer.into_body().collect().await.unwrap().to_bytes();
        let seen = std::str::from_utf8(&seen).unwrap();
        let event = seen.trim_start_matches(first).trim_start().strip_prefix(begins).unwrap();
        let event: Value = serde_json::from_str(event).unwrap();
        let found = [event.pointer("/error/code"), event.pointer("/error/details/error_code")];
        assert!(found.into_iter().flatten().any(|code| code == "secret_in_answer"), "{event}");
        assert!(!seen.contains(&SECRET[..12]) && !seen.contains("\"n\":2"), "{seen}");
        assert_eq!(world.leases.alone.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_secret_in_headers_or_in_an_error_is_told_of_too() {
    let world = World::start().await;
    let body = r#"{"model":"gpt-4o"}"#;
    world.upstream.answer(CHAT, 200, &[("x-request-id", SECRET)], "{}");
    check_withheld(&world.call(CHAT, body).await, "/error/code");
    check_reported(&world, OPENAI, 1);
    let error = format!(r#"{{"error":{{"message":"no: {SECRET}","code":"c"}}}}"#);
    world.upstream.answer(CHAT, 400, JSON, &error);
    let (status, _, answer) = world.call(CHAT, body).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &"c".into()));
    assert!(!answer.to_string().contains(&SECRET[..12]));
    let told = world.leases.alone.lock().unwrap().clone();
    let failures: Vec<_> = told.into_iter().map(|(_, failure)| failure).collect();
    let leaked = failures.iter().filter(|failure| **failure == Failure::SecretInAnswer);
    assert_eq!(leaked.count(), 2);
}
