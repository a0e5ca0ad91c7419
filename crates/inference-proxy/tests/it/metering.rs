use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt as _;
use strongroom_proto::v1::{UsageRecord, usage_record::Outcome};
use tokio::time::timeout;

use crate::harness::{Next, World};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const BODY: &str = r#"{"model":"gpt-4o","messages":[]}"#;
const STREAM: &str = r#"{"model":"gpt-4o","stream":true}"#;
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":100}}\n\n";
const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100,
    "prompt_tokens_details":{"cached_tokens":400}}}"#;
const SOON: Duration = Duration::from_secs(10);

async fn only_record(world: &World) -> UsageRecord {
    let records = world.leases.till.usage(1).await;
    assert_eq!(records.len(), 1);
    records.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_call_leaves_a_record_of_what_it_took_and_nothing_of_what_was_said() {
    let world = World::start().await;
    let answer = ANSWER.replace("[]", r#"[{"message":{"content":"the secret plan"}}]"#);
    world.upstream.answer(CHAT, 200, &[], &answer);
    let body = r#"{"model":"openai/gpt-4o","messages":[{"content":"tell me the plan"}]}"#;
    let (status, ..) = world.call(CHAT, body).await;
    assert_eq!(status, StatusCode::OK);

    let record = only_record(&world).await;
    let tokens = record.tokens.unwrap();
    assert_eq!((tokens.input, tokens.cache_read, tokens.output), (600, 400, 100));
    assert!(record.usage_known && record.cost_known && !record.cost_stated);
    // 600 at 2.5, 400 at 1.25 and 100 at 10 USD for a million.
    assert_eq!((record.cost_micro_usd, record.cost_millionths), (3000, 0));
    assert_eq!((&*record.model, &*record.requested_model), ("gpt-4o", "openai/gpt-4o"));
    assert_eq!((&*record.tenant, &*record.endpoint), ("tenants/acme", "chat_completions"));
    assert_eq!(record.credential, "tenants/acme/credentials/openai-prod");
    assert_eq!((record.status, record.outcome()), (200, Outcome::Complete));
    assert_eq!((record.attempts, record.usage_id.len()), (1, 16));
    assert!(record.first_token.is_some() && record.latency.is_some());
    assert!(!format!("{record:?}").contains("plan"));
}

#[tokio::test]
async fn a_stream_is_metered_whether_or_not_its_caller_asked_for_usage() {
    let world = World::start().await;
    for body in
        [STREAM, r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}"#]
    {
        let stream = world.upstream.stream(CHAT);
        let answer = world.send(world.post(CHAT), body).await;
        let (head, tail) = USAGE.split_at(31);
        for piece in ["data: {\"choices\":[{}]}\n\n", head, tail, "data: [DONE]\n\n"] {
            assert!(stream.send(piece).await);
        }
        drop(stream);
        answer.into_body().collect().await.unwrap();
    }
    for record in world.leases.till.usage(2).await {
        assert!(record.usage_known && record.cost_known);
        assert_eq!((record.cost_micro_usd, record.outcome()), (3500, Outcome::Complete));
    }
}

#[tokio::test]
async fn an_answer_whose_caller_went_away_is_read_to_its_end() {
    let world = World::start().await;
    let stream = world.upstream.stream(CHAT);
    let mut answer = world.send(world.post(CHAT), STREAM).await.into_body();
    assert!(stream.send("data: {\"choices\":[{}]}\n\n").await);
    answer.frame().await.unwrap().unwrap();
    drop(answer);
    // The proxy notices when it writes to a connection that is closed.
    for _ in 0..100 {
        assert!(stream.send("data: {\"choices\":[{}]}\n\n").await);
    }
    assert!(stream.send(USAGE).await);
    drop(stream);
    let record = only_record(&world).await;
    assert_eq!(record.outcome(), Outcome::ClientGone);
    assert!(record.usage_known);
    assert_eq!(record.cost_micro_usd, 3500);
}

#[tokio::test]
async fn an_answer_without_a_caller_is_read_within_bounds() {
    let world = World::with("[metering]\ndrain_bytes = 64").await;
    let stream = world.upstream.stream(CHAT);
    let mut answer = world.send(world.post(CHAT), STREAM).await.into_body();
    assert!(stream.send("data: {\"choices\":[{}]}\n\n").await);
    answer.frame().await.unwrap().unwrap();
    drop(answer);
    while stream.send("data: {\"choices\":[{}]}\n\n").await {}
    let record = only_record(&world).await;
    assert_eq!(record.outcome(), Outcome::ClientGone);
    assert!(!record.usage_known && !record.cost_known);
}

#[tokio::test]
async fn a_caller_that_goes_away_before_the_answer_leaves_a_record_of_it() {
    let world = World::with("[metering]\ndrain_time = \"100ms\"").await;
    world.upstream.stay_silent(CHAT);
    let gone = async {
        tokio::select! {
            _ = world.send(world.post(CHAT), BODY) => {}
            () = world.upstream.until_seen(1) => {}
        }
    };
    timeout(SOON, gone).await.unwrap();
    let record = only_record(&world).await;
    assert_eq!((record.outcome(), record.status), (Outcome::ClientGone, 499));
    assert!(!record.usage_known);
}

#[tokio::test]
async fn what_a_stream_had_said_before_it_was_cut_is_kept_and_not_taken_for_all() {
    let world = World::start().await;
    let stream = world.upstream.stream(MESSAGES);
    let body = r#"{"model":"claude-opus-4-5","stream":true,"max_tokens":100}"#;
    let answer = world.send(world.post(MESSAGES), body).await;
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":\
                 {\"input_tokens\":25,\"output_tokens\":1}}}\n\n";
    assert!(stream.send(start).await);
    stream.cut().await;
    assert!(answer.into_body().collect().await.is_err());
    let record = only_record(&world).await;
    assert_eq!(record.outcome(), Outcome::Cut);
    assert_eq!(record.tokens.unwrap().input, 25);
    assert!(!record.usage_known && !record.cost_known);
}

#[tokio::test]
async fn an_error_of_the_provider_costs_nothing() {
    let world = World::start().await;
    for (status, outcome) in [(400, Outcome::RefusedByProvider), (500, Outcome::Failed)] {
        world.upstream.answer(CHAT, status, &[], "{}");
        world.call(CHAT, BODY).await;
        let records = world.leases.till.usage(1).await;
        let record = records.last().unwrap();
        assert_eq!((record.status, record.outcome()), (status.into(), outcome));
        assert!(record.usage_known && record.cost_known);
        assert_eq!(record.cost_micro_usd, 0);
        world.leases.till.forget_usage();
    }
}

#[tokio::test]
async fn a_call_that_fell_back_is_one_call_of_the_credential_that_served_it() {
    let world = World::start().await;
    world.upstream.answer(CHAT, 429, &[], "{}");
    let other = testkit::Upstream::start().await.unwrap();
    other.answer(CHAT, 200, &[], ANSWER);
    world.then(Next::Lend {
        credential: "openai-second",
        provider: "openai",
        base: other.url(),
        secret: crate::harness::SECRET,
    });
    world.call(CHAT, BODY).await;
    let record = only_record(&world).await;
    assert_eq!(record.credential, "tenants/acme/credentials/openai-second");
    assert_eq!((record.attempts, record.outcome()), (2, Outcome::Complete));
    assert_eq!(record.cost_micro_usd, 3000);
}

#[tokio::test]
async fn what_nobody_can_read_or_price_is_unknown_and_not_nothing() {
    let world = World::start().await;
    // What is not handed on may have cost something all the same.
    world.upstream.answer(CHAT, 200, &[("content-encoding", "gzip")], "\u{1f}");
    assert_eq!(world.call(CHAT, BODY).await.0, StatusCode::BAD_GATEWAY);
    world.upstream.answer(CHAT, 200, &[("content-encoding", "identity")], ANSWER);
    world.call(CHAT, r#"{"model":"openai/of-tomorrow"}"#).await;
    let records = world.leases.till.usage(2).await;
    assert!(!records[0].usage_known && !records[0].cost_known);
    assert!(records[1].usage_known && !records[1].cost_known);
    assert_eq!(records[1].tokens.unwrap().output, 100);
}

#[tokio::test]
async fn a_model_without_a_price_is_refused_where_that_is_the_policy() {
    let world = World::with("[metering]\nunknown_price = \"refuse\"").await;
    world.upstream.answer(CHAT, 200, &[], ANSWER);
    assert_eq!(world.call(CHAT, BODY).await.0, StatusCode::OK);
    let (status, _, body) = world.call(CHAT, r#"{"model":"openai/of-tomorrow"}"#).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::FORBIDDEN, &"price_unknown".into()));
    assert_eq!(world.upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_cost_that_the_provider_states_is_preferred() {
    let world = World::start().await;
    let answer = r#"{"usage":{"prompt_tokens":5,"completion_tokens":5,"cost":0.0000015}}"#;
    for path in [CHAT, "/api/v1/chat/completions", "/chat/completions"] {
        world.upstream.answer(path, 200, &[], answer);
    }
    world.call(CHAT, r#"{"model":"openrouter/some/model"}"#).await;
    let record = only_record(&world).await;
    assert!(record.cost_stated && record.cost_known, "{record:?}");
    assert_eq!((record.cost_micro_usd, record.cost_millionths), (1, 500_000));
}

#[tokio::test]
async fn a_call_is_priced_by_what_its_lease_names_and_that_is_asked_for_once() {
    let world = World::start().await;
    world.upstream.answer(CHAT, 200, &[], ANSWER);
    let document = r#"{"version":"7-2","tables":[{"table":{"version":7,"date":"2026-11-01","providers":
        {"openai":{"gpt-4o":{"kind":"chat","rates":{"input":1000000,"output":2000000}}}}}}]}"#;
    world.leases.till.set_prices("7-2", document);
    for _ in 0..3 {
        world.call(CHAT, BODY).await;
    }
    for record in world.leases.till.usage(3).await {
        assert_eq!((record.cost_micro_usd, &*record.price_version), (1200, "7-2"));
        assert!(record.cost_known);
    }
    assert_eq!(world.leases.till.priced(), 1);
}

#[tokio::test]
async fn prices_that_cannot_be_had_make_a_cost_unknown() {
    let world = World::start().await;
    world.upstream.answer(CHAT, 200, &[], ANSWER);
    world.leases.till.set_prices("8", "not prices");
    world.call(CHAT, BODY).await;
    let record = only_record(&world).await;
    assert!(record.usage_known && !record.cost_known);
    assert_eq!((&*record.price_version, record.cost_micro_usd), ("8", 0));
}

#[tokio::test]
async fn records_wait_for_a_broker_that_is_away() {
    let world = World::start().await;
    world.upstream.answer(CHAT, 200, &[], ANSWER);
    world.leases.till.go_away(true);
    world.call(CHAT, BODY).await;
    world.leases.till.go_away(false);
    assert!(only_record(&world).await.usage_known);
}
