use serde_json::{Value, json};

use super::{
    named,
    table::{Facts, UsageAt},
};
use crate::SAID;

pub(super) fn chat(facts: &Facts, model: &str) -> Value {
    let mut answer = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": SAID.concat(), "refusal": null },
        }],
        "usage": usage(facts),
    });
    add(&mut answer, facts.beside);
    answer
}

pub(super) fn chat_stream(facts: &Facts, model: &str, asks_for_usage: bool) -> Vec<String> {
    let chunk = |choices: Value, has_usage: bool| {
        let mut chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": choices,
        });
        let usage = if has_usage { usage(facts) } else { Value::Null };
        if has_usage || asks_for_usage {
            add(&mut chunk, &json!({ "usage": usage }).to_string());
        }
        format!("data: {chunk}\n\n")
    };
    let choice = |delta: Value, finish: Option<&str>| json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
    let always = facts.usage == UsageAt::Always;
    let mut events = Vec::new();
    if !facts.comment.is_empty() {
        events.push(facts.comment.to_owned());
    }
    events.push(chunk(choice(json!({ "role": "assistant", "content": "" }), None), always));
    events.extend(SAID.map(|said| chunk(choice(json!({ "content": said }), None), always)));
    let with_finish = facts.usage != UsageAt::WhenAsked;
    events.push(chunk(choice(json!({ "content": "" }), Some("stop")), with_finish));
    if asks_for_usage && !with_finish {
        events.push(chunk(json!([]), true));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn usage(facts: &Facts) -> Value {
    let mut usage = json!({ "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6 });
    add(&mut usage, facts.figures);
    usage
}

/// Puts the members of a JSON text beside those of a value.
fn add(value: &mut Value, members: &str) {
    let Ok(Value::Object(members)) = serde_json::from_str(members) else { return };
    if let Some(value) = value.as_object_mut() {
        value.extend(members);
    }
}

pub(super) fn embeddings(model: &str) -> Value {
    json!({
        "object": "list", "model": model,
        "data": [{ "object": "embedding", "index": 0, "embedding": [0.25, 0.5, 0.75] }],
        "usage": { "prompt_tokens": 1, "total_tokens": 1 },
    })
}

pub(super) fn models(models: &[&str]) -> Value {
    let entry = |id: &&str| json!({ "id": id, "object": "model", "created": 1, "owned_by": "x" });
    json!({ "object": "list", "data": models.iter().map(entry).collect::<Vec<_>>() })
}

pub(super) fn response(model: &str, status: &str) -> Value {
    let done = status == "completed";
    let usage = json!({
        "input_tokens": 3, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": 3, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 6,
    });
    json!({
        "id": "resp_1", "object": "response", "created_at": 1, "model": model, "status": status,
        "output": if done { json!([item(&SAID.concat(), status)]) } else { json!([]) },
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "error": null,
        "incomplete_details": null, "usage": if done { usage } else { Value::Null },
    })
}

fn item(text: &str, status: &str) -> Value {
    let content = if text.is_empty() { json!([]) } else { json!([part(text)]) };
    json!({
        "type": "message", "id": "msg_1", "role": "assistant", "status": status,
        "content": content,
    })
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

pub(super) fn response_stream(model: &str) -> Vec<String> {
    let place = json!({ "item_id": "msg_1", "output_index": 0, "content_index": 0 });
    let mut events = vec![
        json!({ "type": "response.created", "response": response(model, "in_progress") }),
        json!({ "type": "response.in_progress", "response": response(model, "in_progress") }),
        json!({
            "type": "response.output_item.added", "output_index": 0,
            "item": item("", "in_progress"),
        }),
    ];
    let mut placed = |kind: &str, mut event: Value| {
        add(&mut event, &place.to_string());
        add(&mut event, &json!({ "type": kind }).to_string());
        events.push(event);
    };
    placed("response.content_part.added", json!({ "part": part("") }));
    for said in SAID {
        placed("response.output_text.delta", json!({ "delta": said, "logprobs": [] }));
    }
    let said = SAID.concat();
    placed("response.output_text.done", json!({ "text": said, "logprobs": [] }));
    placed("response.content_part.done", json!({ "part": part(&said) }));
    events.push(json!({
        "type": "response.output_item.done", "output_index": 0, "item": item(&said, "completed"),
    }));
    events.push(json!({ "type": "response.completed", "response": response(model, "completed") }));
    let numbered = events.into_iter().enumerate().map(|(number, mut event)| {
        add(&mut event, &json!({ "sequence_number": number }).to_string());
        named(&event)
    });
    numbered.collect()
}
