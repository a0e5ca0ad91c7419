use audit::{Kind, ProofPlan, Record, RecordDraft, leaf_hash, tree_root, verify_inclusion};
use store::{Store, StoreError};

use crate::{
    given::{acme, append, at, draft, granted, pending, refusal, revoked},
    place::Place,
};

/// As much as one lease writes in earnest.
fn lease(place: u64) -> RecordDraft {
    let mut hash = [0x5a; 32];
    hash[..8].copy_from_slice(&place.to_be_bytes());
    draft(Record {
        actor: "spiffe://acme.internal/inference-proxy".into(),
        certificate_sha256: vec![1; 32].into(),
        session_key_sha256: vec![2; 32].into(),
        method: "Leases/AcquireLease".into(),
        provider: "openai".into(),
        source: 1,
        virtual_key: "aaaaaaaaaaaaaaaa".into(),
        lease_hash: hash.to_vec().into(),
        trace_id: vec![3; 16].into(),
        kek_id: vec![4; 16].into(),
        kek_version: 1,
        ..granted("acme", 1, at(1_800_000_000)).record().clone()
    })
}

async fn fill(store: &dyn Store, size: u64) {
    let records: Vec<_> = (0..size).map(lease).map(pending).collect();
    for batch in records.chunks(1000) {
        store.append(batch).await.unwrap();
    }
}

/// The record of a pruning, with the root that the leaves have.
async fn pruned(store: &dyn Store, before: u64) -> RecordDraft {
    let leaves = store.leaf_hashes(0..before).await.unwrap();
    let tree_root = tree_root(&leaves).to_vec().into();
    draft(Record {
        kind: Kind::LogPruned.into(),
        tree_size: before,
        tree_root,
        ..Record::default()
    })
}

async fn prune(store: &dyn Store, before: u64) -> u64 {
    let record = pruned(store, before).await;
    store.prune(before, &record).await.unwrap().index
}

pub(crate) async fn what_remains_of_a_pruned_log_is_whole(place: &Place) {
    let store = place.open().await;
    acme(&*store).await;
    append(&*store, vec![revoked(1), refusal("acme")]).await;
    fill(&*store, 1400).await;
    let before = store.leaf_hashes(0..1403).await.unwrap();
    assert_eq!(prune(&*store, 1280).await, 1403);
    assert_eq!(store.first_kept().await.unwrap(), 1280);

    // All hashes are there, from any place on; bodies only from the first kept one.
    let after = store.leaf_hashes(0..2000).await.unwrap();
    assert_eq!(after.len(), 1404);
    assert_eq!(after[..1403], before);
    assert_eq!(store.leaf_hashes(100..300).await.unwrap(), before[100..300]);
    assert_eq!(store.leaf_hashes(1270..1290).await.unwrap(), before[1270..1290]);
    assert_eq!(store.leaf_hashes(1300..1301).await.unwrap(), before[1300..1301]);
    let kept = store.records(0, 9999, None).await.unwrap();
    assert_eq!((kept.len(), kept[0].index), (124, 1280));
    let tenant = "acme".parse().unwrap();
    assert_eq!(store.records(5, 1, Some(&tenant)).await.unwrap()[0].index, 1280);
    assert_eq!(store.records_before(1290, 99, None).await.unwrap().len(), 10);
    assert!(store.lease_records(&[1; 32]).await.unwrap().is_empty());
    // Replay has every change.
    let changes = store.changes(0, 9).await.unwrap();
    assert_eq!(changes.iter().map(|entry| entry.index).collect::<Vec<_>>(), [0, 1]);

    // What remains is proved, and the log goes on: also after the next start.
    store.close().await;
    let store = place.open().await;
    append(&*store, vec![refusal("b")]).await;
    let head = store.head().await.unwrap();
    let leaves = store.leaf_hashes(0..9999).await.unwrap();
    assert_eq!((head.frontier.size(), head.frontier.root()), (1405, tree_root(&leaves)));
    let plan = ProofPlan::inclusion(1300, 1405).unwrap();
    let mut proof = Vec::new();
    for node in plan.nodes() {
        proof.push((node, tree_root(&store.leaf_hashes(node.range()).await.unwrap())));
    }
    let root_of = |node| proof.iter().find(|(it, _)| *it == node).map(|(_, root)| *root).ok_or(());
    let hashes = plan.assemble(root_of).unwrap();
    let entry = store.records(1300, 1, None).await.unwrap().remove(0);
    let leaf = leaf_hash(&entry.body);
    verify_inclusion(&leaf, 1300, 1405, &hashes, &head.frontier.root()).unwrap();
}

pub(crate) async fn only_whole_bundles_are_pruned_and_each_once(place: &Place) {
    let store = place.open().await;
    fill(&*store, 600).await;
    let record = pruned(&*store, 300).await;
    let refused = store.prune(300, &record).await;
    assert!(matches!(refused, Err(StoreError::InvalidRecord(_))));
    let record = pruned(&*store, 256).await;
    let refused = store.prune(512, &record).await;
    assert!(matches!(refused, Err(StoreError::InvalidRecord(_))));
    let refused = store.prune(256, &refusal("a")).await;
    assert!(matches!(refused, Err(StoreError::InvalidRecord(_))));

    prune(&*store, 256).await;
    let again = store.prune(256, &record).await;
    assert!(matches!(again, Err(StoreError::Changed(_))));
    let beyond = pruned(&*store, 1024).await;
    let refused = store.prune(1024, &beyond).await;
    assert!(matches!(refused, Err(StoreError::Changed(_))));
    // What was refused is not on record.
    assert_eq!(store.head().await.unwrap().frontier.size(), 601);
    prune(&*store, 512).await;
    assert_eq!(store.first_kept().await.unwrap(), 512);
}

pub(crate) async fn a_pruned_log_needs_a_fifth_of_the_storage(place: &Place) {
    let store = place.open().await;
    // Enough that what the empty tables take does not count.
    fill(&*store, 20_480).await;
    let before = place.stored().await;
    prune(&*store, 18_432).await;
    let after = place.stored().await;
    assert!(after * 5 <= before, "{after} of {before} bytes");
}
