//! Errors that come in an answer with status 200.

use std::time::Duration;

use domain::Failure;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::json;
use testkit::Upstream;

use crate::harness::{Next, World};

const PATH: &str = "/v1/chat/completions";
const THERE: &str = "/api/v1/chat/completions";
const BODY: &str = r#"{"model":"openrouter/openai/gpt-4o"}"#;
const STREAMED: &str =
    r#"{"model":"openrouter/openai/gpt-4o","stream":true,"stream_options":{"include_usage":true}}"#;
const EVENTS: &[(&str, &str)] = &[("content-type", "text/event-stream")];
const LIMITED: &str = r#"{"error":{"code":429,"message":"Slow down"},"user_id":"u"}"#;

async fn second(world: &World) -> Upstream {
    let upstream = Upstream::start().await.unwrap();
    world.then(Next::Lend {
        credential: "other",
        provider: "openrouter",
        base: upstream.url(),
        secret: "sk-or-v1-Another1Secret2Material3Zyxwvutsr",
    });
    upstream.answer(THERE, 200, &[], r#"{"id":"c2"}"#);
    upstream
}

#[tokio::test]
async fn an_error_in_the_place_of_an_answer_has_the_status_that_it_names() {
    let world = World::start().await;
    world.upstream.answer(THERE, 200, &[("retry-after", "7")], LIMITED);
    let (status, headers, body) = world.call(PATH, BODY).await;
    assert_eq!((status.as_u16(), &headers["retry-after"]), (429, &"7".parse().unwrap()));
    assert_eq!(
        (&body["error"]["message"], &body["error"]["code"]),
        (&json!("Slow down"), &json!("429"))
    );
    let wait = Some(Duration::from_secs(7));
    let told = world.leases.alone.lock().unwrap().clone();
    assert_eq!(told[0].1, Failure::RateLimited { retry_after: wait });
    // In a stream, after what keeps the connection alive.
    let text = format!(": OPENROUTER PROCESSING\n\ndata: {LIMITED}\n\ndata: [DONE]\n\n");
    world.upstream.answer(THERE, 200, EVENTS, &text);
    let (status, _, body) = world.call(PATH, STREAMED).await;
    assert_eq!((status.as_u16(), &body["error"]["message"]), (429, &json!("Slow down")));
}

#[tokio::test]
async fn another_credential_is_tried_while_nothing_has_been_sent() {
    let world = World::start().await;
    let second = second(&world).await;
    world.upstream.answer(THERE, 200, &[], LIMITED);
    let (status, headers, body) = world.call(PATH, BODY).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"id": "c2"})));
    assert!(headers.contains_key("x-strongroom-fallback"));
    assert_eq!((world.upstream.seen().len(), second.seen().len()), (1, 1));
}

#[tokio::test]
async fn what_comes_after_the_first_word_passes_as_it_is() {
    let world = World::start().await;
    let second = second(&world).await;
    let begun = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let text = format!(": PROCESSING\n\n{begun}data: {LIMITED}\n\n");
    world.upstream.answer(THERE, 200, EVENTS, &text);
    let answer = world.send(world.post(PATH), STREAMED).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, text);
    assert!(second.seen().is_empty());
    let whole = r#"{"id":"c","choices":[],"error":{"code":429}}"#;
    world.upstream.answer(THERE, 200, &[], whole);
    let (status, _, body) = world.call(PATH, BODY).await;
    assert_eq!((status, body.to_string().len()), (StatusCode::OK, whole.len()));
}

#[tokio::test]
async fn pieces_are_not_held_back_once_the_answer_has_begun() {
    let world = World::start().await;
    let stream = world.upstream.stream(THERE);
    let answer = tokio::join!(world.send(world.post(PATH), STREAMED), async {
        // Nothing of it says that it is an answer, or that it is none.
        assert!(stream.send(": PROCESSING\n\n").await);
        assert!(stream.send("data: {\"choices\":[{\"delta\":{\"content\":\"").await);
        assert!(stream.send("Hi\"}}]}\n\n").await);
    });
    let mut body = answer.0.into_body();
    let mut seen = Vec::new();
    while !seen.ends_with(b"Hi\"}}]}\n\n") {
        seen.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert!(seen.starts_with(b": PROCESSING"));
    assert!(stream.send("data: {}\n\n").await);
    let next = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(next, "data: {}\n\n");
}
