use serde_json::{Value, json};

use crate::SAID;

pub(super) fn answer(model: &str, text: &str, last: bool) -> Value {
    let mut candidate = json!({
        "content": { "role": "model", "parts": [{ "text": text }] }, "index": 0,
    });
    if last {
        candidate
            .as_object_mut()
            .and_then(|candidate| candidate.insert("finishReason".to_owned(), "STOP".into()));
    }
    json!({
        "candidates": [candidate], "modelVersion": model, "responseId": "stand-in",
        "usageMetadata": {
            "promptTokenCount": 3, "candidatesTokenCount": 3, "totalTokenCount": 6,
        },
    })
}

/// Events without names and without a mark at the end.
pub(super) fn stream(model: &str) -> Vec<String> {
    answers(model).map(|answer| format!("data: {answer}\r\n\r\n")).collect()
}

/// Without `alt=sse` a stream is one array, in pieces.
pub(super) fn array(model: &str) -> Vec<String> {
    let answers = answers(model).enumerate();
    let mut pieces: Vec<_> =
        answers.map(|(at, one)| format!("{}{one}", if at == 0 { "[" } else { ",\r\n" })).collect();
    pieces.push("]".to_owned());
    pieces
}

fn answers(model: &str) -> impl Iterator<Item = Value> {
    (1..).zip(SAID).map(move |(at, said)| answer(model, said, at == SAID.len()))
}
