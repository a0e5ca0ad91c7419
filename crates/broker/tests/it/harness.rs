use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use audit::{Disclosure, Kind, PolicyDocument, Record, Verifier, VerifierKey};
use broker::{Broker, Config};
use domain::{Clock, SystemClock};
use setup::Layout;
use strongroom_client::ClientConfig;
use strongroom_proto::v1;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

/// A broker that runs in this process, with an administrator's and a proxy's connection to it.
pub(crate) struct Running {
    pub(crate) admin: strongroom_client::Broker,
    pub(crate) proxy: strongroom_client::Broker,
    pub(crate) address: String,
    pub(crate) layout: Layout,
    pub(crate) tiles: Option<SocketAddr>,
    pub(crate) verifier: VerifierKey,
    stop: oneshot::Sender<()>,
    serving: JoinSet<anyhow::Result<()>>,
    folder: TempDir,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(|config| config).await
    }

    /// Starts with another configuration, made from the usual one.
    pub(crate) async fn start_with(other: impl FnOnce(String) -> String) -> Self {
        let (folder, layout) = layout();
        let text = fs::read_to_string(&layout.broker_config).unwrap();
        fs::write(&layout.broker_config, other(text)).unwrap();
        Self::start_in(folder, layout).await
    }

    /// Starts with another access policy, made from the usual one.
    pub(crate) async fn start_with_policy(other: impl FnOnce(String) -> String) -> Self {
        let (folder, layout) = layout();
        let text = fs::read_to_string(&layout.policy).unwrap();
        fs::write(&layout.policy, other(text)).unwrap();
        Self::start_in(folder, layout).await
    }

    /// Starts on what an earlier broker left.
    pub(crate) async fn start_in(folder: TempDir, layout: Layout) -> Self {
        Self::start_by(folder, layout, Arc::new(SystemClock)).await
    }

    /// Starts by another clock than this machine's.
    pub(crate) async fn start_by(folder: TempDir, layout: Layout, clock: Arc<dyn Clock>) -> Self {
        let (config, sha256) = Config::load(&layout.broker_config).unwrap();
        let broker = Broker::open_by(config, sha256, clock).await.unwrap();
        let verifier = broker.verifier_key().parse().unwrap();
        let tiles = broker.tiles_address();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let mut serving = JoinSet::new();
        serving.spawn(broker.serve(listener, async {
            // A test that has failed drops its end, which ends the broker too.
            let _ = stopped.await;
        }));
        let admin = connect(&layout, &address, "admin");
        let proxy = connect(&layout, &address, "inference-proxy");
        Self { admin, proxy, address, layout, tiles, verifier, stop, serving, folder }
    }

    /// The log as far as it is signed, verified.
    pub(crate) async fn records(&self) -> Vec<Record> {
        verified(&self.admin, &self.verifier).await
    }

    /// Verifies the whole log and ends the broker; gives the records.
    pub(crate) async fn end(self) -> Vec<Record> {
        self.end_and_keep().await.0
    }

    /// As `end`, and leaves what is on disk.
    pub(crate) async fn end_and_keep(mut self) -> (Vec<Record>, TempDir, Layout) {
        let records = verified(&self.admin, &self.verifier).await;
        all_is_well(&self.admin).await;
        self.stop.send(()).unwrap();
        self.serving.join_next().await.unwrap().unwrap().unwrap();
        (records, self.folder, self.layout)
    }
}

/// Has the broker check that every row is as it was written.
async fn all_is_well(admin: &strongroom_client::Broker) {
    let mut audit = admin.audit();
    let mut seen = audit.check_rows(v1::CheckRowsRequest {}).await.unwrap().into_inner();
    let mut last = v1::CheckRowsResponse::default();
    while let Some(message) = seen.message().await.unwrap() {
        last = message;
    }
    assert!(last.done && last.findings.is_empty(), "{last:?}");
}

/// A deployment on disk that commits slowly without giving up: machines that run tests are busy.
pub(crate) fn layout() -> (TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("strongroom");
    let layout = Layout::development(&dir, Arc::new(SystemClock)).unwrap();
    let text = fs::read_to_string(&layout.broker_config).unwrap();
    let text = text
        .replace("[log]\n", "[log]\ncommit_deadline = \"10s\"\n")
        .replace("metrics_listen", "# metrics_listen");
    fs::write(&layout.broker_config, text).unwrap();
    (folder, layout)
}

/// A connection with one of the layout's identities.
pub(crate) fn connect(layout: &Layout, address: &str, name: &str) -> strongroom_client::Broker {
    let file = |ending: &str| layout.pki.join(format!("{name}.{ending}"));
    let config = ClientConfig {
        broker: address.to_owned(),
        tls: mtls::TlsFiles {
            certificate: file("pem"),
            key: file("key"),
            ca: layout.pki.join("ca.pem").into(),
            crl: None,
        }
        .into(),
        trust_domains: mtls::TrustDomains::new([layout.trust_domain.as_str()]).unwrap(),
        broker_id: format!("spiffe://{}/broker", layout.trust_domain).parse().unwrap(),
        log_key: None,
        timeout: std::time::Duration::from_secs(20),
    };
    strongroom_client::Broker::connect(&config, Arc::new(SystemClock)).unwrap()
}

/// Reads the log up to its newest checkpoint and verifies it, as an auditor would.
pub(crate) async fn verified(
    admin: &strongroom_client::Broker,
    verifier: &VerifierKey,
) -> Vec<Record> {
    let page = v1::ListRecordsRequest { page_size: 1, ..Default::default() };
    let size = admin.audit().list_records(page).await.unwrap().into_inner().tree_size;
    let mut verification = loop {
        // Signed within a second of the record.
        let newest = admin.audit().get_checkpoint(v1::GetCheckpointRequest {}).await;
        if let Ok(newest) = newest {
            let opened = Verifier::open(verifier, &newest.into_inner().checkpoint).unwrap();
            if opened.checkpoint().size >= size {
                break opened;
            }
        }
        tokio::time::sleep(POLL).await;
    };
    for document in policies(admin).await {
        verification.know_policy(document);
    }
    let mut records = Vec::new();
    let end = verification.checkpoint().size;
    let mut from = 0;
    while from < end {
        let page = v1::ListRecordsRequest { from_index: from, ..Default::default() };
        let page = admin.audit().list_records(page).await.unwrap().into_inner();
        for name in &page.disclosures {
            let name = Disclosure::check(&name.commitment, &name.salt, &name.value);
            verification.know_name(name.unwrap());
        }
        for entry in page.entries.iter().filter(|entry| entry.index < end) {
            verification.push(&entry.body).unwrap();
            records.push(audit::decode_record(&entry.body).unwrap());
        }
        from = page.next_index;
    }
    let report = verification.finish().unwrap();
    assert!(report.unknown_policies.is_empty());
    records
}

/// The access rules that the log names.
async fn policies(admin: &strongroom_client::Broker) -> Vec<PolicyDocument> {
    let page = v1::ListRecordsRequest { page_size: 4096, ..Default::default() };
    let page = admin.audit().list_records(page).await.unwrap().into_inner();
    let mut documents = Vec::new();
    for entry in page.entries {
        let record = audit::decode_record(&entry.body).unwrap();
        if record.kind() == Kind::PolicyLoaded {
            let request = v1::GetPolicyRequest { policy_sha256: record.policy_sha256 };
            let answer = admin.audit().get_policy(request).await.unwrap().into_inner();
            documents.push(PolicyDocument::parse(answer.document.to_vec()).unwrap());
        }
    }
    documents
}

/// Each look at the log is a record in it.
const POLL: std::time::Duration = std::time::Duration::from_millis(50);

/// Where a file of the repository is.
pub(crate) fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
