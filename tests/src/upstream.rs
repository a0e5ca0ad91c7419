use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// A stand-in for `OpenAI` and Anthropic on loopback: answers in their formats, word by word when
/// asked to stream, and remembers which keys it was shown.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    refused: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let refused = Arc::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&seen), Arc::clone(&refused)));
        Self { address, seen, refused, _serving: serving }
    }

    /// Where it is: `http://127.0.0.1:port`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, calls with this key are answered with 401.
    pub fn refuse(&self, key: &str) {
        self.refused.lock().unwrap().push(key.to_owned());
    }

    /// The calls so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    listener: TcpListener,
    seen: Arc<Mutex<Vec<Seen>>>,
    refused: Arc<Mutex<Vec<String>>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        let (seen, refused) = (Arc::clone(&seen), Arc::clone(&refused));
        connections.spawn(async move {
            let answer =
                service_fn(|request| answer(request, Arc::clone(&seen), Arc::clone(&refused)));
            // How a connection ends is the other side's business.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(connection), answer)
                .await;
        });
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    refused: Arc<Mutex<Vec<String>>>,
) -> Result<Answer, hyper::Error> {
    let path = request.uri().path().to_owned();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let bearer = header(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    let key = header("x-api-key").or(bearer).unwrap_or_default().to_owned();
    let is_refused = refused.lock().unwrap().contains(&key);
    seen.lock().unwrap().push(Seen { path: path.clone(), key });
    if is_refused {
        let mut refusal = plain(&json!({ "error": { "message": "Incorrect API key provided" } }));
        *refusal.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(refusal);
    }

    let asked = request.into_body().collect().await?.to_bytes();
    let asked: Value = serde_json::from_slice(&asked).unwrap_or_default();
    let streamed = asked["stream"] == true;
    let model = asked["model"].as_str().unwrap_or_default();
    Ok(match (&*path, streamed) {
        ("/v1/chat/completions", false) => plain(&chat(model)),
        ("/v1/chat/completions", true) => events(chat_stream(model)),
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
    let body = Full::new(Bytes::from(body.to_string())).boxed();
    Response::builder().header(CONTENT_TYPE, "application/json").body(body).unwrap()
}

/// Each event is a frame of its own, so that a proxy that waits for more is found out.
fn events(events: Vec<String>) -> Answer {
    let frames = events.into_iter().map(|event| Ok(Frame::data(Bytes::from(event))));
    let body = StreamBody::new(stream::iter(frames)).boxed();
    Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body).unwrap()
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn named(value: &Value) -> String {
    format!("event: {}\n{}", value["type"].as_str().unwrap_or_default(), data(value))
}

fn chat(model: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": SAID.concat() },
        }],
        "usage": { "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6 },
    })
}

fn chat_stream(model: &str) -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        data(&json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": choices, "usage": usage,
        }))
    };
    let word = |word| json!([{ "index": 0, "delta": { "content": word }, "finish_reason": null }]);
    let mut events: Vec<String> = SAID.map(|said| chunk(word(said), Value::Null)).into();
    events.push(chunk(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]), Value::Null));
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6 });
    events.push(chunk(json!([]), usage));
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
