use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rustls::version::TLS13;
use serde_json::json;
use testkit::Upstream;
use tokio::time::timeout;

use crate::{
    caller::Caller,
    certificates::Authority,
    harness::{Next, SECRET, World, read},
};

const PATH: &str = "/v1/chat/completions";
const OTHER: &str = "/v1/messages";
const BODY: &str = r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}"#;
const SOON: Duration = Duration::from_secs(10);

/// Without this, an answer is read on for its figures.
const CANCEL: &str = "\n[metering]\non_disconnect = \"cancel\"\n";

/// A world with TLS and HTTP/2 on both sides, and its caller.
async fn encrypted() -> (World, Caller) {
    let authority = Authority::new();
    let provider = authority.provider("127.0.0.1", &TLS13, &["h2"]);
    let extra = authority.as_egress() + &authority.as_listener() + CANCEL;
    let world = World::before(Upstream::start_tls(provider).await.unwrap(), &extra).await;
    let caller = Caller::tls(world.address, authority.application(&["h2"])).await;
    (world, caller)
}

async fn next(body: &mut Incoming) -> Option<Result<String, hyper::Error>> {
    let frame = timeout(SOON, body.frame()).await.unwrap()?;
    Some(frame.map(|frame| String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()))
}

/// That an answer ends cleanly; HTTP/2 may say so by an empty piece.
async fn ends(body: &mut Incoming) {
    let rest = timeout(SOON, body.collect()).await.unwrap().unwrap();
    assert_eq!(rest.to_bytes(), "");
}

/// That a connection still serves, after what was done to one of its calls.
async fn still_serves(world: &World, caller: &mut Caller) {
    world.upstream.answer(PATH, 200, &[], r#"{"id":"after"}"#);
    let answer = timeout(SOON, caller.send(world.post(PATH), BODY)).await.unwrap().unwrap();
    let (status, _, body) = read(answer).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"id": "after"})));
}

#[tokio::test]
async fn applications_call_over_plain_http2_without_asking_first() {
    let world = World::start().await;
    world.upstream.answer(PATH, 200, &[], r#"{"id":"c1"}"#);
    let mut caller = Caller::plain_http2(world.address).await;
    let answer = caller.send(world.post(PATH), BODY).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    let (status, headers, body) = read(answer).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"id": "c1"})));
    assert!(headers.contains_key("x-strongroom-request-id"));
    let seen = world.upstream.seen();
    assert_eq!(seen[0].headers["authorization"], format!("Bearer {SECRET}"));
    assert_eq!(seen[0].headers["host"], world.upstream.url().trim_start_matches("http://"));
    assert_eq!(seen[0].body, BODY);
}

#[tokio::test]
async fn calls_on_one_connection_do_not_wait_for_each_other() {
    let world = World::start().await;
    let (first, second) = (world.upstream.stream(PATH), world.upstream.stream(OTHER));
    let mut caller = Caller::plain_http2(world.address).await;
    let mut slow = caller.send(world.post(PATH), BODY).await.unwrap().into_body();
    let model = r#"{"model":"claude-opus-5","stream":true}"#;
    let mut quick = caller.send(world.post(OTHER), model).await.unwrap().into_body();
    assert!(second.send("data: 2\n\n").await);
    assert_eq!(next(&mut quick).await.unwrap().unwrap(), "data: 2\n\n");
    drop(second);
    ends(&mut quick).await;
    assert!(first.send("data: 1\n\n").await);
    assert_eq!(next(&mut slow).await.unwrap().unwrap(), "data: 1\n\n");
    drop(first);
    ends(&mut slow).await;
}

#[tokio::test]
async fn each_piece_arrives_before_the_next_one_is_sent() {
    let (world, mut caller) = encrypted().await;
    let stream = world.upstream.stream(PATH);
    let answer = caller.send(world.post(PATH), BODY).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    let mut answer = answer.into_body();
    for number in 0..50 {
        let event = format!("data: {{\"n\":{number}}}\n\n");
        assert!(stream.send(&event).await);
        assert_eq!(next(&mut answer).await.unwrap().unwrap(), event);
    }
    drop(stream);
    ends(&mut answer).await;
    assert_eq!(world.upstream.seen()[0].version, Version::HTTP_2);
}

#[tokio::test]
async fn a_call_that_is_reset_ends_the_providers_call_and_no_other() {
    let (world, mut caller) = encrypted().await;
    let stream = world.upstream.stream(PATH);
    let mut answer = caller.send(world.post(PATH), BODY).await.unwrap().into_body();
    assert!(stream.send("data: 1\n\n").await);
    next(&mut answer).await.unwrap().unwrap();
    drop(answer);
    timeout(SOON, stream.abandoned()).await.unwrap();
    still_serves(&world, &mut caller).await;
}

#[tokio::test]
async fn a_call_that_is_reset_before_its_answer_begins_ends_the_providers_call() {
    let world = World::with(CANCEL).await;
    world.upstream.stay_silent(PATH);
    let mut caller = Caller::plain_http2(world.address).await;
    tokio::select! {
        _ = caller.send(world.post(PATH), BODY) => panic!("an answer"),
        () = world.upstream.until_seen(1) => {}
    }
    timeout(SOON, world.upstream.until_idle()).await.unwrap();
    still_serves(&world, &mut caller).await;
}

#[tokio::test]
async fn a_stream_that_the_provider_resets_does_not_end_cleanly() {
    let (world, mut caller) = encrypted().await;
    let stream = world.upstream.stream(PATH);
    let mut answer = caller.send(world.post(PATH), BODY).await.unwrap().into_body();
    assert!(stream.send("data: 1\n\n").await);
    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "data: 1\n\n");
    stream.cut().await;
    assert!(next(&mut answer).await.unwrap().is_err());
    still_serves(&world, &mut caller).await;
}

#[tokio::test]
async fn a_connection_ends_with_any_of_the_leases_that_it_carried() {
    let (world, mut caller) = encrypted().await;
    let lives = [(); 2].map(|()| Arc::new(AtomicBool::new(true)));
    world.leases.lives.lock().unwrap().extend(lives.iter().cloned());
    for _ in 0..3 {
        still_serves(&world, &mut caller).await;
    }
    assert_eq!(world.upstream.accepted(), 1);
    // Not the last that was used, and others of the credential go on.
    lives[0].store(false, Ordering::SeqCst);
    timeout(SOON, world.upstream.until_idle()).await.unwrap();
    still_serves(&world, &mut caller).await;
    assert_eq!(world.upstream.accepted(), 2);
}

#[tokio::test]
async fn what_is_in_hand_on_a_connection_outlives_the_lease_and_nothing_joins_it() {
    let (world, mut caller) = encrypted().await;
    let live = Arc::new(AtomicBool::new(true));
    world.leases.lives.lock().unwrap().push_back(Arc::clone(&live));
    let stream = world.upstream.stream(PATH);
    let mut answer = caller.send(world.post(PATH), BODY).await.unwrap().into_body();
    assert!(stream.send("data: 1\n\n").await);
    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "data: 1\n\n");
    live.store(false, Ordering::SeqCst);
    while world.upstream.accepted() == 1 {
        still_serves(&world, &mut caller).await;
    }
    assert!(stream.send("data: 2\n\n").await);
    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "data: 2\n\n");
    drop(stream);
    ends(&mut answer).await;
}

#[tokio::test]
async fn another_secret_of_the_same_name_does_not_share_a_connection() {
    for (secret, connections) in [(SECRET, 1), ("sk-proj-Another9Secret8Of7The6Same5Name", 2)] {
        let (world, mut caller) = encrypted().await;
        world.upstream.answer(PATH, 429, &[], "{}");
        world.then(Next::Lend {
            credential: "openai-prod@2",
            provider: "openai",
            base: world.upstream.url(),
            secret,
        });
        let answer = timeout(SOON, caller.send(world.post(PATH), BODY)).await.unwrap().unwrap();
        assert_eq!(read(answer).await.0, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!((world.upstream.seen().len(), world.upstream.accepted()), (2, connections));
    }
}
