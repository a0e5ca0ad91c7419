use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde_json::{Value, json};
use testkit::Server;
use tokio::sync::watch;

/// A stand-in for `OpenAI` and Anthropic on loopback: answers in their formats, word by word when
/// asked to stream, and remembers which keys it was shown.
#[derive(Debug)]
pub struct Upstream {
    server: Server,
    state: Arc<State>,
}

/// What is known of all calls, and how the next ones are answered.
#[derive(Debug)]
struct State {
    seen: Mutex<Vec<Seen>>,
    refused: Mutex<Vec<String>>,
    /// Tokens of input and of output that a chat says to have taken.
    took: Mutex<(u64, u64)>,
    streams: watch::Sender<Flow>,
}

/// How streams go on behind their first event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flow {
    On,
    Held,
    Cut,
}

/// A call that reached the provider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Its path.
    pub path: String,
    /// The key it came with.
    pub key: String,
}

impl Upstream {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let state = Arc::new(State {
            seen: Mutex::default(),
            refused: Mutex::default(),
            took: Mutex::new((3, 3)),
            streams: watch::channel(Flow::On).0,
        });
        let asked = Arc::clone(&state);
        let answer = move |request| answer(request, Arc::clone(&asked));
        Self { server: Server::start(None, answer).await.unwrap(), state }
    }

    /// Where it is: `http://127.0.0.1:port`.
    pub fn origin(&self) -> String {
        self.server.url()
    }

    /// From now on, calls with this key are answered with 401.
    pub fn refuse(&self, key: &str) {
        self.state.refused.lock().unwrap().push(key.to_owned());
    }

    /// The calls so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// From now on, a chat takes so many tokens of input and of output.
    pub fn take(&self, input: u64, output: u64) {
        *self.state.took.lock().unwrap() = (input, output);
    }

    /// Streams stop behind their first event.
    pub fn hold_streams(&self) {
        self.state.streams.send_replace(Flow::Held);
    }

    /// Streams go on, those that were held too.
    pub fn release_streams(&self) {
        self.state.streams.send_replace(Flow::On);
    }

    /// Streams break off behind their first event, those that were held too.
    pub fn cut_streams(&self) {
        self.state.streams.send_replace(Flow::Cut);
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Answer, hyper::Error> {
    let path = request.uri().path().to_owned();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let bearer = header(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    let key = header("x-api-key").or(bearer).unwrap_or_default().to_owned();
    let is_refused = state.refused.lock().unwrap().contains(&key);
    state.seen.lock().unwrap().push(Seen { path: path.clone(), key });
    if is_refused {
        let mut refusal = plain(&json!({ "error": { "message": "Incorrect API key provided" } }));
        *refusal.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(refusal);
    }

    let asked = request.into_body().collect().await?.to_bytes();
    let asked: Value = serde_json::from_slice(&asked).unwrap_or_default();
    let streamed = asked["stream"] == true;
    let model = asked["model"].as_str().unwrap_or_default();
    let took = *state.took.lock().unwrap();
    let events = |events| events_of(events, state.streams.subscribe());
    Ok(match (&*path, streamed) {
        ("/v1/chat/completions", false) => plain(&chat(model, took)),
        ("/v1/chat/completions", true) => events(chat_stream(model, took)),
        ("/v1/embeddings", _) => plain(&embedding(model)),
        ("/v1/responses", false) => plain(&response(model, "completed")),
        ("/v1/responses", true) => events(response_stream(model)),
        ("/v1/messages", false) => plain(&message(model)),
        ("/v1/messages", true) => events(message_stream(model)),
        _ => {
            let mut refusal = plain(&json!({ "error": { "message": "no such path" } }));
            *refusal.status_mut() = StatusCode::NOT_FOUND;
            refusal
        }
    })
}

fn plain(body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).map_err(io::Error::other).boxed_unsync();
    Response::builder().header(CONTENT_TYPE, "application/json").body(body).unwrap()
}

/// Each event is a frame of its own, so that a proxy that waits for more is found out.
fn events_of(events: Vec<String>, flow: watch::Receiver<Flow>) -> Answer {
    let frames = stream::iter(events.into_iter().enumerate()).then(move |(number, event)| {
        let mut flow = flow.clone();
        async move {
            // Who is gone holds nobody.
            let flow = flow.wait_for(|flow| number == 0 || *flow != Flow::Held).await;
            match flow.map(|flow| *flow) {
                Ok(Flow::Cut) if number > 0 => Err(io::Error::other("cut")),
                Ok(_) | Err(_) => Ok(Frame::data(Bytes::from(event))),
            }
        }
    });
    let body = BodyExt::boxed_unsync(StreamBody::new(frames));
    Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body).unwrap()
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn named(value: &Value) -> String {
    format!("event: {}\n{}", value["type"].as_str().unwrap_or_default(), data(value))
}

fn usage((input, output): (u64, u64)) -> Value {
    json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
}

fn chat(model: &str, took: (u64, u64)) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": SAID.concat() },
        }],
        "usage": usage(took),
    })
}

fn chat_stream(model: &str, took: (u64, u64)) -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        data(&json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": choices, "usage": usage,
        }))
    };
    let word = |word| json!([{ "index": 0, "delta": { "content": word }, "finish_reason": null }]);
    let mut events: Vec<String> = SAID.map(|said| chunk(word(said), Value::Null)).into();
    events.push(chunk(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]), Value::Null));
    events.push(chunk(json!([]), usage(took)));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn embedding(model: &str) -> Value {
    json!({
        "object": "list", "model": model,
        "data": [{ "object": "embedding", "index": 0, "embedding": [0.25, 0.5, 0.75] }],
        "usage": { "prompt_tokens": 1, "total_tokens": 1 },
    })
}

fn response(model: &str, status: &str) -> Value {
    json!({
        "id": "resp_1", "object": "response", "created_at": 1, "model": model, "status": status,
        "output": [{
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{ "type": "output_text", "text": SAID.concat(), "annotations": [] }],
        }],
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
    })
}

fn response_stream(model: &str) -> Vec<String> {
    let mut events = vec![named(&json!({
        "type": "response.created", "sequence_number": 0, "response": response(model, "in_progress"),
    }))];
    events.extend(SAID.iter().zip(1_u64..).map(|(said, number)| {
        named(&json!({
            "type": "response.output_text.delta", "sequence_number": number, "item_id": "msg_1",
            "output_index": 0, "content_index": 0, "delta": said, "logprobs": [],
        }))
    }));
    events.push(named(&json!({
        "type": "response.completed", "sequence_number": 9, "response": response(model, "completed"),
    })));
    events
}

fn message(model: &str) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": model,
        "content": [{ "type": "text", "text": SAID.concat() }],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": { "input_tokens": 3, "output_tokens": 3 },
    })
}

fn message_stream(model: &str) -> Vec<String> {
    let mut start = message(model);
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    let mut events = vec![
        json!({ "type": "message_start", "message": start }),
        json!({
            "type": "content_block_start", "index": 0,
            "content_block": { "type": "text", "text": "" },
        }),
    ];
    events.extend(SAID.map(|said| {
        json!({
            "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": said },
        })
    }));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    events.push(json!({
        "type": "message_delta", "usage": { "output_tokens": 3 },
        "delta": { "stop_reason": "end_turn", "stop_sequence": null },
    }));
    events.push(json!({ "type": "message_stop" }));
    events.iter().map(named).collect()
}

/// What the model says, in pieces.
pub const SAID: [&str; 3] = ["Hello", " from", " upstream."];
