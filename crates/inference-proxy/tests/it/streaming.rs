use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::harness::{SECRET, World};

const PATH: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o","stream":true}"#;
/// What is not looked at for figures of usage passes in smaller pieces than whole events.
const WITH_USAGE: &str =
    r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}"#;
const SOON: Duration = Duration::from_secs(10);

async fn next(body: &mut hyper::body::Incoming) -> Option<Result<String, hyper::Error>> {
    let frame = timeout(SOON, body.frame()).await.unwrap()?;
    Some(frame.map(|frame| String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()))
}

#[tokio::test]
async fn each_piece_arrives_before_the_next_one_is_sent() {
    let world = World::start().await;
    let stream = world.upstream.stream(PATH);
    let mut answer = world.send(world.post(PATH), BODY).await.into_body();
    for number in 0..50 {
        let event = format!("data: {{\"n\":{number}}}\n\n");
        assert!(stream.send(&event).await);
        assert_eq!(next(&mut answer).await.unwrap().unwrap(), event);
    }
    drop(stream);
    assert!(next(&mut answer).await.is_none());
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
async fn no_piece_waits_for_a_delayed_acknowledgement() {
    let world = World::start().await;
    let stream = world.upstream.stream(PATH);
    let mut answer = world.send(world.post(PATH), BODY).await.into_body();
    let mut slow = 0;
    for _ in 0..100 {
        let sent = Instant::now();
        assert!(stream.send("data: {}\n\n").await);
        next(&mut answer).await.unwrap().unwrap();
        // An acknowledgement is delayed by 40 ms; a busy machine may be late now and then.
        slow += usize::from(sent.elapsed() > Duration::from_millis(35));
    }
    assert!(slow < 30, "{slow} of 100 pieces were late");
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_providers_call_where_that_is_the_policy() {
    let world = World::with("[metering]\non_disconnect = \"cancel\"").await;
    let stream = world.upstream.stream(PATH);
    let mut answer = world.send(world.post(PATH), BODY).await.into_body();
    assert!(stream.send("data: 1\n\n").await);
    next(&mut answer).await.unwrap().unwrap();
    drop(answer);
    timeout(SOON, stream.abandoned()).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_the_provider_cuts_does_not_end_cleanly() {
    let world = World::start().await;
    let stream = world.upstream.stream(PATH);
    let mut answer = world.send(world.post(PATH), BODY).await.into_body();
    assert!(stream.send("data: 1\n\n").await);
    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "data: 1\n\n");
    stream.cut().await;
    assert!(next(&mut answer).await.unwrap().is_err());
}

#[tokio::test]
async fn a_stream_that_echoes_the_secret_is_cut_before_it() {
    let world = World::start().await;
    let stream = world.upstream.stream(PATH);
    let mut answer = world.send(world.post(PATH), WITH_USAGE).await.into_body();
    let (head, tail) = SECRET.split_at(20);
    assert!(stream.send(&format!("data: {head}")).await);
    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "data: ");
    stream.send(&format!("{tail}\n\n")).await;
    let told = next(&mut answer).await.unwrap().unwrap();
    let event = told.strip_prefix("\n\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    assert_eq!(event["error"]["code"], "secret_in_answer");
    assert!(next(&mut answer).await.is_none());
}

#[tokio::test]
async fn a_stream_that_pauses_for_too_long_is_cut() {
    let world = World::with("[limits]\nanswer_idle = \"1s\"").await;
    let stream = world.upstream.stream(PATH);
    let mut answer = world.send(world.post(PATH), BODY).await.into_body();
    assert!(stream.send("data: 1\n\n").await);
    next(&mut answer).await.unwrap().unwrap();
    assert!(next(&mut answer).await.unwrap().is_err());
    timeout(SOON, stream.abandoned()).await.unwrap();
}

#[tokio::test]
async fn a_call_in_hand_finishes_after_the_stop_and_no_new_one_begins() {
    let mut world = World::start().await;
    let stream = world.upstream.stream(PATH);
    let mut answer = world.send(world.post(PATH), BODY).await.into_body();
    world.stop();
    // The listener is closed when connecting fails.
    while tokio::net::TcpStream::connect(world.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(stream.send("data: late\n\n").await);
    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "data: late\n\n");
    drop(stream);
    assert!(next(&mut answer).await.is_none());
    timeout(SOON, world.tasks.join_next()).await.unwrap().unwrap().unwrap().unwrap();
}
