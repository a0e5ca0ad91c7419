use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use domain::SystemClock;
use futures_util::TryStreamExt as _;
use mtls::{Limits, ServerTls, TlsConnection, TlsSource};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
};
use tonic::transport::{Server, server::Connected};

use crate::process::{announce, orphaned};

/// The health service behind the broker's own acceptor, and nothing else: what any call costs.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The deployment whose identities are used.
    folder: PathBuf,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut files: TlsSource = toml::from_str(
        "certificate = \"pki/broker.pem\"\nkey = \"pki/broker.key\"\nca = \"pki/ca.pem\"",
    )?;
    files.resolve(&args.folder);
    let domains = toml::from_str::<Domains>("domains = [\"strongroom.local\"]")?.domains;
    let tls = ServerTls::load(files, domains, Arc::new(SystemClock))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener.local_addr()?.to_string());
    let incoming = mtls::incoming(listener, tls, Limits::default(), orphaned()).map_ok(Peer);
    let (_, health) = tonic_health::server::health_reporter();
    Server::builder().add_service(health).serve_with_incoming(incoming).await?;
    Ok(())
}

#[derive(serde::Deserialize)]
struct Domains {
    domains: mtls::TrustDomains,
}

struct Peer(TlsConnection);

impl Connected for Peer {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
