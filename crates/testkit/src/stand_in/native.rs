//! What is only one provider's own: Cohere's chat, and Cloudflare's way to run a model.

use serde_json::{Value, json};

use super::named;
use crate::SAID;

pub(super) fn cohere() -> Value {
    json!({
        "id": "c14c80c3-18eb-4519-9460-6c92edd8cfb4", "finish_reason": "COMPLETE",
        "message": { "role": "assistant", "content": [{ "type": "text", "text": SAID.concat() }] },
        "usage": cohere_usage(),
    })
}

pub(super) fn cohere_stream() -> Vec<String> {
    let mut events = vec![
        json!({
            "type": "message-start", "id": "c14c80c3-18eb-4519-9460-6c92edd8cfb4",
            "delta": { "message": {
                "role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": [],
            } },
        }),
        json!({
            "type": "content-start", "index": 0,
            "delta": { "message": { "content": { "type": "text", "text": "" } } },
        }),
    ];
    events.extend(SAID.map(|said| {
        let delta = json!({ "message": { "content": { "text": said } } });
        json!({ "type": "content-delta", "index": 0, "delta": delta })
    }));
    events.push(json!({ "type": "content-end", "index": 0 }));
    events.push(json!({
        "type": "message-end", "delta": { "finish_reason": "COMPLETE", "usage": cohere_usage() },
    }));
    events.iter().map(named).collect()
}

fn cohere_usage() -> Value {
    let tokens = json!({ "input_tokens": 3, "output_tokens": 3 });
    json!({ "billed_units": tokens, "tokens": tokens })
}

pub(super) fn workers_ai() -> Value {
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6 });
    json!({
        "result": { "response": SAID.concat(), "usage": usage },
        "success": true, "errors": [], "messages": [],
    })
}

pub(super) fn workers_ai_stream() -> Vec<String> {
    let mut events: Vec<_> =
        SAID.map(|said| format!("data: {}\n\n", json!({ "response": said, "p": "" }))).into();
    events.push("data: [DONE]\n\n".to_owned());
    events
}
