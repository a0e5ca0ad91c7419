use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{SinkError, trust::Tls};

/// A connection to a receiver, with TLS or without.
#[derive(Debug)]
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where a receiver is, and how it is known.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// `host:port`.
    pub(crate) address: String,
    /// Without it, whatever is sent can be read on the way.
    pub(crate) tls: Option<Tls>,
    /// What its certificate must name.
    pub(crate) server_name: String,
    pub(crate) protocols: &'static [&'static [u8]],
}

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(10);

impl Place {
    pub(crate) async fn connect(&self) -> Result<Wire, SinkError> {
        let address = &self.address;
        let failed = |source| SinkError::Connect { address: address.clone(), source };
        let connecting = async {
            let tcp = TcpStream::connect(address).await.map_err(failed)?;
            tcp.set_nodelay(true).map_err(failed)?;
            let Some(tls) = self.tls.clone() else { return Ok(Wire::Plain(tcp)) };
            let protocols = self.protocols;
            let config = spawn_blocking(move || tls.client(protocols)).await;
            let config = config.map_err(|ended| failed(ended.into()))??;
            let name = ServerName::try_from(self.server_name.clone());
            let name = name.map_err(|error| failed(io::Error::other(error)))?;
            let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(failed)?;
            Ok(Wire::Tls(Box::new(stream)))
        };
        let timed_out = |_| SinkError::TimedOut(address.clone());
        timeout(CONNECT, connecting).await.map_err(timed_out)?
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
