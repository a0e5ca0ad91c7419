use serde_json::{Value, json};

use super::named;
use crate::SAID;

pub(super) fn message(model: &str) -> Value {
    json!({
        "id": "msg_01StandIn", "type": "message", "role": "assistant", "model": model,
        "content": [{ "type": "text", "text": SAID.concat() }],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": { "input_tokens": 3, "output_tokens": 3 },
    })
}

/// The events of a stream, in the order in which the SDKs want them. A `ping` may stand anywhere.
pub(super) fn events(model: &str) -> Vec<Value> {
    let mut start = message(model);
    for (member, value) in [("content", json!([])), ("stop_reason", Value::Null)] {
        start.as_object_mut().and_then(|start| start.insert(member.to_owned(), value));
    }
    let mut events = vec![
        json!({ "type": "message_start", "message": start }),
        json!({
            "type": "content_block_start", "index": 0,
            "content_block": { "type": "text", "text": "" },
        }),
        json!({ "type": "ping" }),
    ];
    events.extend(SAID.map(|said| {
        let delta = json!({ "type": "text_delta", "text": said });
        json!({ "type": "content_block_delta", "index": 0, "delta": delta })
    }));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    events.push(json!({
        "type": "message_delta", "usage": { "output_tokens": 3 },
        "delta": { "stop_reason": "end_turn", "stop_sequence": null },
    }));
    events.push(json!({ "type": "message_stop" }));
    events
}

pub(super) fn stream(model: &str) -> Vec<String> {
    events(model).iter().map(named).collect()
}
