use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

use futures_util::StreamExt as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context};
use tokio::{
    runtime,
    time::{sleep, timeout},
};

use crate::{LoadError, TrustDomains, files::read_crl, source::Contents};

/// The SPIFFE Workload API on a Unix socket. The agent behind it gives the own identity and the trust
/// bundles, and new ones when they change; keys are never in a file. Of several identities the first is
/// used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkloadApi {
    /// The socket: `/run/spire/agent/api.sock`.
    pub socket: PathBuf,
    /// Revocation lists, PEM, as of [`TlsFiles`](crate::TlsFiles): agents give none.
    pub crl: Option<PathBuf>,
}

impl WorkloadApi {
    pub(crate) fn resolve(&mut self, folder: &Path) {
        self.socket = folder.join(&self.socket);
        if let Some(crl) = self.crl.as_mut() {
            *crl = folder.join(&*crl);
        }
    }
}

/// What the agent gave last.
#[derive(Debug)]
pub(crate) struct Feed {
    api: WorkloadApi,
    latest: Arc<Latest>,
}

#[derive(Debug, Default)]
struct Latest(Mutex<Option<Arc<X509Context>>>);

impl Latest {
    fn get(&self) -> Option<Arc<X509Context>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, context: X509Context) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(context));
    }
}

impl Feed {
    /// Waits for the first identity, and has a thread follow the agent for as long as the feed lives. A
    /// thread of its own, because identities are loaded where nothing can be awaited.
    pub(crate) fn open(api: WorkloadApi) -> Result<Self, LoadError> {
        let latest = Arc::new(Latest::default());
        let (arrived, first) = mpsc::sync_channel(1);
        let (weak, socket) = (Arc::downgrade(&latest), api.socket.clone());
        let failed = |reason: String| LoadError::WorkloadApi { socket: api.socket.clone(), reason };
        thread::Builder::new()
            .name("workload-api".to_owned())
            .spawn(move || follow(&socket, &weak, &arrived))
            .map_err(|error| failed(error.to_string()))?;
        match first.recv_timeout(FIRST) {
            Ok(Ok(())) => Ok(Self { api, latest }),
            Ok(Err(reason)) => Err(failed(reason)),
            Err(_) => Err(failed("no identity came in time".to_owned())),
        }
    }

    pub(crate) fn read(&self, domains: &TrustDomains) -> Result<Contents, LoadError> {
        let missing = |what: &str| LoadError::WorkloadApi {
            socket: self.api.socket.clone(),
            reason: format!("the agent gave no {what}"),
        };
        let context = self.latest.get().ok_or_else(|| missing("identity"))?;
        let svid = context.default_svid().ok_or_else(|| missing("identity"))?;
        let chain = svid.cert_chain().iter().map(|it| CertificateDer::from(it.as_bytes().to_vec()));
        let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
        let mut bundles = BTreeMap::new();
        for (domain, bundle) in context.bundle_set().iter() {
            // An agent may know of more domains than are admitted here.
            if domains.names().any(|name| name == domain.as_ref()) {
                let authorities = bundle.authorities().iter();
                let authorities =
                    authorities.map(|it| CertificateDer::from(it.as_bytes().to_vec()));
                bundles.insert(domain.as_ref().to_owned(), authorities.collect());
            }
        }
        Ok(Contents {
            chain: chain.collect(),
            key: PrivateKeyDer::from(key),
            bundles,
            crl: read_crl(self.api.crl.as_deref())?,
        })
    }
}

/// Takes over what the agent sends, until nobody looks at it any longer.
fn follow(socket: &Path, latest: &Weak<Latest>, arrived: &mpsc::SyncSender<Result<(), String>>) {
    // Heard by the one who opens; later there is nobody to hear.
    let tell = |outcome| drop(arrived.try_send(outcome));
    match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            let mut logged = String::new();
            while latest.strong_count() > 0 {
                let ended = follow_once(socket, latest, &tell).await;
                let error = ended.as_ref().map_or_else(describe, |()| String::new());
                if error != logged {
                    tracing::warn!(error, "the Workload API is away, keeping what it gave");
                    logged = error;
                }
                sleep(RETRY).await;
            }
        }),
        Err(error) => tell(Err(error.to_string())),
    }
}

async fn follow_once(
    socket: &Path,
    latest: &Weak<Latest>,
    tell: &impl Fn(Result<(), String>),
) -> Result<(), WorkloadApiError> {
    let client = WorkloadApiClient::connect_to(format!("unix:{}", socket.display())).await?;
    let mut contexts = Box::pin(client.stream_x509_contexts().await?);
    loop {
        match timeout(LOOK, contexts.next()).await {
            Ok(Some(context)) => {
                let Some(latest) = latest.upgrade() else { return Ok(()) };
                latest.set(context?);
                tell(Ok(()));
            }
            Ok(None) => return Ok(()),
            Err(_) if latest.strong_count() == 0 => return Ok(()),
            Err(_) => {}
        }
    }
}

fn describe(error: &WorkloadApiError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// How long a start waits for the first identity: an agent that starts beside us has one soon.
const FIRST: Duration = Duration::from_secs(30);

/// Between two tries to reach the agent.
const RETRY: Duration = Duration::from_secs(1);

/// How often a silent stream is asked whether anybody still looks.
const LOOK: Duration = Duration::from_secs(1);
