use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use domain::{Secret, Uid};
use http_body_util::{BodyExt as _, Limited, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, HeaderMap},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::Value;
use subtle::ConstantTimeEq as _;
use tokio::{net::TcpListener, task::JoinSet};

use crate::environment::{Found, KNOWN};

mod anthropic;
mod openai;
mod reply;

/// What takes the providers' places when there is no key for any: it answers in their formats with a
/// fixed text, and only to who shows the keys that it gave out.
#[derive(Debug)]
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    keys: Arc<[Secret; 2]>,
    _serving: JoinSet<()>,
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// As much as is read of a request.
const LARGEST_BODY: usize = 16 << 20;

impl StandIn {
    /// Starts one on a free port of loopback, with new keys.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = crate::ports::preferably(0).await?;
        let address = listener.local_addr()?;
        let keys = Arc::new([key("sk-stand-in-")?, key("sk-ant-stand-in-")?]);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&keys)));
        Ok(Self { address, keys, _serving: serving })
    }

    /// The keys that it answers to, for the broker to keep.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Found> + '_ {
        let known = KNOWN.iter().zip(self.keys.iter());
        known.map(|(of, key)| Found { of: *of, key: Secret::new(key.expose().to_vec()) })
    }
}

fn key(prefix: &str) -> anyhow::Result<Secret> {
    Ok(Secret::new(format!("{prefix}{}", Uid::random()?).into_bytes()))
}

async fn serve(listener: TcpListener, keys: Arc<[Secret; 2]>) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        // Small events must not wait for the other side's acknowledgement.
        drop(connection.set_nodelay(true));
        let keys = Arc::clone(&keys);
        connections.spawn(async move {
            let answer = service_fn(|request| answer(request, Arc::clone(&keys)));
            let builder = auto::Builder::new(TokioExecutor::new());
            // How a connection ends is the other side's business.
            drop(builder.serve_connection(TokioIo::new(connection), answer).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, keys: Arc<[Secret; 2]>) -> Result<Answer, Infallible> {
    let Some(shown) = genuine(request.headers(), &*keys) else {
        return Ok(reply::refused(StatusCode::UNAUTHORIZED, "this is not the key that was stored"));
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let Ok(body) = Limited::new(request.into_body(), LARGEST_BODY).collect().await else {
        return Ok(reply::refused(StatusCode::BAD_REQUEST, "the body did not arrive"));
    };
    let asked = if method == Method::GET { Ok(Value::Null) } else { read(&body.to_bytes()) };
    let Ok(asked) = asked else {
        return Ok(reply::refused(StatusCode::BAD_REQUEST, "the body is not JSON"));
    };
    let said = format!(
        "Hello from the stand-in: no model wrote this. Your call came with the provider key that \
         ends in {shown}, and not with your virtual key."
    );
    Ok(match (method, &*path) {
        (Method::GET, "/v1/models") => openai::models(),
        (Method::POST, "/v1/chat/completions") => openai::chat(&asked, &said),
        (Method::POST, "/v1/embeddings") => openai::embeddings(&asked),
        (Method::POST, "/v1/messages") => anthropic::messages(&asked, &said),
        _ => reply::refused(StatusCode::NOT_FOUND, "the stand-in does not serve this path"),
    })
}

fn read(body: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(body)
}

/// The last four characters of the key that came, if it is one of ours.
fn genuine(headers: &HeaderMap, keys: &[Secret]) -> Option<String> {
    let bearer =
        headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let shown = headers.get("x-api-key").map(hyper::header::HeaderValue::as_bytes).or(bearer)?;
    keys.iter().find(|key| bool::from(key.expose().ct_eq(shown))).map(Secret::last_four)
}
