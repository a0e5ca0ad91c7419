use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use domain::{Clock as _, Secret, SystemClock, Uid};
use sealing::ClientKeys;
use strongroom_client::Broker;
use strongroom_proto::v1::{
    AcquireLeaseRequest, CreateTenantRequest, Credential, Dialect, GetKmsStatusRequest, KmsStatus,
    OpenSessionRequest, RewrapKeysRequest, RotateKekRequest, Tenant, TenantTarget,
    acquire_lease_request::Target,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{fleet::Fleet, history::Records, process::persist, table::note};

/// Whether rotating the root key and every tenant's key fails a lease, or leaves anything behind, while
/// brokers are killed.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A `PostgreSQL` database to do it on as well; a schema is made in it.
    #[arg(long)]
    postgres: Option<String>,
    /// Brokers on `PostgreSQL`. `SQLite` has one.
    #[arg(long, default_value_t = 3)]
    brokers: usize,
    #[arg(long, default_value_t = 100)]
    tenants: usize,
    /// Credentials of each tenant.
    #[arg(long, default_value_t = 100)]
    credentials: usize,
    /// How often a broker is killed while it goes on.
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// Clients of each broker, which lease one after the other.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    #[arg(long)]
    json: bool,
}

/// What all clients have seen.
#[derive(Debug, Default)]
struct Seen {
    leases: AtomicU64,
    refused: AtomicU64,
}

/// The clients of one broker, until it is killed.
#[derive(Debug)]
struct Clients {
    tasks: JoinSet<()>,
    over: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Outcome {
    store: &'static str,
    credentials: u64,
    leases: u64,
    took: Duration,
    records: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    report(&args, &rewrap(&args, "SQLite", &folder.path().join("sqlite"), None).await?);
    if let Some(url) = &args.postgres {
        let path = folder.path().join("postgres");
        report(&args, &rewrap(&args, "PostgreSQL", &path, Some(url)).await?);
    }
    Ok(())
}

async fn rewrap(
    args: &Args,
    store: &'static str,
    folder: &Path,
    url: Option<&str>,
) -> anyhow::Result<Outcome> {
    let brokers = if url.is_some() { args.brokers } else { 1 };
    let mut fleet = Fleet::start(folder, brokers, url, "127.0.0.1:9").await?;
    furnish(&fleet, args).await?;
    // The check that nothing is left on version 1 finds what is on it now.
    ensure!(under(&fleet, args.tenants, 1).await? > 0, "the check finds nothing: it is worthless");
    fleet.add_root_key().await?;
    // The platform has a key, too.
    let tenants = u64::try_from(args.tenants)? + 1;
    ensure!(outdated(&fleet).await? >= tenants, "keys are not under the old root key");
    note(&format!("{store}: {} tenants are there", args.tenants));

    let seen = Arc::new(Seen::default());
    let mut clients = Vec::new();
    for number in 0..brokers {
        clients.push(Clients::begin(&fleet, number, args, &seen)?);
    }
    let began = SystemClock.elapsed();
    rotate(&fleet).await?;
    for killed in 0..args.kills {
        sleep(random(LONGEST_LIFE)?).await;
        let number = killed % brokers;
        fleet.kill(number)?;
        let these = clients.get_mut(number).context("there is no such broker")?;
        these.end().await?;
        fleet.restart(number).await?;
        *these = Clients::begin(&fleet, number, args, &seen)?;
    }
    let status = done(&fleet).await?;
    let took = SystemClock.elapsed().saturating_sub(began);
    for these in &mut clients {
        these.end().await?;
    }
    ensure!(status.last_error.is_empty(), "something was left: {}", status.last_error);
    ensure!(under(&fleet, args.tenants, 1).await? == 0, "something is still under version 1");
    ensure!(outdated(&fleet).await? == 0, "a key is still under the old root key");
    every_credential_is_lent(&fleet, args).await?;
    let refused = seen.refused.load(Relaxed);
    ensure!(refused == 0, "{refused} leases were refused by brokers that were not killed");
    let history = Records::of(&fleet).await?.verify(&[].into()).context("the log")?;
    let kinds = &history.report.kinds;
    let retired = kinds.get(&audit::Kind::KekRetired).copied().unwrap_or_default();
    ensure!(retired == tenants, "{retired} of {tenants} retirements are on record");
    ensure!(kinds.contains_key(&audit::Kind::KeyRewrapped), "no key was rewrapped");
    Ok(Outcome {
        store,
        credentials: u64::try_from(args.tenants * args.credentials)?,
        leases: seen.leases.load(Relaxed),
        took,
        records: history.report.size,
    })
}

fn name(tenant: usize) -> String {
    format!("bench-{tenant}")
}

/// Makes tenants and their credentials, several at a time.
async fn furnish(fleet: &Fleet, args: &Args) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for tenant in 0..args.tenants {
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await.context("there is one")???;
        }
        tasks.spawn(furnish_one(fleet.connect(0, "admin")?, tenant, args.credentials));
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn furnish_one(admin: Broker, tenant: usize, credentials: usize) -> anyhow::Result<()> {
    let tenant = name(tenant);
    let request = CreateTenantRequest {
        tenant_id: tenant.clone(),
        tenant: Some(Tenant::default()),
        request_id: "bench".to_owned(),
    };
    persist(|| async { Ok(admin.tenants().create_tenant(request.clone()).await?) }).await?;
    let tenant = tenant.parse()?;
    for number in 0..credentials {
        let id = format!("c{number}").parse()?;
        let secret = Secret::new(format!("sk-{tenant}-{number}-0123456789abcdef").into_bytes());
        let spec = || Credential { provider: "openai".to_owned(), ..Credential::default() };
        persist(|| async {
            Ok(admin.create_credential(&tenant, &id, spec(), &secret, "bench").await?)
        })
        .await?;
    }
    Ok(())
}

/// Asks for every key under the new root key, and for a new version of each tenant's.
async fn rotate(fleet: &Fleet) -> anyhow::Result<()> {
    let admin = fleet.connect(0, "admin")?;
    let request = RewrapKeysRequest { root: String::new(), request_id: "rewrap-1".to_owned() };
    persist(|| async { Ok(admin.kms().rewrap_keys(request.clone()).await?) }).await?;
    let request = RotateKekRequest { tenant: String::new(), request_id: "rotation-1".to_owned() };
    persist(|| async { Ok(admin.kms().rotate_kek(request.clone()).await?) }).await?;
    Ok(())
}

/// How many keys are under another root key than the newest.
async fn outdated(fleet: &Fleet) -> anyhow::Result<u64> {
    let admin = fleet.connect(0, "admin")?;
    let request = GetKmsStatusRequest::default();
    let status = persist(|| async { Ok(admin.kms().get_status(request.clone()).await?) }).await?;
    Ok(status.into_inner().roots.iter().map(|root| root.outdated_keys).sum())
}

/// How many rows are under a version of their tenants' keys.
async fn under(fleet: &Fleet, tenants: usize, version: u32) -> anyhow::Result<u64> {
    let admin = fleet.connect(0, "admin")?;
    let mut rows = 0;
    for name in (0..tenants).map(name).chain(["platform".to_owned()]) {
        let request = GetKmsStatusRequest { tenant: format!("tenants/{name}") };
        let status =
            persist(|| async { Ok(admin.kms().get_status(request.clone()).await?) }).await?;
        let keks = status.into_inner().tenants;
        let versions = keks.iter().flat_map(|kek| &kek.versions);
        let these = versions.filter(|it| it.version == version);
        rows += these.map(|version| version.references.max(1)).sum::<u64>();
    }
    Ok(rows)
}

/// Waits until every tenant has its new version and no old one.
async fn done(fleet: &Fleet) -> anyhow::Result<KmsStatus> {
    let admin = fleet.connect(0, "admin")?;
    let look = async {
        loop {
            let request = GetKmsStatusRequest::default();
            let status = persist(|| async { Ok(admin.kms().get_status(request.clone()).await?) });
            let status = status.await?.into_inner();
            if status.tenants.is_empty() && status.work.iter().all(|work| work.done) {
                return anyhow::Ok(status);
            }
            sleep(LOOK).await;
        }
    };
    match timeout(PATIENCE, look).await {
        Ok(status) => status,
        Err(_) => bail!("it is not done after {PATIENCE:?}: see what the brokers said"),
    }
}

async fn every_credential_is_lent(fleet: &Fleet, args: &Args) -> anyhow::Result<()> {
    let client = Client::open(fleet.connect(0, "inference-proxy")?).await?;
    for tenant in 0..args.tenants {
        for number in 0..args.credentials {
            persist(|| client.lease(tenant, number))
                .await
                .with_context(|| format!("credential {number} of {}", name(tenant)))?;
        }
    }
    Ok(())
}

impl Clients {
    fn begin(fleet: &Fleet, number: usize, args: &Args, seen: &Arc<Seen>) -> anyhow::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let broker = fleet.connect(number, "inference-proxy")?;
        for first in 0..args.concurrency {
            let (broker, seen, over) = (broker.clone(), Arc::clone(seen), Arc::clone(&over));
            let all = (args.tenants, args.credentials);
            tasks.spawn(lease_all(broker, first, all, (seen, over)));
        }
        Ok(Self { tasks, over })
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        self.over.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

/// Leases one credential after the other, all over the tenants, until it is over.
async fn lease_all(
    broker: Broker,
    first: usize,
    (tenants, credentials): (usize, usize),
    (seen, over): (Arc<Seen>, Arc<AtomicBool>),
) {
    let mut client = None;
    // A step that has no divisor with most numbers, so that clients do not follow one another.
    for turn in (first..).step_by(7919) {
        let (tenant, number) = (turn % tenants, turn / tenants % credentials);
        if over.load(Relaxed) {
            return;
        }
        let leased = async {
            if client.is_none() {
                client = Some(Client::open(broker.clone()).await?);
            }
            let client = client.as_ref().context("a session")?;
            client.lease(tenant, number).await
        };
        match leased.await {
            Ok(()) => {
                seen.leases.fetch_add(1, Relaxed);
            }
            Err(error) => {
                client = None;
                // If its broker was killed, that is said by now.
                sleep(PAUSE).await;
                if !over.load(Relaxed) {
                    seen.refused.fetch_add(1, Relaxed);
                    note(&format!("a broker that was not killed refused: {error:?}"));
                }
            }
        }
    }
}

/// A session at a broker.
struct Client {
    broker: Broker,
    session_id: bytes::Bytes,
}

impl Client {
    async fn open(broker: Broker) -> anyhow::Result<Self> {
        let public_key = ClientKeys::generate()?.public_key().to_vec().into();
        let request = OpenSessionRequest { public_key };
        let session_id = broker.leases().open_session(request).await?.into_inner().session_id;
        Ok(Self { broker, session_id })
    }

    async fn lease(&self, tenant: usize, number: usize) -> anyhow::Result<()> {
        let tenant = format!("tenants/{}", name(tenant));
        let credential = format!("{tenant}/credentials/c{number}");
        let target = TenantTarget { tenant, provider: "openai".to_owned(), credential };
        let request = AcquireLeaseRequest {
            session_id: self.session_id.clone(),
            target: Some(Target::Tenant(target)),
            dialect: Dialect::Openai.into(),
            ..AcquireLeaseRequest::default()
        };
        self.broker.leases().acquire_lease(request).await?;
        Ok(())
    }
}

fn random(below: Duration) -> anyhow::Result<Duration> {
    let random = Uid::random()?.as_ref().first().copied().unwrap_or_default();
    Ok(below * u32::from(random) / 256)
}

#[expect(clippy::print_stdout, reason = "this is what the run is for")]
fn report(args: &Args, outcome: &Outcome) {
    let Outcome { store, credentials, leases, took, records } = outcome;
    let (kills, seconds) = (args.kills, took.as_secs_f64());
    if args.json {
        let outcome = serde_json::json!({
            "store": store, "credentials": credentials, "kills": kills, "leases": leases,
            "refused": 0, "left_behind": 0, "seconds": seconds, "records": records,
        });
        println!("{outcome}");
    } else {
        println!(
            "{store}: {credentials} credentials were sealed anew in {seconds:.1} s with {kills} \
             kills; {leases} leases meanwhile, none refused by a broker that was not killed; \
             nothing left under the old root key or the old version; the log of {records} records verifies"
        );
    }
}

/// Tenants that are furnished at once.
const AT_ONCE: usize = 8;
const LONGEST_LIFE: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_mins(30);
const LOOK: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(20);
