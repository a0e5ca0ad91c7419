use std::convert::Infallible;

use audit::{
    CheckpointError, InvalidRecord, ProofPlan, RecordProof, RecordProofError, leaf_hash, tree_root,
};

use crate::fixture::{bodies, honest, key, seal, sign};

fn prove(index: usize, bodies: &[Vec<u8>]) -> RecordProof {
    let leaves: Vec<_> = bodies.iter().map(|body| leaf_hash(body)).collect();
    let (place, size) = (index.try_into().unwrap(), bodies.len().try_into().unwrap());
    let hashes = ProofPlan::inclusion(place, size).unwrap().assemble(|node| {
        let range = node.range();
        let place = |index| usize::try_from(index).unwrap();
        Ok::<_, Infallible>(tree_root(&leaves[place(range.start)..place(range.end)]))
    });
    RecordProof { index: place, hashes: hashes.unwrap(), checkpoint: sign(bodies) }
}

#[test]
fn a_proof_reads_back_as_written_and_proves_its_record() {
    let bodies = bodies(&seal(honest()));
    for (index, body) in bodies.iter().enumerate() {
        let proof = prove(index, &bodies);
        let text = proof.encode();
        assert!(text.starts_with(&format!("c2sp.org/tlog-proof@v1\nindex {index}\n")));
        let read = RecordProof::parse(&text).unwrap();
        assert_eq!(read, proof);
        let record = read.verify(key().verifier(), body).unwrap();
        assert_eq!(record.index, proof.index);
        for (other, body) in bodies.iter().enumerate().filter(|(other, _)| *other != index) {
            let refused = read.verify(key().verifier(), body);
            assert_eq!(refused, Err(RecordProofError::NotIncluded), "{other} for {index}");
        }
    }
}

#[test]
fn a_changed_proof_proves_nothing() {
    let bodies = bodies(&seal(honest()));
    let proof = prove(6, &bodies);
    let refused = |proof: &RecordProof| proof.verify(key().verifier(), &bodies[6]).unwrap_err();
    for place in 0..proof.hashes.len() {
        let mut changed = proof.clone();
        changed.hashes[place][0] ^= 1;
        assert_eq!(refused(&changed), RecordProofError::NotIncluded);
    }
    let moved = RecordProof { index: 7, ..proof.clone() };
    assert_eq!(refused(&moved), RecordProofError::NotIncluded);
    let mut resized = proof.clone();
    let size = |more: usize| format!("\n{}\n", bodies.len() + more);
    resized.checkpoint = resized.checkpoint.replace(&size(0), &size(1));
    assert!(matches!(refused(&resized), RecordProofError::Checkpoint(CheckpointError::Note(_))));
    let mut body = bodies[6].clone();
    body[9] ^= 1;
    assert_eq!(proof.verify(key().verifier(), &body), Err(RecordProofError::NotIncluded));
}

#[test]
fn a_record_that_was_logged_elsewhere_than_it_says_is_refused() {
    let mut bodies = bodies(&seal(honest()));
    bodies.swap(0, 1);
    let refused = prove(0, &bodies).verify(key().verifier(), &bodies[0]);
    assert_eq!(refused, Err(RecordProofError::Record(InvalidRecord::Field("index"))));
}

#[test]
fn an_extra_line_is_passed_over() {
    let proof = prove(6, &bodies(&seal(honest())));
    let text = proof.encode().replacen("index", "extra AAAA\nindex", 1);
    assert_eq!(RecordProof::parse(&text).unwrap(), proof);
}

#[test]
fn texts_that_are_not_exact_are_refused() {
    let text = prove(6, &bodies(&seal(honest()))).encode();
    let hash = text.lines().nth(2).unwrap();
    let checks = [
        "",
        &text.replacen("@v1", "@v2", 1),
        &text.replacen("index 6", "index 06", 1),
        &text.replacen("index 6", "index +6", 1),
        &text.replacen("index 6", "index -1", 1),
        &text.replacen("index 6\n", "", 1),
        &text.replacen("index", "extra !\nindex", 1),
        &text.replacen(hash, &hash[4..], 1),
        &text.replacen(hash, &format!("{hash} "), 1),
        &text.replacen(hash, &vec![hash; 65].join("\n"), 1),
        &text.replace('\n', "\r\n"),
        text.split("\n\n").next().unwrap(),
    ];
    for text in checks {
        assert_eq!(RecordProof::parse(text), Err(RecordProofError::Malformed), "{text:?}");
    }
}
