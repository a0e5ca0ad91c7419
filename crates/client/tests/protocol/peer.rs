//! The broker's end of the protocol, scripted: real TLS, real sessions and seals, answers on cue.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use domain::{Clock, LeaseId, Secret, Source, SystemClock, Timestamp};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use mtls::{Limits, ServerTls, TlsFiles, TrustDomains};
use sealing::{LeaseContext, Session};
use strongroom_proto::v1::{
    self, Lease, Revocation, WatchRevocationsResponse, credentials_server::CredentialsServer,
    leases_server::LeasesServer, revocation::Target,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, service::Routes};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(crate) const SECRET: &[u8] = b"sk-live-0123456789abcdef";

#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) state: Arc<State>,
    pub(crate) identity: String,
}

pub(crate) struct State {
    pub(crate) script: Mutex<Script>,
    /// Rises when there is something new for streams to look at.
    pub(crate) news: watch::Sender<u64>,
    /// A permit is taken by each answer to `AcquireLease`.
    pub(crate) answers: Semaphore,
    pub(crate) streams: Mutex<JoinSet<()>>,
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) sessions: HashMap<Vec<u8>, Arc<Session>>,
    pub(crate) sessions_opened: u32,
    pub(crate) asked: u32,
    pub(crate) renewed: u32,
    pub(crate) released: u32,
    pub(crate) refusals: VecDeque<Status>,
    pub(crate) tamper: Option<fn(&mut Lease)>,
    pub(crate) granted: HashMap<Vec<u8>, Lease>,
    pub(crate) log: u64,
    pub(crate) revocations: Vec<Revocation>,
    pub(crate) streams_refused: Option<Status>,
    pub(crate) stream_starts: Vec<Option<u64>>,
    pub(crate) stored: Vec<(String, Vec<u8>)>,
    pub(crate) deadlines: Vec<bool>,
    pub(crate) verifier_key: String,
    pub(crate) checkpoint: String,
    pub(crate) echoed: Vec<String>,
    pub(crate) failed: Vec<v1::FailedAttempt>,
    pub(crate) reported: Vec<v1::FailureReport>,
    /// What reports of failures are answered with instead.
    pub(crate) deaf: VecDeque<Status>,
}

impl Peer {
    pub(crate) async fn start(files: TlsFiles) -> (Self, SocketAddr, JoinSet<()>) {
        let state = Arc::new(State {
            script: Mutex::new(Script { log: 1, ..Script::default() }),
            news: watch::channel(0).0,
            answers: Semaphore::new(1_000_000),
            streams: Mutex::default(),
        });
        let peer = Self { state, identity: String::new() };
        let domains = TrustDomains::new(["test.internal"]).unwrap();
        let tls = ServerTls::load(files, domains, Arc::new(SystemClock)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, tls, peer.clone()));
        (peer, address, server)
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.state.script.lock().unwrap()
    }

    /// Appends a revocation to the log and tells the streams.
    pub(crate) fn revoke(&self, target: Target) {
        let mut script = self.script();
        let log_index = script.log;
        script.log += 1;
        script.revocations.push(Revocation { log_index, target: Some(target) });
        drop(script);
        self.state.news.send_modify(|news| *news += 1);
    }

    /// Ends every stream; further ones are answered with `status`, if there is one.
    pub(crate) fn cut_streams(&self, status: Option<Status>) {
        self.script().streams_refused = status;
        self.state.streams.lock().unwrap().abort_all();
    }

    pub(crate) fn grant(
        &self,
        session: &Session,
        id: [u8; 16],
        renewals: u32,
        model: String,
        key: &str,
    ) -> Lease {
        let mut script = self.script();
        let now = SystemClock.now().as_millis();
        let mut lease = Lease {
            lease_id: id.to_vec().into(),
            lease_hash: id.iter().rev().copied().collect::<Vec<u8>>().into(),
            credential: "tenants/acme/credentials/openai".into(),
            credential_version: 3,
            provider: "openai".into(),
            source: v1::Source::Byok.into(),
            tenant: "tenants/acme".into(),
            origins: vec!["https://api.openai.com".into()],
            base_url: "https://api.openai.com/v1".into(),
            header_name: "authorization".into(),
            header_prefix: "Bearer ".into(),
            renewals,
            expire_time: Some(prost_types::Timestamp { seconds: (now + 60_000) / 1000, nanos: 0 }),
            ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            log_index: script.log,
            model,
            virtual_key: format!("tenants/acme/virtualKeys/{key}"),
            checkpoint: script.checkpoint.clone(),
            credential_kind: "api_key".into(),
            settings: vec![v1::Setting { name: "organization".into(), value: "org-1".into() }],
            has_fallback: true,
            because: "detected".into(),
            price_version: "7-2".into(),
            endpoints: vec!["chat_completions".into()],
            networks: vec!["10.0.0.0/8".into()],
            ..Lease::default()
        };
        script.log += 1;
        lease.sealed_secret = self.seal(session, id, &lease).into();
        script.granted.insert(id.to_vec(), lease.clone());
        if let Some(tamper) = script.tamper {
            tamper(&mut lease);
        }
        lease
    }

    fn seal(&self, session: &Session, id: [u8; 16], lease: &Lease) -> Vec<u8> {
        let settings = lease.settings.iter().map(|it| (it.name.clone(), it.value.clone()));
        let settings: Vec<_> = settings.collect();
        let context = LeaseContext {
            lease_id: LeaseId::from_bytes(id),
            lease_hash: &lease.lease_hash,
            renewals: lease.renewals,
            tenant: &lease.tenant,
            credential: &lease.credential,
            credential_version: lease.credential_version,
            provider: &lease.provider,
            source: Source::Byok,
            origins: &lease.origins,
            base_url: &lease.base_url,
            header_name: &lease.header_name,
            header_prefix: &lease.header_prefix,
            expire_time: Timestamp::from_millis(lease.expire_time.unwrap().seconds * 1000),
            ttl: Duration::from_mins(1),
            log_index: lease.log_index,
            identity: &self.identity,
            virtual_key: &lease.virtual_key,
            model: &lease.model,
            credential_kind: &lease.credential_kind,
            settings: &settings,
            address: &lease.address,
            has_fallback: lease.has_fallback,
            because: &lease.because,
            price_version: &lease.price_version,
            endpoints: &lease.endpoints,
            networks: &lease.networks,
        };
        session.seal_lease(&context, &Secret::new(SECRET.to_vec())).unwrap()
    }

    pub(crate) fn session(&self, id: &[u8]) -> Result<Arc<Session>, Status> {
        let unknown = || refusal(Code::FailedPrecondition, "NO_SUCH_SESSION");
        self.script().sessions.get(id).cloned().ok_or_else(unknown)
    }

    /// What a stream that stands at `position` is sent next, and its position then.
    pub(crate) fn message(&self, position: u64) -> WatchRevocationsResponse {
        let script = self.script();
        let new = |revocation: &&Revocation| revocation.log_index >= position;
        WatchRevocationsResponse {
            next_index: script.log,
            revocations: script.revocations.iter().filter(new).cloned().collect(),
        }
    }
}

pub(crate) fn refusal(code: Code, reason: &str) -> Status {
    let details =
        ErrorDetails::with_error_info(reason, "strongroom.dev", HashMap::<String, String>::new());
    Status::with_error_details(code, "words", details)
}

async fn serve(listener: TcpListener, tls: Arc<ServerTls>, peer: Peer) {
    let mut connections = JoinSet::new();
    let incoming = mtls::incoming(listener, tls, Limits::default(), std::future::pending());
    tokio::pin!(incoming);
    while let Some(Ok(connection)) = incoming.next().await {
        let peer = Peer { identity: connection.identity().spiffe_id.to_string(), ..peer.clone() };
        let routes =
            Routes::new(LeasesServer::new(peer.clone())).add_service(CredentialsServer::new(peer));
        connections.spawn(async move {
            let service = TowerToHyperService::new(routes.prepare());
            let server = Builder::new(TokioExecutor::new()).http2_only();
            // A client that goes away is no failure of the test.
            let _ = server.serve_connection(TokioIo::new(connection), service).await;
        });
    }
}
