//! Answers that are one JSON document.

use domain::Cost;
use metering::CacheUse;

use super::*;

#[track_caller]
fn check(slug: &str, format: Format, answer: &str, expected: Usage) {
    let read = read(slug, format, Framing::Document, answer.as_bytes(), Ended::Whole);
    assert_eq!(read, Metered::Final(expected));
}

#[test]
fn openai_chat() {
    let answer = r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":
        "assistant","content":"\"usage\":{\"prompt_tokens\":9}"}}],"usage":{"prompt_tokens":100,
        "completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":30,
        "audio_tokens":4},"completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":5}},
        "service_tier":"default"}"#;
    let expected = Tokens {
        input: 66,
        cache_read: 30,
        audio_input: 4,
        output: 25,
        reasoning: 20,
        audio_output: 5,
        ..Tokens::default()
    };
    check("openai", Format::OpenAiChat, answer, usage(expected));
    assert_eq!((expected.all_input(), expected.all_output()), (100, 50));
}

#[test]
fn openai_responses_and_embeddings() {
    let answer = r#"{"object":"response","output":[],"usage":{"input_tokens":80,
        "input_tokens_details":{"cached_tokens":16,"cache_write_tokens":8},"output_tokens":40,
        "output_tokens_details":{"reasoning_tokens":32},"total_tokens":120}}"#;
    let expected = Tokens {
        input: 56,
        cache_read: 16,
        cache_write_5m: 8,
        output: 8,
        reasoning: 32,
        ..Tokens::default()
    };
    check("openai", Format::OpenAiResponses, answer, usage(expected));
    let answer =
        r#"{"data":[{"embedding":[0.1,-2e-7]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    check("openai", Format::OpenAiEmbeddings, answer, usage(tokens(8, 0)));
}

#[test]
fn anthropic_messages() {
    let answer = r#"{"type":"message","content":[{"type":"text","text":"hi"}],"usage":{
        "input_tokens":10,"cache_creation_input_tokens":30,"cache_read_input_tokens":200,
        "cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":10},
        "output_tokens":7,"output_tokens_details":{"thinking_tokens":3},
        "server_tool_use":{"web_search_requests":2},"service_tier":"standard"}}"#;
    let expected = Tokens {
        input: 10,
        cache_read: 200,
        cache_write_5m: 20,
        cache_write_1h: 10,
        output: 4,
        reasoning: 3,
        ..Tokens::default()
    };
    let expected = Usage { searches: 2, ..usage(expected) };
    check("anthropic", Format::AnthropicMessages, answer, expected);
    let older = r#"{"usage":{"input_tokens":1,"cache_creation_input_tokens":5,"output_tokens":2}}"#;
    let expected = Tokens { cache_write_5m: 5, ..tokens(1, 2) };
    check("anthropic", Format::AnthropicMessages, older, usage(expected));
}

#[test]
fn gemini() {
    let answer = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":
        {"usageMetadata":{"promptTokenCount":1}}}}]}}],"usageMetadata":{"promptTokenCount":100,
        "candidatesTokenCount":20,"cachedContentTokenCount":40,"thoughtsTokenCount":9,
        "toolUsePromptTokenCount":3,"totalTokenCount":132,"promptTokensDetails":[
        {"modality":"TEXT","tokenCount":90},{"modality":"AUDIO","tokenCount":10}]}}"#;
    let expected = Tokens {
        input: 53,
        cache_read: 40,
        audio_input: 10,
        output: 20,
        reasoning: 9,
        ..Tokens::default()
    };
    check("google", Format::Gemini, answer, usage(expected));
}

#[test]
fn bedrock_converse() {
    let answer = r#"{"output":{"message":{"content":[{"toolUse":{"input":{"usage":{"inputTokens":1}}
        }}]}},"stopReason":"end_turn","usage":{"inputTokens":30,"outputTokens":628,"totalTokens":658,
        "cacheReadInputTokens":5,"cacheWriteInputTokens":7,
        "cacheDetails":[{"ttl":"1h","inputTokens":4}]},"metrics":{"latencyMs":1275}}"#;
    let expected =
        Tokens { cache_read: 5, cache_write_5m: 3, cache_write_1h: 4, ..tokens(30, 628) };
    check("bedrock", Format::BedrockConverse, answer, usage(expected));
}

#[test]
fn cohere() {
    let answer = r#"{"message":{},"usage":{"billed_units":{"input_tokens":9.0,"output_tokens":4.0},
        "tokens":{"input_tokens":75,"output_tokens":4},"cached_tokens":null}}"#;
    check("cohere", Format::CohereChat, answer, usage(tokens(9, 4)));
    let embedded = r#"{"embeddings":{},"meta":{"billed_units":{"input_tokens":12}}}"#;
    check("cohere", Format::CohereUnits, embedded, usage(tokens(12, 0)));
    let ranked = r#"{"results":[],"meta":{"api_version":{},"billed_units":{"search_units":1}}}"#;
    let expected = Usage { searches: 1, ..Usage::default() };
    check("cohere", Format::CohereUnits, ranked, expected);
}

#[test]
fn a_cache_write_of_unstated_length_is_as_long_as_was_asked_for() {
    let written = |slug: &str, format, answer: &str| {
        let reading = Reading::of(&provider(slug), format).of_cache(CacheUse::Long);
        let mut meter = Meter::new(reading, Framing::Document);
        meter.feed(answer.as_bytes());
        let Metered::Final(Usage { tokens, .. }) = meter.finish(Ended::Whole) else { panic!() };
        (tokens.cache_write_5m, tokens.cache_write_1h)
    };
    let openai = r#"{"usage":{"input_tokens":9,"input_tokens_details":{"cache_write_tokens":8}}}"#;
    assert_eq!(written("openai", Format::OpenAiResponses, openai), (0, 8));
    let stated = r#"{"usage":{"input_tokens":9,"cache_creation_input_tokens":8,"cache_creation":
        {"ephemeral_5m_input_tokens":5,"ephemeral_1h_input_tokens":3}}}"#;
    assert_eq!(written("anthropic", Format::AnthropicMessages, stated), (5, 3));
}

#[test]
fn deepseek_and_mistral_have_their_own_places() {
    let answer = r#"{"usage":{"prompt_tokens":50,"completion_tokens":5,"prompt_cache_hit_tokens":32,
        "prompt_cache_miss_tokens":18}}"#;
    let expected = Tokens { cache_read: 32, ..tokens(18, 5) };
    check("deepseek", Format::OpenAiChat, answer, usage(expected));
    let answer = r#"{"usage":{"prompt_tokens":50,"completion_tokens":5,"num_cached_tokens":10}}"#;
    let expected = Tokens { cache_read: 10, ..tokens(40, 5) };
    check("mistral", Format::OpenAiChat, answer, usage(expected));
}

#[test]
fn what_a_provider_states_as_the_cost_is_taken() {
    let stated =
        |picos: u128, of: Tokens| Usage { stated: Some(Cost::from_picos(picos)), ..usage(of) };
    let answer = r#"{"usage":{"prompt_tokens":194,"completion_tokens":2,"cost":0.00014,
        "is_byok":false,"cost_details":{"upstream_inference_cost":0.00014}}}"#;
    check("openrouter", Format::OpenAiChat, answer, stated(140_000_000, tokens(194, 2)));
    // Under the customer's own key, what the other provider charges comes on top of the fee.
    let answer = r#"{"usage":{"prompt_tokens":194,"completion_tokens":2,"cost":7e-6,
        "is_byok":true,"cost_details":{"upstream_inference_cost":0.00014}}}"#;
    check("openrouter", Format::OpenAiChat, answer, stated(147_000_000, tokens(194, 2)));
    let answer = r#"{"usage":{"prompt_tokens":8,"completion_tokens":90,"reasoning_tokens":30,
        "num_search_queries":2,"cost":{"input_tokens_cost":0.1,"total_cost":0.0061}}}"#;
    let expected = Tokens { reasoning: 30, ..tokens(8, 90) };
    let expected = Usage { searches: 2, ..stated(6_100_000_000, expected) };
    check("perplexity", Format::OpenAiChat, answer, expected);
    let answer = r#"{"usage":{"prompt_tokens":5,"completion_tokens":9,"completion_tokens_details":
        {"reasoning_tokens":300},"cost_in_usd_ticks":37756000}}"#;
    let expected = Tokens { reasoning: 300, ..tokens(5, 9) };
    check("xai", Format::OpenAiChat, answer, stated(3_775_600_000, expected));
    // Nobody else's word is taken for it.
    let answer = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1,"cost":0}}"#;
    check("custom", Format::OpenAiChat, answer, usage(tokens(1, 1)));
}

#[test]
fn what_says_nothing_is_missing_and_not_nothing() {
    for answer in [
        "",
        "{}",
        r#"{"usage":null}"#,
        r#"{"usage":{}}"#,
        r#"{"usage":{"prompt_tokens":null}}"#,
        r#"{"usage":{"prompt_tokens":-1,"completion_tokens":2}}"#,
        r#"{"usage":{"prompt_tokens":"5"}}"#,
        r#"{"usage":{"prompt_tokens":5"#,
        "<html>usage</html>",
    ] {
        let read =
            read("openai", Format::OpenAiChat, Framing::Document, answer.as_bytes(), Ended::Whole);
        assert_eq!(read, Metered::Missing, "{answer}");
    }
}
