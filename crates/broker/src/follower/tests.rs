use std::{fs, os::unix::fs::PermissionsExt as _};

use audit::{Kind, Record, RecordDraft};
use domain::{Clock, Failure, SystemClock, Timestamp, Uid};
use envelope::{KeyringSettings, LocalKms, Roots};
use store::{Pending, PostgresStore, SqliteStore, StoreConfig};
use testkit::FailingStore;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    custody::Custody, healths::tests::keep_a_credential, outside::scripted::Scripted,
    tokens::Tokens,
};

/// Another broker of a server's database, following it; `None` where no server is.
struct Following {
    /// The store of the broker that writes.
    writes: Arc<dyn Store>,
    directory: Arc<Directory>,
    healths: Arc<Healths>,
    _tasks: JoinSet<()>,
}

impl Following {
    async fn start(poll: Duration, deaf: bool) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = folder.path().join("url");
        fs::write(&url, url_of_a_new_schema().await?).unwrap();
        fs::set_permissions(&url, fs::Permissions::from_mode(0o600)).unwrap();
        let config = StoreConfig::Postgres { url_file: url, connections: 2 };
        let writes = store::open(&config).await.unwrap();
        let reads = store::open(&config).await.unwrap();
        let reads = if deaf { FailingStore::deaf(reads) } else { FailingStore::new(reads) };
        let reads: Arc<dyn Store> = Arc::new(reads);

        let key_file = folder.path().join("kms.key");
        LocalKms::create_new(&key_file, None).unwrap();
        let kms = Arc::new(LocalKms::open(&key_file, None).unwrap());
        let roots = Arc::new(Roots::only(kms));
        let clock = Arc::new(SystemClock) as Arc<dyn Clock>;
        let settings = KeyringSettings::default();
        let shares = Arc::new(SqliteStore::shares_in_memory().await.unwrap());
        let keyring = (Arc::clone(&clock), settings);
        let custody = Arc::new(Custody::new(Arc::clone(&reads), roots, shares, keyring));
        let tokens = Arc::new(Tokens::new(Arc::<Scripted>::default(), &clock, None));
        let directory = Arc::new(Directory::new(&reads, &custody, tokens));
        let log = Log::open(
            Arc::clone(&reads),
            0,
            Duration::from_secs(5),
            Uid::from_bytes([1; 16]),
            &TaskTracker::new(),
        );
        let mut tasks = JoinSet::new();
        let stop = CancellationToken::new();
        let healths = Arc::new(Healths::new(Arc::clone(&reads)));
        tasks.spawn(follow(reads, Arc::clone(&directory), log, Arc::clone(&healths), poll, stop));
        Some(Self { writes, directory, healths, _tasks: tasks })
    }

    /// Revokes a lease at one broker, and waits until the other one knows.
    async fn revocation_arrives(&self, number: u8, within: Duration) -> bool {
        let kind = Kind::LeaseRevoked.into();
        let record = Record { kind, lease_hash: vec![number; 32].into(), ..Record::default() };
        let record = RecordDraft::new(record).unwrap();
        let mut progress = self.directory.progress();
        let pending = Pending { record, as_of: None, tenants: Vec::new() };
        self.writes.append(&[pending]).await.unwrap();
        let changed = self.writes.head().await.unwrap().changed;
        timeout(within, progress.wait_for(|applied| *applied >= changed)).await.is_ok()
    }
}

const NEVER: Duration = Duration::from_hours(1);
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_revocation_elsewhere_is_known_without_waiting_for_the_poll() {
    let Some(following) = Following::start(NEVER, false).await else { return };
    for number in 1..=5 {
        assert!(following.revocation_arrives(number, LONG).await);
    }
}

#[tokio::test]
async fn a_broker_that_hears_nothing_still_polls() {
    let Some(following) = Following::start(POLL, true).await else { return };
    assert!(following.revocation_arrives(1, LONG).await);
    // The control: with neither it would not know.
    let following = Following::start(NEVER, true).await.unwrap();
    assert!(!following.revocation_arrives(1, POLL * 3).await);
}

#[tokio::test]
async fn a_credential_that_failed_elsewhere_soon_rests_here() {
    let Some(following) = Following::start(POLL, true).await else { return };
    let row = keep_a_credential(&*following.writes).await;
    let now = Timestamp::from_millis(1000);
    let usable = || following.healths.readiness(&row, now).0.is_usable();
    assert!(usable());
    let elsewhere = Healths::new(Arc::clone(&following.writes));
    elsewhere.failed(&row, Failure::CredentialRefused, now, now).await;
    let known = async {
        while usable() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(LONG, known).await.is_ok());
}

/// The URL of a schema of its own, if there is a server.
async fn url_of_a_new_schema() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the test run names the server")]
    let url = std::env::var("TEST_POSTGRES_URL").ok()?;
    Some(PostgresStore::new_schema(&url).await.unwrap())
}
