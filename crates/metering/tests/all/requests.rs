//! Requests: their bounds, and what is added to them.

use metering::{CacheUse, InvalidRequest, OutputLimit, RequestOutline, UsageOptIn, apply};
use serde_json::Value;

use super::*;

/// The body with usage asked for; none when it needs no change.
fn opted_in(slug: &str, body: &str) -> Option<Value> {
    let outline = RequestOutline::read(body.as_bytes()).unwrap();
    let opt_in = outline.usage_opt_in(body.as_bytes(), &provider(slug), Format::OpenAiChat);
    let UsageOptIn::Added(edit) = opt_in else { return None };
    Some(serde_json::from_slice(&apply(body.as_bytes(), &[edit])).unwrap())
}

#[test]
fn usage_is_asked_for_where_the_caller_did_not() {
    for body in [
        r#"{"model":"m","stream":true}"#,
        r#" { "stream" : true , "stream_options" : null } "#,
        r#"{"stream":true,"stream_options":{}}"#,
        r#"{"stream":true,"stream_options":{ }}"#,
        r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":null,"x":1}}"#,
        r#"{"stream_options":{"x":[1,{"include_usage":false}]},"stream":true}"#,
        r#"{"stre\u0061m":true,"stream_options":{"include\u005fusage":false}}"#,
    ] {
        let mut sent = opted_in("openai", body).unwrap();
        assert_eq!(sent["stream_options"]["include_usage"], true, "{body}");
        // All else is as it was.
        let mut came: Value = serde_json::from_str(body).unwrap();
        for body in [&mut sent, &mut came] {
            body.as_object_mut().unwrap().remove("stream_options");
        }
        assert_eq!(sent, came);
    }
}

#[test]
fn usage_is_not_asked_for_twice_or_in_vain() {
    let asked = r#"{"stream":true,"stream_options":{"include_usage":true}}"#;
    let outline = RequestOutline::read(asked.as_bytes()).unwrap();
    let opt_in = outline.usage_opt_in(asked.as_bytes(), &provider("openai"), Format::OpenAiChat);
    assert_eq!(opt_in, UsageOptIn::Asked);
    let streamed = r#"{"stream":true}"#;
    for (slug, body) in [
        ("openai", r#"{"model":"m"}"#),
        ("openai", r#"{"stream":false}"#),
        ("openai", r#"{"messages":[{"stream":true}]}"#),
        ("mistral", streamed),
        ("perplexity", streamed),
    ] {
        assert_eq!(opted_in(slug, body), None, "{slug} {body}");
    }
    let outline = RequestOutline::read(streamed.as_bytes()).unwrap();
    let other = Format::OpenAiResponses;
    let opt_in = outline.usage_opt_in(streamed.as_bytes(), &provider("openai"), other);
    assert_eq!(opt_in, UsageOptIn::Unneeded);
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    let read = |body: &str| RequestOutline::read(body.as_bytes()).map(|_| ());
    assert_eq!(read(r#"{"stream":true,"stream":false}"#), Err(InvalidRequest::Duplicate("stream")));
    let twice = r#"{"max_tokens":1,"max\u005ftokens":9}"#;
    assert_eq!(read(twice), Err(InvalidRequest::Duplicate("max_tokens")));
    let nested = r#"{"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":2}}"#;
    assert_eq!(read(nested), Err(InvalidRequest::Duplicate("maxOutputTokens")));
    assert_eq!(read(r#"{"Max_Tokens":1}"#), Err(InvalidRequest::Ambiguous("max_tokens")));
    for wrong in ["", "[]", "{", "{]", "1", r#"{"a":1}}"#] {
        assert_eq!(read(wrong), Err(InvalidRequest::NotAnObject), "{wrong}");
    }
}

#[track_caller]
fn limit(slug: &str, format: Format, body: &str) -> (u64, Option<Value>) {
    let outline = RequestOutline::read(body.as_bytes()).unwrap();
    let found = outline.output_limit(body.as_bytes(), &provider(slug), format, 500).unwrap();
    let OutputLimit { maximum, edit } = found;
    let sent = edit.map(|edit| serde_json::from_slice(&apply(body.as_bytes(), &[edit])).unwrap());
    (maximum, sent)
}

#[test]
fn a_callers_own_limit_is_left_alone() {
    for (slug, format, body) in [
        ("openai", Format::OpenAiChat, r#"{"max_tokens":7}"#),
        ("openai", Format::OpenAiChat, r#"{"max_completion_tokens":7}"#),
        ("openai", Format::OpenAiChat, r#"{"max_completion_tokens":7,"max_tokens":5}"#),
        ("openai", Format::OpenAiResponses, r#"{"max_output_tokens":7}"#),
        ("anthropic", Format::AnthropicMessages, r#"{"max_tokens":7,"n":{"max_tokens":9}}"#),
        ("google", Format::Gemini, r#"{"generationConfig":{"maxOutputTokens":7}}"#),
        ("google", Format::Gemini, r#"{"generation_config":{"max_output_tokens":7}}"#),
        ("bedrock", Format::BedrockConverse, r#"{"inferenceConfig":{"maxTokens":7}}"#),
        ("cohere", Format::CohereChat, r#"{"max_tokens":7}"#),
    ] {
        assert_eq!(limit(slug, format, body), (7, None), "{body}");
    }
    assert_eq!(limit("openai", Format::OpenAiEmbeddings, "{}"), (0, None));
}

#[test]
fn a_limit_is_given_where_the_caller_gave_none() {
    for (slug, format, body, expected) in [
        ("openai", Format::OpenAiChat, r#"{"a":1}"#, r#"{"max_completion_tokens":500,"a":1}"#),
        ("openai", Format::OpenAiChat, r#"{"max_tokens":null}"#, r#"{"max_tokens":500}"#),
        ("deepseek", Format::OpenAiChat, r#"{"a":1}"#, r#"{"max_tokens":500,"a":1}"#),
        ("openai", Format::OpenAiResponses, "{}", r#"{"max_output_tokens":500}"#),
        ("anthropic", Format::AnthropicMessages, "{ }", r#"{"max_tokens":500}"#),
        ("google", Format::Gemini, "{}", r#"{"generationConfig":{"maxOutputTokens":500}}"#),
        (
            "google",
            Format::Gemini,
            r#"{"generation_config":{"top_k":1}}"#,
            r#"{"generation_config":{"max_output_tokens":500,"top_k":1}}"#,
        ),
        (
            "bedrock",
            Format::BedrockConverse,
            r#"{"inferenceConfig":null}"#,
            r#"{"inferenceConfig":{"maxTokens":500}}"#,
        ),
    ] {
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(limit(slug, format, body), (500, Some(expected)), "{body}");
    }
}

#[test]
fn a_limit_that_is_not_a_number_is_refused() {
    for body in [r#"{"max_tokens":"7"}"#, r#"{"max_tokens":-1}"#, r#"{"max_tokens":1.5}"#] {
        let outline = RequestOutline::read(body.as_bytes()).unwrap();
        let found =
            outline.output_limit(body.as_bytes(), &provider("cohere"), Format::CohereChat, 500);
        assert_eq!(found, Err(InvalidRequest::NotANumber("max_tokens")), "{body}");
    }
}

#[test]
fn both_changes_go_together() {
    let body = br#"{"model":"m","stream":true}"#;
    let outline = RequestOutline::read(body).unwrap();
    let openai = provider("openai");
    let UsageOptIn::Added(usage) = outline.usage_opt_in(body, &openai, Format::OpenAiChat) else {
        panic!("nothing was added");
    };
    let limit = outline.output_limit(body, &openai, Format::OpenAiChat, 500).unwrap();
    let sent: Value = serde_json::from_slice(&apply(body, &[usage, limit.edit.unwrap()])).unwrap();
    assert_eq!(sent["max_completion_tokens"], 500);
    assert_eq!(sent["stream_options"]["include_usage"], true);
    assert_eq!(sent["model"], "m");
}

#[track_caller]
fn bound(format: Format, body: &str) -> (u64, bool, bool, CacheUse) {
    let outline = RequestOutline::read(body.as_bytes()).unwrap();
    let bound = outline.bound(body.as_bytes(), format, 1).unwrap();
    (bound.answers, bound.has_more, outline.has_server_tools(), bound.cache)
}

#[test]
fn what_bounds_a_call_is_seen() {
    use CacheUse::{Long, None, Short};
    let chat = Format::OpenAiChat;
    let messages = Format::AnthropicMessages;
    assert_eq!(bound(messages, r#"{"messages":[{"content":"hi"}]}"#), (1, false, false, None));
    assert_eq!(bound(chat, r#"{"messages":[],"n":3}"#), (3, false, false, Short));
    assert_eq!(bound(chat, r#"{"prompt":["a","b"],"n":2,"best_of":5}"#), (10, false, false, Short));
    let picture = r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#;
    assert_eq!(bound(chat, picture), (1, true, false, Short));
    let hidden = r#"{"messages":[{"content":[{"im\u0061ge_url":{"url":"x"}}]}]}"#;
    assert_eq!(bound(chat, hidden), (1, true, false, Short));
    let kept = r#"{"input":"hi","previous_response_id":"r","prompt_cache_retention":"24h"}"#;
    assert_eq!(bound(Format::OpenAiResponses, kept), (1, true, false, Long));
    let kept = r#"{"input":[{"type":"item_reference","id":"i"}]}"#;
    assert_eq!(bound(Format::OpenAiResponses, kept), (1, true, false, Short));
    let prompt = r#"{"prompt":{"id":"p"}}"#;
    assert_eq!(bound(Format::OpenAiResponses, prompt), (1, true, false, Short));
    let cached = r#"{"system":[{"text":"x","cache_control":{"type":"ephemeral"}}]}"#;
    assert_eq!(bound(messages, cached), (1, false, false, Short));
    let cached = r#"{"system":[{"cache_control":{"type":"ephemeral","ttl":"1h"}}]}"#;
    assert_eq!(bound(messages, cached), (1, false, false, Long));
    let own = r#"{"tools":[{"type":"function","function":{"parameters":{"file":{"type":"x"}}}}]}"#;
    assert_eq!(bound(chat, own), (1, false, false, Short));
    let candidates = r#"{"generationConfig":{"candidateCount":4}}"#;
    assert_eq!(bound(Format::Gemini, candidates), (4, false, false, Short));
}

#[test]
fn tools_that_the_body_does_not_describe_are_counted() {
    let body = br#"{"tools":[{"type":"function"},{"type":"custom"},{"name":"x"},
        {"type":"computer_20250124"},{"type":"bash_20250124","parameters":{"type":"object"}}]}"#;
    let outline = RequestOutline::read(body).unwrap();
    let bound = outline.bound(body, Format::AnthropicMessages, 1).unwrap();
    assert_eq!((bound.named_tools, outline.has_server_tools()), (2, false));
}

#[test]
fn tools_that_the_provider_runs_are_seen() {
    for body in [
        r#"{"tools":[{"name":"x"},{"type":"web_search_20250305","name":"web_search"}]}"#,
        r#"{"tools":[{"type":"mcp","server_url":"x"}]}"#,
        r#"{"tools":[{"type":"\u0077eb_search"}]}"#,
        r#"{"tools":[{"googleSearch":{}}]}"#,
        r#"{"web_search_options":{}}"#,
        r#"{"search_parameters":{"mode":"on"}}"#,
    ] {
        assert!(bound(Format::OpenAiChat, body).2, "{body}");
    }
}
