//! What is laid out, who can read it, and that it works.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use domain::{Clock, ManualClock, SpiffePattern, SystemClock, Timestamp};
use mtls::{ClientTls, LoadError, ServerTls, TlsFiles, TlsSource, TrustDomains};
use serde::{Deserialize, de::DeserializeOwned};
use setup::{Layout, Pki, SetupError};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

#[derive(Deserialize)]
struct Server {
    trust_domains: TrustDomains,
    tls: TlsSource,
    kms: Kms,
    log: Log,
}

#[derive(Deserialize)]
struct Kms {
    key_file: PathBuf,
}

#[derive(Deserialize)]
struct Log {
    signing_key: PathBuf,
    last_checkpoint: PathBuf,
}

#[derive(Deserialize)]
struct Proxy {
    broker: Client,
}

#[derive(Deserialize)]
struct Client {
    broker_id: SpiffePattern,
    trust_domains: TrustDomains,
    tls: TlsSource,
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn read<T: DeserializeOwned>(path: &Path) -> T {
    toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn the_workloads_of_a_layout_can_talk() {
    let home = TempDir::new().unwrap();
    let layout = Layout::development(&home.path().join("dev"), clock()).unwrap();
    let folder = layout.broker_config.parent().unwrap();
    let mut server: Server = read(&layout.broker_config);
    server.tls.resolve(folder);
    let server = ServerTls::load(server.tls, server.trust_domains, clock()).unwrap();

    let proxy: Proxy = read(&layout.proxy_config);
    let cli: Client = read(&layout.cli_config);
    for (mut config, name) in [(proxy.broker, "inference-proxy"), (cli, "admin/local")] {
        config.tls.resolve(folder);
        let client = ClientTls::load(config.tls, config.trust_domains, config.broker_id, clock());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (accepted, connected) = tokio::join!(
            server.accept(theirs.unwrap().0),
            client.as_ref().unwrap().connect(ours.unwrap())
        );
        connected.unwrap();
        let id = accepted.unwrap().identity().spiffe_id.to_string();
        assert_eq!(id, format!("spiffe://{}/{name}", layout.trust_domain));
    }
}

#[test]
fn the_keys_are_where_the_configuration_says_and_open() {
    let home = TempDir::new().unwrap();
    let layout = Layout::development(&home.path().join("dev"), clock()).unwrap();
    let folder = layout.broker_config.parent().unwrap();
    let server: Server = read(&layout.broker_config);
    assert_eq!(folder.join(&server.kms.key_file), layout.kms_key);
    assert_eq!(folder.join(&server.log.signing_key), layout.log_key);
    assert_eq!(folder.join(&server.log.last_checkpoint).parent().unwrap(), layout.data);

    envelope::LocalKms::open(&layout.kms_key, None).unwrap();
    let key = audit::SignerKey::parse(&fs::read_to_string(&layout.log_key).unwrap()).unwrap();
    let verifier = fs::read_to_string(&layout.log_verifier).unwrap();
    assert_eq!(*key.verifier(), verifier.trim_end().parse().unwrap());
}

#[test]
fn nobody_else_can_read_what_is_secret() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("dev");
    let layout = Layout::development(&dir, clock()).unwrap();
    for path in [&dir, &layout.pki, &layout.data, &dir.join("keys")] {
        assert_eq!(mode(path), 0o700, "{}", path.display());
    }
    let files = files_below(&dir);
    let public = |path: &Path| path.extension().is_some_and(|end| end == "pem" || end == "pub");
    for path in files.iter().filter(|path| !public(path)) {
        assert_eq!(mode(path) & 0o077, 0, "{}", path.display());
    }
    assert_eq!(files.iter().filter(|path| path.extension().unwrap() == "key").count(), 6);
    assert!(!files.iter().any(|path| path.to_string_lossy().ends_with(".new")));
}

#[test]
fn nothing_is_overwritten_and_a_failure_leaves_nothing() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("dev");
    let layout = Layout::development(&dir, clock()).unwrap();
    let before = fs::read(&layout.log_key).unwrap();
    let again = Layout::development(&dir, clock());
    assert!(matches!(again, Err(SetupError::Exists(path)) if path == dir));
    assert_eq!(fs::read(&layout.log_key).unwrap(), before);
    assert!(matches!(Pki::create(&layout.pki, "a.b", clock()), Err(SetupError::Exists(_))));

    for domain in ["Acme.internal", "a/b", "", "a\"b"] {
        assert!(Layout::create(&home.path().join("other"), domain, clock()).is_err(), "{domain}");
    }
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [dir]);
}

#[test]
fn an_opened_authority_renews_what_it_issued() {
    let home = TempDir::new().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let shared = || -> Arc<dyn Clock> { Arc::<ManualClock>::clone(&clock) };
    let pki = Pki::create(&home.path().join("pki"), "acme.internal", shared()).unwrap();
    let dir = home.path().join("pki");
    let svid = pki.issue(&dir, "broker", "broker", Duration::from_hours(1)).unwrap();
    let files = TlsFiles {
        certificate: svid.certificate.clone(),
        key: svid.key.clone(),
        ca: pki.certificate().to_owned().into(),
        crl: None,
    };
    let load = || {
        let domains = TrustDomains::new(["acme.internal"]).unwrap();
        ServerTls::load(files.clone(), domains, shared())
    };
    load().unwrap();
    clock.advance(Duration::from_hours(1));
    assert!(matches!(load(), Err(LoadError::Expired)));

    let pki = Pki::open(&dir, "acme.internal", shared()).unwrap();
    let renewed = pki.issue(&dir, "broker", "broker", Duration::from_hours(1)).unwrap();
    assert_eq!(renewed, svid);
    load().unwrap();
}

#[test]
fn names_that_would_escape_the_directory_are_refused() {
    let home = TempDir::new().unwrap();
    let pki = Pki::create(&home.path().join("pki"), "acme.internal", clock()).unwrap();
    for name in ["../broker", "a/b", "", "ca", ".", "a.b"] {
        let issued = pki.issue(home.path(), name, "broker", Duration::from_hours(1));
        assert!(matches!(issued, Err(SetupError::InvalidName(_))), "{name}");
    }
    for path in ["", "a//b", "../x", "%41"] {
        let issued = pki.issue(home.path(), "broker", path, Duration::from_hours(1));
        assert!(matches!(issued, Err(SetupError::InvalidIdentity(_))), "{path}");
    }
}
