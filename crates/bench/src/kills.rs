use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use audit::SignerKey;
use bytes::Bytes;
use domain::{Clock as _, SystemClock, Uid};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    deployment::Deployment,
    history::{History, Records},
    lease::clients::lease_request,
    quantiles::Quantiles,
    table::note,
};

/// Whether a lease that a client has received is ever missing from the log.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A `PostgreSQL` database to kill brokers on as well; a schema is made in it.
    #[arg(long)]
    postgres: Option<String>,
    /// Brokers on `PostgreSQL`, of which one at a time is killed. `SQLite` has one.
    #[arg(long, default_value_t = 3)]
    brokers: usize,
    /// How often a broker is killed, on each database.
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// Leases under way at once, at each broker.
    #[arg(long, default_value_t = 16)]
    concurrency: usize,
    #[arg(long)]
    json: bool,
}

/// What clients were given, of all brokers and all their lives.
#[derive(Debug, Default)]
struct Given {
    leases: Vec<Received>,
    checkpoints: BTreeSet<String>,
}

/// A lease as its client got it.
#[derive(Debug)]
struct Received {
    index: u64,
    hash: Bytes,
}

/// One broker's clients, from its start until it is killed.
#[derive(Debug)]
struct Life {
    clients: JoinSet<anyhow::Result<()>>,
    over: Arc<AtomicBool>,
    /// How many leases have been received.
    leases: watch::Receiver<u64>,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    store: &'static str,
    received: usize,
    granted: usize,
    checkpoints: usize,
    records: u64,
    /// From each kill to the next lease of the same broker.
    away: Vec<Duration>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut outcomes = vec![kill(&args, "SQLite", &folder.path().join("sqlite"), None).await?];
    if let Some(url) = &args.postgres {
        let path = folder.path().join("postgres");
        outcomes.push(kill(&args, "PostgreSQL", &path, Some(url)).await?);
    }
    report(&args, outcomes);
    Ok(())
}

async fn kill(
    args: &Args,
    store: &'static str,
    folder: &Path,
    url: Option<&str>,
) -> anyhow::Result<Outcome> {
    let brokers = if url.is_some() { args.brokers } else { 1 };
    let mut deployment = Deployment::start(folder, brokers, url, "127.0.0.1:9").await?;
    let given = Arc::new(Mutex::new(Given::default()));
    let mut lives = Vec::new();
    for number in 0..brokers {
        lives.push(Life::begin(&deployment, number, args.concurrency, &given)?);
    }
    let mut away = Vec::new();
    for killed in 0..args.kills {
        let number = killed % brokers;
        let life = lives.get_mut(number).context("there is no such broker")?;
        life.lends().await?;
        sleep(random(LONGEST_LIFE)?).await;
        // Its clients learn only afterwards that it is over: it dies with its hands full.
        deployment.fleet.kill(number)?;
        life.over.store(true, Ordering::Relaxed);
        let began = SystemClock.elapsed();
        life.end().await?;
        deployment.fleet.restart(number).await?;
        *life = Life::begin(&deployment, number, args.concurrency, &given)?;
        life.lends().await?;
        away.push(SystemClock.elapsed().saturating_sub(began));
        if (killed + 1) % 20 == 0 {
            note(&format!("{store}: {} of {} kills", killed + 1, args.kills));
        }
    }
    for life in &mut lives {
        life.over.store(true, Ordering::Relaxed);
        life.end().await?;
    }
    let given = std::mem::take(&mut *given.lock().unwrap_or_else(PoisonError::into_inner));
    let records = Records::of(&deployment.fleet).await?;
    let history = records.verify(&given.checkpoints);
    let history = history.with_context(|| format!("{store}: the log does not verify"))?;
    compare(&given.leases, &history).context(store)?;
    let signer = SignerKey::parse(fs::read_to_string(&deployment.fleet.layout.log_key)?.trim())?;
    control(&given, &records, &signer).context(store)?;
    let (received, granted) = (given.leases.len(), history.grants.len());
    let (checkpoints, records) = (given.checkpoints.len(), history.report.size);
    Ok(Outcome { store, received, granted, checkpoints, records, away })
}

/// Every lease that was received stands in the log, at the index that it came with.
fn compare(received: &[Received], history: &History) -> anyhow::Result<()> {
    for Received { index, hash } in received {
        let granted = history.grants.get(index);
        ensure!(granted == Some(hash), "the lease with index {index} is not in the log");
    }
    let distinct = received.iter().map(|received| received.index).collect::<HashSet<_>>();
    ensure!(distinct.len() == received.len(), "an index was given out twice");
    Ok(())
}

/// Shows that the checks find one leaf that is missing: as it is, and in a log that was written anew
/// without it by whoever has the key, which verifies by itself.
fn control(given: &Given, records: &Records, signer: &SignerKey) -> anyhow::Result<()> {
    records.control()?;
    let some = [0, given.leases.len() / 2].map(|place| given.leases.get(place));
    for Received { index, .. } in some.into_iter().flatten() {
        let passed = records.without(*index).verify(&BTreeSet::new()).is_ok();
        ensure!(!passed, "the log verifies without its record {index}: the check is worthless");
        let rewritten = records.rewritten_without(*index, signer)?;
        let history = rewritten.verify(&BTreeSet::new()).context("a log that was written anew")?;
        let passed = compare(&given.leases, &history).is_ok();
        ensure!(!passed, "nobody misses the lease of record {index}: the check is worthless");
    }
    Ok(())
}

impl Life {
    fn begin(
        deployment: &Deployment,
        number: usize,
        concurrency: usize,
        given: &Arc<Mutex<Given>>,
    ) -> anyhow::Result<Self> {
        let broker = deployment.fleet.connect(number, "inference-proxy")?;
        let over = Arc::new(AtomicBool::new(false));
        let (count, leases) = watch::channel(0);
        let mut clients = JoinSet::new();
        for _ in 0..concurrency {
            let client = Client {
                broker: broker.clone(),
                key: deployment.key.clone(),
                given: Arc::clone(given),
                count: count.clone(),
                over: Arc::clone(&over),
            };
            clients.spawn(client.run());
        }
        Ok(Self { clients, over, leases })
    }

    /// Waits for a lease.
    async fn lends(&mut self) -> anyhow::Result<()> {
        match timeout(PATIENCE, self.leases.wait_for(|leases| *leases > 0)).await {
            Ok(lent) => lent.map(drop)?,
            Err(_) => bail!("a broker has lent nothing for {PATIENCE:?}: see what it said"),
        }
        Ok(())
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.clients.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// One that asks for leases, one after the other, and writes each down.
struct Client {
    broker: strongroom_client::Broker,
    key: String,
    given: Arc<Mutex<Given>>,
    count: watch::Sender<u64>,
    over: Arc<AtomicBool>,
}

impl Client {
    async fn run(self) -> anyhow::Result<()> {
        while !self.over.load(Ordering::Relaxed) {
            let Err(error) = self.lease_until_refused().await else { continue };
            // If its broker was killed, that is said by now.
            sleep(PAUSE).await;
            if !self.over.load(Ordering::Relaxed) {
                note(&format!("a broker that was not killed refused: {error}"));
            }
        }
        Ok(())
    }

    async fn lease_until_refused(&self) -> anyhow::Result<()> {
        let request = lease_request(&self.broker, &self.key).await?;
        while !self.over.load(Ordering::Relaxed) {
            let lease = self.broker.leases().acquire_lease(request.clone()).await?.into_inner();
            let received = Received { index: lease.log_index, hash: lease.lease_hash };
            let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            given.leases.push(received);
            // A broker that has just started may not know one yet.
            if !lease.checkpoint.is_empty() && !given.checkpoints.contains(&lease.checkpoint) {
                given.checkpoints.insert(lease.checkpoint);
            }
            drop(given);
            self.count.send_modify(|count| *count += 1);
        }
        Ok(())
    }
}

/// Some time below this.
pub(crate) fn random(below: Duration) -> anyhow::Result<Duration> {
    let random = Uid::random()?.as_ref().first().copied().unwrap_or_default();
    Ok(below * u32::from(random) / 256)
}

#[expect(clippy::print_stdout, reason = "this is what the run is for")]
fn report(args: &Args, outcomes: Vec<Outcome>) {
    for Outcome { store, received, granted, checkpoints, records, away } in outcomes {
        let kills = away.len();
        let away = Quantiles::of(away);
        if args.json {
            let outcome = serde_json::json!({
                "store": store, "kills": kills, "received": received, "granted": granted,
                "checkpoints": checkpoints, "records": records, "away": away,
            });
            println!("{outcome}");
        } else {
            println!(
                "{store}: {kills} kills, {received} leases received, all of them among the \
                 {granted} of the log; {records} records without a gap, which continue all \
                 {checkpoints} checkpoints that were received; a record less is noticed; from a \
                 kill to the next lease of the same broker: {away}"
            );
        }
    }
}

const LONGEST_LIFE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(20);
