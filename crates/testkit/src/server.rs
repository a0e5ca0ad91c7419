use std::{error::Error, io, net::SocketAddr, sync::Arc};

use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// A server of HTTP/1.1 and HTTP/2 on a free port of the loopback address. It ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    _tasks: JoinSet<()>,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Server {
    /// Starts one that gives each call this answer; over TLS if there is a configuration of it, with that
    /// one's certificate and protocols.
    pub async fn start<F, B, E>(
        tls: Option<ServerConfig>,
        answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                // Small events must not wait for the other side's acknowledgement.
                drop(tcp.set_nodelay(true));
                let (tls, answer) = (tls.clone(), answer.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(tcp, answer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                serve(stream, answer).await;
                            }
                        }
                    }
                });
            }
        });
        Ok(Self { address, scheme, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens: `http://127.0.0.1:port`, or `https://` there.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

async fn serve<F, B, E>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    E: Into<BoxError>,
{
    let builder = auto::Builder::new(TokioExecutor::new());
    // How a connection ends is the caller's business.
    drop(builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
}
