use std::{
    convert::Infallible, future::Future, io, net::IpAddr, pin::pin, sync::Arc, time::Duration,
};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    busy::ConnectionUse, gateway::Gateway, head_deadline::HeadDeadline, listener_tls::ServerTls,
};

/// Accepts connections of applications until told to stop, then lets calls in hand finish.
pub(crate) async fn serve(
    gateway: Arc<Gateway>,
    tls: Option<Arc<ServerTls>>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let builder = Arc::new(builder(&gateway));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < gateway.limits.connections => {
                let Ok((tcp, peer)) = accepted else {
                    // Out of file descriptors, most likely; some will be free in a moment.
                    sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let connection = Connection {
                    gateway: Arc::clone(&gateway),
                    tls: tls.clone(),
                    builder: Arc::clone(&builder),
                    watcher: graceful.watcher(),
                    peer: peer.ip(),
                };
                connections.spawn(connection.accept(tcp));
            }
        }
        gateway.meters.connections.set(u32::try_from(connections.len()).unwrap_or(u32::MAX));
    }
    drop(listener);
    // What is not done by then is broken off when the set is dropped.
    let drained = timeout(gateway.limits.drain, graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!(left = connections.len(), "calls in hand did not finish in time");
    }
    connections.shutdown().await;
    Ok(())
}

struct Connection {
    gateway: Arc<Gateway>,
    tls: Option<Arc<ServerTls>>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    watcher: hyper_util::server::graceful::Watcher,
    peer: IpAddr,
}

impl Connection {
    async fn accept(self, tcp: TcpStream) {
        // Without this, a small piece of an answer waits for the caller's delayed acknowledgement.
        if tcp.set_nodelay(true).is_err() {
            return;
        }
        let Some(tls) = &self.tls else { return self.serve(tcp).await };
        let acceptor = TlsAcceptor::from(tls.config());
        match timeout(self.gateway.limits.header_read, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { gateway, builder, watcher, peer, .. } = self;
        let calls = ConnectionUse::default();
        let limits = &gateway.limits;
        let (head, idle) = (limits.header_read, limits.keep_alive);
        let stream = HeadDeadline::new(stream, calls.clone(), head, idle);
        let service = service_fn(move |request: Request<Incoming>| {
            let (gateway, calls) = (Arc::clone(&gateway), calls.clone());
            async move { Ok::<_, Infallible>(gateway.handle(request, calls, peer).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended");
        }
    }
}

fn builder(gateway: &Gateway) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // The time between two calls; `HeadDeadline` bounds the time of a head.
        .header_read_timeout(gateway.limits.keep_alive)
        .max_buf_size(HEADERS + READ_AHEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .max_header_list_size(u32::try_from(HEADERS).unwrap_or(u32::MAX))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

const HEADERS: usize = 32 << 10;
const READ_AHEAD: usize = 8 << 10;
