use audit::{
    Bundle, Frontier, Hash, HashTile, ProofPlan, PrunedStart, Resource, TileFolder, leaf_hash,
    node_hash, peaks, tree_root,
};

/// Each tile of a log of this size with its hashes, by the definition of the specification.
fn tiles_of(leaves: &[Hash]) -> Vec<(HashTile, Vec<Hash>)> {
    HashTile::covering(leaves.len() as u64)
        .map(|tile| {
            let hashes = tile.nodes().map(|node| {
                let range = node.range();
                tree_root(&leaves[place(range.start)..place(range.end)])
            });
            (tile, hashes.collect())
        })
        .collect()
}

fn place(index: u64) -> usize {
    usize::try_from(index).unwrap()
}

fn leaves(size: u32) -> Vec<Hash> {
    (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

fn folded(leaves: &[Hash]) -> Vec<(HashTile, Vec<Hash>)> {
    let (mut folder, mut tiles) = (TileFolder::default(), Vec::new());
    let mut keep = |tile: HashTile, bytes: &[u8]| {
        tiles.push((tile, tile.decode(bytes).unwrap().to_vec()));
        Ok::<_, ()>(())
    };
    for leaf in leaves {
        folder.push(*leaf, &mut keep).unwrap();
    }
    folder.finish(&mut keep).unwrap();
    tiles.sort();
    tiles
}

#[test]
fn the_specifications_example_has_the_tiles_it_says() {
    let tiles: Vec<HashTile> = HashTile::covering(70_000).collect();
    let count =
        |level, width| tiles.iter().filter(|t| (t.level, t.width) == (level, width)).count();
    assert_eq!((count(0, 256), count(0, 112)), (273, 1));
    assert_eq!((count(1, 256), count(1, 17)), (1, 1));
    assert_eq!((count(2, 1), tiles.len()), (1, 277));
    let paths: Vec<String> = HashTile::covering(256).map(HashTile::path).collect();
    assert_eq!(paths, ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(
        HashTile { level: 1, index: 1_234_067, width: 8 }.path(),
        "tile/1/x001/x234/067.p/8"
    );
}

#[test]
fn the_tiles_of_a_pruned_log_are_those_of_the_whole_as_far_as_they_can_be_known() {
    for (first, size) in [(256, 300), (256, 512), (512, 513), (65_536, 66_000), (65_792, 131_400)] {
        let leaves = leaves(size);
        let path = ProofPlan::inclusion(first, first + 1).unwrap().assemble(|node| {
            let range = node.range();
            Ok::<_, ()>(tree_root(&leaves[place(range.start)..place(range.end)]))
        });
        let start = PrunedStart::from_path(first, &path.unwrap()).unwrap();
        let (mut folder, mut tiles) = (TileFolder::after(&start), Vec::new());
        let mut keep = |tile: HashTile, bytes: &[u8]| {
            tiles.push((tile, bytes.to_vec()));
            Ok::<_, ()>(())
        };
        for leaf in &leaves[place(first)..] {
            folder.push(*leaf, &mut keep).unwrap();
        }
        folder.finish(&mut keep).unwrap();
        tiles.sort();
        let whole = tiles_of(&leaves).into_iter();
        let reach = |(tile, _): &(HashTile, Vec<Hash>)| {
            tile.nodes().last().is_some_and(|node| node.range().end > first)
        };
        let reached: Vec<_> = whole.filter(reach).collect();
        let since = tiles.iter().filter(|(_, bytes)| !bytes.is_empty());
        for ((tile, bytes), (expected, hashes)) in since.zip(&reached) {
            assert_eq!(tile, expected, "{first} of {size}");
            assert!(hashes.as_flattened().ends_with(bytes), "{tile}");
            assert!(start.agrees_with(*tile, hashes), "{tile}");
            if bytes.len() < hashes.as_flattened().len() {
                let mut wrong = hashes.clone();
                wrong[0][0] ^= 1;
                assert!(!start.agrees_with(*tile, &wrong), "{tile}");
            }
        }
        assert_eq!(tiles.iter().filter(|(_, it)| !it.is_empty()).count(), reached.len());
    }
}

#[test]
fn tiles_hold_the_hashes_of_the_definition_at_every_size() {
    for size in [0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 66_000] {
        let leaves = leaves(size);
        assert_eq!(folded(&leaves), tiles_of(&leaves), "size {size}");
    }
}

#[test]
fn a_tile_reads_back_only_at_its_exact_width() {
    let bytes = [7; 64];
    let tile = |width| HashTile { level: 0, index: 0, width };
    assert_eq!(tile(2).decode(&bytes).unwrap(), [[7; 32]; 2]);
    assert!(tile(1).decode(&bytes).is_err());
    assert!(tile(3).decode(&bytes).is_err());
    assert!(tile(1).decode(&bytes[..33]).is_err());
}

#[test]
fn a_tile_is_within_a_log_that_has_all_its_hashes() {
    for size in [0, 1, 255, 256, 257, 70_000] {
        for tile in HashTile::covering(size) {
            assert!(tile.is_within(size));
            assert!(
                !HashTile { width: tile.width + 1, ..tile }.is_within(size) || tile.width == 256
            );
            assert!(!tile.is_within((tile.first() + tile.width - 1) << tile.height()), "{tile}");
        }
    }
    assert!(!HashTile { level: 8, index: 0, width: 1 }.is_within(u64::MAX));
    assert!(!HashTile { level: 0, index: u64::MAX, width: 1 }.is_within(u64::MAX));
    assert!(Bundle { index: 1, width: 44 }.is_within(300));
    assert!(!Bundle { index: 1, width: 45 }.is_within(300));
}

#[test]
fn a_path_has_one_spelling() {
    for size in [1, 256, 300_000] {
        for resource in HashTile::covering(size).map(Resource::Hashes) {
            assert_eq!(Resource::parse(&resource.path()), Some(resource));
        }
        for resource in Bundle::covering(size).map(Resource::Entries) {
            assert_eq!(Resource::parse(&resource.path()), Some(resource));
        }
    }
    assert_eq!(Resource::parse("checkpoint"), Some(Resource::Checkpoint));
    for path in [
        "",
        "/checkpoint",
        "checkpoint/",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/1000",
        "tile/00/000",
        "tile/+1/000",
        "tile/-1/000",
        "tile/0/x000/000",
        "tile/0/x001000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p/1.p/1",
        "tile/0/../000",
        "tile/entries/000/",
        "tile/Entries/000",
        "tile/99999999999/000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(Resource::parse(path), None, "{path:?}");
    }
}

#[test]
fn a_frontier_is_made_of_the_peaks_of_its_size() {
    for size in [0_u32, 1, 2, 3, 255, 256, 300] {
        let leaves = leaves(size);
        let roots = peaks(size.into())
            .into_iter()
            .map(|node| tree_root(&leaves[place(node.range().start)..place(node.range().end)]));
        let frontier = Frontier::from_peaks(size.into(), roots.collect()).unwrap();
        assert_eq!(frontier.root(), tree_root(&leaves));
    }
    assert!(Frontier::from_peaks(3, vec![[0; 32]]).is_err());
    assert_eq!(node_hash(&[1; 32], &[2; 32]), tree_root(&[[1; 32], [2; 32]]));
}
