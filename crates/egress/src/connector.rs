use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use domain::Origin;
use http::Uri;
use hyper_util::rt::TokioIo;
use metrics::counter;
use rustls::ClientConfig;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::{
    AddressRules, EgressError, Resolve, Stream,
    place::{Host, Place},
    race::first_to_answer,
};

/// What all connections have in common.
#[derive(Debug)]
pub struct Exit {
    /// Which addresses may be dialled.
    pub rules: AddressRules,
    /// How names become addresses.
    pub resolver: Arc<dyn Resolve>,
    /// Whose certificates are trusted.
    pub tls: Arc<ClientConfig>,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
}

/// Connects to one origin, and to no other whatever it is asked for.
#[derive(Clone, Debug)]
pub struct Connector {
    exit: Arc<Exit>,
    origin: Origin,
}

impl Connector {
    /// A connector for one origin.
    pub fn new(exit: Arc<Exit>, origin: Origin) -> Self {
        Self { exit, origin }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, EgressError> {
        let connected = timeout(self.exit.connect_timeout, self.dial(&uri)).await;
        let connected = connected.unwrap_or(Err(EgressError::TimedOut));
        connected.map(TokioIo::new).inspect_err(|error| {
            if error.is_refusal() {
                counter!("strongroom_egress_refused_total", "reason" => error.word()).increment(1);
                tracing::warn!(origin = %self.origin, %error, "a connection was refused");
            }
        })
    }

    async fn dial(&self, uri: &Uri) -> Result<Stream, EgressError> {
        let asked = Origin::of_url(&uri.to_string()).map_err(|_| EgressError::ForeignOrigin)?;
        if asked != self.origin {
            return Err(EgressError::ForeignOrigin);
        }
        let place = Place::of(&self.origin)?;
        let addresses = self.addresses(&place).await?;
        let tcp = self.checked(first_to_answer(&addresses).await?, &addresses)?;
        if place.plain {
            return Ok(Stream::plain(tcp));
        }
        let name = place.host.server_name()?;
        let tls = TlsConnector::from(Arc::clone(&self.exit.tls)).connect(name, tcp).await;
        Ok(Stream::tls(tls.map_err(|error| EgressError::Untrusted(Arc::new(error)))?))
    }

    /// The addresses that may be dialled. A name is resolved here once and never again, so there is
    /// no second answer that could differ from the one that was checked.
    async fn addresses(&self, place: &Place<'_>) -> Result<Vec<SocketAddr>, EgressError> {
        let rules = &self.exit.rules;
        rules.check(place)?;
        let mut addresses = match place.host {
            Host::Address(ip) => vec![SocketAddr::new(ip, place.port)],
            Host::Name(name) => {
                let found = self.exit.resolver.resolve(name, place.port).await;
                found.map_err(unreachable)?
            }
        };
        // A resolver answers with addresses; the port is the origin's and nobody else's.
        addresses.retain(|address| address.port() == place.port && rules.permits(*address));
        if addresses.is_empty() {
            return Err(EgressError::BlockedAddress);
        }
        if place.plain {
            addresses.retain(|address| rules.permits_plain_http(address.ip()));
        }
        if addresses.is_empty() { Err(EgressError::PlainHttp) } else { Ok(addresses) }
    }

    /// Looks again at who is at the other end now that there is a connection.
    fn checked(&self, tcp: TcpStream, dialled: &[SocketAddr]) -> Result<TcpStream, EgressError> {
        let peer = tcp.peer_addr().map_err(unreachable)?;
        let local = tcp.local_addr().map_err(unreachable)?;
        if !dialled.contains(&peer) {
            return Err(EgressError::BlockedAddress);
        }
        if self.exit.rules.is_loop(local, peer) {
            return Err(EgressError::Loop);
        }
        tcp.set_nodelay(true).map_err(unreachable)?;
        Ok(tcp)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = EgressError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

fn unreachable(error: io::Error) -> EgressError {
    EgressError::Unreachable(Arc::new(error))
}

#[cfg(test)]
mod tests;
