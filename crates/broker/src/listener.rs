use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use mtls::{Identity, TlsConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// A connection as the server takes it: each request on it carries the identity at its other end.
#[derive(Debug)]
pub(crate) struct Peer {
    connection: TlsConnection,
    identity: Arc<Identity>,
}

impl Peer {
    pub(crate) fn new(connection: TlsConnection) -> Self {
        let identity = Arc::new(connection.identity().clone());
        Self { connection, identity }
    }
}

impl Connected for Peer {
    type ConnectInfo = Arc<Identity>;

    fn connect_info(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
