use std::sync::Arc;

use anyhow::ensure;
use audit::{Entry, Frontier, Kind, Record, RecordDraft, proto_time};
use clap::ValueEnum;
use domain::{Clock as _, SystemClock, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use store::{Pending, PostgresStore, SqliteStore, Store};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::Ran;
use crate::process::announce;

/// Records of leases, committed in groups as the broker commits them or otherwise, and nothing else.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A file or a URL.
    place: String,
    backend: Backend,
    #[arg(long)]
    calls: u64,
    #[arg(long)]
    concurrency: u64,
    /// How many records one commit may hold.
    #[arg(long, default_value_t = BATCH)]
    together: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

type Queued = (Pending, oneshot::Sender<()>);

/// As in the broker.
const BATCH: usize = 256;

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let store = open(&args.place, args.backend).await?;
    let (queue, queued) = mpsc::channel(4096);
    let mut committing = JoinSet::new();
    committing.spawn(commit(Arc::clone(&store), queued, args.together));
    let (started, cpu) = (SystemClock.elapsed(), cpu_seconds());
    let mut tasks = JoinSet::new();
    for worker in 0..args.concurrency {
        let (queue, calls) = (queue.clone(), args.calls / args.concurrency);
        tasks.spawn(async move {
            for call in 0..calls {
                let (answer, recorded) = oneshot::channel();
                queue.send((pending(worker, call)?, answer)).await?;
                recorded.await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let calls = args.calls / args.concurrency * args.concurrency;
    let seconds = SystemClock.elapsed().saturating_sub(started).as_secs_f64();
    announce(&serde_json::to_string(&Ran { calls, seconds, cpu_seconds: cpu_seconds() - cpu })?);
    Ok(())
}

async fn open(place: &str, backend: Backend) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match backend {
        Backend::Sqlite => Arc::new(SqliteStore::open(place.as_ref()).await?),
        Backend::Postgres => Arc::new(PostgresStore::connect(place, 2).await?),
    })
}

/// Checks that so many records and no others are in a store, one after the other, and are those of
/// its tree; and that the check would find one that is missing.
pub(crate) async fn check(place: &str, backend: Backend, written: u64) -> anyhow::Result<()> {
    let store = open(place, backend).await?;
    let head = store.head().await?.frontier;
    let mut entries: Vec<Entry> = Vec::new();
    while entries.len() < usize::try_from(written)? {
        let page = store.records(u64::try_from(entries.len())?, 4096, None).await?;
        ensure!(!page.is_empty(), "{} of {written} records are there", entries.len());
        entries.extend(page);
    }
    ensure!(head.size() == written, "{written} records were written, {} are there", head.size());
    ensure!(is_log(&entries, &head), "the records are not those of the tree");
    entries.remove(entries.len() / 2);
    ensure!(!is_log(&entries, &head), "a record is not missed: the check is worthless");
    Ok(())
}

fn is_log(entries: &[Entry], head: &Frontier) -> bool {
    let mut tree = Frontier::default();
    for entry in entries {
        if entry.index != tree.size() {
            return false;
        }
        tree.push(entry.leaf_hash());
    }
    (tree.size(), tree.root()) == (head.size(), head.root())
}

async fn commit(
    store: Arc<dyn Store>,
    mut queued: mpsc::Receiver<Queued>,
    together: usize,
) -> anyhow::Result<()> {
    let mut batch = Vec::with_capacity(together);
    while queued.recv_many(&mut batch, together).await > 0 {
        let (pending, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        store.append(&pending).await?;
        for answer in answers {
            // Whoever asked has ended.
            let _ = answer.send(());
        }
    }
    Ok(())
}

/// As long as the record of a lease by virtual key.
fn pending(worker: u64, call: u64) -> anyhow::Result<Pending> {
    let mut lease_hash = [7; 32];
    lease_hash
        .iter_mut()
        .zip(worker.to_be_bytes().into_iter().chain(call.to_be_bytes()))
        .for_each(|(byte, value)| *byte = value);
    let record = Record {
        kind: Kind::LeaseGranted.into(),
        actor: "spiffe://strongroom.local/inference-proxy".to_owned(),
        certificate_sha256: vec![1; 32].into(),
        session_key_sha256: vec![2; 32].into(),
        method: "Leases/AcquireLease".to_owned(),
        tenant: "bench".to_owned(),
        credential: "tenants/bench/credentials/openai".to_owned(),
        credential_uid: vec![3; 16].into(),
        credential_version: 1,
        revision: 1,
        provider: "openai".to_owned(),
        source: 1,
        lease_hash: lease_hash.to_vec().into(),
        lease_expire_time: Some(proto_time(Timestamp::from_millis(1_800_000_000_000))),
        virtual_key: "aaaaaaaaaaaaaaaa".to_owned(),
        trace_id: vec![4; 16].into(),
        kek_id: vec![5; 16].into(),
        kek_version: 1,
        ..Record::default()
    };
    Ok(Pending { record: RecordDraft::new(record)?, as_of: None, tenants: Vec::new() })
}

#[expect(clippy::cast_precision_loss, reason = "measurements are not that exact")]
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
