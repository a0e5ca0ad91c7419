use serde_json::{Value, json};

use super::{
    Answer,
    reply::{events, whole, words},
};

/// `POST /v1/messages`.
pub(crate) fn messages(asked: &Value, said: &str) -> Answer {
    let count = words(said).count();
    if asked.get("stream") != Some(&Value::Bool(true)) {
        let content = json!([{ "type": "text", "text": said }]);
        return whole(&message(asked, &content, Some("end_turn"), count));
    }
    let delta = |text| {
        let delta = json!({ "type": "text_delta", "text": text });
        event(&json!({ "type": "content_block_delta", "index": 0, "delta": delta }))
    };
    let begin = message(asked, &json!([]), None, 0);
    let block = json!({ "type": "text", "text": "" });
    let mut all = vec![
        event(&json!({ "type": "message_start", "message": begin })),
        event(&json!({ "type": "content_block_start", "index": 0, "content_block": block })),
    ];
    all.extend(words(said).map(delta));
    all.extend([
        event(&json!({ "type": "content_block_stop", "index": 0 })),
        event(&json!({
            "type": "message_delta",
            "delta": { "stop_reason": "end_turn", "stop_sequence": null },
            "usage": { "output_tokens": count },
        })),
        event(&json!({ "type": "message_stop" })),
    ]);
    events(all)
}

fn message(asked: &Value, content: &Value, stop: Option<&str>, count: usize) -> Value {
    json!({
        "id": "msg_stand_in", "type": "message", "role": "assistant",
        "model": asked.get("model"), "content": content,
        "stop_reason": stop, "stop_sequence": null,
        "usage": { "input_tokens": 1, "output_tokens": count },
    })
}

fn event(data: &Value) -> String {
    let name = data.get("type").and_then(Value::as_str).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}
