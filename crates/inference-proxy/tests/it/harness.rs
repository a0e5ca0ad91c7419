mod lent;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    CredentialName, Dialect, Failure, KeyTerms, Origin, ProviderId, Secret, Source, SystemClock,
    Unit, VirtualKey, VirtualKeyDigest, VirtualKeyId,
};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use inference_proxy::{Config, Leases, Loan, LoanAccount, Proxy};
use providers::{Ask, Call, Catalogue, CredentialKind, Proof, Provider, Settings};
use serde_json::Value;
use strongroom_client::{FailedAttempt, LeaseError, LeaseKey, UnsealError};
use strongroom_proto::v1::{
    ExplainRouteResponse, ListModelsResponse, PlannedAttempt, ReachableModel,
};
use testkit::Upstream;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

use self::lent::{Lent, proof};
use crate::ledger::Ledger;

pub(crate) const SECRET: &str = "sk-proj-Upstream0Secret1Material2Abcdefgh";

/// A running proxy, its provider, and a client.
pub(crate) struct World {
    pub(crate) upstream: Upstream,
    pub(crate) leases: Arc<Script>,
    pub(crate) address: SocketAddr,
    pub(crate) key: VirtualKey,
    client: Client<HttpConnector, Full<Bytes>>,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) tasks: JoinSet<std::io::Result<()>>,
}

/// Leases without a broker: whoever shows the one key gets one.
#[derive(Debug)]
pub(crate) struct Script {
    base: String,
    key: VirtualKeyDigest,
    pub(crate) asked: Mutex<Vec<LeaseKey>>,
    pub(crate) refusal: Mutex<Option<LeaseError>>,
    pub(crate) forgotten: AtomicUsize,
    pub(crate) live: Arc<AtomicBool>,
    /// Whether the leases that come next live, each by itself; then `live` says so.
    pub(crate) lives: Mutex<VecDeque<Arc<AtomicBool>>>,
    /// Origins instead of that of the address.
    pub(crate) origins: Mutex<Option<Vec<Origin>>>,
    /// Whether leases say where the provider is.
    pub(crate) has_address: AtomicBool,
    /// Whether leases name a header that is not the provider's.
    pub(crate) wrong_header: AtomicBool,
    /// The kind and settings of credentials, by provider; without: the usual kind and no settings.
    pub(crate) kinds: Mutex<HashMap<String, Kept>>,
    /// What the virtual key is for: kinds of calls, and networks.
    pub(crate) places: Mutex<(Vec<String>, Vec<String>)>,
    /// The model that is lent instead of the one asked for.
    pub(crate) model: Mutex<Option<String>>,
    /// What is lent when an attempt fails, in this order; then nothing more. Every lease but the last
    /// has a fallback.
    pub(crate) next: Mutex<VecDeque<Next>>,
    /// What was reported, each time.
    pub(crate) reported: Mutex<Vec<Vec<(String, Failure)>>>,
    /// Failures that nothing stood in for.
    pub(crate) alone: Mutex<Vec<(String, Failure)>>,
    /// The versions that were reported last.
    pub(crate) versions: Mutex<Vec<u64>>,
    /// Why no call can be served.
    pub(crate) trouble: Mutex<Option<String>>,
    /// The budgets of the one key.
    pub(crate) till: Ledger,
}

/// The kind of a credential, and what it says beside its secret.
type Kept = (CredentialKind, Vec<(String, String)>);

/// What a test's broker does when it hears of a failure.
#[derive(Debug)]
pub(crate) enum Next {
    /// Lends this credential of this provider, at this address, with this secret. It is of version 1
    /// unless the name says another: `name@2`.
    Lend { credential: &'static str, provider: &'static str, base: String, secret: &'static str },
    /// Lends nothing.
    Refuse(LeaseError),
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// A proxy with more in its configuration.
    pub(crate) async fn with(extra: &str) -> Self {
        Self::before(Upstream::start().await.unwrap(), extra).await
    }

    /// A proxy before this provider.
    pub(crate) async fn before(upstream: Upstream, extra: &str) -> Self {
        let base = upstream.url();
        Self::at(upstream, base, extra).await
    }

    /// A proxy whose leases say that the provider is there.
    pub(crate) async fn at(upstream: Upstream, base: String, extra: &str) -> Self {
        let key = VirtualKey::generate().unwrap();
        let leases = Arc::new(Script {
            base,
            key: key.digest(),
            asked: Mutex::default(),
            refusal: Mutex::default(),
            forgotten: AtomicUsize::new(0),
            live: Arc::new(AtomicBool::new(true)),
            lives: Mutex::default(),
            origins: Mutex::default(),
            has_address: AtomicBool::new(true),
            wrong_header: AtomicBool::new(false),
            kinds: Mutex::default(),
            places: Mutex::default(),
            model: Mutex::default(),
            next: Mutex::default(),
            reported: Mutex::default(),
            alone: Mutex::default(),
            versions: Mutex::default(),
            trouble: Mutex::default(),
            till: Ledger::default(),
        });
        let config = config(extra);
        let shared = Arc::clone(&leases) as Arc<dyn Leases>;
        let proxy = Proxy::with_leases(&config, shared, Arc::new(SystemClock)).unwrap();
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { proxy.serve(listener, async { drop(stopped.await) }).await });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { upstream, leases, address, key, client, stop: Some(stop), tasks }
    }

    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) fn post(&self, path: &str) -> http::request::Builder {
        Request::post(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.key.expose()))
            .header("content-type", "application/json")
    }

    pub(crate) async fn send(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    /// Sends a call and reads the whole answer.
    pub(crate) async fn call(&self, path: &str, body: &str) -> (StatusCode, HeaderMap, Value) {
        read(self.send(self.post(path), body.to_owned()).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, HeaderMap, Value) {
        let request = Request::get(format!("http://{}{path}", self.address))
            .header("x-api-key", self.key.expose());
        read(self.send(request, "").await).await
    }

    /// From now on, credentials of this provider are of this kind and say this.
    pub(crate) fn hold(&self, provider: &str, kind: CredentialKind, settings: &[(&str, &str)]) {
        let settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let held = (kind, settings.collect());
        self.leases.kinds.lock().unwrap().insert(provider.to_owned(), held);
    }

    /// What is lent after a failure, when all before it are used up.
    pub(crate) fn then(&self, next: Next) {
        self.leases.next.lock().unwrap().push_back(next);
    }

    pub(crate) fn refuse(&self, error: LeaseError) {
        *self.leases.refusal.lock().unwrap() = Some(error);
    }
}

pub(crate) async fn read(response: Response<Incoming>) -> (StatusCode, HeaderMap, Value) {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let value = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&body).into_owned()));
    (head.status, head.headers, value)
}

/// Stand-in providers run beside the tests.
const LOOPBACK: &str = "[egress]\nallow = [\"127.0.0.1/32\"]\ndanger_plain_http_to_loopback = true";

pub(crate) fn config(extra: &str) -> Config {
    let (top, tables) = if extra.starts_with('[') { ("", extra) } else { (extra, "") };
    let egress = if tables.contains("[egress]") { "" } else { LOOPBACK };
    let text = format!(
        r#"
        listen = "127.0.0.1:0"
        {top}
        {egress}
        {tables}
        [broker]
        broker = "127.0.0.1:1"
        broker_id = "spiffe://test/broker"
        trust_domains = ["test"]
        tls = {{ certificate = "c", key = "k", ca = "a" }}
        "#
    );
    toml::from_str(&text).unwrap()
}

#[async_trait]
impl Leases for Script {
    async fn lease(&self, key: &LeaseKey) -> Result<Arc<dyn Loan>, LeaseError> {
        self.asked.lock().unwrap().push(key.clone());
        if let Some(error) = self.refusal.lock().unwrap().clone() {
            return Err(error);
        }
        if key.digest != self.key {
            return Err(refused("VIRTUAL_KEY_REFUSED"));
        }
        let catalogue = Catalogue::builtin().unwrap();
        let (named, model) = catalogue.split_model(&key.model);
        let provider = key.provider.clone().or(named).or(catalogue.detect(model).cloned());
        let provider = provider.ok_or_else(|| refused("NO_SUCH_MODEL"))?;
        let known = catalogue.provider(&provider).unwrap();
        let lent = Lent {
            credential: format!("tenants/acme/credentials/{provider}-prod").parse().unwrap(),
            model: self.model.lock().unwrap().clone().unwrap_or_else(|| model.to_owned()),
            because: "detected",
            secret: SECRET,
            ..self.lend(known, key.dialect, &self.base)
        };
        Ok(Arc::new(lent))
    }

    async fn fall_back(
        &self,
        key: &LeaseKey,
        failed: &[FailedAttempt],
    ) -> Result<Arc<dyn Loan>, LeaseError> {
        let told = failed.iter().map(|one| (one.credential.to_string(), one.failure)).collect();
        self.reported.lock().unwrap().push(told);
        *self.versions.lock().unwrap() = failed.iter().map(|one| one.version).collect();
        let next = self.next.lock().unwrap().pop_front();
        match next.unwrap_or_else(|| Next::Refuse(refused("CREDENTIALS_EXHAUSTED"))) {
            Next::Refuse(error) => Err(error),
            Next::Lend { credential, provider, base, secret } => {
                let catalogue = Catalogue::builtin().unwrap();
                let known = catalogue.named(provider).unwrap();
                let (credential, version) = credential.split_once('@').unwrap_or((credential, "1"));
                let lent = Lent {
                    version: version.parse().unwrap(),
                    credential: format!("tenants/acme/credentials/{credential}").parse().unwrap(),
                    model: catalogue.split_model(&key.model).1.to_owned(),
                    because: "fallback",
                    secret,
                    ..self.lend(known, key.dialect, &base)
                };
                Ok(Arc::new(lent))
            }
        }
    }

    fn report(&self, _: &LeaseKey, failed: FailedAttempt) {
        self.alone.lock().unwrap().push((failed.credential.to_string(), failed.failure));
    }

    async fn explain(&self, key: &LeaseKey) -> Result<ExplainRouteResponse, LeaseError> {
        self.asked.lock().unwrap().push(key.clone());
        if key.digest != self.key {
            return Err(refused("VIRTUAL_KEY_REFUSED"));
        }
        let attempt = PlannedAttempt {
            credential: "tenants/acme/credentials/openai-prod".to_owned(),
            provider: "openai".to_owned(),
            source: 1,
            model: key.model.clone(),
            because: "detected".to_owned(),
            origin: "https://api.openai.com".to_owned(),
        };
        Ok(ExplainRouteResponse {
            steps: vec!["one".to_owned()],
            attempts: vec![attempt],
            networks: self.places.lock().unwrap().1.clone(),
            ..Default::default()
        })
    }

    fn forget(&self, _: &LeaseKey) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    async fn models(
        &self,
        _: &VirtualKeyId,
        digest: &VirtualKeyDigest,
    ) -> Result<ListModelsResponse, LeaseError> {
        if *digest != self.key {
            return Err(refused("VIRTUAL_KEY_REFUSED"));
        }
        let model = |model: &str, provider: &str| ReachableModel {
            model: model.to_owned(),
            provider: provider.to_owned(),
            source: 1,
        };
        let models = vec![model("gpt-4o", "openai"), model("claude-opus-5", "anthropic")];
        let (endpoints, networks) = self.places.lock().unwrap().clone();
        Ok(ListModelsResponse { models, endpoints, networks })
    }

    async fn prices(&self, tenant: &str) -> Result<Bytes, LeaseError> {
        self.till.prices(tenant)
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap().clone()
    }

    async fn shutdown(&self) {}
}

impl Script {
    /// A lease for this provider, less what the test says of it.
    fn lend(&self, provider: &Provider, dialect: Dialect, base: &str) -> Lent {
        let known = self.kinds.lock().unwrap().get(provider.id().as_str()).cloned();
        let usual = || (provider.credential_forms().first().unwrap().kind, Vec::new());
        let (kind, settings) = known.unwrap_or_else(usual);
        let (header, prefix) = proof(provider, dialect, kind, &settings, base);
        let wrong = self.wrong_header.load(Ordering::SeqCst);
        let header = if wrong { "x-other-key".parse().unwrap() } else { header };
        let origin = Origin::of_url(base).unwrap();
        Lent {
            version: 1,
            base: base.parse().unwrap(),
            origins: self.origins.lock().unwrap().clone().unwrap_or_else(|| vec![origin]),
            header,
            prefix,
            provider: provider.id().clone(),
            credential: "tenants/acme/credentials/x".parse().unwrap(),
            model: String::new(),
            live: self.lives.lock().unwrap().pop_front().unwrap_or(Arc::clone(&self.live)),
            kind,
            settings,
            address: self.has_address.load(Ordering::SeqCst).then(|| base.to_owned()),
            has_fallback: !self.next.lock().unwrap().is_empty(),
            because: "",
            key_terms: {
                let (endpoints, networks) = self.places.lock().unwrap().clone();
                KeyTerms::of_places(&endpoints, &networks).unwrap()
            },
            secret: SECRET,
            limited: self.till.limited(),
            price_version: self.till.price_version(),
        }
    }
}

pub(crate) fn refused(reason: &str) -> LeaseError {
    LeaseError::Refused {
        code: tonic::Code::PermissionDenied,
        reason: reason.to_owned(),
        message: "the broker's words".to_owned(),
        metadata: [("models".to_owned(), "gpt-4o".to_owned())].into(),
        retry_after: None,
    }
}

/// What dialect the last lease was asked for.
pub(crate) fn last_dialect(world: &World) -> Dialect {
    world.leases.asked.lock().unwrap().last().unwrap().dialect
}
