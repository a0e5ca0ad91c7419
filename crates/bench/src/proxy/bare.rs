use std::net::SocketAddr;

use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::{
    Request, Response, Uri,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, HOST, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::process::{announce, orphaned};

/// The least that a proxy of this kind does: take a call, put another key on it, send it on over a
/// pooled connection, and stream the answer back.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    upstream: SocketAddr,
}

type Upstream = Client<HttpConnector, Incoming>;

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener.local_addr()?.to_string());
    let mut connections = JoinSet::new();
    let serve = async {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection.set_nodelay(true));
            let client = client.clone();
            connections.spawn(async move {
                let service = service_fn(|request| pass(request, &client, args.upstream));
                // How a connection ends is the other side's business.
                drop(
                    http1::Builder::new().serve_connection(TokioIo::new(connection), service).await,
                );
            });
        }
    };
    tokio::select! { () = serve => {}, () = orphaned() => {} }
    Ok(())
}

async fn pass(
    mut request: Request<Incoming>,
    client: &Upstream,
    upstream: SocketAddr,
) -> anyhow::Result<Response<BoxBody<Bytes, hyper::Error>>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(upstream.to_string())
        .path_and_query(path)
        .build()?;
    request.headers_mut().remove(HOST);
    let key = HeaderValue::from_static("Bearer sk-bench-0123456789abcdef");
    request.headers_mut().insert(AUTHORIZATION, key);
    Ok(client.request(request).await?.map(BodyExt::boxed))
}
