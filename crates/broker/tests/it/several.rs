//! Several brokers, as processes, on one `PostgreSQL`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use audit::{Checkpoint, Kind, VerifierKey};
use rustix::process::Signal;
use setup::Layout;
use store::{PostgresStore, Store as _};
use strongroom_client::Broker;
use strongroom_proto::v1;

use crate::{
    harness::{connect, verified},
    process::{Process, listening_anywhere},
};

/// A deployment with two brokers; `None` where there is no server.
struct Pair {
    one: Layout,
    other: Layout,
    store: PostgresStore,
    verifier: VerifierKey,
    _folder: tempfile::TempDir,
}

impl Pair {
    async fn new() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "the test run names the server")]
        let url = std::env::var("TEST_POSTGRES_URL").ok()?;
        let url = PostgresStore::new_schema(&url).await.unwrap();
        let (folder, one) = listening_anywhere();
        let url_file = one.broker_config.with_file_name("url");
        fs::write(&url_file, &url).unwrap();
        fs::set_permissions(&url_file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut config: toml::Table =
            fs::read_to_string(&one.broker_config).unwrap().parse().unwrap();
        let store = toml::toml! { backend = "postgres" url_file = "url" };
        config.insert("store".to_owned(), store.into());
        fs::write(&one.broker_config, config.to_string()).unwrap();
        // The same but for the file that each keeps for itself.
        let log = config.get_mut("log").and_then(toml::Value::as_table_mut).unwrap();
        log.insert("last_checkpoint".to_owned(), "other-checkpoint".into());
        let mut other = one.clone();
        other.broker_config = one.broker_config.with_file_name("other.toml");
        fs::write(&other.broker_config, config.to_string()).unwrap();
        let store = PostgresStore::connect(&url, 2).await.unwrap();
        let verifier = fs::read_to_string(&one.log_verifier).unwrap().trim().parse().unwrap();
        Some(Self { one, other, store, verifier, _folder: folder })
    }

    /// How long it takes until a new record is signed.
    async fn until_signed(&self, through: &Broker, tenant: &str) -> Duration {
        let request = v1::CreateTenantRequest { tenant_id: tenant.into(), ..Default::default() };
        let began = now();
        through.tenants().create_tenant(request).await.unwrap();
        let size = self.store.head().await.unwrap().frontier.size();
        loop {
            let note = self.store.checkpoint().await.unwrap();
            if note.as_deref().and_then(Checkpoint::claimed_size) >= Some(size) {
                return began.elapsed();
            }
        }
    }

    /// Waits until a broker's own file holds what the database does.
    async fn kept(&self, layout: &Layout) {
        let file = broker::Config::load(&layout.broker_config).unwrap().0.log.last_checkpoint;
        loop {
            let newest = self.store.checkpoint().await.unwrap();
            if newest.is_some() && fs::read_to_string(&file).ok() == newest {
                return;
            }
        }
    }
}

#[tokio::test]
async fn when_the_broker_that_signs_is_gone_another_signs() {
    let Some(pair) = Pair::new().await else { return };
    let mut one = Process::start(&pair.one);
    let other = Process::start(&pair.other);
    let through_other = connect(&pair.other, &other.address, "admin");
    // On a busy machine everything may take longer; what counts is that it does not take for ever.
    let healthy = pair.until_signed(&through_other, "acme").await;
    pair.kept(&pair.one).await;
    pair.kept(&pair.other).await;

    one.signal(Signal::KILL);
    one.child.wait().unwrap();
    let killed = pair.until_signed(&through_other, "after-the-kill").await;
    println!("signed after {healthy:?} in health, {killed:?} after a kill");
    assert!(killed < SLOWEST, "{killed:?}");

    // Back again, and the other one stops cleanly.
    let one = Process::start(&pair.one);
    let through_one = connect(&pair.one, &one.address, "admin");
    let mut other = other;
    drop(through_other);
    other.signal(Signal::TERM);
    tokio::task::spawn_blocking(move || assert!(other.child.wait().unwrap().success()))
        .await
        .unwrap();
    let stopped = pair.until_signed(&through_one, "after-the-stop").await;
    println!("signed after {stopped:?} after a stop");
    assert!(stopped < SLOWEST, "{stopped:?}");
    verified(&through_one, &pair.verifier).await;
}

#[tokio::test]
async fn any_broker_that_survives_notices_a_database_that_was_put_back() {
    let Some(pair) = Pair::new().await else { return };
    let one = Process::start(&pair.one);
    let other = Process::start(&pair.other);
    let admin = connect(&pair.one, &one.address, "admin");
    pair.until_signed(&admin, "acme").await;
    pair.kept(&pair.one).await;
    pair.kept(&pair.other).await;
    drop((one, other));
    // Whichever of them signed: on a database without those records neither starts.
    let Some(empty) = Pair::new().await else { return };
    for layout in [&pair.one, &pair.other] {
        let url = fs::read_to_string(empty.one.broker_config.with_file_name("url")).unwrap();
        fs::write(layout.broker_config.with_file_name("url"), url).unwrap();
        let output = crate::process::command(layout).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("give-up-checkpoint"), "{said}");
    }
    let records = empty.store.records(0, 100, None).await.unwrap();
    let started = |kind| kind == Kind::BrokerStarted;
    assert!(!records.iter().any(|entry| started(entry.record().unwrap().kind())));
}

/// Two seconds of the lead's term, half a second until the next try and as much until it is signed,
/// and many times that for machines that run tests.
const SLOWEST: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "a test measures how long something takes")]
fn now() -> Instant {
    Instant::now()
}
