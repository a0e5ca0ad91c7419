use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use serde_json::Value;
use tokio_rustls::rustls::ServerConfig;

mod anthropic;
mod bedrock;
mod check;
mod event_stream;
mod gemini;
mod native;
mod openai;
mod refusal;
mod table;

use self::{
    check::Asked,
    table::{Facts, Format, PROVIDERS},
};
use crate::Server;

/// A provider as its customers see it, on a port of its own: it answers only calls that come by its
/// own way of proving them, to its own paths, in its own form, and everything else with its own kind
/// of error. It ends when it is dropped.
#[derive(Debug)]
pub struct StandIn {
    facts: &'static Facts,
    server: Server,
    calls: Arc<Mutex<Vec<Answered>>>,
}

/// A call that a stand-in has answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its path and query.
    pub path: String,
    /// Its headers, all of them.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// The status of the answer.
    pub status: u16,
    /// What was wrong with it, if something was.
    pub wrong: Option<String>,
}

/// An answer, in the pieces in which it is sent.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    pieces: VecDeque<Bytes>,
}

impl StandIn {
    /// The slugs of all providers that there are stand-ins for.
    pub fn slugs() -> impl Iterator<Item = &'static str> {
        PROVIDERS.iter().map(|facts| facts.slug)
    }

    /// Starts the stand-in of a provider on a free port of the loopback address.
    pub async fn start(slug: &str) -> io::Result<Self> {
        Self::listen(slug, None).await
    }

    /// The same over TLS, with the certificate and the protocols of this configuration.
    pub async fn start_tls(slug: &str, config: ServerConfig) -> io::Result<Self> {
        Self::listen(slug, Some(config)).await
    }

    async fn listen(slug: &str, tls: Option<ServerConfig>) -> io::Result<Self> {
        let facts = PROVIDERS.iter().find(|facts| facts.slug == slug);
        let facts = facts.ok_or_else(|| io::Error::other(format!("no stand-in for `{slug}`")))?;
        let calls = Arc::<Mutex<Vec<Answered>>>::default();
        let answered = Arc::clone(&calls);
        let answer = move |request| respond(request, facts, Arc::clone(&answered));
        Ok(Self { facts, server: Server::start(tls, answer).await?, calls })
    }

    /// The provider's slug.
    pub fn slug(&self) -> &'static str {
        self.facts.slug
    }

    /// Where it listens: `http://127.0.0.1:port`, or `https://` there.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The kind of credential that it takes.
    pub fn credential_kind(&self) -> &'static str {
        self.facts.kind
    }

    /// The one key that it takes.
    pub fn key(&self) -> &'static str {
        self.facts.key
    }

    /// What a credential for it says beside the key.
    pub fn settings(&self) -> &'static [(&'static str, &'static str)] {
        self.facts.settings
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Answered> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn respond(
    request: Request<Incoming>,
    facts: &'static Facts,
    calls: Arc<Mutex<Vec<Answered>>>,
) -> Result<Response<Reply>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let asked = check::check(facts, &head, &body);
    let wrong = asked.as_ref().err().map(|(_, wrong)| wrong.to_string());
    let reply = match asked {
        Ok(asked) => answer(facts, &asked),
        Err((format, wrong)) => refusal::refuse(facts.errors, format, &wrong),
    };
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let answered = Answered { path, headers: head.headers, body, status: reply.status, wrong };
    calls.lock().unwrap_or_else(PoisonError::into_inner).push(answered);
    let mut response = Response::builder()
        .status(StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in &reply.headers {
        response = response.header(*name, *value);
    }
    // The names and values are those of the tables.
    Ok(response.body(reply).unwrap_or_else(|_| Response::new(Reply::json(&"".into()))))
}

fn answer(facts: &Facts, asked: &Asked) -> Reply {
    let (model, streams) = (asked.model.as_str(), is_true(&asked.body, "/stream"));
    match asked.format {
        Format::Chat if streams => {
            let asks = is_true(&asked.body, "/stream_options/include_usage");
            Reply::events(openai::chat_stream(facts, model, asks))
        }
        Format::Chat => Reply::json(&openai::chat(facts, model)),
        Format::Account => Reply::json_pieces(vec![facts.account.to_owned()]),
        Format::Embeddings => Reply::json(&openai::embeddings(model)),
        Format::Responses if streams => Reply::events(openai::response_stream(model)),
        Format::Responses => Reply::json(&openai::response(model, "completed")),
        Format::Models => Reply::json(&openai::models(asked.models)),
        Format::VertexMessagesStream => Reply::events(anthropic::stream(model)),
        Format::Messages if streams => Reply::events(anthropic::stream(model)),
        Format::Messages | Format::VertexMessages | Format::Invoke => {
            Reply::json(&anthropic::message(model))
        }
        Format::InvokeStream => Reply::frames(bedrock::invoke_stream(model)),
        Format::Converse => Reply::json(&bedrock::converse()),
        Format::ConverseStream => Reply::frames(bedrock::converse_stream()),
        Format::Gemini => Reply::json(&gemini::answer(model, &SAID.concat(), true)),
        Format::GeminiStream if asked.query == "alt=sse" => Reply::events(gemini::stream(model)),
        Format::GeminiStream => Reply::json_pieces(gemini::array(model)),
        Format::Cohere if streams => Reply::events(native::cohere_stream()),
        Format::Cohere => Reply::json(&native::cohere()),
        Format::WorkersAi if streams => Reply::events(native::workers_ai_stream()),
        Format::WorkersAi => Reply::json(&native::workers_ai()),
    }
}

impl Reply {
    fn json(body: &Value) -> Self {
        Self::json_pieces(vec![body.to_string()])
    }

    fn json_pieces(pieces: Vec<String>) -> Self {
        Self::new("application/json", pieces.into_iter().map(Bytes::from).collect())
    }

    /// Each event is a frame of its own, so that a proxy that waits for more is found out.
    fn events(events: Vec<String>) -> Self {
        Self::new("text/event-stream", events.into_iter().map(Bytes::from).collect())
    }

    fn frames(frames: Vec<Vec<u8>>) -> Self {
        let frames = frames.into_iter().map(Bytes::from).collect();
        Self::new("application/vnd.amazon.eventstream", frames)
    }

    fn new(content_type: &'static str, pieces: VecDeque<Bytes>) -> Self {
        Self { status: 200, headers: vec![("content-type", content_type)], pieces }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    /// What is in one piece has a length, and what is streamed has none.
    fn size_hint(&self) -> SizeHint {
        let whole = self.pieces.front().filter(|_| self.pieces.len() == 1);
        let length = whole.and_then(|piece| u64::try_from(piece.len()).ok());
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn is_true(body: &Value, pointer: &str) -> bool {
    body.pointer(pointer).and_then(Value::as_bool) == Some(true)
}

/// An event under its own name.
fn named(event: &Value) -> String {
    let name = event.get("type").and_then(Value::as_str).unwrap_or_default();
    format!("event: {name}\ndata: {event}\n\n")
}

/// What every model says, in the pieces in which it says it.
pub const SAID: [&str; 3] = ["Hello", " from", " upstream."];
