use std::{
    convert::Infallible,
    fs,
    future::Future,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use http::{Request, Response};
use mtls::{ClientTls, LoadError, ServerTls, TlsFiles, TlsSource, WorkloadApi};
use prost::Message;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    net::UnixListener,
    runtime::{Handle, Runtime},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{
    Status,
    body::Body,
    server::{Grpc, NamedService, ServerStreamingService},
};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::{
    handshake::pair,
    pki::{Authority, Pki, domains, leaf},
};

/// The published messages of the Workload API, as far as they are used.
#[derive(Clone, PartialEq, Message)]
struct X509SvidRequest {}

#[derive(Clone, PartialEq, Message)]
struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
}

#[derive(Clone, PartialEq, Message)]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

/// An agent that gives whoever asks the identity that a test has put in it, and each new one.
#[derive(Clone)]
struct Agent(watch::Receiver<Option<X509SvidResponse>>);

impl NamedService for Agent {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

type Answers = Pin<Box<dyn Stream<Item = Result<X509SvidResponse, Status>> + Send>>;
type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl ServerStreamingService<X509SvidRequest> for Agent {
    type Response = X509SvidResponse;
    type ResponseStream = Answers;
    type Future = Boxed<tonic::Response<Answers>, Status>;

    fn call(&mut self, request: tonic::Request<X509SvidRequest>) -> Self::Future {
        let known = request.metadata().get("workload.spiffe.io").is_some_and(|it| it == "true");
        let news = WatchStream::new(self.0.clone());
        Box::pin(async move {
            if !known {
                return Err(Status::invalid_argument("security header missing"));
            }
            let news = news.filter_map(|it| std::future::ready(it.map(Ok)));
            // The stream never ends by itself, as the standard says.
            let answers: Answers = Box::pin(news.chain(stream::pending()));
            Ok(tonic::Response::new(answers))
        })
    }
}

impl Service<Request<Body>> for Agent {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let agent = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/SpiffeWorkloadAPI/FetchX509SVID" {
                return Ok(Status::unimplemented("not in this agent").into_http());
            }
            let codec: ProstCodec<X509SvidResponse, X509SvidRequest> = ProstCodec::default();
            Ok(Grpc::new(codec).server_streaming(agent, request).await)
        })
    }
}

/// Serves for as long as the runtime lives, and its connections no longer.
fn serve(socket: &Path, agent: Agent, on: &Handle) {
    let _context = on.enter();
    let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
    let router = tonic::transport::Server::builder().add_service(agent);
    on.spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
}

/// What an agent says about an identity in files.
fn given(files: &TlsFiles, path: &str, authority: &Authority) -> X509SvidResponse {
    let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap();
    let svid = X509Svid {
        spiffe_id: format!("spiffe://acme.internal/{path}"),
        chain: chain.flat_map(|it| it.unwrap().to_vec()).collect(),
        key: PrivateKeyDer::from_pem_file(&files.key).unwrap().secret_der().to_vec(),
        bundle: CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap().to_vec(),
    };
    X509SvidResponse { svids: vec![svid] }
}

/// Opening waits for the agent, so it is not done on a thread that the agent runs on.
async fn open(pki: &Pki, socket: &Path) -> Result<Arc<ServerTls>, LoadError> {
    let api = TlsSource::WorkloadApi(WorkloadApi { socket: socket.to_owned(), crl: None });
    let (domains, clock) = (domains(&["acme.internal"]), pki.clock());
    tokio::task::spawn_blocking(move || ServerTls::load(api, domains, clock)).await.unwrap()
}

async fn meet(server: &ServerTls, client: &ClientTls) -> Result<String, String> {
    let (ours, theirs) = pair().await;
    let (accepted, connected) = tokio::join!(server.accept(theirs), client.connect(ours));
    accepted.map_err(|error| error.reason().to_owned())?;
    let connection = connected.map_err(|error| error.reason().to_owned())?;
    Ok(connection.identity().serial.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identity_and_bundle_come_from_an_agent_and_change_with_it() {
    let pki = Pki::new();
    let socket = pki.path("agent.sock");
    let mut params = leaf("spiffe://acme.internal/broker");
    params.serial_number = Some(1.into());
    let first = pki.issue("first", &params);
    params.serial_number = Some(2.into());
    let second = pki.issue("second", &params);
    // The agent has no identity for us yet: the start waits for it.
    let (news, agent) = watch::channel(None);
    serve(&socket, Agent(agent), &Handle::current());
    let opening = open(&pki, &socket);
    news.send(Some(given(&first, "broker", &pki.authority))).unwrap();
    let server = opening.await.unwrap();
    let client = pki.client(pki.good("proxy")).unwrap();
    assert_eq!(meet(&server, &client).await.unwrap(), "01");

    let mut watching = JoinSet::new();
    watching.spawn(Arc::clone(&server).watch(Duration::from_millis(10)));
    news.send(Some(given(&second, "broker", &pki.authority))).unwrap();
    let changed = async { while meet(&server, &client).await != Ok("02".to_owned()) {} };
    timeout(Duration::from_secs(10), changed).await.unwrap();

    // Another authority is trusted, and this one no longer: who it vouched for is cut off.
    let next = Authority::new("next");
    let third = pki.issue_by(&next, "third", &leaf("spiffe://acme.internal/broker"));
    news.send(Some(given(&third, "broker", &next))).unwrap();
    fs::write(pki.path("ca.pem"), format!("{}{}", pki.authority.pem, next.pem)).unwrap();
    assert!(client.reload().unwrap());
    let refused = async { while meet(&server, &client).await != Err("unknown_issuer".into()) {} };
    timeout(Duration::from_secs(10), refused).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_goes_away_leaves_what_it_gave() {
    let pki = Pki::new();
    let socket = pki.path("agent.sock");
    let (news, agent) = watch::channel(Some(given(&pki.good("broker"), "broker", &pki.authority)));
    let apart = Runtime::new().unwrap();
    serve(&socket, Agent(agent.clone()), apart.handle());
    let server = open(&pki, &socket).await.unwrap();
    let client = pki.client(pki.good("proxy")).unwrap();
    let before = meet(&server, &client).await.unwrap();
    apart.shutdown_background();
    fs::remove_file(&socket).unwrap();
    assert!(!server.reload().unwrap());
    assert_eq!(meet(&server, &client).await.unwrap(), before);

    // It comes back with something new, and is found again.
    let mut params = leaf("spiffe://acme.internal/broker");
    params.serial_number = Some(9.into());
    news.send(Some(given(&pki.issue("new", &params), "broker", &pki.authority))).unwrap();
    serve(&socket, Agent(agent), &Handle::current());
    let found = async {
        while !server.reload().unwrap() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), found).await.unwrap();
    assert_eq!(meet(&server, &client).await.unwrap(), "09");
}

#[test]
fn a_configuration_names_files_or_an_agent_and_not_both() {
    let files = "certificate = \"a\"\nkey = \"b\"\nca = \"c\"\n";
    let agent = "workload_api = \"/run/agent.sock\"\n";
    let parsed = |text: &str| toml::from_str::<TlsSource>(text);
    assert!(matches!(parsed(files), Ok(TlsSource::Files(files)) if files.crl.is_none()));
    let with_crl = parsed(&format!("{agent}crl = \"crl.pem\"\n")).unwrap();
    assert!(matches!(with_crl, TlsSource::WorkloadApi(api) if api.crl.is_some()));
    for refused in [format!("{files}{agent}"), files.replace("key = \"b\"\n", ""), String::new()] {
        let error = parsed(&refused).unwrap_err().to_string();
        assert!(error.contains("`workload_api`"), "{error}");
    }
    assert!(parsed(&format!("{agent}socket = \"x\"\n")).is_err());
    let by_domain = files.replace("\"c\"", "{ \"acme.internal\" = \"c\" }");
    assert!(matches!(parsed(&by_domain), Ok(TlsSource::Files(_))));
}
