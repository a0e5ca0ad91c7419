use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    CredentialName, Dialect, Origin, ProviderId, Secret, Source, SystemClock, VirtualKey,
    VirtualKeyDigest, VirtualKeyId,
};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use inference_proxy::{Config, Leases, Loan, Proxy};
use providers::Catalogue;
use serde_json::Value;
use strongroom_client::{LeaseError, LeaseKey, UnsealError};
use strongroom_proto::v1::ReachableModel;
use testkit::Upstream;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

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
    /// Origins instead of that of the address.
    pub(crate) origins: Mutex<Option<Vec<Origin>>>,
}

#[derive(Debug)]
struct Lent {
    base: Uri,
    origins: Vec<Origin>,
    header: HeaderName,
    prefix: String,
    provider: ProviderId,
    credential: CredentialName,
    model: String,
    live: Arc<AtomicBool>,
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
        let key = VirtualKey::generate().unwrap();
        let leases = Arc::new(Script {
            base: upstream.url(),
            key: key.digest(),
            asked: Mutex::default(),
            refusal: Mutex::default(),
            forgotten: AtomicUsize::new(0),
            live: Arc::new(AtomicBool::new(true)),
            origins: Mutex::default(),
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
    let (top, tables) = extra.split_at(extra.find('[').unwrap_or(extra.len()));
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
        let endpoint = known.endpoint_at(key.dialect, &self.base).unwrap();
        let origin = Origin::of_url(&self.base).unwrap();
        Ok(Arc::new(Lent {
            base: endpoint.base_url.parse().unwrap(),
            origins: self.origins.lock().unwrap().clone().unwrap_or_else(|| vec![origin]),
            header: endpoint.header_name,
            prefix: endpoint.header_prefix,
            credential: format!("tenants/acme/credentials/{provider}-prod").parse().unwrap(),
            provider,
            model: model.to_owned(),
            live: Arc::clone(&self.live),
        }))
    }

    fn forget(&self, _: &LeaseKey) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    async fn models(
        &self,
        _: &VirtualKeyId,
        digest: &VirtualKeyDigest,
    ) -> Result<Vec<ReachableModel>, LeaseError> {
        if *digest != self.key {
            return Err(refused("VIRTUAL_KEY_REFUSED"));
        }
        let model = |model: &str, provider: &str| ReachableModel {
            model: model.to_owned(),
            provider: provider.to_owned(),
            source: 1,
        };
        Ok(vec![model("gpt-4o", "openai"), model("claude-opus-5", "anthropic")])
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    async fn shutdown(&self) {}
}

impl Loan for Lent {
    fn base_uri(&self) -> &Uri {
        &self.base
    }

    fn origins(&self) -> &[Origin] {
        &self.origins
    }

    fn header_name(&self) -> &HeaderName {
        &self.header
    }

    fn header_prefix(&self) -> &str {
        &self.prefix
    }

    fn provider(&self) -> &ProviderId {
        &self.provider
    }

    fn source(&self) -> Source {
        Source::Byok
    }

    fn credential(&self) -> &CredentialName {
        &self.credential
    }

    fn model(&self) -> &str {
        &self.model
    }

    fn is_live(&self) -> bool {
        self.live.load(Ordering::SeqCst)
    }

    fn unseal(&self) -> Result<Secret, UnsealError> {
        Ok(Secret::new(SECRET.as_bytes().to_vec()))
    }
}

pub(crate) fn refused(reason: &str) -> LeaseError {
    LeaseError::Refused {
        code: tonic::Code::PermissionDenied,
        reason: reason.to_owned(),
        message: "the broker's words".to_owned(),
        metadata: [("models".to_owned(), "gpt-4o".to_owned())].into(),
    }
}

/// What dialect the last lease was asked for.
pub(crate) fn last_dialect(world: &World) -> Dialect {
    world.leases.asked.lock().unwrap().last().unwrap().dialect
}
