use audit::{Finding, InvalidRecord, Kind, Record, RecordDraft, mutates, revocation};
use strongroom_proto::v1::{CredentialVersions, revocation::Target};

use crate::{
    fixture::{change, lend},
    misconduct::check,
};

fn created() -> Record {
    change(Kind::CredentialCreated, 1, 1, 1)
}

fn started(version: u64, revision: u64) -> Record {
    let rotation_percent = 5;
    Record { rotation_percent, ..change(Kind::CredentialRotationStarted, 1, version, revision) }
}

fn advanced(version: u64, revision: u64, rotation_percent: u32) -> Record {
    Record { rotation_percent, ..change(Kind::CredentialRotationAdvanced, 1, version, revision) }
}

fn finished(version: u64, revision: u64) -> Record {
    change(Kind::CredentialRotationFinished, 1, version, revision)
}

fn back(version: u64, revision: u64) -> Record {
    change(Kind::CredentialRotationRolledBack, 1, version, revision)
}

/// A lease of its own each time.
fn granted(lease: u8, version: u64, revision: u64) -> Record {
    lend(Kind::LeaseGranted, lease, 1, version, revision)
}

#[test]
fn both_versions_are_lent_while_a_rotation_runs() {
    check(
        vec![
            created(),
            granted(1, 1, 1),
            started(2, 2),
            granted(2, 1, 2),
            granted(3, 2, 2),
            // A lease may be renewed with the other version.
            lend(Kind::LeaseRenewed, 1, 1, 2, 2),
            advanced(2, 3, 25),
            granted(4, 1, 3),
            advanced(2, 4, 100),
            granted(5, 2, 4),
            granted(6, 1, 4),
            finished(2, 5),
            granted(7, 2, 5),
            change(Kind::CredentialRotated, 1, 3, 6),
            granted(8, 3, 6),
        ],
        None,
    );
}

#[test]
fn a_version_that_a_rotation_dropped_is_not_lent() {
    let stale = |index| Some(Finding::CredentialStale { index, changed_at: index - 1 });
    check(vec![created(), started(2, 2), back(2, 3), granted(1, 2, 3)], stale(3));
    check(vec![created(), started(2, 2), back(2, 3), granted(1, 1, 3)], None);
    let promoted = || vec![created(), started(2, 2), advanced(2, 3, 100)];
    check([promoted(), vec![finished(2, 4), granted(1, 1, 4)]].concat(), stale(4));
    check([promoted(), vec![back(2, 4), granted(1, 2, 4)]].concat(), stale(4));
    check([promoted(), vec![back(2, 4), granted(1, 1, 4)]].concat(), None);
    let not_yet = Some(Finding::CredentialNotOnRecord { index: 2 });
    check(vec![created(), started(2, 2), granted(1, 3, 2)], not_yet);
    // And its number is not given again.
    let twice = Some(Finding::ChangeOutOfStep { index: 3 });
    check(vec![created(), started(2, 2), back(2, 3), started(2, 4)], twice);
    check(vec![created(), started(2, 2), back(2, 3), started(3, 4), granted(1, 3, 4)], None);
    let again = change(Kind::CredentialRotated, 1, 2, 4);
    check(vec![created(), started(2, 2), back(2, 3), again], twice);
}

#[test]
fn the_steps_of_a_rotation_follow_each_other() {
    let out_of_step = |index| Some(Finding::ChangeOutOfStep { index });
    check(vec![started(1, 1)], out_of_step(0));
    check(vec![created(), started(3, 2)], out_of_step(1));
    check(vec![created(), started(2, 3)], out_of_step(1));
    for orphan in [advanced(2, 2, 25), finished(1, 2), back(1, 2)] {
        check(vec![created(), orphan], out_of_step(1));
    }
    let running = |next| vec![created(), started(2, 2), next];
    for wrong in [
        started(3, 3),
        change(Kind::CredentialRotated, 1, 3, 3),
        advanced(2, 3, 5),
        advanced(2, 3, 101),
        advanced(3, 3, 25),
        finished(2, 3),
        back(1, 3),
    ] {
        check(running(wrong), out_of_step(2));
    }
    let promoted = |next| vec![created(), started(2, 2), advanced(2, 3, 100), next];
    for wrong in [started(3, 4), advanced(2, 4, 100), finished(1, 4), back(1, 4)] {
        check(promoted(wrong), out_of_step(3));
    }
}

#[test]
fn a_step_names_its_version_and_a_share() {
    for record in [started(2, 2), advanced(2, 3, 25)] {
        let blank = Record { rotation_percent: 0, ..record.clone() };
        assert_eq!(RecordDraft::new(blank), Err(InvalidRecord::Missing("rotation_percent")));
        assert!(mutates(record.kind()));
        assert_eq!(revocation(&record), None);
    }
    for record in [finished(2, 4), back(2, 4)] {
        let blank = Record { credential_version: 0, ..record.clone() };
        assert_eq!(RecordDraft::new(blank), Err(InvalidRecord::Missing("credential_version")));
        assert!(mutates(record.kind()));
    }
}

#[test]
fn the_end_of_a_rotation_ends_the_leases_of_the_other_version_only() {
    let ended = |record: &Record| match revocation(record).unwrap().target {
        Some(Target::CredentialVersions(CredentialVersions { below, version, .. })) => {
            (below, version)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(ended(&finished(2, 4)), (2, 0));
    assert_eq!(ended(&back(2, 4)), (0, 2));
}
