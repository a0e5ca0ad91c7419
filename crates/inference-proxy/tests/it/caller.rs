use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, Uri, Version};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// An application with one connection, whose HTTP the test chooses. It ends when it is dropped.
pub(crate) struct Caller {
    sender: Sender,
    _connection: JoinSet<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Caller {
    /// Connects over plain HTTP/2, without having asked.
    pub(crate) async fn plain_http2(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::over(tcp, Version::HTTP_2).await
    }

    /// Connects over TLS, and speaks what was agreed on.
    pub(crate) async fn tls(address: SocketAddr, config: ClientConfig) -> Self {
        let stream = handshake(address, config).await.unwrap();
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Version::HTTP_2,
            _ => Version::HTTP_11,
        };
        Self::over(stream, version).await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        version: Version,
    ) -> Self {
        let io = TokioIo::new(stream);
        let mut tasks = JoinSet::new();
        let sender = if version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tasks.spawn(async move { drop(connection.await) });
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            tasks.spawn(async move { drop(connection.await) });
            Sender::Http1(sender)
        };
        Self { sender, _connection: tasks }
    }

    /// Sends a call and waits for the head of its answer.
    pub(crate) async fn send(
        &mut self,
        request: http::request::Builder,
        body: &str,
    ) -> hyper::Result<Response<Incoming>> {
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let mut request: Request<_> = request.body(body).unwrap();
        match &mut self.sender {
            Sender::Http2(sender) => sender.send_request(request).await,
            Sender::Http1(sender) => {
                let host = request.uri().authority().unwrap().to_string().parse().unwrap();
                request.headers_mut().insert("host", host);
                *request.uri_mut() = Uri::from(request.uri().path_and_query().unwrap().clone());
                sender.send_request(request).await
            }
        }
    }
}

/// Connects to the proxy as `127.0.0.1` over TLS.
pub(crate) async fn handshake(
    address: SocketAddr,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}
