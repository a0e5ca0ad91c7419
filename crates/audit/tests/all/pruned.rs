use audit::{
    Checkpoint, Finding, Hash, Kind, ProofPlan, PrunedStart, Record, Report, Verifier, leaf_hash,
    tree_root,
};

use crate::fixture::{blank, bodies, change, end, key, lend, seal, sign};

/// A log of which all before 512 is pruned, as its record at 600 says.
fn log(pruned: impl FnOnce(Record) -> Record) -> Vec<Vec<u8>> {
    let refusal = || Record { reason: audit::Reason::NotPermitted.into(), ..blank(Kind::Refused) };
    let mut records: Vec<Record> = (0..600).map(|_| refusal()).collect();
    records[0] = change(Kind::CredentialCreated, 1, 1, 1);
    records[510] = lend(Kind::LeaseGranted, 1, 1, 1, 1);
    // Of a credential and a lease that began in the part that is gone.
    records[520] = lend(Kind::LeaseRenewed, 1, 1, 1, 1);
    records[521] = end(Kind::LeaseReleased, 1);
    records[522] = change(Kind::CredentialRotated, 1, 2, 2);
    let before = bodies(&seal(records.clone()));
    let tree_root = root(&before[..512]).to_vec().into();
    records.push(pruned(Record { tree_size: 512, tree_root, ..blank(Kind::LogPruned) }));
    records.extend((0..9).map(|_| refusal()));
    bodies(&seal(records))
}

fn leaves(bodies: &[Vec<u8>]) -> Vec<Hash> {
    bodies.iter().map(|body| leaf_hash(body)).collect()
}

fn root(bodies: &[Vec<u8>]) -> Hash {
    tree_root(&leaves(bodies))
}

/// As a broker proves the first record that it keeps.
fn start(bodies: &[Vec<u8>]) -> PrunedStart {
    let leaves = leaves(bodies);
    let place = |index: u64| usize::try_from(index).unwrap();
    let plan = ProofPlan::inclusion(512, 513).unwrap();
    let path = plan.assemble(|node| {
        let range = node.range();
        Ok::<_, ()>(tree_root(&leaves[place(range.start)..place(range.end)]))
    });
    PrunedStart::from_path(512, &path.unwrap()).unwrap()
}

fn verify(start: &PrunedStart, bodies: &[Vec<u8>]) -> Result<Report, Finding> {
    let mut verifier = Verifier::open_pruned(key().verifier(), &sign(bodies), start).unwrap();
    assert_eq!(verifier.bundles().next().unwrap().first_entry(), 512);
    for body in &bodies[512..] {
        verifier.push(body)?;
    }
    verifier.finish()
}

#[test]
fn the_rest_of_a_pruned_log_verifies_and_says_what_was_not_checked() {
    let bodies = log(|record| record);
    let report = verify(&start(&bodies), &bodies).unwrap();
    let pruned = report.pruned.unwrap();
    assert_eq!((pruned.before, pruned.index, pruned.earlier), (512, 600, 0));
    assert_eq!(report.size, 610);
}

#[test]
fn a_changed_record_or_another_start_is_caught() {
    let bodies = log(|record| record);
    let good = start(&bodies);
    let other = start(&log(|record| Record { request_id: "other".into(), ..record }));
    assert_eq!(other, good);
    let text = good.encode();
    let (first, rest) = text.split_once('\n').unwrap();
    let flipped = if rest.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{first}\n{flipped}{}", &rest[1..]);
    let forged = PrunedStart::parse(&forged).unwrap();
    assert!(matches!(verify(&forged, &bodies), Err(Finding::RootMismatch { .. })));

    let mut changed = bodies.clone();
    changed.swap(530, 531);
    let mut verifier = Verifier::open_pruned(key().verifier(), &sign(&bodies), &good).unwrap();
    let pushed = changed[512..].iter().try_for_each(|body| verifier.push(body));
    assert!(matches!(pushed, Err(Finding::OutOfPlace { index: 530, .. })));
}

#[test]
fn missing_records_that_no_record_says_were_pruned_are_a_finding() {
    for bodies in [
        log(|record| Record { tree_size: 256, ..record }),
        log(|record| Record { tree_root: vec![1; 32].into(), ..record }),
    ] {
        let found = verify(&start(&bodies), &bodies).unwrap_err();
        assert_eq!(found, Finding::PruningNotOnRecord { size: 512 });
        assert!(!found.is_misconduct());
    }
}

#[test]
fn misconduct_in_the_rest_is_still_found() {
    let bodies = log(|record| record);
    let start = start(&bodies);
    let mut records: Vec<Record> =
        bodies.iter().map(|body| audit::decode_record(body).unwrap()).collect();
    for record in &mut records {
        (record.index, record.time) = (0, None);
    }
    let found = |after: [Record; 2]| {
        let mut records = records.clone();
        for (place, record) in records[530..].iter_mut().zip(after) {
            *place = record;
        }
        verify(&start, &crate::fixture::bodies(&seal(records))).unwrap_err()
    };
    let index = 531;
    let (nothing, granted) = (|| records[529].clone(), || lend(Kind::LeaseGranted, 9, 1, 2, 2));
    // Of what began in the part that is gone: a lease that has ended, and an older version.
    let renewed = lend(Kind::LeaseRenewed, 1, 1, 2, 2);
    let ended = found([nothing(), renewed]);
    assert_eq!(ended, Finding::LeaseEnded { index, ended_at: 521 });
    let stale = found([nothing(), lend(Kind::LeaseGranted, 9, 1, 1, 1)]);
    assert_eq!(stale, Finding::CredentialStale { index, changed_at: 522 });
    let twice = found([granted(), granted()]);
    assert_eq!(twice, Finding::LeaseGrantedTwice { index, granted_at: 530 });
    let out_of_step = found([nothing(), change(Kind::CredentialRotated, 1, 4, 3)]);
    assert_eq!(out_of_step, Finding::ChangeOutOfStep { index });

    // Of brokers, sessions, identities and tenants.
    let stopped = Record { broker: vec![6; 16].into(), ..blank(Kind::BrokerStopped) };
    assert_eq!(found([stopped, granted()]), Finding::BrokerNotRunning { index });
    let session_key_sha256 = vec![3; 32].into();
    let revoked = Record { session_key_sha256, ..blank(Kind::SessionRevoked) };
    let revoked_at = 530;
    assert_eq!(found([revoked, granted()]), Finding::SessionRevoked { index, revoked_at });
    let subject = "spiffe://acme.internal/proxy".to_owned();
    let blocked = Record { subject, ..blank(Kind::IdentityBlocked) };
    let blocked_at = 530;
    assert_eq!(found([blocked, granted()]), Finding::IdentityBlocked { index, blocked_at });
    let suspended = Record { tenant: "acme".into(), ..blank(Kind::TenantSuspended) };
    let suspended_at = 530;
    assert_eq!(found([suspended, granted()]), Finding::TenantSuspended { index, suspended_at });
}

#[test]
fn a_rotation_that_began_in_the_pruned_part_goes_on_in_the_rest() {
    let bodies = log(|record| record);
    let start = start(&bodies);
    let mut records: Vec<Record> =
        bodies.iter().map(|body| audit::decode_record(body).unwrap()).collect();
    for record in &mut records {
        (record.index, record.time) = (0, None);
    }
    let verified = |after: &[Record]| {
        let mut records = records.clone();
        for (place, record) in records[530..].iter_mut().zip(after) {
            *place = record.clone();
        }
        verify(&start, &crate::fixture::bodies(&seal(records))).map(drop)
    };
    // Of another credential, of which nothing is told before.
    let granted = |lease, version, revision| lend(Kind::LeaseGranted, lease, 2, version, revision);
    let step = |kind, revision, rotation_percent| Record {
        rotation_percent,
        ..change(kind, 2, 6, revision)
    };
    let advanced = |revision, percent| step(Kind::CredentialRotationAdvanced, revision, percent);
    let (more, all) = (advanced(8, 25), advanced(9, 100));
    let done = step(Kind::CredentialRotationFinished, 10, 0);
    let back = step(Kind::CredentialRotationRolledBack, 10, 0);
    let both = |at: u8, revision| [granted(at, 5, revision), granted(at + 1, 6, revision)];
    let live = [&both(20, 7)[..], &[more], &both(30, 8), &[all], &both(40, 9)].concat();
    assert_eq!(verified(&live), Ok(()));
    assert_eq!(verified(&[&live[..], &[done.clone(), granted(50, 6, 10)]].concat()), Ok(()));
    assert_eq!(verified(&[&live[..], &[back.clone(), granted(50, 5, 10)]].concat()), Ok(()));
    let stale = |after: Result<(), Finding>| matches!(after, Err(Finding::CredentialStale { .. }));
    assert!(stale(verified(&[&live[..], &[done, granted(50, 5, 10)]].concat())));
    assert!(stale(verified(&[&live[..], &[back, granted(50, 6, 10)]].concat())));
    // Three at once there never are.
    assert!(stale(verified(&[&both(20, 7)[..], &[granted(22, 4, 7)]].concat())));
}

#[test]
fn earlier_checkpoints_of_the_pruned_part_are_counted_and_others_compared() {
    let bodies = log(|record| record);
    let start = start(&bodies);
    let open = || Verifier::open_pruned(key().verifier(), &sign(&bodies), &start).unwrap();
    let fill = |verifier: &mut Verifier| {
        bodies[512..].iter().try_for_each(|body| verifier.push(body)).unwrap();
    };
    let mut verifier = open();
    verifier.expect_earlier(&sign(&bodies[..100])).unwrap();
    verifier.expect_earlier(&sign(&bodies[..512])).unwrap();
    verifier.expect_earlier(&sign(&bodies[..600])).unwrap();
    fill(&mut verifier);
    assert_eq!(verifier.finish().unwrap().pruned.unwrap().earlier, 1);

    let mut verifier = open();
    let forked = Checkpoint::sign(600, &[1; 32], &key()).unwrap();
    verifier.expect_earlier(&forked).unwrap();
    fill(&mut verifier);
    assert_eq!(verifier.finish().unwrap_err(), Finding::Forked { size: 600 });
}
