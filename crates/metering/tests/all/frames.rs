//! Answers in AWS's event stream.

use super::*;

/// A frame as the specification has it, with the headers that Bedrock sends.
pub(crate) fn frame(event: &str, payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in
        [(":event-type", event), (":content-type", "application/json"), (":message-type", "event")]
    {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let total = u32::try_from(16 + headers.len() + payload.len()).unwrap();
    let mut frame = total.to_be_bytes().to_vec();
    frame.extend_from_slice(&u32::try_from(headers.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}

#[test]
fn converse_stream() {
    let answer = [
        frame("messageStart", r#"{"role":"assistant"}"#),
        frame("contentBlockDelta", r#"{"delta":{"text":"hi"},"usage":{"inputTokens":1}}"#),
        frame("messageStop", r#"{"stopReason":"end_turn"}"#),
        frame(
            "metadata",
            r#"{"usage":{"inputTokens":30,"outputTokens":9,"totalTokens":39},"metrics":{}}"#,
        ),
    ]
    .concat();
    let read = read("bedrock", Format::BedrockConverse, Framing::Frames, &answer, Ended::Whole);
    assert_eq!(read, Metered::Final(usage(tokens(30, 9))));
}

#[test]
fn invoke_stream_holds_the_models_own_events() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let chunk = |event: &str| {
        frame("chunk", &format!(r#"{{"bytes":"{}","p":"abc"}}"#, STANDARD.encode(event)))
    };
    let answer = [
        chunk(
            r#"{"type":"message_start","message":{"usage":{"input_tokens":12,"output_tokens":1}}}"#,
        ),
        chunk(r#"{"type":"content_block_delta","delta":{"text":"hi"}}"#),
        chunk(r#"{"type":"message_delta","usage":{"output_tokens":8}}"#),
        chunk(
            r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":12,
            "outputTokenCount":8,"invocationLatency":100}}"#,
        ),
    ];
    let expected = usage(tokens(12, 8));
    let all = answer.concat();
    let read_all = read("bedrock", Format::BedrockInvoke, Framing::Frames, &all, Ended::Whole);
    assert_eq!(read_all, Metered::Final(expected));
    let start = answer[..2].concat();
    let cut = read("bedrock", Format::BedrockInvoke, Framing::Frames, &start, Ended::Cut);
    assert_eq!(cut, Metered::Partial(usage(tokens(12, 1))));
    let metrics = &answer[3];
    let other = read("bedrock", Format::BedrockInvoke, Framing::Frames, metrics, Ended::Whole);
    assert_eq!(other, Metered::Final(expected));
}

#[test]
fn what_is_no_frame_is_given_up() {
    let mut broken = frame("metadata", r#"{"usage":{"inputTokens":30}}"#);
    broken[2] ^= 1;
    let read = read("bedrock", Format::BedrockConverse, Framing::Frames, &broken, Ended::Whole);
    assert_eq!(read, Metered::Missing);
}
