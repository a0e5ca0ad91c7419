use serde_json::{Value, json};

use super::{
    Answer,
    reply::{events, whole, words},
};
use crate::environment::KNOWN;

/// `GET /v1/models`.
pub(crate) fn models() -> Answer {
    let model = |known: crate::environment::Known| json!({ "id": known.model, "object": "model", "created": 0, "owned_by": known.provider });
    whole(&json!({ "object": "list", "data": KNOWN.map(model) }))
}

/// `POST /v1/chat/completions`.
pub(crate) fn chat(asked: &Value, said: &str) -> Answer {
    if asked.get("stream") == Some(&Value::Bool(true)) {
        streamed(asked, said)
    } else {
        let message = json!({ "role": "assistant", "content": said });
        whole(&completion(
            asked,
            "chat.completion",
            &json!({
                "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
                "usage": usage(said),
            }),
        ))
    }
}

/// `POST /v1/embeddings`.
pub(crate) fn embeddings(asked: &Value) -> Answer {
    let inputs = asked.get("input").and_then(Value::as_array).map_or(1, Vec::len);
    let vector = |index| json!({ "object": "embedding", "index": index, "embedding": VECTOR });
    whole(&json!({
        "object": "list",
        "model": asked.get("model"),
        "data": (0..inputs).map(vector).collect::<Vec<_>>(),
        "usage": { "prompt_tokens": inputs, "total_tokens": inputs },
    }))
}

const VECTOR: [f64; 4] = [0.5, -0.5, 0.5, -0.5];

fn streamed(asked: &Value, said: &str) -> Answer {
    let chunk = |delta: &Value, finish: Option<&str>| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        event(&completion(asked, "chat.completion.chunk", &json!({ "choices": [choice] })))
    };
    let mut all = vec![chunk(&json!({ "role": "assistant", "content": "" }), None)];
    all.extend(words(said).map(|word| chunk(&json!({ "content": word }), None)));
    all.push(chunk(&json!({}), Some("stop")));
    if asked.pointer("/stream_options/include_usage") == Some(&Value::Bool(true)) {
        let last = json!({ "choices": [], "usage": usage(said) });
        all.push(event(&completion(asked, "chat.completion.chunk", &last)));
    }
    all.push("data: [DONE]\n\n".to_owned());
    events(all)
}

fn completion(asked: &Value, object: &str, rest: &Value) -> Value {
    let mut completion = json!({
        "id": "chatcmpl-stand-in", "object": object, "created": 0, "model": asked.get("model"),
    });
    if let (Some(whole), Some(rest)) = (completion.as_object_mut(), rest.as_object()) {
        whole.extend(rest.clone());
    }
    completion
}

fn usage(said: &str) -> Value {
    let count = words(said).count();
    json!({ "prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1 })
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}
