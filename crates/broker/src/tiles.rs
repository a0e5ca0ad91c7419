use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use audit::{BUNDLE_WIDTH, Bundle, Checkpoint, HashTile, Resource, VerifierKey, encode_bundle};
use bytes::Bytes;
use domain::Clock;
use futures_util::StreamExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use mtls::{Identity, ServerTls, TlsConnection, TlsSource, TrustDomains};
use store::Tree;
use tokio::{net::TcpListener, sync::OnceCell, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::RELOAD,
    caller::Caller,
    config::TilesConfig,
    core::Core,
    guard::record_refusal,
    people::Called,
    refused::{Refused, Why},
};

/// The log as static files over HTTPS, <https://c2sp.org/tlog-tiles>, for those who may list all
/// records.
pub(crate) struct TileServer {
    listener: TcpListener,
    tls: Arc<ServerTls>,
    connections: usize,
}

/// The method whose access rules count here: who may read every record may fetch every tile.
const METHOD: &str = "Audit/ListRecords";

/// How long the head of a request may take, and how long a connection may wait for one.
const HEAD: Duration = Duration::from_secs(10);

/// No connection lasts longer, so that certificates are checked anew.
const CONNECTION: Duration = Duration::from_mins(5);

/// What is under a path never changes. It is for the one who asked only.
const FOR_EVER: HeaderValue =
    HeaderValue::from_static("private, max-age=31536000, immutable, no-transform");
const NOT_AT_ALL: HeaderValue = HeaderValue::from_static("no-store");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl TileServer {
    /// Begins to listen; connections wait until [`TileServer::serve`].
    pub(crate) async fn open(
        config: &TilesConfig,
        source: TlsSource,
        trust_domains: TrustDomains,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let tls = ServerTls::load_for_http(source, trust_domains, clock)
            .context("loading the certificate")?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("[log.tiles]: listening on {}", config.listen))?;
        Ok(Self { listener, tls, connections: config.connections })
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Answers until `stop`; what is in hand then is broken off, and can be asked for again.
    pub(crate) async fn serve(self, core: Arc<Core>, stop: CancellationToken) {
        let Self { listener, tls, connections } = self;
        let limits = mtls::Limits { connections, ..mtls::Limits::default() };
        let ends = stop.clone().cancelled_owned();
        let mut incoming = pin!(mtls::incoming(listener, Arc::clone(&tls), limits, ends));
        let mut reloading = pin!(Arc::clone(&tls).watch(RELOAD));
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = &mut reloading => {}
                Some(_) = open.join_next() => {}
                connection = incoming.next() => match connection {
                    Some(Ok(connection)) => {
                        open.spawn(answer_all(Arc::clone(&core), Arc::clone(&tls), connection));
                    }
                    Some(Err(_)) => {}
                    None => break,
                }
            }
        }
    }
}

async fn answer_all(core: Arc<Core>, tls: Arc<ServerTls>, connection: TlsConnection) {
    let identity = Arc::new(connection.identity().clone());
    let known = Arc::new(OnceCell::new());
    let service = service_fn(move |request: Request<Incoming>| {
        let (core, tls, identity) = (Arc::clone(&core), Arc::clone(&tls), Arc::clone(&identity));
        let known = Arc::clone(&known);
        async move { Ok::<_, Infallible>(answer(&core, &tls, &identity, &known, &request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(16 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_pending_accept_reset_streams(20)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let serving = builder.serve_connection(TokioIo::new(connection), service);
    // An end by time is as good as any other: readers come again.
    if let Ok(Err(error)) = timeout(CONNECTION, serving).await {
        tracing::debug!(error, "a reader's connection ended");
    }
}

async fn answer(
    core: &Core,
    tls: &ServerTls,
    identity: &Identity,
    known: &OnceCell<()>,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let certificate = identity.certificate_sha256;
    let named = core.people.call(&identity.spiffe_id).await;
    let known_as = *named.as_ref().unwrap_or(&Called::ByNothing);
    let caller = Caller::new(identity.spiffe_id.clone(), known_as, certificate, METHOD, None);
    let admitted = match named {
        Ok(_) => admit(core, tls, identity, &caller, known).await,
        Err(why) => Err(why),
    };
    let outcome = match admitted {
        Ok(()) => find(core, request).await,
        Err(why) => Err(why),
    };
    let mut response = match outcome {
        Ok(response) => response,
        Err(why) => {
            let status = why.http_status();
            // Readers ask for what is not there yet, or no longer, as a matter of course; all else
            // is on record.
            if !matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
                record_refusal(&core.log, &caller, &Refused::from(why)).await;
            }
            told(status)
        }
    };
    let status = response.status().as_u16().to_string();
    metrics::counter!("strongroom_tile_requests_total", "status" => status).increment(1);
    if request.method() == Method::HEAD {
        let length = http_body::Body::size_hint(response.body()).lower();
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        *response.body_mut() = Full::default();
    }
    response
}

/// Whether the reader may read, asked for every request; that it reads is on record once for each of
/// its connections.
async fn admit(
    core: &Core,
    tls: &ServerTls,
    identity: &Identity,
    caller: &Caller,
    known: &OnceCell<()>,
) -> Result<(), Why> {
    // The connection outlives the handshake that checked the certificate.
    tls.recheck(identity).map_err(|_| Why::Unidentified)?;
    core.directory.barred().admit(&caller.actor)?;
    core.access.permit_all(caller)?;
    known.get_or_try_init(|| async { core.log.record(caller.read()).await.map(drop) }).await?;
    Ok(())
}

async fn find(core: &Core, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Why> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = told(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let path = request.uri().path();
    let resource = path.strip_prefix('/').and_then(Resource::parse).ok_or(Why::NotInTree)?;
    let note = core.store.checkpoint().await?.ok_or(Why::NoCheckpoint)?;
    // Nothing is shown that no checkpoint covers: a reader could not tell whether it is so.
    let size = core.signed_size(&note)?;
    match resource {
        Resource::Checkpoint => Ok(found(note.into(), TEXT, NOT_AT_ALL)),
        Resource::Entries(bundle) if bundle.is_within(size) => {
            Ok(found(core.bundle(bundle).await?, BYTES, FOR_EVER))
        }
        Resource::Hashes(tile) if tile.is_within(size) => {
            Ok(found(core.tile(tile).await?, BYTES, FOR_EVER))
        }
        Resource::Entries(_) | Resource::Hashes(_) => Err(Why::NotInTree),
    }
}

impl Core {
    fn signed_size(&self, note: &str) -> Result<u64, Why> {
        let unsigned = || Why::Corrupt("the stored checkpoint is not signed by the log".to_owned());
        let key: VerifierKey = self.verifier_key.parse().map_err(|_| unsigned())?;
        Checkpoint::verify(note, &key).map(|checkpoint| checkpoint.size).map_err(|_| unsigned())
    }

    pub(crate) async fn tile(&self, tile: HashTile) -> Result<Bytes, Why> {
        Ok(Tree::of(&*self.store).tile(tile).await?.into())
    }

    pub(crate) async fn bundle(&self, bundle: Bundle) -> Result<Bytes, Why> {
        let width = u32::try_from(bundle.width.min(BUNDLE_WIDTH)).unwrap_or(0);
        let entries = self.store.records(bundle.first_entry(), width, None).await?;
        // After the reading: what was pruned meanwhile is not missing.
        self.check_kept(bundle.first_entry()).await?;
        let consecutive = (bundle.first_entry()..).zip(&entries).all(|(at, it)| it.index == at);
        if !consecutive || entries.len() != width as usize {
            return Err(Why::Corrupt(format!("entries of `{}` are missing", bundle.path())));
        }
        let bytes = encode_bundle(entries.iter().map(|entry| &entry.body));
        let bytes = bytes.map_err(|_| Why::Corrupt("an entry is too long for a bundle".into()))?;
        Ok(bytes.into())
    }
}

fn found(body: Bytes, kind: HeaderValue, caching: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, caching);
    response
}

fn told(status: StatusCode) -> Response<Full<Bytes>> {
    let text = match status {
        StatusCode::GONE => "pruned\n".to_owned(),
        _ => format!("{}\n", status.canonical_reason().unwrap_or("refused")),
    };
    let mut response = found(text.into(), TEXT, NOT_AT_ALL);
    *response.status_mut() = status;
    response
}
