use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use domain::{Clock as _, SystemClock};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Collected, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

/// A stand-in for a provider that notes when each key came. It answers at once, or word by word when asked
/// to stream.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: String,
    uses: Uses,
    _serving: JoinSet<()>,
}

/// Times of arrival in their order, by key.
type Uses = Arc<Mutex<HashMap<String, Vec<Duration>>>>;

impl Upstream {
    /// Starts one whose answers say to have taken so many tokens of input and of output.
    pub(crate) async fn start(took: (u64, u64)) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let uses = Uses::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&uses), took));
        Ok(Self { address, uses, _serving: serving })
    }

    /// When a key came.
    pub(crate) fn uses(&self, key: &str) -> Vec<Duration> {
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.get(key).cloned().unwrap_or_default()
    }
}

async fn serve(listener: TcpListener, uses: Uses, took: (u64, u64)) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        // Those that have ended are of no use to anybody.
        while connections.try_join_next().is_some() {}
        drop(connection.set_nodelay(true));
        let uses = Arc::clone(&uses);
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &uses, took));
            // How a connection ends is the other side's business.
            drop(http1::Builder::new().serve_connection(TokioIo::new(connection), service).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    uses: &Uses,
    took: (u64, u64),
) -> Result<Answer, Infallible> {
    let at = SystemClock.elapsed();
    let key = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = key.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
    uses.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().push(at);
    // A caller that is gone needs no answer, and the use is noted.
    let asked = request.into_body().collect().await.map(Collected::to_bytes);
    let asked: Value = serde_json::from_slice(&asked.unwrap_or_default()).unwrap_or_default();
    let is_stream = asked.get("stream").is_some_and(|stream| stream == true);
    let (kind, body) = if is_stream {
        (HeaderValue::from_static("text/event-stream"), streamed(took))
    } else {
        let whole = Full::new(Bytes::from(whole(took).to_string()));
        (HeaderValue::from_static("application/json"), whole.boxed_unsync())
    };
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(answer)
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

fn usage((input, output): (u64, u64)) -> Value {
    json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
}

fn whole(took: (u64, u64)) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": "Hello." },
        }],
        "usage": usage(took),
    })
}

/// A pause before each word; what it took comes last.
fn streamed(took: (u64, u64)) -> UnsyncBoxBody<Bytes, Infallible> {
    let event = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
            "model": "gpt-4o-mini", "choices": choices, "usage": usage,
        });
        format!("data: {chunk}\n\n")
    };
    let word = json!([{ "index": 0, "delta": { "content": "Hello" }, "finish_reason": null }]);
    let mut events = vec![event(word, Value::Null); WORDS];
    events.push(event(json!([]), usage(took)) + "data: [DONE]\n\n");
    let frames = stream::iter(events).then(async |event| {
        sleep(PAUSE).await;
        Ok(Frame::data(Bytes::from(event)))
    });
    StreamBody::new(frames).boxed_unsync()
}

const WORDS: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);
