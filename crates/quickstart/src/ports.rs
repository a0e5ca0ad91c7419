use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::Context as _;
use tokio::net::TcpListener;

/// Listens on a port of loopback, or on a free one when that is taken.
pub(crate) async fn preferably(port: u16) -> anyhow::Result<TcpListener> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(wanted).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            exactly(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
        }
        bound => bound.with_context(|| format!("listening on {wanted}")),
    }
}

/// Listens where it was said, and nowhere else.
pub(crate) async fn exactly(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}
