use audit::{Disclosure, Finding, Kind, PolicyDocument, Record, RecordDraft, Verifier, proto_time};
use domain::Timestamp;

use crate::fixture::{
    START, beginning, blank, bodies, change, end, erased, key, lend, policy, revoke_key, seal,
    sign, step, verify,
};

/// Signs these records, as a log would that had done what they say, and verifies them. A broker's
/// beginning stands before them, before time 0; indexes do not count it.
#[track_caller]
pub(crate) fn check(records: Vec<Record>, expected: Option<Finding>) {
    let found = found(&policy(300), records);
    assert_eq!(found, expected.map(|finding| shifted(&finding)));
}

/// What is found, in words: each index in it is one of the whole log.
#[track_caller]
fn found(policy: &PolicyDocument, records: Vec<Record>) -> Option<String> {
    found_by(policy, &[], records)
}

/// As `found`, by who knows the names of these people.
#[track_caller]
fn found_by(
    policy: &PolicyDocument,
    names: &[&Disclosure],
    records: Vec<Record>,
) -> Option<String> {
    let records = beginning(policy).into_iter().chain(records);
    let bodies: Vec<_> = (0..)
        .zip(records)
        .map(|(index, record)| {
            let time = Timestamp::from_millis(START + 1000 * (i64::try_from(index).unwrap() - 3));
            RecordDraft::new(record).unwrap().seal_at(index, time).body
        })
        .collect();
    let mut verifier = Verifier::open(key().verifier(), &sign(&bodies)).unwrap();
    verifier.know_policy(policy.clone());
    for &name in names {
        verifier.know_name(name.clone());
    }
    for body in &bodies {
        verifier.push(body).unwrap();
    }
    let found = verifier.finish().err();
    assert!(found.is_none_or(|finding| finding.is_misconduct()));
    found.map(|finding| format!("{finding:?}"))
}

/// A finding as it is after the three records of the beginning.
fn shifted(finding: &Finding) -> String {
    let words = format!("{finding:?}");
    let moved = words.split(' ').map(|word| {
        let digits = word.trim_end_matches(',');
        digits
            .parse::<u64>()
            .map_or_else(|_| word.to_owned(), |n| word.replace(digits, &(n + 3).to_string()))
    });
    moved.collect::<Vec<_>>().join(" ")
}

fn blocked() -> Record {
    let subject = "spiffe://acme.internal/proxy".to_owned();
    Record { subject, ..blank(Kind::IdentityBlocked) }
}

fn opened(key: u8) -> Record {
    let actor = "spiffe://acme.internal/proxy".to_owned();
    Record { actor, session_key_sha256: vec![key; 32].into(), ..blank(Kind::SessionOpened) }
}

#[test]
fn what_needs_a_second_person_was_approved_by_another() {
    let asked = || step(Kind::ApprovalRequested, 1);
    let (given, used) = (|who| step(Kind::ApprovalGiven, who), || step(Kind::ApprovalUsed, 1));
    check(vec![asked(), given(2), used()], None);
    check(vec![asked(), given(1), used()], Some(Finding::NotApproved { index: 1 }));
    check(vec![asked(), used()], Some(Finding::NotApproved { index: 1 }));
    check(vec![asked(), given(2), used(), used()], Some(Finding::NotApproved { index: 3 }));
    let declined = step(Kind::ApprovalDeclined, 1);
    check(vec![asked(), given(2), declined, used()], Some(Finding::NotApproved { index: 3 }));
}

#[test]
fn an_approved_call_is_made_while_both_people_may_still_do_their_part() {
    let person = |name: &str| Disclosure::new([1; 32], &format!("spiffe://acme.internal/{name}"));
    let (olga, paul) = (person("olga"), person("paul"));
    let by = |who: &Disclosure, kind| Record {
        actor_commitment: who.commitment().to_vec().into(),
        broker: vec![6; 16].into(),
        ..step(kind, 1)
    };
    let before = || vec![by(&olga, Kind::ApprovalRequested), by(&paul, Kind::ApprovalGiven)];
    let made = || [before(), vec![by(&olga, Kind::ApprovalUsed)]].concat();
    let rules = |proposing: &str, approving: &str, tenant: &str| {
        let rule = |who: &str, method: &str, tenant: &str| {
            format!(
                r#"{{"identities":["spiffe://acme.internal/{who}"],"methods":["{method}"],
                "tenants":["{tenant}"],"providers":["*"]}}"#
            )
        };
        let rules = [rule("olga", proposing, "*"), rule("paul", approving, tenant)].join(",");
        PolicyDocument::parse(format!(r#"{{"rules":[{rules}]}}"#).into_bytes()).unwrap()
    };
    let good = rules("Kms/*", "Approvals/*", "*");
    let lapsed = |index| Some(format!("{:?}", Finding::ApprovalLapsed { index }));
    assert_eq!(found_by(&good, &[&olga, &paul], made()), None);
    for bad in [
        rules("Kms/*", "Approvals/ListApprovals", "*"),
        rules("Kms/*", "Approvals/*", "acme"),
        rules("Kms/GetStatus", "Approvals/*", "*"),
    ] {
        assert_eq!(found_by(&bad, &[&olga, &paul], made()), lapsed(5));
        // Whose names are not given, no rules are held against.
        assert_eq!(found(&bad, made()), None);
    }
    let subject_commitment = || paul.commitment().to_vec().into();
    let unnamed = |kind| Record { subject_commitment: subject_commitment(), ..blank(kind) };
    let named = Record { subject: paul.value().to_owned(), ..blank(Kind::IdentityBlocked) };
    let used = || by(&olga, Kind::ApprovalUsed);
    let blocked = || unnamed(Kind::IdentityBlocked);
    assert_eq!(found(&good, [before(), vec![blocked(), used()]].concat()), lapsed(6));
    let records = [before(), vec![named, used()]].concat();
    assert_eq!(found_by(&good, &[&paul], records), lapsed(6));
    let again = vec![blocked(), unnamed(Kind::IdentityUnblocked), used()];
    assert_eq!(found(&good, [before(), again].concat()), None);
}

#[test]
fn a_lease_is_granted_by_a_broker_that_runs_by_rules_on_record() {
    let other = |record| Record { broker: vec![7; 16].into(), ..record };
    let not_running = |index| Some(Finding::BrokerNotRunning { index });
    check(vec![created(), other(granted())], not_running(1));
    let nameless = Record { broker: vec![].into(), ..granted() };
    check(vec![created(), nameless], not_running(1));
    let stopped = Record { broker: vec![6; 16].into(), ..blank(Kind::BrokerStopped) };
    check(vec![created(), stopped, granted()], not_running(2));
    let started = other(blank(Kind::BrokerStarted));
    let ruleless = Some(Finding::PolicyNotOnRecord { index: 2 });
    check(vec![created(), started, other(granted())], ruleless);
}

#[test]
fn a_lease_goes_to_a_session_that_its_holder_opened() {
    let other = Record { session_key_sha256: vec![4; 32].into(), ..granted() };
    check(vec![created(), other.clone()], Some(Finding::SessionNotOpen { index: 1 }));
    check(vec![created(), opened(4), other], None);
    let thief = Record { actor: "spiffe://acme.internal/thief".to_owned(), ..granted() };
    check(vec![created(), thief], Some(Finding::SessionNotOpen { index: 1 }));
    let revoked = Record { session_key_sha256: vec![3; 32].into(), ..blank(Kind::SessionRevoked) };
    let finding = Finding::SessionRevoked { index: 2, revoked_at: 1 };
    check(vec![created(), revoked, granted()], Some(finding));
}

#[test]
fn a_blocked_identity_borrows_nothing_and_then_only_by_a_new_session() {
    let unblocked = || Record { kind: Kind::IdentityUnblocked.into(), ..blocked() };
    let finding = |index| Some(Finding::IdentityBlocked { index, blocked_at: 1 });
    check(vec![created(), blocked(), granted()], finding(2));
    check(vec![created(), blocked(), unblocked(), granted()], finding(3));
    let anew = Record { session_key_sha256: vec![4; 32].into(), ..granted() };
    check(vec![created(), blocked(), unblocked(), opened(4), anew], None);
}

#[test]
fn a_suspended_tenant_is_lent_nothing() {
    let tenant = |kind, name: &str| Record { tenant: name.to_owned(), ..blank(kind) };
    let suspended = |name| tenant(Kind::TenantSuspended, name);
    let finding = Some(Finding::TenantSuspended { index: 2, suspended_at: 1 });
    check(vec![created(), suspended("acme"), granted()], finding);
    check(vec![created(), suspended("other"), granted()], None);
    let resumed = tenant(Kind::TenantResumed, "acme");
    check(vec![created(), suspended("acme"), resumed, granted()], None);
}

#[test]
fn a_lease_is_what_the_rules_of_its_time_allow() {
    let forbidden = Some("PolicyForbids { index: 4, loaded_at: 1 }".to_owned());
    assert_eq!(found(&policy(60), vec![created(), granted()]), None);
    assert_eq!(found(&policy(40), vec![created(), granted()]), forbidden);
    let elsewhere = Record { provider: "anthropic".to_owned(), ..granted() };
    assert_eq!(found(&policy(300), vec![created(), elsewhere]), forbidden);
    let otherwise = Record { method: "Audit/ListRecords".to_owned(), ..granted() };
    assert_eq!(found(&policy(300), vec![created(), otherwise]), forbidden);
    // Other rules, put on record meanwhile and not given to the verifier: it says so.
    let loaded = Record {
        broker: vec![6; 16].into(),
        policy_sha256: vec![9; 32].into(),
        ..blank(Kind::PolicyLoaded)
    };
    assert_eq!(found(&policy(40), vec![loaded, created(), granted()]), None);
}

#[test]
fn the_rules_count_for_a_person_whose_name_is_given() {
    let name = Disclosure::new([1; 32], "spiffe://acme.internal/person");
    let commitment = || name.commitment().to_vec().into();
    let by_person =
        |record| Record { actor: String::new(), actor_commitment: commitment(), ..record };
    let [started, loaded, opened] = beginning(&policy(300));
    let records = [started, loaded, by_person(opened), created(), by_person(granted())];
    let bodies = bodies(&seal(records.to_vec()));
    let mut verifier = Verifier::open(key().verifier(), &sign(&bodies)).unwrap();
    verifier.know_policy(policy(300));
    let mut named = Verifier::open(key().verifier(), &sign(&bodies)).unwrap();
    named.know_policy(policy(300));
    named.know_name(name.clone());
    for body in &bodies {
        verifier.push(body).unwrap();
        named.push(body).unwrap();
    }
    assert_eq!(verifier.finish().unwrap().unnamed, 1);
    assert!(matches!(named.finish(), Err(Finding::PolicyForbids { index: 4, .. })));
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
fn a_blocked_virtual_key_lends_nothing_until_it_is_unblocked() {
    let of = |kind, key: &str| Record { kind: i32::from(kind), ..revoke_key(key) };
    let block = || of(Kind::VirtualKeyBlocked, "abcdefgh234567ab");
    let unblock = || of(Kind::VirtualKeyUnblocked, "abcdefgh234567ab");
    let blocked = |index, blocked_at| Some(Finding::VirtualKeyBlocked { index, blocked_at });
    check(vec![created(), block(), granted()], blocked(2, 1));
    check(vec![created(), block(), block(), granted()], blocked(3, 1));
    check(vec![created(), granted(), block(), renewed()], blocked(3, 2));
    check(vec![created(), block(), unblock(), granted()], None);
    check(vec![created(), of(Kind::VirtualKeyBlocked, "another"), granted()], None);
}

#[test]
fn a_forged_root_outweighs_what_the_records_say() {
    let entries = bodies(&seal(vec![granted()]));
    let other = bodies(&seal(vec![created()]));
    let found = verify(&sign(&other), &entries);
    assert_eq!(found, Err(Finding::RootMismatch { size: 1 }));
}

#[test]
fn a_lease_is_opened_with_a_version_of_the_key_that_is_in_use() {
    let with = |kind, kek_version| {
        let tenant = "acme".to_owned();
        let actor = "spiffe://acme.internal/admin".to_owned();
        Record { tenant, actor, kek_id: vec![12; 16].into(), kek_version, ..blank(kind) }
    };
    let lent = |kek_version| Record { kek_id: vec![12; 16].into(), kek_version, ..granted() };
    let owned = || vec![with(Kind::TenantCreated, 1), created()];
    let then = |records: Vec<Record>| owned().into_iter().chain(records).collect::<Vec<_>>();
    let not_in_use = |index, changed_at| Some(Finding::KekNotInUse { index, changed_at });
    let out_of_step = |index| Some(Finding::KekOutOfStep { index });

    check(then(vec![lent(1)]), None);
    check(then(vec![lent(2)]), not_in_use(2, 0));
    check(then(vec![with(Kind::KekRotated, 2), lent(1)]), None);
    check(then(vec![with(Kind::KekRotated, 2), lent(2)]), None);
    let retired = || vec![with(Kind::KekRotated, 2), with(Kind::KekRetired, 2)];
    let and_then = |record| then(retired().into_iter().chain([record]).collect());
    check(and_then(lent(2)), None);
    check(and_then(lent(1)), not_in_use(4, 3));
    check(and_then(with(Kind::KekRetired, 2)), out_of_step(4));
    check(then(vec![with(Kind::KekRotated, 3)]), out_of_step(2));
    check(then(vec![with(Kind::KekRetired, 2)]), out_of_step(2));
    check(vec![with(Kind::KekRotated, 2)], out_of_step(0));
}

#[test]
fn a_key_is_rotated_unasked_no_more_often_than_all_keys_were_asked_to_be() {
    let with = |kind, kek_version| {
        let tenant = "acme".to_owned();
        Record { tenant, kek_id: vec![12; 16].into(), kek_version, ..blank(kind) }
    };
    let asked = |record| Record { actor: "spiffe://acme.internal/admin".to_owned(), ..record };
    let not_asked = |index| Some(Finding::KekRotationNotAsked { index });
    let (owned, begun) = (|| with(Kind::TenantCreated, 1), || blank(Kind::KekRotationBegun));
    let rotated = |version| with(Kind::KekRotated, version);
    check(vec![owned(), rotated(2)], not_asked(1));
    check(vec![owned(), asked(rotated(2))], None);
    check(vec![owned(), begun(), rotated(2)], None);
    check(vec![owned(), begun(), rotated(2), rotated(3)], not_asked(3));
    check(vec![owned(), begun(), rotated(2), begun(), rotated(3)], None);
}

#[test]
fn shares_are_destroyed_once_and_of_what_was_erased() {
    let shredded = |id| erased(id, change(Kind::CredentialShredded, 1, 1, 2));
    let destroyed = |id| {
        let credential = shredded(id).credential;
        Record { credential, ..erased(id, of_acme(Kind::SharesDestroyed)) }
    };
    let not_erased = |index| Some(Finding::SharesNotErased { index });
    check(vec![created(), shredded(2), destroyed(2)], None);
    check(vec![created(), destroyed(2)], not_erased(1));
    check(vec![created(), destroyed(2), shredded(2)], not_erased(1));
    check(vec![created(), shredded(2), destroyed(3)], not_erased(2));
    let of_all = Record { credential: String::new(), ..destroyed(2) };
    check(vec![created(), shredded(2), of_all], not_erased(2));
    let of_another = Record { tenant: "globex".to_owned(), ..destroyed(2) };
    check(vec![created(), shredded(2), of_another], not_erased(2));
    let twice = Some(Finding::SharesDestroyedTwice { index: 3, destroyed_at: 2 });
    check(vec![created(), shredded(2), destroyed(2), destroyed(2)], twice);
    let tenant = |kind| erased(3, of_acme(kind));
    check(vec![tenant(Kind::TenantShredded), tenant(Kind::SharesDestroyed)], None);
    check(vec![tenant(Kind::SharesDestroyed)], not_erased(0));
}

fn of_acme(kind: Kind) -> Record {
    Record { tenant: "acme".to_owned(), ..blank(kind) }
}
