use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use domain::Origin;
use http::Uri;
use hyper_util::rt::TokioIo;
use metrics::counter;
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::egress::{AddressRules, Resolve, stream::Stream};

/// Why there is no connection to a provider.
#[derive(Debug, Error)]
pub(crate) enum EgressError {
    /// The secret was not lent for this place.
    #[error("the address is not the lease's")]
    ForeignOrigin,
    /// Every address of the host is a private or special one.
    #[error("the host has no address that may be called")]
    BlockedAddress,
    /// Plain HTTP goes only to addresses that the operator names.
    #[error("plain HTTP is not allowed to this host")]
    PlainHttp,
    /// The connection leads back to this proxy.
    #[error("the address is this proxy's own")]
    Loop,
    /// The address has no host that TLS can check.
    #[error("the address names no host")]
    NoHost,
    /// Nobody answered in time.
    #[error("connecting took too long")]
    TimedOut,
    /// The host was not found, or no connection could be made.
    #[error("the provider cannot be reached")]
    Unreachable(#[source] io::Error),
    /// The provider did not prove who it is.
    #[error("the provider's certificate was not accepted")]
    Untrusted(#[source] io::Error),
}

/// What all connections have in common.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) rules: AddressRules,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) connect_timeout: Duration,
}

/// Connects to one origin, and to no other whatever it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    exit: Arc<Exit>,
    origin: Origin,
}

impl Connector {
    pub(crate) fn new(exit: Arc<Exit>, origin: Origin) -> Self {
        Self { exit, origin }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, EgressError> {
        let connected = timeout(self.exit.connect_timeout, self.dial(&uri)).await;
        let connected = connected.unwrap_or(Err(EgressError::TimedOut));
        connected.map(TokioIo::new).inspect_err(|error| {
            if error.is_refusal() {
                counter!("strongroom_proxy_egress_refused_total", "reason" => error.word())
                    .increment(1);
                tracing::warn!(origin = %self.origin, %error, "a connection was refused");
            }
        })
    }

    async fn dial(&self, uri: &Uri) -> Result<Stream, EgressError> {
        let asked = Origin::of_url(&uri.to_string()).map_err(|_| EgressError::ForeignOrigin)?;
        if asked != self.origin {
            return Err(EgressError::ForeignOrigin);
        }
        let plain = uri.scheme_str() == Some("http");
        let host = uri.host().ok_or(EgressError::NoHost)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let addresses = self.addresses(host, port, plain).await?;
        let tcp = self.first_answer(&addresses).await?;
        if plain {
            return Ok(Stream::Plain(tcp));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| EgressError::NoHost)?;
        let tls = TlsConnector::from(Arc::clone(&self.exit.tls)).connect(name, tcp).await;
        Ok(Stream::Tls(Box::new(tls.map_err(EgressError::Untrusted)?)))
    }

    /// The addresses that may be dialled. A name is resolved here once and never again, so there is
    /// no second answer that could differ from the one that was checked.
    async fn addresses(
        &self,
        host: &str,
        port: u16,
        plain: bool,
    ) -> Result<Vec<SocketAddr>, EgressError> {
        let mut addresses = if let Ok(ip) = host.parse::<IpAddr>() {
            vec![SocketAddr::new(ip, port)]
        } else {
            let found = self.exit.resolver.resolve(host, port).await;
            found.map_err(EgressError::Unreachable)?
        };
        addresses.retain(|address| self.exit.rules.permits(*address));
        if addresses.is_empty() {
            return Err(EgressError::BlockedAddress);
        }
        if plain {
            addresses.retain(|address| self.exit.rules.names(address.ip()));
        }
        if addresses.is_empty() { Err(EgressError::PlainHttp) } else { Ok(addresses) }
    }

    async fn first_answer(&self, addresses: &[SocketAddr]) -> Result<TcpStream, EgressError> {
        let none = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let mut last = EgressError::Unreachable(none);
        // No address may use up the time of those after it.
        let share = self.exit.connect_timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return self.checked(tcp, addresses),
                Ok(Err(error)) => last = EgressError::Unreachable(error),
                Err(_) => last = EgressError::TimedOut,
            }
        }
        Err(last)
    }

    /// Looks again at who is at the other end now that there is a connection.
    fn checked(&self, tcp: TcpStream, dialled: &[SocketAddr]) -> Result<TcpStream, EgressError> {
        let peer = tcp.peer_addr().map_err(EgressError::Unreachable)?;
        let local = tcp.local_addr().map_err(EgressError::Unreachable)?;
        if !dialled.contains(&peer) {
            return Err(EgressError::BlockedAddress);
        }
        if self.exit.rules.is_loop(local, peer) {
            return Err(EgressError::Loop);
        }
        tcp.set_nodelay(true).map_err(EgressError::Unreachable)?;
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

impl EgressError {
    /// Whether a rule was the reason, rather than the network.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::ForeignOrigin | Self::BlockedAddress | Self::PlainHttp | Self::Loop => true,
            Self::NoHost | Self::TimedOut | Self::Unreachable(_) | Self::Untrusted(_) => false,
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::ForeignOrigin => "foreign_origin",
            Self::BlockedAddress => "blocked_address",
            Self::PlainHttp => "plain_http",
            Self::Loop => "loop",
            Self::NoHost => "no_host",
            Self::TimedOut => "timed_out",
            Self::Unreachable(_) => "unreachable",
            Self::Untrusted(_) => "untrusted",
        }
    }
}

#[cfg(test)]
mod tests;
