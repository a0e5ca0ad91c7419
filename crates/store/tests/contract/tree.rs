use audit::{
    Hash, HashTile, ProofPlan, TileFolder, tree_root, verify_consistency, verify_inclusion,
};
use store::{Store, StoreError, Tree};

use crate::{
    given::{append, refusal},
    log::check_tree,
    place::Place,
};

/// Enough records for a node of each kept height up to 16, and some more.
const SIZE: u64 = 65_536 + 300;

async fn grown(place: &Place, size: u64) -> (std::sync::Arc<dyn Store>, Vec<Hash>) {
    let store = place.open().await;
    let mut left = usize::try_from(size).unwrap();
    while left > 0 {
        let batch = left.min(5000);
        append(&*store, vec![refusal("a"); batch]).await;
        left -= batch;
    }
    let leaves = store.leaf_hashes(0..size).await.unwrap();
    (store, leaves)
}

fn root(leaves: &[Hash], start: u64, end: u64) -> Hash {
    tree_root(&leaves[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()])
}

pub(crate) async fn nodes_are_kept_with_the_record_that_completes_them(place: &Place) {
    let store = place.open().await;
    for (size, nodes) in [(255, 0), (1, 1), (1, 1), (254, 1), (1, 2), (600, 4)] {
        append(&*store, vec![refusal("a"); size]).await;
        assert_eq!(store.node_hashes(8, 0..100).await.unwrap().len(), nodes);
    }
    let leaves = store.leaf_hashes(0..2000).await.unwrap();
    let nodes = store.node_hashes(8, 1..3).await.unwrap();
    assert_eq!(nodes, [root(&leaves, 256, 512), root(&leaves, 512, 768)]);
    assert!(store.node_hashes(16, 0..9).await.unwrap().is_empty());
}

pub(crate) async fn proofs_by_stored_nodes_hold(place: &Place) {
    let (store, leaves) = grown(place, SIZE).await;
    let (tree, whole) = (Tree::of(&*store), root(&leaves, 0, SIZE));
    assert_eq!(tree.frontier(SIZE).await.unwrap(), store.head().await.unwrap().frontier);
    for index in [0, 1, 255, 256, 40_000, 65_535, 65_536, SIZE - 1] {
        let proof = tree.prove(&ProofPlan::inclusion(index, SIZE).unwrap()).await.unwrap();
        let leaf = leaves[usize::try_from(index).unwrap()];
        verify_inclusion(&leaf, index, SIZE, &proof, &whole).unwrap();
    }
    for old in [1, 255, 256, 257, 40_000, 65_536, SIZE - 1, SIZE] {
        let proof = tree.prove(&ProofPlan::consistency(old, SIZE).unwrap()).await.unwrap();
        verify_consistency(old, &root(&leaves, 0, old), SIZE, &whole, &proof).unwrap();
        assert_eq!(tree.frontier(old).await.unwrap().root(), root(&leaves, 0, old));
    }
    let (mut folder, mut tiles) = (TileFolder::default(), Vec::new());
    let mut keep = |tile: HashTile, bytes: &[u8]| {
        tiles.push((tile, bytes.to_vec()));
        Ok::<_, ()>(())
    };
    for leaf in &leaves {
        folder.push(*leaf, &mut keep).unwrap();
    }
    folder.finish(&mut keep).unwrap();
    for (tile, bytes) in tiles {
        assert_eq!(tree.tile(tile).await.unwrap(), bytes, "{tile}");
    }
}

pub(crate) async fn a_failing_batch_leaves_no_node_behind(place: &Place) {
    let (store, _) = grown(place, 250).await;
    // A record where the next one belongs makes the batch fail that would complete a node.
    place
        .tamper(
            "INSERT INTO record (idx, body, leaf_hash, kind, mutates, batch) \
             SELECT 255, body, leaf_hash, kind, mutates, batch FROM record WHERE idx = 0",
        )
        .await;
    let batch = vec![crate::given::pending(refusal("a")); 10];
    assert!(store.append(&batch).await.is_err());
    assert!(store.node_hashes(8, 0..9).await.unwrap().is_empty());
    place.tamper("DELETE FROM record WHERE idx = 255").await;
    append(&*store, vec![refusal("a"); 10]).await;
    assert_eq!(store.node_hashes(8, 0..9).await.unwrap().len(), 1);
    check_tree(&*store, 260).await;
}

pub(crate) async fn a_lost_node_is_corrupt(place: &Place) {
    let (store, _) = grown(place, 600).await;
    let plan = ProofPlan::inclusion(599, 600).unwrap();
    Tree::of(&*store).prove(&plan).await.unwrap();
    place.tamper("DELETE FROM tree_node WHERE idx = 1").await;
    let refused = Tree::of(&*store).prove(&plan).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(place)) if place == "tree_node.hash"));
    assert!(Tree::of(&*store).frontier(600).await.is_err());
    assert!(Tree::of(&*store).frontier(200).await.is_ok());
}
