use audit::{
    AddCheckpoint, Checkpoint, CosignerKey, Hash, Note, NoteError, ProofPlan, SignerKey, Witness,
    WitnessKey, WitnessRefusal, leaf_hash, tree_root,
};

use crate::fixture::key;

/// Made with another implementation of Ed25519 by the words of the specification, over its example.
const LOG: &str = "example.com/behind-the-sofa";
const VKEY: &str = "witness.example/w1+fea3b187+BBOY9ixtGkV8UbpqS189vS9p/KkyFiGNyJl+QWvRfZPK";
const PRIVATE: &str =
    "PRIVATE+KEY+witness.example/w1+fea3b187+BAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";
const CHECKPOINT: &str = "example.com/behind-the-sofa\n20852163\n\
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
    — example.com/behind-the-sofa JSt00p6KTYtH8opAMF2NJ7glHT4uHMzg9iBNNDYLQta3PzLlhUjMPmDAXA2L1DXjWfKrvjQJdIEVj9Tiu9f35PqL5g8=\n";
const LINE: &str = "— witness.example/w1 /qOxhwAAAABkGFDL3zfNz0s4H1tr7Roq5F6IqfkQ0k3PY4CJLE5G4rmDqn7FHt52UoeOd5YRq5ihPFwQPId93UDmDJlfrte+Eg4yCw==\n";
const TIME: u64 = 1_679_315_147;

#[test]
fn a_cosignature_is_that_of_another_implementation() {
    let log = SignerKey::from_seed(LOG, &[7; 32]).unwrap();
    assert_eq!(Checkpoint::verify(CHECKPOINT, log.verifier()).unwrap().size, 20_852_163);
    let cosigner = CosignerKey::parse(PRIVATE).unwrap();
    assert_eq!(cosigner.witness().to_string(), VKEY);
    assert_eq!(cosigner.to_text().expose(), PRIVATE.as_bytes());
    let mut note = Note::parse(CHECKPOINT).unwrap();
    assert_eq!(note.cosign(&cosigner, TIME), LINE);

    let witness: WitnessKey = VKEY.parse().unwrap();
    assert_eq!(note.cosigned(&witness), Err(NoteError::UnknownSigner));
    note.add_cosignature(LINE, &witness).unwrap();
    assert_eq!(note.encode(), format!("{CHECKPOINT}{LINE}"));
    assert_eq!(note.cosigned(&witness), Ok(TIME));
    assert!(Checkpoint::verify(&note.encode(), log.verifier()).is_ok());
}

#[test]
fn every_changed_byte_of_a_cosignature_is_noticed() {
    let witness: WitnessKey = VKEY.parse().unwrap();
    let cosigned = format!("{CHECKPOINT}{LINE}");
    let believed = |note: &str| Note::parse(note).and_then(|note| note.cosigned(&witness));
    assert_eq!(believed(&cosigned), Ok(TIME));
    let start = CHECKPOINT.len() + "— ".len();
    for at in (0..60).chain(start..cosigned.len()) {
        let mut bytes = cosigned.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(note) = String::from_utf8(bytes) else { continue };
        assert!(believed(&note).is_err(), "byte {at}");
    }
}

#[test]
fn a_witness_key_is_no_log_key() {
    assert!(VKEY.parse::<audit::VerifierKey>().is_err());
    assert!(key().verifier().to_string().parse::<WitnessKey>().is_err());
    assert!(CosignerKey::parse(std::str::from_utf8(key().to_text().expose()).unwrap()).is_err());
    assert!(SignerKey::parse(PRIVATE).is_err());
    assert!(CosignerKey::generate("a b").is_err());
    assert!(VKEY.replace("fea3b187", "fea3b188").parse::<WitnessKey>().is_err());
}

#[test]
fn what_a_witness_answers_for_others_is_left_out_and_the_older_replaced() {
    let (one, other) = (cosigner(1), cosigner(2));
    let mut note = Note::parse(CHECKPOINT).unwrap();
    let both = format!("{}{}", note.cosign(&one, 1), note.cosign(&other, 1));
    note.add_cosignature(&both, one.witness()).unwrap();
    assert!(note.cosigned(other.witness()).is_err());
    note.add_cosignature(&note.cosign(&one, 2), one.witness()).unwrap();
    assert_eq!(note.cosigned(one.witness()), Ok(2));
    assert_eq!(note.encode().lines().count(), 6);
    let before = note.clone();
    assert!(note.add_cosignature(&note.cosign(&other, 3), one.witness()).is_err());
    assert!(note.add_cosignature("", one.witness()).is_err());
    assert_eq!(note, before);
}

fn cosigner(seed: u8) -> CosignerKey {
    CosignerKey::from_seed("witness.test", &[seed; 32]).unwrap()
}

/// A history of which every beginning can be signed.
struct History(Vec<Hash>);

impl History {
    fn new(size: u64, fork: u64) -> Self {
        let leaf =
            |n: u64| leaf_hash(&[n.to_be_bytes(), u64::from(n >= fork).to_be_bytes()].concat());
        Self((0..size).map(leaf).collect())
    }

    fn root(&self, start: u64, end: u64) -> Hash {
        let place = |index| usize::try_from(index).unwrap();
        tree_root(&self.0[place(start)..place(end)])
    }

    fn note(&self, size: u64) -> String {
        Checkpoint::sign(size, &self.root(0, size), &key()).unwrap()
    }

    fn request(&self, old_size: u64, size: u64) -> AddCheckpoint {
        let plan = ProofPlan::consistency(old_size, size).unwrap();
        let source =
            |node: audit::Node| Ok::<_, ()>(self.root(node.range().start, node.range().end));
        AddCheckpoint { old_size, proof: plan.assemble(source).unwrap(), note: self.note(size) }
    }
}

fn witness(latest: Option<&str>) -> Witness {
    let mut witness = Witness::default();
    witness.add_log(key().verifier().clone(), latest).unwrap();
    witness
}

fn add(witness: &mut Witness, request: &AddCheckpoint) -> Result<(), WitnessRefusal> {
    let submission = witness.check(request)?;
    witness.accept(submission);
    Ok(())
}

#[test]
fn a_witness_follows_a_log_that_only_grows() {
    let (log, mut witness) = (History::new(40, 40), witness(None));
    let mut old = 0;
    for size in [1, 1, 2, 3, 8, 8, 13, 40] {
        let request = log.request(old, size);
        assert_eq!(AddCheckpoint::parse(&request.encode()).as_ref(), Ok(&request));
        add(&mut witness, &request).unwrap();
        old = size;
    }
    let latest: Vec<_> = witness.latest().collect();
    assert_eq!(latest[0].1.unwrap().checkpoint.size, 40);
}

#[test]
fn a_request_that_goes_on_from_elsewhere_learns_the_size() {
    let (log, mut witness) = (History::new(20, 20), witness(None));
    let refused = add(&mut witness, &log.request(3, 5));
    assert_eq!(refused, Err(WitnessRefusal::OutOfDate { size: 0, conflict: None }));
    add(&mut witness, &log.request(0, 10)).unwrap();
    for (old, size) in [(0, 12), (9, 12), (11, 12), (0, 10), (5, 8)] {
        let refused = add(&mut witness, &log.request(old, size));
        assert_eq!(refused, Err(WitnessRefusal::OutOfDate { size: 10, conflict: None }));
    }
    add(&mut witness, &log.request(10, 12)).unwrap();
}

#[test]
fn a_second_history_is_refused_with_both_notes() {
    let (log, fork) = (History::new(20, 20), History::new(20, 9));
    let mut witness = witness(Some(&log.note(10)));
    // As long as the histories agree, either may go on.
    assert_eq!(log.note(9), fork.note(9));

    let refused = add(&mut witness, &fork.request(10, 10)).unwrap_err();
    assert!(refused.is_fork() && matches!(refused, WitnessRefusal::Forked(_)));
    let conflict = refused.conflict().unwrap();
    assert_eq!(conflict.latest.as_ref().unwrap().note, log.note(10));
    assert_eq!(conflict.refused.note, fork.note(10));

    let refused = add(&mut witness, &fork.request(8, 10)).unwrap_err();
    assert!(refused.is_fork() && matches!(refused, WitnessRefusal::OutOfDate { size: 10, .. }));

    let refused = add(&mut witness, &fork.request(10, 12)).unwrap_err();
    assert!(!refused.is_fork() && matches!(refused, WitnessRefusal::Unproved(_)));
    assert_eq!(refused.conflict().unwrap().refused.note, fork.note(12));
    // The honest log goes on as before.
    add(&mut witness, &log.request(10, 20)).unwrap();
}

#[test]
fn a_proof_must_be_exact() {
    let log = History::new(20, 20);
    let mut witness = witness(Some(&log.note(10)));
    let good = log.request(10, 17);
    let mut bad = good.clone();
    bad.proof[1][0] ^= 1;
    assert!(matches!(add(&mut witness, &bad), Err(WitnessRefusal::Unproved(_))));
    let mut longer = good.clone();
    longer.proof.push([0; 32]);
    assert!(matches!(add(&mut witness, &longer), Err(WitnessRefusal::Unproved(_))));
    let same = AddCheckpoint { proof: vec![[0; 32]], ..log.request(10, 10) };
    assert!(matches!(add(&mut witness, &same), Err(WitnessRefusal::Unproved(_))));
    add(&mut witness, &good).unwrap();
    let first = AddCheckpoint { proof: vec![[0; 32]], ..log.request(0, 3) };
    assert!(matches!(add(&mut self::witness(None), &first), Err(WitnessRefusal::Unproved(_))));
}

#[test]
fn who_did_not_sign_is_refused_before_anything_is_compared() {
    let log = History::new(20, 20);
    let mut witness = witness(Some(&log.note(10)));
    let sign = |name: &str, seed: u8| {
        let key = SignerKey::from_seed(name, &[seed; 32]).unwrap();
        AddCheckpoint { note: Checkpoint::sign(9, &[1; 32], &key).unwrap(), ..log.request(9, 9) }
    };
    let name = key().verifier().name().to_owned();
    assert_eq!(add(&mut witness, &sign(&name, 1)), Err(WitnessRefusal::NotSigned));
    assert_eq!(add(&mut witness, &sign("another.test/log", 7)), Err(WitnessRefusal::UnknownLog));
    let old_size = 10;
    let ahead = AddCheckpoint { old_size, ..log.request(9, 9) };
    assert_eq!(add(&mut witness, &ahead), Err(WitnessRefusal::Malformed));
    let note = "no note".to_owned();
    let broken = AddCheckpoint { note, ..log.request(10, 11) };
    assert_eq!(add(&mut witness, &broken), Err(WitnessRefusal::Malformed));
    assert!(Witness::default().add_log(key().verifier().clone(), Some(CHECKPOINT)).is_err());
}

#[test]
fn bodies_that_are_not_exact_are_refused() {
    let request = History::new(20, 20).request(10, 17);
    let body = request.encode();
    assert!(AddCheckpoint::parse(&body).is_ok());
    let room = 63 - request.proof.len();
    let hash = "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n";
    let long = |lines: usize| body.replacen("\n\n", &format!("\n{}\n", hash.repeat(lines)), 1);
    assert!(AddCheckpoint::parse(&long(room)).is_ok());
    for bad in [
        String::new(),
        long(room + 1),
        body.replace("old 10", "old 010"),
        body.replace("old 10", "old  10"),
        body.replace("old 10", "old -10"),
        body.replace("old 10", "Old 10"),
        body.replace("old 10", "old"),
        body.replacen("=\n", "\n", 1),
        body.replacen("=\n", "=\r\n", 1),
        body.replace("\n\n", "\n"),
    ] {
        assert_eq!(AddCheckpoint::parse(&bad), Err(WitnessRefusal::Malformed), "{bad}");
    }
}
