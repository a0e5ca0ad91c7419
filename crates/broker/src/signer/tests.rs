use audit::{Kind, Reason, Record, RecordDraft};
use domain::{SystemClock, Uid};
use store::{Pending, SqliteStore};
use testkit::{FailingStore, Fault, Operation};

use super::*;
use crate::{leadership, log::Log, refused::Why};

/// A store, and a folder for the files of brokers over it.
struct Place {
    store: Arc<FailingStore>,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let store = Arc::new(SqliteStore::in_memory().await.unwrap());
        let store = Arc::new(FailingStore::new(store));
        Self { store, folder: tempfile::tempdir().unwrap() }
    }

    /// The same file system over another database: the one that was restored.
    async fn restored(&self) -> Arc<FailingStore> {
        Self::new().await.store
    }

    fn file(&self, broker: &str) -> PathBuf {
        self.folder.path().join(broker)
    }

    async fn signer(&self, broker: &str) -> anyhow::Result<Signer> {
        open(&self.store, self.file(broker)).await
    }

    fn kept(&self, broker: &str) -> Option<u64> {
        Checkpoint::claimed_size(&std::fs::read_to_string(self.file(broker)).ok()?)
    }
}

async fn open(store: &Arc<FailingStore>, file: PathBuf) -> anyhow::Result<Signer> {
    Signer::open(Arc::clone(store) as _, key(), file, Path::new("broker.toml")).await
}

fn key() -> SignerKey {
    SignerKey::from_seed("strongroom.test/log", &[7; 32]).unwrap()
}

fn refusal(tenant: &str) -> Record {
    let (kind, reason) = (Kind::Refused.into(), Reason::NotPermitted.into());
    Record { kind, reason, tenant: tenant.to_owned(), ..Record::default() }
}

async fn append(store: &FailingStore, records: impl IntoIterator<Item = Record>) {
    let batch: Vec<_> = records
        .into_iter()
        .map(|record| Pending {
            record: RecordDraft::new(record).unwrap(),
            as_of: None,
            tenants: Vec::new(),
        })
        .collect();
    store.append(&batch).await.unwrap();
}

async fn published(store: &FailingStore) -> Option<u64> {
    Checkpoint::claimed_size(&store.checkpoint().await.unwrap()?)
}

async fn log(store: &Arc<FailingStore>) -> Log {
    let size = store.head().await.unwrap().frontier.size();
    let tasks = tokio_util::task::TaskTracker::new();
    Log::open(
        Arc::clone(store) as _,
        size,
        Duration::from_secs(5),
        Uid::from_bytes([1; 16]),
        &tasks,
    )
}

fn behind(result: &Result<(), Why>) -> bool {
    matches!(result, Err(Why::LogBehindCheckpoint))
}

#[tokio::test]
async fn only_the_leader_signs_and_every_broker_keeps_what_is_signed() {
    let place = Place::new().await;
    let (mut one, mut other) =
        (place.signer("one").await.unwrap(), place.signer("other").await.unwrap());
    append(&place.store, vec![refusal("a"); 3]).await;
    other.look(false).await.unwrap();
    assert_eq!((published(&place.store).await, place.kept("other")), (None, None));
    one.look(true).await.unwrap();
    other.look(false).await.unwrap();
    assert_eq!(published(&place.store).await, Some(3));
    assert_eq!((place.kept("one"), place.kept("other")), (Some(3), Some(3)));

    // The other one takes over and goes on from there.
    append(&place.store, vec![refusal("a"); 2]).await;
    other.look(true).await.unwrap();
    one.look(false).await.unwrap();
    assert_eq!((place.kept("one"), place.kept("other")), (Some(5), Some(5)));
    assert_eq!(one.checkpoints().note(), other.checkpoints().note());
}

#[tokio::test]
async fn a_checkpoint_that_could_not_be_published_is_published_later() {
    let place = Place::new().await;
    let mut signer = place.signer("one").await.unwrap();
    append(&place.store, vec![refusal("a"); 3]).await;
    place.store.fail_once(Operation::PutCheckpoint, Fault::Before);
    assert!(signer.look(true).await.is_err());
    assert_eq!((published(&place.store).await, place.kept("one")), (None, Some(3)));
    // Although the log has not grown.
    signer.look(true).await.unwrap();
    assert_eq!(published(&place.store).await, Some(3));
    drop(signer);
    // Nor does a start in between lose it.
    append(&place.store, [refusal("a")]).await;
    let mut signer = place.signer("one").await.unwrap();
    place.store.fail_once(Operation::PutCheckpoint, Fault::Before);
    assert!(signer.look(true).await.is_err());
    let mut signer = place.signer("one").await.unwrap();
    signer.look(true).await.unwrap();
    assert_eq!(published(&place.store).await, Some(4));
}

#[tokio::test]
async fn a_log_that_lost_what_was_signed_is_refused_with_the_way_out() {
    let place = Place::new().await;
    append(&place.store, vec![refusal("a"); 5]).await;
    let mut signer = place.signer("one").await.unwrap();
    signer.look(true).await.unwrap();
    let lost = signer.checkpoints().newest().unwrap();

    let restored = place.restored().await;
    for (records, what) in [(vec![], "has 0 records, and 5"), (vec!["b"; 6], "are not those")] {
        append(&restored, records.into_iter().map(refusal)).await;
        let error = open(&restored, place.file("one")).await.err().unwrap();
        let said = format!("{error:#}");
        assert!(said.contains(what), "{said}");
        let root = lost.checkpoint.root_text();
        let command =
            format!("broker give-up-checkpoint --config broker.toml --size 5 --root {root}");
        assert!(said.contains(&command), "{said}");
    }
    // One that only grew is not.
    append(&place.store, [refusal("b")]).await;
    open(&place.store, place.file("one")).await.unwrap();
}

#[tokio::test]
async fn the_databases_own_checkpoint_is_verified_too() {
    let place = Place::new().await;
    append(&place.store, vec![refusal("a"); 2]).await;
    let other = SignerKey::from_seed("strongroom.test/log", &[8; 32]).unwrap();
    let note = Checkpoint::sign(1, &[0; 32], &other).unwrap();
    place.store.put_checkpoint(1, &note).await.unwrap();
    assert!(place.signer("one").await.is_err());

    let note = Checkpoint::sign(2, &[0; 32], &key()).unwrap();
    place.store.put_checkpoint(2, &note).await.unwrap();
    let said = format!("{:#}", place.signer("one").await.err().unwrap());
    assert!(said.contains("are not those that were signed"), "{said}");
}

#[tokio::test]
async fn another_history_in_the_database_stops_signing_and_lending() {
    let place = Place::new().await;
    append(&place.store, vec![refusal("a"); 2]).await;
    let mut signer = place.signer("one").await.unwrap();
    signer.look(true).await.unwrap();
    let note = Checkpoint::sign(2, &[0; 32], &key()).unwrap();
    place.store.put_checkpoint(2, &note).await.unwrap();
    append(&place.store, [refusal("a")]).await;
    assert!(signer.look(true).await.is_err());
    assert!(matches!(signer.checkpoints().check(), Err(Why::LogForked)));
    assert_eq!(place.kept("one"), Some(2));
}

#[tokio::test]
async fn an_echo_of_what_the_database_lost_stops_the_lending() {
    let place = Place::new().await;
    append(&place.store, vec![refusal("a"); 5]).await;
    let mut signer = place.signer("one").await.unwrap();
    signer.look(true).await.unwrap();
    let seen = signer.checkpoints().note();

    let restored = place.restored().await;
    append(&restored, vec![refusal("a"); 3]).await;
    // A broker whose own file is gone as well.
    let mut signer = open(&restored, place.file("new")).await.unwrap();
    signer.look(true).await.unwrap();
    let (checkpoints, log) = (signer.checkpoints(), log(&restored).await);
    checkpoints.hear("", &log, &*restored).await.unwrap();
    checkpoints.hear(&checkpoints.note(), &log, &*restored).await.unwrap();
    assert!(behind(&checkpoints.hear(&seen, &log, &*restored).await));
    // And it stays so, for whoever echoes nothing too.
    assert!(behind(&checkpoints.hear("", &log, &*restored).await));
    assert!(signer.look(true).await.is_err());
}

#[tokio::test]
async fn a_size_that_somebody_made_up_stops_nothing() {
    let place = Place::new().await;
    append(&place.store, vec![refusal("a"); 3]).await;
    let signer = place.signer("one").await.unwrap();
    let (checkpoints, log) = (signer.checkpoints(), log(&place.store).await);
    let other = SignerKey::from_seed("strongroom.test/log", &[8; 32]).unwrap();
    let forged = Checkpoint::sign(1000, &[0; 32], &other).unwrap();
    let unsigned = "strongroom.test/log\n1000\nAAAA\n\n".to_owned();
    let genuine = Checkpoint::sign(1000, &[0; 32], &key()).unwrap();
    let changed = genuine.replace("1000", "2000");
    let endless = format!("{genuine}{}", "x".repeat(1 << 20));
    for made_up in [forged, unsigned, changed, endless, "\n18446744073709551616\n".into()] {
        checkpoints.hear(&made_up, &log, &*place.store).await.unwrap();
    }
    assert!(behind(&checkpoints.hear(&genuine, &log, &*place.store).await));
}

#[tokio::test]
async fn an_echo_of_another_history_is_found_off_the_path_of_leases() {
    let place = Place::new().await;
    append(&place.store, vec![refusal("a"); 5]).await;
    let mut signer = place.signer("one").await.unwrap();
    signer.look(true).await.unwrap();
    let (checkpoints, log) = (signer.checkpoints(), log(&place.store).await);
    let mut trouble = checkpoints.trouble();
    let (leads, stop) = (watch::Sender::new(true), CancellationToken::new());
    let running = signer.run(leads.subscribe(), stop.clone());
    let told = async {
        // What fits is kept quiet about, as often as it comes.
        let fits = checkpoints.note();
        append(&place.store, [refusal("a")]).await;
        checkpoints.hear(&fits, &log, &*place.store).await.unwrap();
        let other = Checkpoint::sign(4, &[0; 32], &key()).unwrap();
        checkpoints.hear(&other, &log, &*place.store).await.unwrap();
        let found = trouble.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(matches!(&found, Trouble::Forked { signed } if signed.size == 4));
        assert!(checkpoints.check().is_err());
        stop.cancel();
    };
    tokio::join!(running, told);
}

#[tokio::test]
async fn an_echo_that_is_newer_than_what_a_broker_knows_is_kept() {
    let place = Place::new().await;
    let mut one = place.signer("one").await.unwrap();
    let mut other = place.signer("other").await.unwrap();
    append(&place.store, vec![refusal("a"); 5]).await;
    one.look(true).await.unwrap();
    let (checkpoints, log) = (other.checkpoints(), log(&place.store).await);
    checkpoints.hear(&one.checkpoints().note(), &log, &*place.store).await.unwrap();
    let echo = other.echoes.recv().await.unwrap();
    other.look_at_echo(&echo).await;
    assert_eq!(place.kept("other"), Some(5));
}

#[tokio::test]
async fn what_was_given_up_stops_nothing_and_what_is_larger_still_does() {
    let place = Place::new().await;
    append(&place.store, vec![refusal("a"); 5]).await;
    let mut signer = place.signer("one").await.unwrap();
    signer.look(true).await.unwrap();
    let lost = signer.checkpoints().newest().unwrap();
    append(&place.store, vec![refusal("a"); 2]).await;
    signer.look(true).await.unwrap();
    let larger = signer.checkpoints().note();
    std::fs::write(place.file("one"), &lost.note).unwrap();

    let restored = place.restored().await;
    let given_up = Record {
        kind: Kind::CheckpointGivenUp.into(),
        tree_size: 5,
        tree_root: lost.checkpoint.root.to_vec().into(),
        ..Record::default()
    };
    append(&restored, [refusal("a"), given_up]).await;
    restored.put_checkpoint(5, &lost.note).await.unwrap();
    let mut signer = open(&restored, place.file("one")).await.unwrap();
    let aside = place.file("one.given-up-5");
    assert_eq!(std::fs::read_to_string(aside).unwrap(), lost.note);
    signer.look(true).await.unwrap();
    assert_eq!((published(&restored).await, place.kept("one")), (Some(2), Some(2)));
    let (checkpoints, log) = (signer.checkpoints(), log(&restored).await);
    checkpoints.hear(&lost.note, &log, &*restored).await.unwrap();
    assert!(behind(&checkpoints.hear(&larger, &log, &*restored).await));
}

#[tokio::test]
async fn one_broker_leads_until_it_stops() {
    let place = Place::new().await;
    let stand = |holder: u8| {
        let (leads, stop) = (watch::Sender::new(false), CancellationToken::new());
        let (seen, uid) = (leads.subscribe(), Uid::from_bytes([holder; 16]));
        let clock = Arc::new(SystemClock);
        let standing =
            leadership::stand(Arc::clone(&place.store) as _, uid, clock, leads, stop.clone());
        (standing, seen, stop)
    };
    let (one, mut one_leads, one_stops) = stand(1);
    let (other, mut other_leads, other_stops) = stand(2);
    let told = async {
        one_leads.wait_for(|leads| *leads).await.unwrap();
        assert!(!*other_leads.borrow());
        one_stops.cancel();
        other_leads.wait_for(|leads| *leads).await.unwrap();
        assert!(!*one_leads.borrow());
        other_stops.cancel();
    };
    tokio::join!(one, other, told);
}

/// Takes out the bodies of all records before an index.
async fn prune(store: &FailingStore, before: u64) {
    let tree = tree::at(store, before).await.unwrap().unwrap();
    let record = Record {
        kind: Kind::LogPruned.into(),
        tree_size: before,
        tree_root: tree.root().to_vec().into(),
        ..Record::default()
    };
    store.prune(before, &RecordDraft::new(record).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_pruned_log_is_signed_on_and_continues_what_was_signed_before() {
    let place = Place::new().await;
    append(&place.store, vec![refusal("a"); 300]).await;
    let (mut one, mut other) =
        (place.signer("one").await.unwrap(), place.signer("other").await.unwrap());
    one.look(true).await.unwrap();
    other.look(false).await.unwrap();
    let early = other.checkpoints().note();
    drop(other);
    append(&place.store, vec![refusal("a"); 300]).await;
    prune(&place.store, 512).await;
    one.look(true).await.unwrap();
    assert_eq!(published(&place.store).await, Some(601));
    // A broker that last ran when there was no more, and a client that has seen no more.
    let mut other = place.signer("other").await.unwrap();
    assert_eq!(place.kept("other"), Some(601));
    assert!(matches!(
        other.take(&Checkpoint::verify(&early, key().verifier()).unwrap(), &early).await.unwrap(),
        Taken::Continued
    ));
}

#[tokio::test]
async fn a_checkpoint_that_does_not_continue_the_newest_is_no_tree_of_this_log() {
    let place = Place::new().await;
    append(&place.store, vec![refusal("a"); 300]).await;
    let tree = async |size| tree::at(&*place.store, size).await.unwrap();
    let (early, late) = (tree(200).await.unwrap(), tree(300).await.unwrap().root());
    assert!(tree(301).await.is_none());
    let check = async |root| {
        let origin = "strongroom.test/log".to_owned();
        let newest = Checkpoint { origin, size: 200, root };
        is_tree(&*place.store, Some(&newest), (300, &late)).await.unwrap()
    };
    assert_eq!(check(early.root()).await, Some(true));
    // The database is not asked which checkpoint was the newest.
    assert_eq!(check([1; 32]).await, Some(false));
}
