use std::{path::Path, sync::Arc, time::Duration};

use audit::{Bundle, HashTile, Reason, RecordDraft, RecordProof, SignerKey, tree_root};
use domain::{AccessRule, ManualClock};
use envelope::{KeyringSettings, LocalKms, Roots};
use store::{Pending, SinkRow, SqliteStore, Store};
use testkit::FailingShares;
use tokio_util::task::TaskTracker;
use tonic::Code;

use super::*;
use crate::{access::Access, checkpoints::Checkpoints, core::Parts, people::Called};

struct Fixture {
    core: Core,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    key: SignerKey,
    kms: Arc<LocalKms>,
    shares: Arc<FailingShares>,
}

const KEEP: Duration = Duration::from_hours(48);

impl Fixture {
    /// A log of so many records, and a broker that may prune it.
    async fn new(size: u64, keep: Option<Duration>) -> Self {
        Self::with_sink_at(size, keep, size).await
    }

    /// As `new`, with a sink that has been sent the records before an index.
    async fn with_sink_at(sent: u64, keep: Option<Duration>, size: u64) -> Self {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().await.unwrap());
        let records: Vec<Pending> = (0..size).map(|_| refusal()).collect();
        for batch in records.chunks(4096) {
            store.append(batch).await.unwrap();
        }
        // Records have their time from the database.
        let now = store.head().await.unwrap().time;
        let clock = Arc::new(ManualClock::at(now + KEEP));
        let key = SignerKey::generate("strongroom.test/log").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("kms.key");
        LocalKms::create_new(&key_file, None).unwrap();
        let kms = Arc::new(LocalKms::open(&key_file, None).unwrap());
        let shares = Arc::new(FailingShares::new().await.unwrap());
        let core = core(&store, (&kms, &shares), &clock, &key, keep).await;
        let log = Self { core, store, clock, key, kms, shares };
        log.send(sent).await;
        log
    }

    /// Takes note of how far the sink is.
    async fn send(&self, next_index: u64) {
        let row = SinkRow { name: "siem".to_owned(), next_index, row_mac: [0; 32] };
        self.store.put_sink(&row.sealed(&self.core.row_key)).await.unwrap();
    }

    async fn checkpoint(&self, size: u64) -> String {
        let leaves = self.store.leaf_hashes(0..size).await.unwrap();
        Checkpoint::sign(size, &tree_root(&leaves), &self.key).unwrap()
    }

    async fn prune(&self, before_index: u64, checkpoint: &str) -> Result<(u64, u64), Refused> {
        let request = v1::PruneRecordsRequest { before_index, checkpoint: checkpoint.into() };
        let answer = self.core.prune_records(&caller(), &request).await?;
        Ok((answer.first_index, answer.log_index))
    }

    async fn list(&self, request: v1::ListRecordsRequest) -> Result<Vec<u64>, Refused> {
        let page = self.core.list_records(&caller(), &request).await?;
        Ok(page.entries.iter().map(|entry| entry.index).collect())
    }
}

async fn core(
    store: &Arc<dyn Store>,
    (kms, shares): (&Arc<LocalKms>, &Arc<FailingShares>),
    clock: &Arc<ManualClock>,
    key: &SignerKey,
    keep: Option<Duration>,
) -> Core {
    let rule = AccessRule {
        role: String::new(),
        identities: vec!["spiffe://a.b/keeper".parse().unwrap()],
        methods: strongroom_proto::methods(),
        tenants: vec!["*".to_owned()],
        providers: vec!["*".to_owned()],
        longest_lease_seconds: domain::LONGEST_TTL,
    };
    let parts = Parts {
        people: vec![],
        access: Arc::new(Access::of(&[rule])),
        aws: None,
        courier: Arc::<crate::outside::scripted::Scripted>::default(),
        catalogue: providers::Catalogue::builtin().unwrap(),
        checkpoints: Arc::new(Checkpoints::new(key.verifier().clone(), Path::new("b.toml")).0),
        clock: Arc::clone(clock) as _,
        commit_deadline: Duration::from_secs(5),
        keep,
        keyring: KeyringSettings::default(),
        roots: Arc::new(Roots::only(Arc::clone(kms) as _)),
        endpoints: crate::endpoints::EndpointRules::default(),
        sessions: 10,
        shares: Arc::clone(shares) as _,
        share_backups: Duration::from_hours(168),
        sinks: vec!["siem".to_owned()],
        usage: crate::config::UsageConfig::default(),
        store: Arc::clone(store),
        verifier_key: key.verifier().to_string(),
    };
    Core::open(parts, &TaskTracker::new()).await.unwrap()
}

fn caller() -> Caller {
    let identity = "spiffe://a.b/keeper".parse().unwrap();
    Caller::new(identity, Called::ById, [1; 32], "Audit/PruneRecords", None)
}

fn refusal() -> Pending {
    let (kind, reason) = (Kind::Refused.into(), Reason::NotPermitted.into());
    let record = RecordDraft::new(Record { kind, reason, ..Record::default() }).unwrap();
    Pending { record, as_of: None, tenants: Vec::new() }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Refused>, code: Code, words: &str) {
    let status = tonic::Status::from(outcome.unwrap_err());
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(words), "{status:?}");
}

#[tokio::test]
async fn what_was_pruned_is_answered_as_pruned_and_what_remains_is_proved() {
    let log = Fixture::new(5000, Some(KEEP)).await;
    let checkpoint = log.checkpoint(5000).await;
    // Step by step, each on record.
    let (first, at) = log.prune(4608, &checkpoint).await.unwrap();
    assert_eq!(first, 4096);
    let record = log.store.records(at, 1, None).await.unwrap().remove(0).record().unwrap();
    assert_eq!((record.kind(), record.tree_size), (Kind::LogPruned, 4096));
    assert_eq!(record.actor, "spiffe://a.b/keeper");
    assert_eq!(log.prune(4608, &checkpoint).await.unwrap().0, 4608);
    assert_eq!(log.prune(4608, &checkpoint).await.unwrap(), (4608, 0));

    let from = |from_index| v1::ListRecordsRequest { from_index, ..Default::default() };
    refused(log.list(from(0)).await, Code::OutOfRange, "before 4608 have been pruned");
    refused(log.list(from(4607)).await, Code::OutOfRange, "before 4608 have been pruned");
    assert_eq!(log.list(from(4608)).await.unwrap().len(), 256);
    let latest = v1::ListRecordsRequest {
        newest_first: true,
        from_index: 4610,
        ..v1::ListRecordsRequest::default()
    };
    assert_eq!(log.list(latest).await.unwrap(), [4609, 4608]);

    let size = log.store.head().await.unwrap().frontier.size();
    let note = log.checkpoint(size).await;
    log.store.put_checkpoint(size, &note).await.unwrap();
    let prove = async |index| {
        let request = v1::ProveInclusionRequest { index, tree_size: 0 };
        log.core.prove_inclusion(&caller(), &request).await
    };
    refused(prove(4607).await, Code::OutOfRange, "pruned");
    for index in [4608, 4999, size - 1] {
        let proved = prove(index).await.unwrap();
        let hashes = proved.hashes.iter().map(|hash| (&**hash).try_into().unwrap()).collect();
        let proof = RecordProof { index, hashes, checkpoint: proved.checkpoint };
        proof.verify(log.key.verifier(), &proved.entry.unwrap().body).unwrap();
    }
}

#[tokio::test]
async fn a_broker_starts_and_writes_on_a_pruned_log() {
    let log = Fixture::new(600, Some(KEEP)).await;
    log.prune(512, &log.checkpoint(600).await).await.unwrap();
    let core = core(&log.store, (&log.kms, &log.shares), &log.clock, &log.key, None).await;
    let record = refusal().record.record().clone();
    let entry = core.log.record(record).await.unwrap();
    let size = entry.index + 1;
    let leaves = log.store.leaf_hashes(0..size).await.unwrap();
    assert_eq!(core.root_at(size).await.unwrap(), tree_root(&leaves));
    assert_eq!(log.store.head().await.unwrap().frontier.root(), tree_root(&leaves));
}

#[tokio::test]
async fn nothing_is_pruned_that_is_not_old_whole_and_covered() {
    let log = Fixture::new(600, Some(KEEP)).await;
    let good = log.checkpoint(600).await;
    let wrong = Code::InvalidArgument;
    refused(log.prune(300, &good).await, wrong, "multiple of 256");
    refused(log.prune(0, &good).await, wrong, "multiple of 256");
    refused(log.prune(512, "").await, wrong, "not signed");
    let foreign = SignerKey::generate("strongroom.test/log").unwrap();
    let root = log.core.root_at(600).await.unwrap();
    let signed = Checkpoint::sign(600, &root, &foreign).unwrap();
    refused(log.prune(512, &signed).await, wrong, "not signed");
    refused(log.prune(512, &log.checkpoint(511).await).await, wrong, "does not cover");
    let other = Checkpoint::sign(600, &[1; 32], &log.key).unwrap();
    refused(log.prune(512, &other).await, wrong, "another history");
    let beyond = Checkpoint::sign(700_000, &[1; 32], &log.key).unwrap();
    refused(log.prune(512, &beyond).await, Code::OutOfRange, "does not reach");

    assert_eq!(log.store.first_kept().await.unwrap(), 0);

    let young = Fixture::new(600, Some(KEEP + Duration::from_secs(9))).await;
    refused(young.prune(512, &young.checkpoint(600).await).await, wrong, "younger");
}

#[tokio::test]
async fn nothing_is_pruned_that_a_sink_has_not_been_sent() {
    let log = Fixture::with_sink_at(511, Some(KEEP), 600).await;
    let note = log.checkpoint(600).await;
    let wrong = Code::InvalidArgument;
    refused(log.prune(512, &note).await, wrong, "`siem` has been sent the records before 511");
    log.prune(256, &note).await.unwrap();
    // A cursor that somebody has moved past the broker says nothing.
    let moved = SinkRow { name: "siem".to_owned(), next_index: 600, row_mac: [0; 32] };
    log.store.put_sink(&moved).await.unwrap();
    refused(log.prune(512, &note).await, wrong, "`siem` has been sent the records before 0");
    log.send(512).await;
    assert_eq!(log.prune(512, &note).await.unwrap().0, 512);
}

#[tokio::test]
async fn what_was_pruned_still_proves_that_later_trees_continue_it() {
    let log = Fixture::new(900, Some(KEEP)).await;
    let root = |size| log.core.root_at(size);
    let (old, at_256) = (root(300).await.unwrap(), root(256).await.unwrap());
    log.prune(512, &log.checkpoint(900).await).await.unwrap();
    let size = log.store.head().await.unwrap().frontier.size();
    for (old_size, old_root) in [(300, old), (256, at_256)] {
        let plan = ProofPlan::consistency(old_size, size).unwrap();
        let hashes = log.core.prove(&plan).await.unwrap();
        let proof: Vec<Hash> = hashes.iter().map(|hash| (&**hash).try_into().unwrap()).collect();
        let root = root(size).await.unwrap();
        audit::verify_consistency(old_size, &old_root, size, &root, &proof).unwrap();
    }
}

#[tokio::test]
async fn of_the_static_files_only_pruned_bundles_are_gone() {
    let log = Fixture::new(600, Some(KEEP)).await;
    let tile = HashTile { level: 0, index: 1, width: 256 };
    let before = log.core.tile(tile).await.unwrap();
    log.prune(512, &log.checkpoint(600).await).await.unwrap();
    let pruned = log.core.bundle(Bundle { index: 1, width: 256 }).await.unwrap_err();
    assert_eq!(pruned.http_status(), http::StatusCode::GONE);
    log.core.bundle(Bundle { index: 2, width: 88 }).await.unwrap();
    assert_eq!(log.core.tile(tile).await.unwrap(), before);
}

#[tokio::test]
async fn a_broker_that_keeps_everything_prunes_nothing() {
    let log = Fixture::new(300, None).await;
    refused(log.prune(256, &log.checkpoint(300).await).await, Code::InvalidArgument, "`keep`");
    assert!(crate::bootstrap::keep(Some(Duration::from_hours(23))).is_err());
}
