use std::{convert::Infallible, net::SocketAddr, path::Path};

use async_trait::async_trait;
use http::{StatusCode, Version, header::LOCATION};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{AddressRules, Resolve, client_tls};

/// A provider of the name `models.example` that speaks TLS, and says when a connection has ended.
struct World {
    client: Client,
    origin: Origin,
    ended: mpsc::UnboundedReceiver<()>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Here(SocketAddr);

#[async_trait]
impl Resolve for Here {
    async fn resolve(&self, _: &str, _: u16) -> std::io::Result<Vec<SocketAddr>> {
        Ok(vec![self.0])
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    match request.uri().path() {
        "/moved" => {
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert(LOCATION, "https://evil.example/".parse().unwrap());
        }
        "/refused" => *response.status_mut() = StatusCode::UNAUTHORIZED,
        "/long" => *response.body_mut() = Full::from(vec![b'x'; 100_000]),
        "/silent" => std::future::pending().await,
        _ => {
            let version = format!("{:?}", request.version());
            let host = request.headers().get(HOST).map(|host| host.to_str().unwrap().to_owned());
            let host = host.or(request.uri().authority().map(ToString::to_string)).unwrap();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            *response.body_mut() = Full::from(format!("{version} {host} {body}"));
        }
    }
    Ok(response)
}

async fn world(protocols: &[&str], trusted: bool) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let made = rcgen::generate_simple_self_signed(["models.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("ca.pem");
    std::fs::write(&authorities, made.cert.pem()).unwrap();
    let exit = Exit {
        rules: AddressRules::new(vec!["127.0.0.1/32".parse().unwrap()]),
        resolver: Arc::new(Here(address)),
        tls: client_tls(trusted.then_some::<&Path>(&authorities)).unwrap(),
        connect_timeout: Duration::from_secs(5),
    };
    let (says, ended) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, says) = (acceptor.clone(), says.clone());
            connections.spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(tls), service_fn(answer)).await;
                }
                let _ = says.send(());
            });
        }
    });
    let origin = format!("https://models.example:{}", address.port()).parse().unwrap();
    World { client: Client::new(Arc::new(exit)), origin, ended, _tasks: tasks }
}

impl World {
    async fn send(&self, url: &str) -> Result<Response<Bytes>, EgressError> {
        let request = Request::post(url).header(HOST, "elsewhere.example");
        let request = request.body(Bytes::from_static(b"hello")).unwrap();
        let origins = [self.origin.clone()];
        let within = Duration::from_secs(5);
        self.client.send(request, &Bounds { origins: &origins, within, longest_answer: 1000 }).await
    }

    async fn word(&self, path: &str) -> &'static str {
        self.send(&format!("{}{path}", self.origin)).await.unwrap_err().word()
    }
}

#[tokio::test]
async fn a_call_is_sent_and_its_connection_closed_in_either_version() {
    for (protocol, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
        let mut world = world(&[protocol], true).await;
        let answer = world.send(&format!("{}/", world.origin)).await.unwrap();
        let host = world.origin.as_str().trim_start_matches("https://");
        // The host is the origin's, whatever the request's own header said.
        assert_eq!(answer.body(), &format!("{version:?} {host} hello"));
        world.ended.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_a_redirect_is_none() {
    let world = world(&["h2"], true).await;
    let refused = world.send(&format!("{}/refused", world.origin)).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(world.word("/moved").await, "redirected");
}

#[tokio::test]
async fn an_answer_is_bounded_in_length_and_time() {
    let mut world = world(&["http/1.1"], true).await;
    assert_eq!(world.word("/long").await, "too_long");
    world.ended.recv().await.unwrap();
    let origins = [world.origin.clone()];
    let bounds =
        Bounds { origins: &origins, within: Duration::from_millis(300), longest_answer: 1000 };
    let request = Request::get(format!("{}/silent", world.origin)).body(Bytes::new()).unwrap();
    assert_eq!(world.client.send(request, &bounds).await.unwrap_err().word(), "too_slow");
    // Giving up closes the connection too.
    world.ended.recv().await.unwrap();
}

#[tokio::test]
async fn only_the_origins_that_the_caller_names_are_called() {
    let world = world(&["h2"], true).await;
    for other in ["https://evil.example/", "https://models.example/", "http://models.example/"] {
        assert_eq!(world.send(other).await.unwrap_err().word(), "foreign_origin", "{other}");
    }
    assert_eq!(world.send("/path").await.unwrap_err().word(), "no_host");
}

#[tokio::test]
async fn a_certificate_of_nobody_known_is_not_trusted() {
    let world = world(&["h2"], false).await;
    assert_eq!(world.word("/").await, "untrusted");
}
