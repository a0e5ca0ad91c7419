//! What the two processes talk to: a provider that misbehaves as its model's name says, over HTTP/1.1
//! or over TLS and HTTP/2, and a collector of traces.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Collected, Full, StreamBody, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response, Version,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use testkit::Server;

type Body = BoxBody<Bytes, io::Error>;

/// A server on loopback, until it is dropped.
pub(crate) struct Peer {
    server: Server,
    seen: Arc<Mutex<Seen>>,
}

/// What has reached a server.
#[derive(Default)]
struct Seen {
    calls: Vec<(String, Version)>,
    bodies: Vec<Bytes>,
}

#[derive(Clone, Copy)]
enum Role {
    Provider,
    Collector,
}

impl Peer {
    /// A provider over plain HTTP/1.1.
    pub(crate) async fn provider() -> Self {
        Self::start(Role::Provider, None).await
    }

    /// A provider over TLS, which prefers HTTP/2; `name` is of a certificate for `localhost`.
    pub(crate) async fn secure_provider(pki: &Path, name: &str) -> Self {
        let file = |end| pki.join(format!("{name}.{end}"));
        let chain = CertificateDer::pem_file_iter(file("pem")).unwrap().map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect(), key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::start(Role::Provider, Some(config)).await
    }

    /// A collector of traces, over gRPC.
    pub(crate) async fn collector() -> Self {
        Self::start(Role::Collector, None).await
    }

    async fn start(role: Role, tls: Option<ServerConfig>) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let notes = Arc::clone(&seen);
        let answer = move |request| answer(request, role, Arc::clone(&notes));
        Self { server: Server::start(tls, answer).await.unwrap(), seen }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How many calls with this key have come over this version of HTTP.
    pub(crate) fn calls_with(&self, key: &str, version: Version) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.calls.iter().filter(|(with, over)| with == key && *over == version).count()
    }

    /// What has been posted.
    pub(crate) fn bodies(&self) -> Vec<u8> {
        self.seen.lock().unwrap().bodies.concat()
    }
}

async fn answer(
    request: Request<Incoming>,
    role: Role,
    seen: Arc<Mutex<Seen>>,
) -> Result<Response<Body>, Infallible> {
    let key = shown(request.headers());
    let version = request.version();
    let posted = request.into_body().collect().await.map(Collected::to_bytes);
    let posted = posted.unwrap_or_default();
    let mut seen = seen.lock().unwrap();
    seen.calls.push((key.clone(), version));
    Ok(match role {
        Role::Provider => provide(&key, &posted),
        Role::Collector => {
            seen.bodies.push(posted);
            collected()
        }
    })
}

/// The credential in a call's headers.
fn shown(headers: &HeaderMap) -> String {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    header("x-api-key").or(bearer).unwrap_or_default().to_owned()
}

/// Answers as the last part of the model's name says.
fn provide(key: &str, posted: &[u8]) -> Response<Body> {
    let asked: Value = serde_json::from_slice(posted).unwrap_or_default();
    let model = asked["model"].as_str().unwrap_or_default();
    let streamed = asked["stream"] == true;
    let manner = model.rsplit('-').next().unwrap_or_default();
    let refusal = json!({ "error": { "type": "error", "message": "as asked" } });
    match manner {
        "refuse" => plain(401, &refusal),
        "limit" => plain(429, &refusal),
        "break" => plain(500, &refusal),
        // What the proxy has sent comes back, as some services do it in their errors.
        "echo" => plain(400, &json!({ "error": { "message": format!("bad key {key}") } })),
        "garble" => Response::new(whole("{ not JSON".into())),
        "cut" => {
            let frames = vec![
                Ok(Frame::data(Bytes::from(event(&chunk())))),
                Err(io::Error::other("the connection ends")),
            ];
            events(frames)
        }
        _ if streamed => {
            let words = [event(&chunk()), event(&chunk()), "data: [DONE]\n\n".to_owned()];
            events(words.into_iter().map(|word| Ok(Frame::data(Bytes::from(word)))).collect())
        }
        _ => plain(200, &completed()),
    }
}

/// Both formats at once: each client reads what it knows.
fn completed() -> Value {
    json!({
        "id": "x-1", "object": "chat.completion", "type": "message", "role": "assistant", "created": 1,
        "model": "m", "stop_reason": "end_turn",
        "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": "ok" } }],
        "content": [{ "type": "text", "text": "ok" }],
        "usage": {
            "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6,
            "input_tokens": 3, "output_tokens": 3,
        },
    })
}

fn chunk() -> Value {
    json!({
        "id": "x-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": { "content": "ok" }, "finish_reason": null }],
    })
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn plain(status: u16, body: &Value) -> Response<Body> {
    let answer = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    answer.body(whole(body.to_string().into())).unwrap()
}

fn events(frames: Vec<io::Result<Frame<Bytes>>>) -> Response<Body> {
    let body = http_body_util::BodyExt::boxed(StreamBody::new(stream::iter(frames)));
    Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body).unwrap()
}

fn whole(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed()
}

/// An empty message of gRPC, and that all is well.
fn collected() -> Response<Body> {
    let mut end = HeaderMap::new();
    end.insert("grpc-status", "0".parse().unwrap());
    let frames = vec![Ok(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(end))];
    let body = http_body_util::BodyExt::boxed(StreamBody::new(stream::iter(frames)));
    Response::builder().header(CONTENT_TYPE, "application/grpc").body(body).unwrap()
}
