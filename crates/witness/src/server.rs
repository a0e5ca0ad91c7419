use std::{
    convert::Infallible, future::Future, path::PathBuf, pin::pin, sync::Arc, time::Duration,
};

use audit::WitnessRefusal;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{Answer, Desk, Listener};

/// The certificate by which logs know the witness, and its key.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM; refused if others can read it.
    pub key: PathBuf,
}

/// The longest request: a checkpoint with some cosignatures, and 63 hashes.
const LONGEST: usize = 64 << 10;

/// Connections at once; further ones wait.
const CONNECTIONS: usize = 128;

/// How long a handshake, a head and a body may take, and how long a connection may wait.
const PATIENCE: Duration = Duration::from_secs(10);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The type that the specification gives the size in a refusal.
const SIZE: HeaderValue = HeaderValue::from_static("text/x.tlog.size");

/// Answers logs until `shutdown`.
pub async fn serve(desk: Arc<Desk>, listener: Listener, shutdown: impl Future<Output = ()>) {
    let Listener { tcp, tls } = listener;
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = tcp.accept(), if connections.len() < CONNECTIONS => {
                let Ok((stream, _)) = accepted else {
                    // Out of file descriptors, most likely; some will be free in a moment.
                    sleep(Duration::from_millis(20)).await;
                    continue;
                };
                connections.spawn(accept(Arc::clone(&desk), tls.clone(), stream));
            }
        }
    }
    // Broken off here is an answer at most: what is kept is kept.
    connections.shutdown().await;
}

async fn accept(desk: Arc<Desk>, tls: Option<TlsAcceptor>, stream: TcpStream) {
    let Some(tls) = tls else { return answer_all(desk, stream).await };
    match timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => answer_all(desk, stream).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn answer_all(desk: Arc<Desk>, stream: impl AsyncRead + AsyncWrite + Unpin + Send) {
    let service = service_fn(|request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(answer(desk, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer(desk: Arc<Desk>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let response = match (request.method(), request.uri().path()) {
        (&Method::POST, "/add-checkpoint") => add(desk, request).await,
        (&Method::GET, "/evidence") => list(desk).await,
        (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n".to_owned()),
        (_, "/add-checkpoint" | "/evidence" | "/healthz") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "another method is needed\n".to_owned())
        }
        _ => text(StatusCode::NOT_FOUND, "there is no such thing here\n".to_owned()),
    };
    let status = response.status().as_u16().to_string();
    metrics::counter!("strongroom_witness_requests_total", "status" => status).increment(1);
    response
}

async fn add(desk: Arc<Desk>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = Limited::new(request.into_body(), LONGEST).collect();
    let Ok(Ok(body)) = timeout(PATIENCE, body).await else {
        return text(StatusCode::BAD_REQUEST, "the request is too long, or too slow\n".to_owned());
    };
    let Ok(body) = String::from_utf8(body.to_bytes().into()) else {
        return text(StatusCode::BAD_REQUEST, format!("{}\n", WitnessRefusal::Malformed));
    };
    // It waits for the disk.
    match spawn_blocking(move || desk.add(&body)).await {
        Ok(Answer::Cosigned(line)) => text(StatusCode::OK, line),
        Ok(Answer::Refused(refusal)) => refused(&refusal),
        Ok(Answer::NotKept) | Err(_) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "the checkpoint could not be kept\n".to_owned())
        }
    }
}

/// The statuses that the specification gives.
fn refused(refusal: &WitnessRefusal) -> Response<Full<Bytes>> {
    let status = match refusal {
        WitnessRefusal::Malformed => StatusCode::BAD_REQUEST,
        WitnessRefusal::UnknownLog => StatusCode::NOT_FOUND,
        WitnessRefusal::NotSigned => StatusCode::FORBIDDEN,
        WitnessRefusal::Forked(_) => StatusCode::CONFLICT,
        WitnessRefusal::Unproved(_) => StatusCode::UNPROCESSABLE_ENTITY,
        WitnessRefusal::OutOfDate { size, .. } => {
            let mut response = text(StatusCode::CONFLICT, format!("{size}\n"));
            response.headers_mut().insert(header::CONTENT_TYPE, SIZE);
            return response;
        }
    };
    text(status, format!("{refusal}\n"))
}

async fn list(desk: Arc<Desk>) -> Response<Full<Bytes>> {
    match spawn_blocking(move || desk.evidence()).await {
        Ok(Ok(mut names)) => {
            // So that the last line ends too.
            names.push(String::new());
            text(StatusCode::OK, names.join("\n"))
        }
        Ok(Err(_)) | Err(_) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "the evidence cannot be read\n".to_owned())
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    response
}
