use audit::{Finding, Kind, Record, proto_time};
use domain::Timestamp;

use crate::fixture::{START, bodies, change, end, lend, revoke_key, seal, sign, verify};

/// Signs these records, as a log would that had done what they say, and verifies them.
#[track_caller]
fn check(records: Vec<Record>, expected: Option<Finding>) {
    let bodies = bodies(&seal(records));
    let found = verify(&sign(&bodies), &bodies).err();
    assert_eq!(found, expected);
    assert!(found.is_none_or(|finding| finding.is_misconduct()));
}

fn created() -> Record {
    change(Kind::CredentialCreated, 1, 1, 1)
}

fn granted() -> Record {
    lend(Kind::LeaseGranted, 1, 1, 1, 1)
}

fn renewed() -> Record {
    lend(Kind::LeaseRenewed, 1, 1, 1, 1)
}

#[test]
fn a_lease_is_not_renewed_after_its_end() {
    check(vec![created(), granted(), renewed(), renewed()], None);
    for kind in [Kind::LeaseRevoked, Kind::LeaseReleased] {
        let ended = Some(Finding::LeaseEnded { index: 3, ended_at: 2 });
        check(vec![created(), granted(), end(kind, 1), renewed()], ended);
        let twice = vec![created(), granted(), end(kind, 1), end(kind, 1)];
        check(twice, None);
    }
}

#[test]
fn a_lease_is_granted_once_and_before_all_else() {
    let twice = Some(Finding::LeaseGrantedTwice { index: 2, granted_at: 1 });
    check(vec![created(), granted(), granted()], twice);
    let after_end = Some(Finding::LeaseGrantedTwice { index: 3, granted_at: 1 });
    check(vec![created(), granted(), end(Kind::LeaseReleased, 1), granted()], after_end);
    let never = Some(Finding::LeaseNeverGranted { index: 1 });
    check(vec![created(), renewed()], never);
    check(vec![created(), end(Kind::LeaseReleased, 1)], never);
    check(vec![created(), end(Kind::LeaseRevoked, 1)], never);
}

#[test]
fn a_lease_stays_with_its_credential() {
    let other = change(Kind::CredentialCreated, 2, 1, 1);
    let moved = lend(Kind::LeaseRenewed, 1, 2, 1, 1);
    let finding = Some(Finding::LeaseMoved { index: 3 });
    check(vec![created(), other, granted(), moved], finding);
}

#[test]
fn a_lease_lasts_300_seconds_and_the_clocks_difference_at_most() {
    // The grant stands at index 1, so one second after the start.
    let until = |kind, seconds: i64| {
        let expiry = Timestamp::from_millis(START + seconds * 1000);
        let lease = Record {
            lease_expire_time: Some(proto_time(expiry)),
            ..lend(Kind::LeaseGranted, 1, 1, 1, 1)
        };
        Record { kind: i32::from(kind), ..lease }
    };
    check(vec![created(), until(Kind::LeaseGranted, 311)], None);
    let mut longer = until(Kind::LeaseGranted, 311);
    longer.lease_expire_time.as_mut().unwrap().nanos = 1_000_000;
    check(vec![created(), longer], Some(Finding::LeaseTooLong { index: 1 }));
    let renewal = until(Kind::LeaseRenewed, 313);
    check(vec![created(), granted(), renewal], Some(Finding::LeaseTooLong { index: 2 }));
}

#[test]
fn a_credential_that_is_disabled_or_deleted_is_not_lent() {
    for kind in [Kind::CredentialDisabled, Kind::CredentialDeleted] {
        let off = change(kind, 1, 1, 2);
        let ended = |index| Some(Finding::CredentialEnded { index, ended_at: index - 1 });
        let lease = lend(Kind::LeaseGranted, 1, 1, 1, 2);
        check(vec![created(), off.clone(), lease], ended(2));
        let renewal = lend(Kind::LeaseRenewed, 1, 1, 1, 2);
        check(vec![created(), granted(), off, renewal], ended(3));
    }
    let off_and_on = vec![
        created(),
        change(Kind::CredentialDisabled, 1, 1, 2),
        change(Kind::CredentialEnabled, 1, 1, 3),
        lend(Kind::LeaseGranted, 1, 1, 1, 3),
    ];
    check(off_and_on, None);
    let off_and_rotated = vec![
        created(),
        change(Kind::CredentialDisabled, 1, 1, 2),
        change(Kind::CredentialRotated, 1, 2, 3),
        lend(Kind::LeaseGranted, 1, 1, 2, 3),
    ];
    check(off_and_rotated, Some(Finding::CredentialEnded { index: 3, ended_at: 2 }));
}

#[test]
fn a_credential_is_lent_as_it_stands() {
    let rotated = || change(Kind::CredentialRotated, 1, 2, 2);
    check(vec![created(), rotated(), lend(Kind::LeaseGranted, 1, 1, 2, 2)], None);
    let stale = Some(Finding::CredentialStale { index: 2, changed_at: 1 });
    check(vec![created(), rotated(), lend(Kind::LeaseGranted, 1, 1, 1, 2)], stale);
    check(vec![created(), rotated(), lend(Kind::LeaseGranted, 1, 1, 2, 1)], stale);
    let renewal = Some(Finding::CredentialStale { index: 3, changed_at: 2 });
    check(vec![created(), granted(), rotated(), renewed()], renewal);
}

#[test]
fn a_credential_is_lent_only_as_the_log_has_seen_it() {
    check(vec![granted()], Some(Finding::CredentialNotOnRecord { index: 0 }));
    let ahead = Some(Finding::CredentialNotOnRecord { index: 1 });
    check(vec![created(), lend(Kind::LeaseGranted, 1, 1, 2, 1)], ahead);
    check(vec![created(), lend(Kind::LeaseGranted, 1, 1, 1, 2)], ahead);
    check(vec![created(), lend(Kind::LeaseGranted, 1, 2, 1, 1)], ahead);
}

#[test]
fn changes_of_a_credential_follow_each_other() {
    let out_of_step = |index| Some(Finding::ChangeOutOfStep { index });
    check(vec![created(), created()], out_of_step(1));
    check(vec![change(Kind::CredentialRotated, 1, 2, 2)], out_of_step(0));
    check(vec![created(), change(Kind::CredentialRotated, 1, 2, 3)], out_of_step(1));
    check(vec![created(), change(Kind::CredentialRotated, 1, 3, 2)], out_of_step(1));
    check(vec![created(), change(Kind::CredentialDisabled, 1, 1, 1)], out_of_step(1));
    let deleted = change(Kind::CredentialDeleted, 1, 1, 2);
    let revived = change(Kind::CredentialEnabled, 1, 1, 3);
    check(vec![created(), deleted, revived], out_of_step(2));
}

#[test]
fn a_revoked_virtual_key_lends_nothing() {
    let key = "abcdefgh234567ab";
    let revoked = |index| Some(Finding::VirtualKeyRevoked { index, revoked_at: index - 1 });
    check(vec![created(), revoke_key(key), granted()], revoked(2));
    check(vec![created(), granted(), revoke_key(key), renewed()], revoked(3));
    check(vec![created(), revoke_key("another"), granted()], None);
}

#[test]
fn a_forged_root_outweighs_what_the_records_say() {
    let entries = bodies(&seal(vec![granted()]));
    let other = bodies(&seal(vec![created()]));
    let found = verify(&sign(&other), &entries);
    assert_eq!(found, Err(Finding::RootMismatch { size: 1 }));
}
