use std::convert::Infallible;

use audit::{
    Hash, NotInTree, ProofPlan, empty_root, leaf_hash, node_hash, tree_root, verify_consistency,
    verify_inclusion,
};

/// Larger than a power of two by enough to meet every shape of edge.
const MOST: usize = 70;

/// The leaves and roots that the implementations of RFC 6962 test themselves with.
#[test]
fn the_published_roots_come_out() {
    let leaves = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let leaves: Vec<Hash> =
        leaves.iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())).collect();
    for (size, root) in (1..).zip(roots) {
        assert_eq!(hex::encode(tree_root(&leaves[..size])), root, "size {size}");
    }
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(hex::encode(tree_root(&[])), empty);
}

#[test]
fn proofs_are_those_of_the_definitions_at_every_size() {
    let leaves = leaves();
    for new in 1..=MOST {
        for index in 0..new {
            assert_eq!(inclusion(index, new), path(index, &leaves[..new]), "{index} in {new}");
        }
        for old in 1..new {
            let expected = subproof(old, &leaves[..new], true);
            assert_eq!(consistency(old, new), expected, "{old} to {new}");
        }
    }
}

#[test]
fn an_inclusion_proof_holds_for_its_leaf_place_and_tree_alone() {
    let (leaves, roots) = (leaves(), roots());
    for size in 1..=MOST {
        for index in 0..size {
            let proof = inclusion(index, size);
            let holds = |leaf: usize, index: usize, size: usize, proof: &[Hash], root: &Hash| {
                verify_inclusion(&leaves[leaf], wide(index), wide(size), proof, root).is_ok()
            };
            let root = &roots[size];
            assert!(holds(index, index, size, &proof, root), "{index} in {size}");
            for other in (0..size).filter(|other| *other != index) {
                assert!(!holds(other, index, size, &proof, root));
                assert!(!holds(index, other, size, &proof, root));
            }
            for other in (1..=MOST).filter(|other| *other != size) {
                assert!(!holds(index, index, other, &proof, &roots[other]));
            }
            for changed in mutations(&proof) {
                assert!(!holds(index, index, size, &changed, root), "{index} in {size}");
            }
            assert!(!holds(index, size, size, &proof, root));
        }
    }
}

#[test]
fn a_consistency_proof_holds_for_its_two_trees_alone() {
    let roots = roots();
    let holds = |old: usize, old_root: &Hash, new: usize, new_root: &Hash, proof: &[Hash]| {
        verify_consistency(wide(old), old_root, wide(new), new_root, proof).is_ok()
    };
    for new in 1..=MOST {
        for old in 0..=new {
            let proof = consistency(old, new);
            let (old_root, new_root) = (&roots[old], &roots[new]);
            assert!(holds(old, old_root, new, new_root, &proof), "{old} to {new}");
            for changed in mutations(&proof) {
                assert!(!holds(old, old_root, new, new_root, &changed), "{old} to {new}");
            }
            let forked = leaf_hash(b"another history");
            assert!(!holds(old, &forked, new, new_root, &proof));
            if old > 0 {
                assert!(!holds(old, old_root, new, &forked, &proof));
            }
            for other in (1..new).filter(|other| *other != old && old > 0) {
                assert!(!holds(other, &roots[other], new, new_root, &proof));
            }
        }
    }
}

#[test]
fn a_tree_does_not_shrink() {
    let roots = roots();
    assert_eq!(ProofPlan::consistency(5, 4), Err(NotInTree));
    assert!(verify_consistency(5, &roots[5], 4, &roots[4], &[]).is_err());
    assert!(verify_consistency(5, &roots[5], 0, &empty_root(), &[]).is_err());
    assert_eq!(ProofPlan::inclusion(4, 4), Err(NotInTree));
    assert_eq!(ProofPlan::inclusion(0, 0), Err(NotInTree));
}

#[test]
fn a_proof_in_a_large_log_needs_few_nodes() {
    for index in [0, 1, 524_287, 524_288, 999_999] {
        let nodes = ProofPlan::inclusion(index, 1_000_000).unwrap().nodes().count();
        assert!(nodes <= 40, "{nodes} nodes");
    }
    assert!(ProofPlan::consistency(123_457, 1_000_000).unwrap().nodes().count() <= 40);
    assert!(ProofPlan::inclusion(3, u64::MAX).unwrap().nodes().count() <= 128);
}

#[test]
fn a_failing_source_fails_the_proof() {
    let plan = ProofPlan::inclusion(2, 7).unwrap();
    assert_eq!(plan.assemble(|_| Err("gone")), Err("gone"));
}

fn leaves() -> Vec<Hash> {
    (0..wide(MOST)).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

fn roots() -> Vec<Hash> {
    let leaves = leaves();
    (0..=MOST).map(|size| tree_root(&leaves[..size])).collect()
}

fn inclusion(index: usize, size: usize) -> Vec<Hash> {
    assemble(&ProofPlan::inclusion(wide(index), wide(size)).unwrap())
}

fn consistency(old: usize, new: usize) -> Vec<Hash> {
    assemble(&ProofPlan::consistency(wide(old), wide(new)).unwrap())
}

fn assemble(plan: &ProofPlan) -> Vec<Hash> {
    let leaves = leaves();
    let root = |node: audit::Node| {
        let range = node.range();
        let place = |index| usize::try_from(index).unwrap();
        Ok::<_, Infallible>(tree_root(&leaves[place(range.start)..place(range.end)]))
    };
    plan.assemble(root).unwrap()
}

/// Every proof that differs in one bit of one hash, or in length.
fn mutations(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = Vec::new();
    for place in 0..proof.len() {
        let mut flipped = proof.to_vec();
        flipped[place][place % 32] ^= 1 << (place % 8);
        all.push(flipped);
        let mut shorter = proof.to_vec();
        shorter.remove(place);
        all.push(shorter);
    }
    for place in [0, proof.len()] {
        let mut longer = proof.to_vec();
        longer.insert(place, leaf_hash(b"one more"));
        all.push(longer);
    }
    all
}

/// PATH of RFC 6962 section 2.1.1, word for word.
fn path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let half = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(half);
    let (mut path, sibling) = if index < half {
        (path(index, left), root(right))
    } else {
        (path(index - half, right), root(left))
    };
    path.push(sibling);
    path
}

/// SUBPROOF of RFC 6962 section 2.1.2, word for word.
fn subproof(old: usize, leaves: &[Hash], known: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if known { Vec::new() } else { vec![root(leaves)] };
    }
    let half = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(half);
    let (mut proof, sibling) = if old <= half {
        (subproof(old, left, known), root(right))
    } else {
        (subproof(old - half, right, false), root(left))
    };
    proof.push(sibling);
    proof
}

/// MTH of RFC 6962 section 2.1, word for word.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&root(left), &root(right))
        }
    }
}

fn wide(number: usize) -> u64 {
    number.try_into().unwrap()
}
