use std::{
    io,
    io::IoSlice,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use rustls::{NamedGroup, crypto::SupportedKxGroup};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::TlsStream;

use crate::{HandshakeError, Identity, Refusal, TrustDomains};

/// An established connection: bytes, and who is at the other end.
#[derive(Debug)]
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    identity: Identity,
    peer_address: SocketAddr,
    slot: Option<OwnedSemaphorePermit>,
}

impl TlsConnection {
    pub(crate) fn new(
        stream: TlsStream<TcpStream>,
        trust_domains: &TrustDomains,
    ) -> Result<Self, HandshakeError> {
        let (tcp, session) = stream.get_ref();
        let peer_address = tcp.peer_addr().map_err(HandshakeError::Broken)?;
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let identity = Identity::read(leaf.ok_or(HandshakeError::NoCertificate)?, trust_domains)
            .map_err(|error| HandshakeError::Refused(Refusal::Svid(error)))?;
        Ok(Self { stream, identity, peer_address, slot: None })
    }

    /// Keeps the slot taken for as long as the connection lives.
    pub(crate) fn holding(mut self, slot: OwnedSemaphorePermit) -> Self {
        self.slot = Some(slot);
        self
    }

    /// Who is at the other end.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the other end is.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// The group the keys were agreed in.
    pub fn key_exchange_group(&self) -> Option<NamedGroup> {
        let (_, session) = self.stream.get_ref();
        session.negotiated_key_exchange_group().map(SupportedKxGroup::name)
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
