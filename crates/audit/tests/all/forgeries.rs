use audit::{Checkpoint, Finding, Kind, Record, RecordDraft, SignerKey, Verifier};
use domain::Timestamp;

use crate::fixture::{START, blank, bodies, honest, key, seal, sign, time_of, verify};

#[test]
fn an_honest_log_is_reported_as_it_is() {
    let bodies = bodies(&seal(honest()));
    let report = verify(&sign(&bodies), &bodies).unwrap();
    assert_eq!(report.origin, "strongroom.test/log");
    let size = bodies.len() as u64;
    assert_eq!(report.size, size);
    assert_eq!(report.leases, 4);
    assert_eq!(report.kinds[&Kind::LeaseGranted], 4);
    assert_eq!(report.kinds[&Kind::CredentialCreated], 2);
    assert_eq!(report.kinds.values().sum::<u64>(), size);
    assert_eq!(report.first_time, Some(time_of(0)));
    assert_eq!(report.last_time, Some(time_of(size - 1)));
}

#[test]
fn an_empty_log_verifies() {
    let report = verify(&sign(&[]), &[]).unwrap();
    assert_eq!((report.size, report.first_time), (0, None));
    assert_eq!(verify(&sign(&[]), &[vec![]]), Err(Finding::BeyondCheckpoint { index: 0 }));
}

#[test]
fn every_changed_bit_of_every_record_is_caught() {
    let bodies = bodies(&seal(honest()));
    let checkpoint = sign(&bodies);
    for at in 0..bodies.len() {
        for byte in 0..bodies[at].len() {
            for bit in 0..8 {
                let mut forged = bodies.clone();
                forged[at][byte] ^= 1 << bit;
                let finding = verify(&checkpoint, &forged).unwrap_err();
                assert!(!finding.is_misconduct(), "entry {at}, byte {byte}, bit {bit}");
                assert!(finding.index().is_none_or(|index| index >= at as u64), "{finding}");
            }
        }
    }
}

#[test]
fn every_missing_record_is_caught_where_it_is_missing() {
    let bodies = bodies(&seal(honest()));
    let checkpoint = sign(&bodies);
    for at in 0..bodies.len() {
        let mut forged = bodies.clone();
        forged.remove(at);
        let finding = verify(&checkpoint, &forged).unwrap_err();
        assert_eq!(finding.index(), Some(at as u64), "{finding}");
    }
}

#[test]
fn every_repeated_record_is_caught_where_it_is_repeated() {
    let bodies = bodies(&seal(honest()));
    let checkpoint = sign(&bodies);
    for at in 0..bodies.len() {
        let mut forged = bodies.clone();
        forged.insert(at, bodies[at].clone());
        let finding = verify(&checkpoint, &forged).unwrap_err();
        assert_eq!(finding.index(), Some(at as u64 + 1), "{finding}");
    }
}

#[test]
fn every_pair_of_swapped_records_is_caught_at_the_first() {
    let bodies = bodies(&seal(honest()));
    let checkpoint = sign(&bodies);
    for one in 0..bodies.len() {
        for other in one + 1..bodies.len() {
            let mut forged = bodies.clone();
            forged.swap(one, other);
            let (index, found) = (one as u64, other as u64);
            assert_eq!(verify(&checkpoint, &forged), Err(Finding::OutOfPlace { index, found }));
        }
    }
}

#[test]
fn every_record_left_out_with_the_rest_renumbered_is_caught() {
    let honest = honest();
    let checkpoint = sign(&bodies(&seal(honest.clone())));
    for at in 0..honest.len() {
        let mut records = honest.clone();
        records.remove(at);
        // With one more at the end, so that the count is right.
        records.push(blank(Kind::SessionOpened));
        let finding = verify(&checkpoint, &bodies(&seal(records))).unwrap_err();
        assert!(!finding.is_misconduct(), "entry {at}: {finding}");
    }
}

#[test]
fn every_truncation_and_addition_is_caught() {
    let entries = bodies(&seal(honest()));
    let checkpoint = sign(&entries);
    for length in 0..entries.len() {
        let index = length as u64;
        let found = verify(&checkpoint, &entries[..length]);
        assert_eq!(found, Err(Finding::Truncated { index }));
    }
    let mut records = honest();
    records.push(blank(Kind::BrokerStarted));
    let longer = verify(&checkpoint, &bodies(&seal(records)));
    let index = entries.len() as u64;
    assert_eq!(longer, Err(Finding::BeyondCheckpoint { index }));
}

#[test]
fn time_does_not_run_backwards() {
    let entry = |index, millis| {
        let draft = RecordDraft::new(blank(Kind::BrokerStarted)).unwrap();
        draft.seal_at(index, Timestamp::from_millis(millis)).body
    };
    let still = [entry(0, START), entry(1, START)];
    assert!(verify(&sign(&still), &still).is_ok());
    let back = [entry(0, START), entry(1, START - 1)];
    assert_eq!(verify(&sign(&back), &back), Err(Finding::TimeWentBack { index: 1 }));
}

#[test]
fn a_finding_is_final() {
    let entries = bodies(&seal(honest()));
    let mut verifier = Verifier::open(key().verifier(), &sign(&entries)).unwrap();
    let finding = verifier.push(&entries[1]).unwrap_err();
    for body in &entries {
        assert_eq!(verifier.push(body), Err(finding));
    }
    assert_eq!(verifier.finish(), Err(finding));
}

#[test]
fn a_log_signed_by_another_is_not_opened() {
    let impostor = SignerKey::from_seed("strongroom.test/log", &[8; 32]).unwrap();
    let checkpoint = Checkpoint::sign(0, &audit::empty_root(), &impostor).unwrap();
    assert!(Verifier::open(key().verifier(), &checkpoint).is_err());
}

#[test]
fn a_log_continues_each_of_its_earlier_checkpoints() {
    let entries = bodies(&seal(honest()));
    let verify_with = |earlier: &[String]| {
        let mut verifier = Verifier::open(key().verifier(), &sign(&entries)).unwrap();
        for checkpoint in earlier {
            verifier.expect_earlier(checkpoint).unwrap();
        }
        for body in &entries {
            verifier.push(body)?;
        }
        verifier.finish()
    };
    let all: Vec<String> = (0..=entries.len()).map(|size| sign(&entries[..size])).collect();
    assert!(verify_with(&all).is_ok());
    for size in 0..=entries.len() as u64 {
        let other = Checkpoint::sign(size, &[1; 32], &key()).unwrap();
        assert_eq!(verify_with(&[all[3].clone(), other]), Err(Finding::Forked { size }));
    }
    let mut records = honest();
    records.push(blank(Kind::BrokerStarted));
    let larger = sign(&bodies(&seal(records)));
    let size = entries.len() as u64 + 1;
    assert_eq!(verify_with(&[larger]), Err(Finding::Forked { size }));
}

#[test]
fn a_checkpoint_that_was_given_up_is_told_and_no_fork() {
    let lost = |size, root: u8| Checkpoint::sign(size, &[root; 32], &key()).unwrap();
    let given_up = |size: u64, root: u8| Record {
        tree_size: size,
        tree_root: vec![root; 32].into(),
        ..blank(Kind::CheckpointGivenUp)
    };
    let records = vec![blank(Kind::BrokerStarted), given_up(1, 5), given_up(9, 6), given_up(9, 6)];
    let entries = bodies(&seal(records));
    let check = |earlier: &[String], expected: Result<Vec<(u64, u64)>, u64>| {
        let mut verifier = Verifier::open(key().verifier(), &sign(&entries)).unwrap();
        for checkpoint in earlier {
            verifier.expect_earlier(checkpoint).unwrap();
        }
        for body in &entries {
            verifier.push(body).unwrap();
        }
        let found = verifier.finish().map(|report| {
            report.given_up.iter().map(|lost| (lost.size, lost.index)).collect::<Vec<_>>()
        });
        assert_eq!(found, expected.map_err(|size| Finding::Forked { size }));
    };
    check(&[], Ok(vec![]));
    // One that the log continues is not reported, given up or not.
    check(&[sign(&entries[..1])], Ok(vec![]));
    check(&[lost(1, 5)], Ok(vec![(1, 1)]));
    // Also one that is larger than the log; told where it was said first.
    check(&[lost(9, 6), lost(1, 5)], Ok(vec![(1, 1), (9, 2)]));
    // Exactly that size and that root, and nothing else.
    check(&[lost(1, 6)], Err(1));
    check(&[lost(2, 5)], Err(2));
    check(&[lost(9, 5)], Err(9));
    check(&[lost(8, 6)], Err(8));
    check(&[lost(10, 6)], Err(10));
}
