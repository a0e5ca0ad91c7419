use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::stream::{self, Stream};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use crate::{HandshakeError, ServerTls, TlsConnection};

/// How many peers are served at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Handshakes under way. At this many, further peers wait to be accepted.
    pub handshakes: usize,
    /// Connections, those in their handshake among them. Further ones are closed at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { handshakes: 256, connections: 10_000 }
    }
}

/// As [`incoming_with`], and tells nobody of failed handshakes.
pub fn incoming(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = io::Result<TlsConnection>> + Send {
    incoming_with(listener, tls, limits, shutdown, Arc::new(|_| ()))
}

/// Hears why a handshake failed: a stable word, of a set that no peer can enlarge.
pub type OnFailure = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The connections that come up at a listener, until `shutdown`. One slow handshake does not hold up
/// another; a failed one is logged, counted in `strongroom_tls_handshakes_total` and not part of the
/// stream, which never yields an error; `on_failure` hears of it.
pub fn incoming_with(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send + 'static,
    on_failure: OnFailure,
) -> impl Stream<Item = io::Result<TlsConnection>> + Send {
    let acceptor = Acceptor {
        listener,
        tls,
        most_handshakes: limits.handshakes.max(1),
        slots: Arc::new(Semaphore::new(limits.connections)),
        handshakes: JoinSet::new(),
        shutdown: Box::pin(shutdown),
        on_failure,
    };
    stream::unfold(acceptor, |mut acceptor| async {
        acceptor.next().await.map(|connection| (Ok(connection), acceptor))
    })
}

struct Acceptor {
    listener: TcpListener,
    tls: Arc<ServerTls>,
    most_handshakes: usize,
    slots: Arc<Semaphore>,
    handshakes: JoinSet<Option<TlsConnection>>,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    on_failure: OnFailure,
}

impl Acceptor {
    async fn next(&mut self) -> Option<TlsConnection> {
        loop {
            tokio::select! {
                biased;
                () = &mut self.shutdown => return None,
                Some(handshake) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = handshake {
                        return Some(connection);
                    }
                }
                accepted = self.listener.accept(), if self.handshakes.len() < self.most_handshakes => {
                    match accepted {
                        Ok((tcp, peer)) => self.begin(tcp, peer),
                        Err(error) => {
                            // Most often there are no file descriptors left; asking again at once
                            // would spin until there are.
                            tracing::error!(%error, "accepting a connection failed");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            }
        }
    }

    fn begin(&mut self, tcp: TcpStream, peer: SocketAddr) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            count("too_many_connections");
            (self.on_failure)("too_many_connections");
            tracing::warn!(%peer, "connection closed, too many are open");
            return;
        };
        let (tls, on_failure) = (Arc::clone(&self.tls), Arc::clone(&self.on_failure));
        self.handshakes.spawn(handshake(tls, tcp, peer, slot, on_failure));
    }
}

async fn handshake(
    tls: Arc<ServerTls>,
    tcp: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
    on_failure: OnFailure,
) -> Option<TlsConnection> {
    match tls.shake_hands(tcp).await {
        Ok(connection) => {
            count("accepted");
            Some(connection.holding(slot))
        }
        Err(failed) => {
            count(failed.error.reason());
            on_failure(failed.error.reason());
            log(&failed.error, peer);
            failed.say_goodbye().await;
            None
        }
    }
}

fn log(error: &HandshakeError, peer: SocketAddr) {
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%peer, reason = error.reason(), source, "{error}");
}

fn count(outcome: &'static str) {
    metrics::counter!("strongroom_tls_handshakes_total", "outcome" => outcome).increment(1);
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
