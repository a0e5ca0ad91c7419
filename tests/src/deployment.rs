use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use broker::Broker;
use domain::SystemClock;
use inference_proxy::Proxy;
use setup::{Layout, Pki};
use strongroom_client::ClientConfig;
use strongroom_proto::v1;
use tempfile::TempDir;
use testkit::StandIn;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use toml::{Table, Value};

use crate::{Backing, Export, Upstream, backing::table, export, logs};

/// A broker and a proxy that run in this process, and the stand-in provider they call.
#[derive(Debug)]
pub struct Deployment {
    folder: TempDir,
    layout: Layout,
    upstream: Upstream,
    admin: strongroom_client::Broker,
    broker: Server,
    proxy: Server,
    /// Another broker of the same database, and a proxy of its own.
    beside: Option<(Server, Server)>,
    /// Other proxies of the broker.
    others: Vec<Server>,
}

/// A server of this process, and how to end it.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// Where a broker serves its log as files.
    tiles: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    serving: JoinSet<anyhow::Result<()>>,
}

impl Deployment {
    /// Lays a deployment out and starts it.
    pub async fn start(backing: Backing) -> Self {
        Self::before(backing, &[]).await
    }

    /// The same, with these in the place of their providers, and a proxy that applications call as
    /// `https://localhost` if there is one for Amazon, whose SDK sends keys in no other way.
    pub async fn before(backing: Backing, stand_ins: &[StandIn]) -> Self {
        let tls = stand_ins.iter().any(|stand_in| stand_in.slug() == "bedrock");
        Self::lay_out(backing, stand_ins, tls, |_| {}).await
    }

    /// The same over plain HTTP, with this in the place of the providers' token services, and an
    /// identity of the broker at AWS if a file has one.
    pub async fn with_tokens(
        backing: Backing,
        stand_ins: &[StandIn],
        tokens: &str,
        aws: Option<&Path>,
    ) -> Self {
        let change = |config: &mut Table| {
            let providers = config.get_mut("providers").and_then(Value::as_table_mut).unwrap();
            for provider in providers.iter_mut().filter_map(|(_, it)| it.as_table_mut()) {
                provider.insert("token_origin".to_owned(), tokens.into());
            }
            if let Some(file) = aws.and_then(Path::to_str) {
                config.insert("aws".to_owned(), table(&[("identity_file", file)]));
            }
        };
        Self::lay_out(backing, stand_ins, false, change).await
    }

    async fn lay_out(
        backing: Backing,
        stand_ins: &[StandIn],
        tls: bool,
        change: impl FnOnce(&mut Table),
    ) -> Self {
        logs();
        let folder = tempfile::tempdir().unwrap();
        let layout =
            Layout::development(&folder.path().join("strongroom"), Arc::new(SystemClock)).unwrap();
        let upstream = Upstream::start().await;
        configure_broker(&layout, backing, &upstream, stand_ins).await;
        let mut config: Table = fs::read_to_string(&layout.broker_config).unwrap().parse().unwrap();
        change(&mut config);
        fs::write(&layout.broker_config, config.to_string()).unwrap();
        let broker = start_broker(&layout, LOOPBACK).await;
        configure_proxy(&layout, broker.address, tls);
        let proxy = start_proxy(&layout, LOOPBACK).await;
        let admin = connect(&layout, broker.address, "admin", TIMEOUT);
        Self { folder, layout, upstream, admin, broker, proxy, beside: None, others: Vec::new() }
    }

    /// An administrator's connection to the broker.
    pub fn admin(&self) -> &strongroom_client::Broker {
        &self.admin
    }

    /// Where the broker listens.
    pub fn broker(&self) -> SocketAddr {
        self.broker.address
    }

    /// Where the broker serves the log as static files.
    pub fn tiles(&self) -> SocketAddr {
        self.broker.tiles.unwrap()
    }

    /// Where the proxy listens.
    pub fn proxy(&self) -> SocketAddr {
        self.proxy.address
    }

    /// Starts another broker on the same database, and a proxy that knows only that one. Says where the
    /// proxy listens.
    pub async fn start_beside(&mut self) -> SocketAddr {
        let mut config: Table =
            fs::read_to_string(&self.layout.broker_config).unwrap().parse().unwrap();
        let log = config.get_mut("log").and_then(Value::as_table_mut).unwrap();
        // Each broker keeps the newest checkpoint in a file of its own.
        log.insert("last_checkpoint".to_owned(), "beside-checkpoint".into());
        let mut layout = self.layout.clone();
        layout.broker_config = layout.broker_config.with_file_name("beside-broker.toml");
        layout.proxy_config = layout.proxy_config.with_file_name("beside-proxy.toml");
        fs::write(&layout.broker_config, config.to_string()).unwrap();
        fs::copy(&self.layout.proxy_config, &layout.proxy_config).unwrap();
        let broker = start_broker(&layout, LOOPBACK).await;
        configure_proxy(&layout, broker.address, false);
        let proxy = start_proxy(&layout, LOOPBACK).await;
        let address = proxy.address;
        self.beside = Some((broker, proxy));
        address
    }

    /// Starts another proxy of the same broker, with this in its configuration. Says where it listens.
    pub async fn start_proxy(&mut self, extra: &str) -> SocketAddr {
        let mut layout = self.layout.clone();
        layout.proxy_config = layout.proxy_config.with_file_name("another-proxy.toml");
        let mut config: Table =
            fs::read_to_string(&self.layout.proxy_config).unwrap().parse().unwrap();
        config.extend(extra.parse::<Table>().unwrap());
        fs::write(&layout.proxy_config, config.to_string()).unwrap();
        let proxy = start_proxy(&layout, LOOPBACK).await;
        let address = proxy.address;
        self.others.push(proxy);
        address
    }

    /// Where everything is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The folder that holds everything this deployment writes, but for another's database.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The stand-in provider.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Posts JSON to the proxy as an application with this key, and reads the answer whatever its status.
    pub async fn post(&self, path: &str, key: &str, body: &serde_json::Value) -> serde_json::Value {
        self.ask("POST", path, key, &body.to_string()).await
    }

    /// Gets JSON from the proxy in the same way.
    pub async fn get(&self, path: &str, key: &str) -> serde_json::Value {
        self.ask("GET", path, key, "").await
    }

    async fn ask(&self, method: &str, path: &str, key: &str, body: &str) -> serde_json::Value {
        let mut connection = TcpStream::connect(self.proxy()).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n\
             authorization: Bearer {key}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        // The one object in it, however it is framed.
        let object = answer.find('{').zip(answer.rfind('}')).map(|(from, to)| &answer[from..=to]);
        serde_json::from_str(object.unwrap_or_default()).expect(&answer)
    }

    /// The authority of this deployment.
    pub fn pki(&self) -> Pki {
        pki(&self.layout)
    }

    /// Another workload's connection, with the files `<name>.pem` and `<name>.key` of the authority.
    pub fn connect(&self, name: &str) -> strongroom_client::Broker {
        connect(&self.layout, self.broker.address, name, TIMEOUT)
    }

    /// Ends the broker as SIGTERM would and starts it again on the same port.
    pub async fn restart_broker(&mut self) {
        let address = self.broker.address;
        let ended = std::mem::replace(&mut self.broker, Server::none(address));
        ended.end().await;
        self.broker = start_broker(&self.layout, address).await;
    }

    /// What the broker finds that is not as it was written, or why it does not say.
    pub async fn check_rows(&self) -> Result<Vec<v1::RowFinding>, tonic::Status> {
        let mut audit = self.admin.audit();
        let mut messages = audit.check_rows(v1::CheckRowsRequest {}).await?.into_inner();
        let mut last = v1::CheckRowsResponse::default();
        while let Some(message) = messages.message().await? {
            last = message;
        }
        assert!(last.done && last.unchecked_tenants.is_empty(), "{last:?}");
        Ok(last.findings)
    }

    /// Ends broker and proxy, has something done meanwhile, and starts both again, with nothing in memory.
    pub(crate) async fn with_nothing_running<T>(
        &mut self,
        work: impl AsyncFnOnce(&Layout) -> T,
    ) -> T {
        let (broker, proxy) = (self.broker.address, self.proxy.address);
        std::mem::replace(&mut self.proxy, Server::none(proxy)).end().await;
        std::mem::replace(&mut self.broker, Server::none(broker)).end().await;
        let done = work(&self.layout).await;
        self.broker = start_broker(&self.layout, broker).await;
        self.proxy = start_proxy(&self.layout, proxy).await;
        done
    }

    /// Reads and verifies the whole log, has every row held against it, then ends everything. Each test ends
    /// with this.
    pub async fn end(self) -> Export {
        assert_eq!(self.check_rows().await.unwrap(), [], "every row is as it was written");
        self.end_as_it_is().await
    }

    /// As `end`, for a test that leaves rows behind that are not as they were written.
    pub async fn end_as_it_is(self) -> Export {
        let verifier = fs::read_to_string(&self.layout.log_verifier).unwrap();
        let export = export(&self.admin, verifier.trim()).await;
        export.verify().expect("the log verifies");
        if let Some((broker, proxy)) = self.beside {
            proxy.end().await;
            broker.end().await;
        }
        for proxy in self.others {
            proxy.end().await;
        }
        self.proxy.end().await;
        self.broker.end().await;
        export
    }
}

impl Server {
    fn none(address: SocketAddr) -> Self {
        Self { address, tiles: None, stop: oneshot::channel().0, serving: JoinSet::new() }
    }

    async fn end(mut self) {
        // Gone already only if it ended by itself, which the next line tells.
        let _ = self.stop.send(());
        while let Some(ended) = self.serving.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

fn pki(layout: &Layout) -> Pki {
    Pki::open(&layout.pki, &layout.trust_domain, Arc::new(SystemClock)).unwrap()
}

async fn configure_broker(
    layout: &Layout,
    backing: Backing,
    upstream: &Upstream,
    stand_ins: &[StandIn],
) {
    let mut config: Table = fs::read_to_string(&layout.broker_config).unwrap().parse().unwrap();
    config.insert("telemetry".to_owned(), Value::Table(Table::new()));
    let both = ["openai", "anthropic"].map(|slug| (slug, upstream.origin()));
    let others = stand_ins.iter().map(|stand_in| (stand_in.slug(), stand_in.url()));
    let providers = both.into_iter().chain(others);
    let providers = providers.map(|(slug, url)| (slug.to_owned(), table(&[("origin", &url)])));
    config.insert("providers".to_owned(), Value::Table(providers.collect()));
    config.insert("egress".to_owned(), to_loopback());
    let log = config.get_mut("log").and_then(Value::as_table_mut).unwrap();
    log.insert("tiles".to_owned(), table(&[("listen", &LOOPBACK.to_string())]));
    // A workload that asks for leases itself, without a proxy.
    let policy = fs::read_to_string(&layout.policy).unwrap();
    let grant = r#"
        [[grants]]
        role = "borrower"
        to = ["spiffe://strongroom.local/service"]
        tenants = ["acme"]
    "#;
    fs::write(&layout.policy, policy + grant).unwrap();
    // Machines that run tests are busy; what happens past the deadline has tests of its own.
    let log = config.get_mut("log").and_then(Value::as_table_mut).unwrap();
    log.insert("commit_deadline".to_owned(), "10s".into());
    backing.configure(&mut config, layout.data.parent().unwrap()).await;
    fs::write(&layout.broker_config, config.to_string()).unwrap();
    pki(layout).issue(&layout.pki, "service", "service", DAY).unwrap();
}

async fn start_broker(layout: &Layout, address: SocketAddr) -> Server {
    let (config, sha256) = broker::Config::load(&layout.broker_config).unwrap();
    let broker = Broker::open(config, sha256).await.expect("the broker opens");
    let tiles = broker.tiles_address();
    let (listener, stop, stopped) = listen(address).await;
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    // A sender that is gone ends the server too: so is its test.
    serving.spawn(broker.serve(listener, async { drop(stopped.await) }));
    Server { address, tiles, stop, serving }
}

fn configure_proxy(layout: &Layout, broker: SocketAddr, tls: bool) {
    let mut config: Table = fs::read_to_string(&layout.proxy_config).unwrap().parse().unwrap();
    config.insert("telemetry".to_owned(), Value::Table(Table::new()));
    let settings = config.get_mut("broker").and_then(Value::as_table_mut).unwrap();
    settings.insert("broker".to_owned(), broker.to_string().into());
    settings.insert("timeout".to_owned(), "20s".into());
    config.insert("egress".to_owned(), to_loopback());
    if tls {
        pki(layout).issue_to_server(&layout.pki, "front", "front", &["localhost"], DAY).unwrap();
        let (certificate, key) = (layout.pki.join("front.pem"), layout.pki.join("front.key"));
        let files = [("certificate", certificate), ("key", key)];
        let files = files.map(|(name, path)| (name, path.to_str().unwrap().to_owned()));
        config.insert(
            "tls".to_owned(),
            table(&files.each_ref().map(|(name, path)| (*name, &**path))),
        );
    }
    fs::write(&layout.proxy_config, config.to_string()).unwrap();
}

/// The stand-ins are on loopback, where no provider is.
fn to_loopback() -> Value {
    Value::Table(Table::from_iter([
        ("allow".to_owned(), vec!["127.0.0.0/8"].into()),
        ("danger_plain_http_to_loopback".to_owned(), true.into()),
    ]))
}

async fn start_proxy(layout: &Layout, address: SocketAddr) -> Server {
    let config = inference_proxy::Config::load(&layout.proxy_config).unwrap();
    let proxy = Proxy::open(&config).expect("the proxy opens");
    let (listener, stop, stopped) = listen(address).await;
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        proxy.serve(listener, async { drop(stopped.await) }).await.map_err(Into::into)
    });
    Server { address, tiles: None, stop, serving }
}

async fn listen(address: SocketAddr) -> (TcpListener, oneshot::Sender<()>, oneshot::Receiver<()>) {
    let (stop, stopped) = oneshot::channel();
    let deadline = Instant::now() + Duration::from_secs(10);
    // A port that was just given up may not be free yet.
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return (listener, stop, stopped),
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        sleep_until(Instant::now() + Duration::from_millis(20)).await;
    }
}

/// A connection with the files `<name>.pem` and `<name>.key` of the authority, whose calls may take so
/// long.
pub fn connect(
    layout: &Layout,
    broker: SocketAddr,
    name: &str,
    timeout: &str,
) -> strongroom_client::Broker {
    let pki = layout.pki.display();
    let domain = &layout.trust_domain;
    let config = format!(
        r#"
        broker = "{broker}"
        trust_domains = ["{domain}"]
        broker_id = "spiffe://{domain}/broker"
        timeout = "{timeout}"
        tls = {{ certificate = "{pki}/{name}.pem", key = "{pki}/{name}.key", ca = "{pki}/ca.pem" }}
        "#
    );
    let config: ClientConfig = toml::from_str(&config).unwrap();
    strongroom_client::Broker::connect(&config, Arc::new(SystemClock)).unwrap()
}

const DAY: Duration = Duration::from_hours(24);
const TIMEOUT: &str = "10s";
const LOOPBACK: SocketAddr =
    SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0));
