use http::StatusCode;
use http_body_util::BodyExt as _;

use crate::harness::World;

const PATH: &str = "/v1/chat/completions";
const CHUNK: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// Streams an answer with figures of usage; what the provider got, and what the caller got.
async fn stream(world: &World, body: &str) -> (String, String) {
    let handle = world.upstream.stream(PATH);
    let answer = world.send(world.post(PATH), body.to_owned()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (head, tail) = USAGE.split_at(20);
    for piece in [CHUNK, head, tail, DONE] {
        assert!(handle.send(piece).await);
    }
    drop(handle);
    let got = answer.into_body().collect().await.unwrap().to_bytes();
    let sent = world.upstream.seen().last().unwrap().body.clone();
    (String::from_utf8(sent.to_vec()).unwrap(), String::from_utf8(got.to_vec()).unwrap())
}

#[tokio::test]
async fn a_stream_says_what_was_used_to_us_and_not_to_who_did_not_ask() {
    let world = World::start().await;
    let (sent, got) = stream(&world, r#"{"model":"gpt-4o", "stream":true}"#).await;
    let asked = r#"{"stream_options":{"include_usage":true},"model":"gpt-4o", "stream":true}"#;
    assert_eq!(sent, asked);
    assert_eq!(got, format!("{CHUNK}{DONE}"));

    let body = r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}"#;
    let (sent, got) = stream(&world, body).await;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&sent).unwrap(),
        serde_json::from_str::<serde_json::Value>(body).unwrap()
    );
    assert_eq!(got, format!("{CHUNK}{USAGE}{DONE}"));

    let body = r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":false}}"#;
    let (sent, got) = stream(&world, body).await;
    assert!(sent.contains(r#""stream_options":{"include_usage":true}"#), "{sent}");
    assert_eq!(got, format!("{CHUNK}{DONE}"));
}

#[tokio::test]
async fn a_call_that_is_no_stream_goes_on_byte_for_byte() {
    let world = World::start().await;
    world.upstream.answer(PATH, 200, &[], "{}");
    for body in [
        r#"{"model":"gpt-4o", "stream" : false}"#,
        r#"{"model":"gpt-4o","messages":[{"stream":true}],"n":1.0e0}"#,
    ] {
        world.call(PATH, body).await;
        assert_eq!(world.upstream.seen().last().unwrap().body, body);
    }
}
