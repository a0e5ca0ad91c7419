use std::{
    io,
    io::IoSlice,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{NamedGroup, crypto::SupportedKxGroup};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::TlsStream;

use crate::{
    HandshakeError, Identity, Refusal, TrustDomains,
    open::{Open, Peer, Place},
};

/// An established connection: bytes, and who is at the other end. One that was accepted breaks with
/// an error as soon as its server finds that it would not accept the peer again.
#[derive(Debug)]
pub struct TlsConnection {
    stream: TlsStream<TcpStream>,
    peer: Arc<Peer>,
    peer_address: SocketAddr,
    slot: Option<OwnedSemaphorePermit>,
    place: Option<Place>,
    refusal: Option<Refusal>,
}

impl TlsConnection {
    pub(crate) fn new(
        stream: TlsStream<TcpStream>,
        trust_domains: &TrustDomains,
    ) -> Result<Self, HandshakeError> {
        let (tcp, session) = stream.get_ref();
        let peer_address = tcp.peer_addr().map_err(HandshakeError::Broken)?;
        let chain = session.peer_certificates().unwrap_or_default().to_vec();
        let leaf = chain.first().ok_or(HandshakeError::NoCertificate)?;
        let identity = Identity::read(leaf, trust_domains)
            .map_err(|error| HandshakeError::Refused(Refusal::Svid(error)))?;
        let peer = Arc::new(Peer { identity, chain });
        Ok(Self { stream, peer, peer_address, slot: None, place: None, refusal: None })
    }

    /// Enters the connection among those that its server can end.
    pub(crate) fn entered(mut self, open: &Arc<Open>) -> Self {
        self.place = Some(open.add(Arc::clone(&self.peer)));
        self
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Keeps the slot taken for as long as the connection lives.
    pub(crate) fn holding(mut self, slot: OwnedSemaphorePermit) -> Self {
        self.slot = Some(slot);
        self
    }

    /// Who is at the other end.
    pub fn identity(&self) -> &Identity {
        &self.peer.identity
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

    /// An error from when the server has ended the connection on; until then, whoever polls is woken
    /// when it does.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.refusal.is_none()
            && let Some(place) = self.place.as_mut()
            && let Poll::Ready(refusal) = place.poll_ended(context)
        {
            self.refusal = Some(refusal);
        }
        match &self.refusal {
            None => Ok(()),
            Some(refusal) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, refusal.clone())),
        }
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
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
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
