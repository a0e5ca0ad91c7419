use std::time::Duration;

use domain::Unit;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};

use crate::harness::World;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const BODY: &str = r#"{"model":"gpt-4o","messages":[],"max_tokens":100}"#;
const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;
const SOON: Duration = Duration::from_secs(10);

async fn limited(unit: Unit, cap: u64) -> World {
    let world = World::start().await;
    world.leases.till.limit(unit, cap);
    world.upstream.answer(CHAT, 200, &[], ANSWER);
    world
}

#[tokio::test]
async fn a_key_without_limits_never_asks_for_a_slice() {
    let world = World::start().await;
    world.upstream.answer(CHAT, 200, &[], ANSWER);
    for _ in 0..3 {
        assert_eq!(world.call(CHAT, BODY).await.0, StatusCode::OK);
    }
    assert_eq!(world.leases.till.draws(), 0);
}

#[tokio::test]
async fn no_more_calls_go_out_than_the_budget_has() {
    let world = limited(Unit::Requests, 20).await;
    let mut passed = 0;
    for _ in 0..30 {
        passed += usize::from(world.call(CHAT, BODY).await.0 == StatusCode::OK);
    }
    assert_eq!((passed, world.upstream.seen().len()), (20, 20));
    world.leases.till.until_quiet().await;
    assert_eq!(world.leases.till.spent(Unit::Requests), 20);
    assert!(world.leases.till.draws() < 40, "{} draws", world.leases.till.draws());
}

#[tokio::test]
async fn a_call_is_settled_with_what_it_came_to_and_the_rest_is_given_back() {
    // One call can come to (48 + 1024) x 2.5 and 100 x 10 micro-USD at the most, in its slice.
    let world = limited(Unit::Money, 1_000_000).await;
    assert_eq!(world.call(CHAT, BODY).await.0, StatusCode::OK);
    assert!(world.leases.till.reserved(Unit::Money) > 0);
    world.leases.till.until_quiet().await;
    assert_eq!(world.leases.till.spent(Unit::Money), 3500);
    let record = world.leases.till.usage(1).await.remove(0);
    assert_eq!(record.allowance_id.len(), 16);
}

#[tokio::test]
async fn a_caller_without_a_limit_gets_one_under_a_budget() {
    let world = limited(Unit::Money, 1_000_000).await;
    world.call(CHAT, r#"{"model":"gpt-4o","messages":[]}"#).await;
    let sent = String::from_utf8(world.upstream.seen()[0].body.to_vec()).unwrap();
    assert_eq!(sent, r#"{"max_completion_tokens":8192,"model":"gpt-4o","messages":[]}"#);
}

#[tokio::test]
async fn a_budget_without_room_is_told_in_the_words_of_each_sdk() {
    let world = limited(Unit::Money, 10).await;
    let (status, headers, body) = world.call(CHAT, BODY).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(body["error"]["code"], "budget_exhausted");
    assert_eq!(body["error"]["type"], "insufficient_quota");
    assert_eq!(headers["x-should-retry"], "false");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("tenants/acme/budgets/all of 0.000010 USD"), "{message}");

    let body = r#"{"model":"claude-opus-4-5","max_tokens":100,"messages":[]}"#;
    let (status, _, body) = world.call(MESSAGES, body).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(body["error"]["type"], "billing_error");

    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn one_that_is_refused_and_calls_on_does_not_load_the_broker() {
    let world = limited(Unit::Money, 10).await;
    let began = Instant::now();
    for _ in 0..50 {
        assert_eq!(world.call(CHAT, BODY).await.0, StatusCode::PAYMENT_REQUIRED);
    }
    // One a second, however many seconds a busy machine takes for it.
    let (draws, most) = (world.leases.till.draws(), began.elapsed().as_secs() + 1);
    assert!(u64::try_from(draws).unwrap() <= most, "{draws} draws, {most} at the most");
}

#[tokio::test]
async fn a_refusal_says_how_the_limits_stand_in_each_dialect() {
    let world = limited(Unit::Requests, 1).await;
    let wait = Duration::from_secs(50);
    world.leases.till.refuse_with("RATE_LIMIT_REACHED", Some(wait));
    assert_eq!(world.call(CHAT, BODY).await.0, StatusCode::OK);
    let message = r#"{"model":"claude-opus-4-5","max_tokens":100,"messages":[]}"#;
    for (path, body) in [(CHAT, BODY), (MESSAGES, message), ("/openai/v1/chat/completions", BODY)] {
        let (status, headers, _) = world.call(path, body).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{path}");
        assert_eq!(headers["x-ratelimit-limit-requests"], "1", "{path}");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "0", "{path}");
        let seconds = |name: &str| {
            let text = headers[name].to_str().unwrap().trim_end_matches('s');
            text.parse::<f64>().unwrap()
        };
        for name in ["retry-after", "x-ratelimit-reset-requests"] {
            assert!((30.0..=50.0).contains(&seconds(name)), "{path}: {name}: {}", seconds(name));
        }
    }
}

#[tokio::test]
async fn a_rate_limit_without_room_says_when_to_come_back() {
    let world = limited(Unit::Tokens, 10).await;
    world.leases.till.refuse_with("RATE_LIMIT_REACHED", Some(Duration::from_secs(7)));
    let (status, headers, body) = world.call(CHAT, BODY).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body["error"]["type"], "rate_limit_error");
    assert_eq!(headers["retry-after"], "7");
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn answers_say_how_the_keys_own_limits_stand() {
    let world = limited(Unit::Requests, 160).await;
    let theirs = [("x-ratelimit-limit-requests", "5000"), ("x-ratelimit-reset-tokens", "1s")];
    world.upstream.answer(CHAT, 200, &theirs, ANSWER);
    let (_, headers, _) = world.call(CHAT, BODY).await;
    assert_eq!(headers["x-ratelimit-limit-requests"], "160");
    assert_eq!(headers["x-ratelimit-remaining-requests"], "159");
    assert!(headers.contains_key("x-ratelimit-reset-requests"));
    assert_eq!(headers["x-provider-ratelimit-limit-requests"], "5000");
    assert_eq!(headers["x-provider-ratelimit-reset-tokens"], "1s");
}

#[tokio::test]
async fn while_the_broker_is_away_what_is_at_hand_can_be_spent_and_no_more() {
    let world = limited(Unit::Requests, 1000).await;
    // The second slice is for more than one call.
    for _ in 0..2 {
        assert_eq!(world.call(CHAT, BODY).await.0, StatusCode::OK);
    }
    world.leases.till.go_away(true);
    let mut passed = 0;
    loop {
        let (status, _, body) = world.call(CHAT, BODY).await;
        if status != StatusCode::OK {
            assert_eq!(body["error"]["code"], "broker_unavailable");
            break;
        }
        passed += 1;
    }
    assert!((1..64).contains(&passed), "{passed}");
    world.leases.till.go_away(false);
    world.leases.till.until_quiet().await;
    assert_eq!(world.leases.till.spent(Unit::Requests), passed + 2);
}

#[tokio::test]
async fn a_money_limit_admits_nothing_that_cannot_be_bounded() {
    let world = limited(Unit::Money, 1_000_000_000).await;
    for (body, code) in [
        (r#"{"model":"openai/of-tomorrow"}"#, "price_unknown"),
        (r#"{"model":"gpt-4o","web_search_options":{}}"#, "provider_tools_refused"),
        (r#"{"model":"gpt-4o","max_tokens":1,"Max_Tokens":2}"#, "invalid_request_body"),
    ] {
        let (status, _, answer) = world.call(CHAT, body).await;
        assert!(status.is_client_error());
        assert_eq!(answer["error"]["code"], code);
    }
    assert!(world.upstream.seen().is_empty());
    assert_eq!(world.leases.till.reserved(Unit::Money), 0);
}

#[tokio::test]
async fn a_call_that_did_not_reach_the_provider_gives_everything_back() {
    let world = limited(Unit::Requests, 16).await;
    *world.leases.origins.lock().unwrap() =
        Some(vec!["https://elsewhere.example".parse().unwrap()]);
    assert_eq!(world.call(CHAT, BODY).await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(world.leases.till.spent(Unit::Requests), 0);
    world.leases.till.until_quiet().await;
}

#[tokio::test]
async fn an_outcome_that_nobody_knows_stays_held() {
    let world = limited(Unit::Money, 1_000_000).await;
    let stream = world.upstream.stream(CHAT);
    let body = r#"{"model":"gpt-4o","stream":true,"max_tokens":100}"#;
    let answer = world.send(world.post(CHAT), body).await;
    assert!(stream.send("data: {\"choices\":[{}]}\n\n").await);
    stream.cut().await;
    assert!(answer.into_body().collect().await.is_err());
    let record = world.leases.till.usage(1).await.remove(0);
    assert!(!record.usage_known);
    assert!(world.leases.till.reserved(Unit::Money) > 0);
    assert_eq!(world.leases.till.spent(Unit::Money), 0);
}

#[tokio::test]
async fn in_a_rate_limit_an_unknown_outcome_counts_as_its_worst_case_at_once() {
    let world = limited(Unit::Tokens, 1_000_000).await;
    world.leases.till.refuse_with("RATE_LIMIT_REACHED", None);
    let stream = world.upstream.stream(CHAT);
    let body = r#"{"model":"gpt-4o","stream":true,"max_tokens":100}"#;
    let answer = world.send(world.post(CHAT), body).await;
    assert!(stream.send("data: {\"choices\":[{}]}\n\n").await);
    stream.cut().await;
    assert!(answer.into_body().collect().await.is_err());
    world.leases.till.until_quiet().await;
    let spent = world.leases.till.spent(Unit::Tokens);
    // The body with what is put into it, what providers add, and all of the output.
    assert!((1024 + 49 + 100..2000).contains(&spent), "{spent}");
    assert!(!world.leases.till.usage(1).await[0].usage_known);
}

#[tokio::test]
async fn a_call_that_is_not_answered_in_time_is_a_call_and_holds_nothing() {
    let world = World::with("[limits]\nfirst_byte = \"50ms\"").await;
    world.leases.till.limit(Unit::Requests, 16);
    world.upstream.stay_silent(CHAT);
    assert_eq!(world.call(CHAT, BODY).await.0, StatusCode::GATEWAY_TIMEOUT);
    world.leases.till.until_quiet().await;
    assert_eq!(world.leases.till.spent(Unit::Requests), 1);
}

#[tokio::test]
async fn a_stopping_proxy_gives_everything_back() {
    let mut world = limited(Unit::Requests, 1000).await;
    for _ in 0..3 {
        world.call(CHAT, BODY).await;
    }
    assert!(world.leases.till.reserved(Unit::Requests) > 0);
    world.stop();
    timeout(SOON, world.tasks.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(world.leases.till.reserved(Unit::Requests), 0);
    assert_eq!(world.leases.till.spent(Unit::Requests), 3);
    assert_eq!(world.leases.till.usage(3).await.len(), 3);
}
