use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{anthropic, event_stream::frame};
use crate::SAID;

pub(super) fn converse() -> Value {
    json!({
        "output": { "message": { "role": "assistant", "content": [{ "text": SAID.concat() }] } },
        "stopReason": "end_turn",
        "usage": { "inputTokens": 3, "outputTokens": 3, "totalTokens": 6 },
        "metrics": { "latencyMs": 1 },
    })
}

/// A block of text has no start of its own: an empty one is refused by AWS's SDK.
pub(super) fn converse_stream() -> Vec<Vec<u8>> {
    let mut frames = vec![event("messageStart", &json!({ "role": "assistant" }))];
    frames.extend(SAID.map(|said| {
        let delta = json!({ "contentBlockIndex": 0, "delta": { "text": said } });
        event("contentBlockDelta", &delta)
    }));
    frames.push(event("contentBlockStop", &json!({ "contentBlockIndex": 0 })));
    frames.push(event("messageStop", &json!({ "stopReason": "end_turn" })));
    let usage = json!({ "inputTokens": 3, "outputTokens": 3, "totalTokens": 6 });
    frames.push(event("metadata", &json!({ "usage": usage, "metrics": { "latencyMs": 1 } })));
    frames
}

/// What the model's own API would have sent, each event as bytes in a chunk.
pub(super) fn invoke_stream(model: &str) -> Vec<Vec<u8>> {
    let chunk =
        |sent: &Value| event("chunk", &json!({ "bytes": STANDARD.encode(sent.to_string()) }));
    anthropic::events(model).iter().map(chunk).collect()
}

fn event(name: &str, payload: &Value) -> Vec<u8> {
    let headers =
        [(":event-type", name), (":content-type", "application/json"), (":message-type", "event")];
    frame(&headers, payload.to_string().as_bytes())
}
