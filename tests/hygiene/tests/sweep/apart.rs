//! A broker and a proxy as they are shipped, each a process of its own.

use std::{
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use domain::SystemClock;
use e2e::Backing;
use rustix::process::{Pid, Signal, kill_process};
use setup::{Layout, Pki};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{Instant, sleep_until},
};
use toml::{Table, Value};

use crate::peers::Peer;

/// Both processes, what they keep, and whom they talk to.
pub(crate) struct Apart {
    folder: TempDir,
    pub(crate) layout: Layout,
    pub(crate) broker: Process,
    pub(crate) proxy: Process,
    pub(crate) plain: Peer,
    pub(crate) secure: Peer,
    pub(crate) collector: Peer,
}

/// One of them, until it is dropped.
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    metrics: SocketAddr,
    child: Child,
}

/// Stands in the environment of both processes, where a search has to find it.
pub(crate) const PLANTED: &str = "planted-in-the-environment-5XwQb27LmTz";

impl Apart {
    pub(crate) async fn start(backing: Backing) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout =
            Layout::development(&folder.path().join("strongroom"), Arc::new(SystemClock)).unwrap();
        let pki = Pki::open(&layout.pki, &layout.trust_domain, Arc::new(SystemClock)).unwrap();
        pki.issue_to_server(&layout.pki, "provider", "provider", &["localhost"], DAY).unwrap();
        let plain = Peer::provider().await;
        let secure = Peer::secure_provider(&layout.pki, "provider").await;
        let collector = Peer::collector().await;

        let (broker_ops, proxy_ops) = (free().await, free().await);
        let telemetry = |ops: SocketAddr| {
            table([
                ("metrics_listen", ops.to_string().into()),
                ("otlp_endpoint", format!("http://{}", collector.address()).into()),
            ])
        };
        let mut egress = table([
            ("allow", vec!["127.0.0.0/8"].into()),
            ("danger_plain_http_to_loopback", true.into()),
            ("ca", layout.pki.join("ca.pem").to_str().unwrap().into()),
        ]);
        let origin = |url: String| table([("origin", url.into())]);
        let providers = table([
            ("openai", origin(format!("http://{}", plain.address()))),
            ("anthropic", origin(format!("https://localhost:{}", secure.address().port()))),
        ]);
        let mut config = read(&layout.broker_config);
        config.extend([
            ("listen".to_owned(), "127.0.0.1:0".into()),
            ("telemetry".to_owned(), telemetry(broker_ops)),
            ("egress".to_owned(), egress.clone()),
            ("providers".to_owned(), providers),
        ]);
        let log = config.get_mut("log").and_then(Value::as_table_mut).unwrap();
        log.insert("commit_deadline".to_owned(), "10s".into());
        backing.configure(&mut config, folder.path()).await;
        fs::write(&layout.broker_config, config.to_string()).unwrap();
        let broker = start("broker", &layout.broker_config, folder.path(), broker_ops).await;

        // Idle connections need not be waited for, and a body that is too large need not be large.
        egress.as_table_mut().unwrap().insert("idle_connection".to_owned(), "2s".into());
        let mut config = read(&layout.proxy_config);
        config.extend([
            ("listen".to_owned(), "127.0.0.1:0".into()),
            ("telemetry".to_owned(), telemetry(proxy_ops)),
            ("egress".to_owned(), egress),
            ("limits".to_owned(), table([("body_bytes", 65_536.into())])),
        ]);
        let settings = config.get_mut("broker").and_then(Value::as_table_mut).unwrap();
        settings.insert("broker".to_owned(), broker.address.to_string().into());
        fs::write(&layout.proxy_config, config.to_string()).unwrap();
        let proxy = start("inference-proxy", &layout.proxy_config, folder.path(), proxy_ops).await;
        Self { folder, layout, broker, proxy, plain, secure, collector }
    }

    /// Everything that they write is below this, but for a database server's files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Both processes by name.
    pub(crate) fn processes(&self) -> [(&'static str, &Process); 2] {
        [("broker", &self.broker), ("proxy", &self.proxy)]
    }

    /// A connection to the broker with one of the deployment's identities.
    pub(crate) fn connect(&self, name: &str) -> strongroom_client::Broker {
        e2e::connect(&self.layout, self.broker.address, name, "20s")
    }

    /// Posts to the proxy on a connection of its own, and gives all that comes back.
    pub(crate) async fn post(&self, path: &str, key: &str, body: &str) -> Vec<u8> {
        let mut answer = Vec::new();
        let mut connection = self.send(path, key, body).await;
        // A proxy that closes before it has read all may reset the connection.
        let _ = connection.read_to_end(&mut answer).await;
        answer
    }

    /// Posts, and leaves the answer on the connection.
    pub(crate) async fn send(&self, path: &str, key: &str, body: &str) -> TcpStream {
        let mut connection = TcpStream::connect(self.proxy.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\nx-api-key: {key}\r\n\
             anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let _ = connection.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await;
        connection
    }
}

impl Process {
    /// Ends it as a fault would; it leaves nothing of its memory behind.
    pub(crate) async fn crash(&mut self) {
        let pid = Pid::from_raw(self.pid.cast_signed()).unwrap();
        kill_process(pid, Signal::ABORT).unwrap();
        let ended = self.child.wait().await.unwrap();
        assert_eq!((ended.signal(), ended.core_dumped()), (Some(Signal::ABORT.as_raw()), false));
    }

    /// What it says of itself to whoever measures it.
    pub(crate) async fn metrics(&self) -> String {
        let mut connection = TcpStream::connect(self.metrics).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n";
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

async fn start(binary: &str, config: &Path, folder: &Path, metrics: SocketAddr) -> Process {
    let path = built(binary);
    let log = folder.join(format!("{binary}.log"));
    let mut child = Command::new(&path)
        .arg("--config")
        .arg(config)
        .env("RUST_LOG", "trace")
        .env("HYGIENE_PLANTED", PLANTED)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let address = until(&format!("{binary} listens"), || {
        let log = fs::read_to_string(&log).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "{binary} ended: {log}");
        log.lines().find_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            LISTENS
                .contains(&event["message"].as_str()?)
                .then(|| event["address"].as_str()?.parse().ok())?
        })
    })
    .await;
    Process { pid: child.id().unwrap(), address, metrics, child }
}

/// A binary of the same build.
fn built(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap().parent().unwrap().with_file_name(name);
    assert!(path.exists(), "{} is missing: test the whole workspace", path.display());
    path
}

/// Looks until there is something.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        sleep_until(Instant::now() + Duration::from_millis(20)).await;
    }
}

/// A port that nobody has; somebody else may take it first, and then the process says so and ends.
async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn read(config: &Path) -> Table {
    fs::read_to_string(config).unwrap().parse().unwrap()
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Table(entries.map(|(name, value)| (name.to_owned(), value)).into_iter().collect())
}

const DAY: Duration = Duration::from_hours(24);

/// What each of them says once it does.
const LISTENS: [&str; 2] = ["listening", "serving applications"];
