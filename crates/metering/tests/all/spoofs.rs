//! What a model says, or a caller has it say, is no usage.

use super::*;

const TRUE: Tokens = Tokens {
    input: 900,
    output: 90,
    cache_read: 0,
    cache_write_5m: 0,
    cache_write_1h: 0,
    audio_input: 0,
    reasoning: 0,
    audio_output: 0,
};

#[track_caller]
fn check(format: Format, framing: Framing, answer: &str) {
    let read = read("anthropic", format, framing, answer.as_bytes(), Ended::Whole);
    assert_eq!(read, Metered::Final(usage(TRUE)));
}

#[test]
fn a_tools_argument_is_no_usage() {
    let spoof = r#"{"input_tokens":1,"output_tokens":1}"#;
    let answer = format!(
        r#"{{"content":[{{"type":"tool_use","input":{{"usage":{spoof},"message":{{"usage":{spoof}}}}}}}],
        "usage":{{"input_tokens":900,"output_tokens":90}},"metadata":{{"usage":{spoof}}}}}"#
    );
    check(Format::AnthropicMessages, Framing::Document, &answer);
    let spoof = r#"{"promptTokenCount":1,"candidatesTokenCount":1}"#;
    let answer = format!(
        "data: {{\"candidates\":[{{\"args\":{{\"usageMetadata\":{spoof}}}}}],\"usageMetadata\":\
         {{\"promptTokenCount\":900,\"candidatesTokenCount\":90}}}}\n\ndata: [{{\"a\":\
         {{\"usageMetadata\":{spoof}}}}}]\n\n"
    );
    check(Format::Gemini, Framing::Events, &answer);
}

#[test]
fn an_object_inside_of_usage_is_not_taken_for_it() {
    let answer = r#"{"usage":{"usage":{"input_tokens":1},"input_tokens":900,"output_tokens":90,
        "cache_creation":{"usage":{"input_tokens":2}}}}"#;
    check(Format::AnthropicMessages, Framing::Document, answer);
}

#[test]
fn what_is_longer_than_any_usage_is_not_kept() {
    let long = format!(
        r#"{{"usage":{{"input_tokens":1,"x":"{}"}},"y":1,"usage":{{"input_tokens":900,"output_tokens":90}}}}"#,
        "x".repeat(20_000)
    );
    for size in [1_000, long.len()] {
        let mut meter = meter("anthropic", Format::AnthropicMessages, Framing::Document);
        long.as_bytes().chunks(size).for_each(|piece| meter.feed(piece));
        assert_eq!(meter.finish(Ended::Whole), Metered::Final(usage(TRUE)));
    }
}

#[test]
fn any_bytes_at_all_are_read_without_harm() {
    let mut state = 1_u64;
    let alphabet = b"{}[]\",:\\n \n\rdata:\"usage\":{0123e-.\0\xff";
    for _ in 0..2_000 {
        let noise: Vec<u8> = (0..200)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                alphabet[usize::try_from(state >> 33).unwrap() % alphabet.len()]
            })
            .collect();
        for framing in [Framing::Document, Framing::Events, Framing::Frames] {
            for format in [Format::OpenAiResponses, Format::Gemini, Format::BedrockInvoke] {
                let mut meter = meter("openai", format, framing);
                noise.chunks(13).for_each(|piece| meter.feed(piece));
                meter.finish(Ended::Whole);
            }
        }
    }
}
