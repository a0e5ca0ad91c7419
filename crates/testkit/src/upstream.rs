use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// A provider that answers as it is told, over HTTP/1.1 and HTTP/2, and writes down what it saw. It
/// ends when it is dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// The HTTP it came over.
    pub version: Version,
    /// Its path and query.
    pub path: String,
    /// Its headers, all of them.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A streamed answer, driven piece by piece. Dropping it ends the answer cleanly.
#[derive(Debug)]
pub struct StreamHandle(mpsc::Sender<Step>);

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    seen: Mutex<Vec<Seen>>,
    count: watch::Sender<usize>,
    connections: watch::Sender<usize>,
    accepted: AtomicUsize,
}

#[derive(Debug)]
enum Answer {
    Whole(StatusCode, HeaderMap, Bytes),
    /// One answer only.
    Stream(Option<mpsc::Receiver<Step>>),
    Silence,
}

#[derive(Debug)]
enum Step {
    Piece(Bytes),
    Cut,
}

impl Upstream {
    /// Starts on a free port of the loopback address.
    pub async fn start() -> io::Result<Self> {
        Self::listen(None).await
    }

    /// The same over TLS, with the certificate and the protocols of this configuration.
    pub async fn start_tls(config: ServerConfig) -> io::Result<Self> {
        Self::listen(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> io::Result<Self> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, Arc::clone(&shared)));
        Ok(Self { address, scheme, shared, _tasks: tasks })
    }

    /// Where it listens: `http://127.0.0.1:port`, or `https://` there.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// From now on, answers calls of this path with this.
    pub fn answer(
        &self,
        path: &str,
        status: u16,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = headers
            .iter()
            .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
            .collect();
        let body = Bytes::copy_from_slice(body.as_ref());
        self.set(path, Answer::Whole(status, headers, body));
    }

    /// Answers the next call of this path with a stream of events.
    pub fn stream(&self, path: &str) -> StreamHandle {
        // No room beyond one piece: what was sent has left for the network.
        let (sender, receiver) = mpsc::channel(1);
        self.set(path, Answer::Stream(Some(receiver)));
        StreamHandle(sender)
    }

    /// Never answers calls of this path.
    pub fn stay_silent(&self, path: &str) {
        self.set(path, Answer::Silence);
    }

    /// What arrived so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this many requests have arrived.
    pub async fn until_seen(&self, count: usize) {
        // The sender lives as long as this does.
        drop(self.shared.count.subscribe().wait_for(|seen| *seen >= count).await);
    }

    /// How many connections have been accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Waits until nobody is connected.
    pub async fn until_idle(&self) {
        drop(self.shared.connections.subscribe().wait_for(|open| *open == 0).await);
    }

    fn set(&self, path: &str, answer: Answer) {
        let mut answers = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(path.to_owned(), answer);
    }
}

impl StreamHandle {
    /// Sends a piece; false when nobody reads any more.
    pub async fn send(&self, piece: &str) -> bool {
        self.0.send(Step::Piece(Bytes::copy_from_slice(piece.as_bytes()))).await.is_ok()
    }

    /// Breaks the connection off.
    pub async fn cut(self) {
        drop(self.0.send(Step::Cut).await);
    }

    /// Waits until whoever called has gone away.
    pub async fn abandoned(&self) {
        self.0.closed().await;
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        drop(tcp.set_nodelay(true));
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            shared.connections.send_modify(|open| *open += 1);
            match tls {
                None => serve(tcp, &shared).await,
                // A caller that goes away during the handshake is what some tests are about.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(tcp).await {
                        serve(stream, &shared).await;
                    }
                }
            }
            shared.connections.send_modify(|open| *open -= 1);
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: &Arc<Shared>) {
    let answering = Arc::clone(shared);
    let service = service_fn(move |request| respond(request, Arc::clone(&answering)));
    let builder = auto::Builder::new(TokioExecutor::new());
    drop(builder.serve_connection(TokioIo::new(stream), service).await);
}

async fn respond(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Scripted>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let seen = Seen {
        method: head.method,
        version: head.version,
        path: path.clone(),
        headers: head.headers,
        body,
    };
    shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    shared.count.send_modify(|count| *count += 1);
    let answer = {
        let mut answers = shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        match answers.get_mut(&path) {
            Some(Answer::Whole(status, headers, body)) => {
                let mut response = Response::new(Scripted::Whole(Some(body.clone())));
                *response.status_mut() = *status;
                *response.headers_mut() = headers.clone();
                Some(response)
            }
            Some(Answer::Stream(pieces)) => pieces.take().map(|pieces| {
                let mut response = Response::new(Scripted::Stream(pieces));
                let kind = http::HeaderValue::from_static("text/event-stream");
                response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                response
            }),
            Some(Answer::Silence) => None,
            None => {
                let mut response = Response::new(Scripted::Whole(None));
                *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
                Some(response)
            }
        }
    };
    match answer {
        Some(response) => Ok(response),
        None => std::future::pending().await,
    }
}

enum Scripted {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Step>),
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces) => pieces.poll_recv(cx).map(|step| match step? {
                Step::Piece(bytes) => Some(Ok(Frame::data(bytes))),
                Step::Cut => Some(Err(io::ErrorKind::ConnectionAborted.into())),
            }),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
