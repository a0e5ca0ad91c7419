use audit::{
    Entry, InvalidRecord, Kind, Reason, Record, RecordDraft, decode_record, mutates, proto_time,
    revocation, timestamp,
};
use domain::Timestamp;
use prost::Message as _;
use strongroom_proto::v1::{CredentialVersions, revocation::Target};

use crate::fixture::{blank, change, end, honest, lend, revoke_key, seal};

#[test]
fn a_record_reads_back_as_written() {
    for (index, record) in (0_u64..).zip(honest()) {
        let time = Timestamp::from_millis(1_700_000_000_123);
        let entry = RecordDraft::new(record.clone()).unwrap().seal_at(index, time);
        let read = entry.record().unwrap();
        assert_eq!(read, Record { index, time: Some(proto_time(time)), ..record });
        assert_eq!(decode_record(&entry.body).unwrap(), read);
    }
}

/// So that a change of encoder cannot change the bytes unseen.
#[test]
fn the_bytes_are_as_documented() {
    let draft = RecordDraft::new(Record {
        actor: "spiffe://a.b/c".to_owned(),
        reason: Reason::NotPermitted.into(),
        ..blank(Kind::Refused)
    });
    let entry = draft.unwrap().seal_at(5, Timestamp::from_millis(1_500));
    let expected = [
        &[0x08, 5, 0x12, 8, 0x08, 1, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01][..],
        &[0x18, 4, 0x20, 1, 0x2a, 14],
        b"spiffe://a.b/c",
    ]
    .concat();
    assert_eq!(hex::encode(&entry.body), hex::encode(expected));
}

#[test]
fn encodings_that_are_not_canonical_are_refused() {
    let body = seal(honest()).remove(6).body;
    assert!(decode_record(&body).is_ok());
    let refused = |body: &[u8]| decode_record(body).unwrap_err();

    let unknown = [&body[..], &[0xc0, 0x02, 1]].concat();
    assert_eq!(refused(&unknown), InvalidRecord::NotCanonical);
    let repeated = [&body[..], &[0x08, 6]].concat();
    assert_eq!(refused(&repeated), InvalidRecord::NotCanonical);
    let explicit_default = [&[0x08, 0][..], &body[..]].concat();
    assert_eq!(refused(&explicit_default), InvalidRecord::NotCanonical);
    let long_varint = [&[0x08, 0x86, 0x00][..], &body[2..]].concat();
    assert_eq!(refused(&long_varint), InvalidRecord::NotCanonical);
    let (index, rest) = body.split_at(2);
    assert_eq!(refused(&[rest, index].concat()), InvalidRecord::NotCanonical);
    // Within the last field, which has 19 bytes: between two fields a shorter record is a record too,
    // and it is the tree that tells it from the longer one.
    for length in body.len() - 18..body.len() {
        assert!(decode_record(&body[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn a_record_without_a_time_or_with_a_finer_one_is_refused() {
    let with = |time| Record { time, ..blank(Kind::BrokerStarted) }.encode_to_vec();
    let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    assert!(decode_record(&with(time(1, 5_000_000))).is_ok());
    assert_eq!(decode_record(&with(None)), Err(InvalidRecord::Missing("time")));
    let wrong = Err(InvalidRecord::Field("time"));
    assert_eq!(decode_record(&with(time(1, 1))), wrong);
    assert_eq!(decode_record(&with(time(1, -1_000_000))), wrong);
    assert_eq!(decode_record(&with(time(1, 1_000_000_000))), wrong);
    assert_eq!(decode_record(&with(time(i64::MAX, 0))), wrong);
}

#[test]
fn every_moment_has_one_protobuf_form() {
    for millis in [0, 1, -1, 999, -1000, i64::MAX, i64::MIN] {
        let moment = Timestamp::from_millis(millis);
        assert_eq!(timestamp(&proto_time(moment)), Some(moment));
    }
}

#[track_caller]
fn check(record: Record, expected: Option<InvalidRecord>) {
    assert_eq!(RecordDraft::new(record.clone()).err(), expected, "as a draft");
    let placed = Record { time: Some(proto_time(Timestamp::from_millis(1))), ..record };
    assert_eq!(decode_record(&placed.encode_to_vec()).err(), expected, "as a record");
}

#[test]
fn texts_hold_no_free_text() {
    let actor = |actor: &str| Record { actor: actor.to_owned(), ..blank(Kind::BrokerStarted) };
    check(actor("spiffe://acme.internal/a-b_c.d~e"), None);
    check(actor(&"a".repeat(2048)), None);
    let wrong = Some(InvalidRecord::Field("actor"));
    check(actor(&"a".repeat(2049)), wrong);
    for byte in (0..=0x7f_u8).filter(|byte| !byte.is_ascii_alphanumeric()) {
        let allowed = b"-._~:/".contains(&byte);
        check(actor(&char::from(byte).to_string()), if allowed { None } else { wrong });
    }
    check(actor("ä"), wrong);

    let long = "a".repeat(257);
    let kind = || blank(Kind::BrokerStarted);
    let name = |name| Some(InvalidRecord::Field(name));
    check(Record { method: long.clone(), ..kind() }, name("method"));
    check(Record { tenant: long.clone(), ..kind() }, name("tenant"));
    check(Record { credential: long.clone(), ..kind() }, name("credential"));
    check(Record { provider: long.clone(), ..kind() }, name("provider"));
    check(Record { virtual_key: long.clone(), ..kind() }, name("virtual_key"));
    check(Record { request_id: long, ..kind() }, name("request_id"));
    check(Record { request_id: "a\nb".to_owned(), ..kind() }, name("request_id"));
}

#[test]
fn byte_fields_have_their_length() {
    let kind = || blank(Kind::BrokerStarted);
    let name = |name| Some(InvalidRecord::Field(name));
    let bytes = |length: usize| vec![1; length].into();
    check(Record { trace_id: bytes(16), kek_id: bytes(16), ..kind() }, None);
    check(Record { certificate_sha256: bytes(31), ..kind() }, name("certificate_sha256"));
    check(Record { session_key_sha256: bytes(33), ..kind() }, name("session_key_sha256"));
    check(Record { credential_uid: bytes(32), ..kind() }, name("credential_uid"));
    check(Record { lease_hash: bytes(16), ..kind() }, name("lease_hash"));
    check(Record { trace_id: bytes(1), ..kind() }, name("trace_id"));
    check(Record { kek_id: bytes(17), ..kind() }, name("kek_id"));
    check(Record { config_sha256: bytes(20), ..kind() }, name("config_sha256"));
    check(Record { broker: bytes(32), ..kind() }, name("broker"));
    check(Record { policy_sha256: bytes(16), ..kind() }, name("policy_sha256"));
    check(Record { tree_root: bytes(31), ..kind() }, name("tree_root"));
    check(Record { actor_commitment: bytes(16), ..kind() }, name("actor_commitment"));
    check(Record { subject_commitment: bytes(33), ..kind() }, name("subject_commitment"));
    check(Record { prices_sha256: bytes(16), ..kind() }, name("prices_sha256"));
}

#[test]
fn a_person_stands_in_a_record_once() {
    let (person, hash) = ("spiffe://a.b/jane".to_owned(), || vec![1; 32].into());
    let kind = || blank(Kind::BrokerStarted);
    check(Record { actor_commitment: hash(), subject_commitment: hash(), ..kind() }, None);
    let twice = Record { actor: person.clone(), actor_commitment: hash(), ..kind() };
    check(twice, Some(InvalidRecord::Field("actor_commitment")));
    let twice = Record { subject: person, subject_commitment: hash(), ..kind() };
    check(twice, Some(InvalidRecord::Field("subject_commitment")));
}

#[test]
fn a_record_says_what_its_kind_must_say() {
    let missing = |name| Some(InvalidRecord::Missing(name));
    check(blank(Kind::Unspecified), missing("kind"));
    check(Record { kind: 99, ..Record::default() }, Some(InvalidRecord::Field("kind")));
    check(Record { source: 9, ..blank(Kind::BrokerStarted) }, Some(InvalidRecord::Field("source")));
    check(blank(Kind::Refused), missing("reason"));
    let with_reason = |kind, reason| Record { reason, ..blank(kind) };
    check(with_reason(Kind::Refused, 999), Some(InvalidRecord::Field("reason")));
    check(with_reason(Kind::BrokerStarted, 1), Some(InvalidRecord::Field("reason")));

    let granted = || lend(Kind::LeaseGranted, 1, 1, 1, 1);
    check(granted(), None);
    check(Record { lease_hash: vec![].into(), ..granted() }, missing("lease_hash"));
    check(Record { lease_expire_time: None, ..granted() }, missing("lease_expire_time"));
    check(Record { tenant: String::new(), ..granted() }, missing("tenant"));
    check(Record { credential: String::new(), ..granted() }, missing("credential"));
    check(Record { credential_uid: vec![].into(), ..granted() }, missing("credential_uid"));
    check(Record { credential_version: 0, ..granted() }, missing("credential_version"));
    let finer = Some(prost_types::Timestamp { seconds: 1, nanos: 1 });
    let wrong = Some(InvalidRecord::Field("lease_expire_time"));
    check(Record { lease_expire_time: finer, ..granted() }, wrong);
    check(blank(Kind::LeaseRevoked), missing("lease_hash"));
    check(blank(Kind::CredentialDeleted), missing("credential"));
    check(blank(Kind::VirtualKeyRevoked), missing("tenant"));
    check(blank(Kind::TenantUpdated), missing("tenant"));
    check(blank(Kind::TenantSuspended), missing("tenant"));
    check(blank(Kind::Read), missing("method"));
    check(blank(Kind::PolicyLoaded), missing("policy_sha256"));
    check(blank(Kind::PolicyAdmitted), missing("policy_sha256"));
    let step = Record { approval_id: vec![1; 16].into(), ..blank(Kind::ApprovalGiven) };
    check(blank(Kind::ApprovalGiven), missing("approval_id"));
    check(step, missing("request_sha256"));
    check(blank(Kind::SessionRevoked), missing("session_key_sha256"));
    check(blank(Kind::PricesChanged), missing("prices_sha256"));
    check(blank(Kind::SecretInAnswer), missing("tenant"));
    check(blank(Kind::IdentityBlocked), missing("subject"));
    check(blank(Kind::Finding), missing("reason"));
    check(blank(Kind::LogPruned), missing("tree_size"));
    check(Record { tree_size: 1, ..blank(Kind::CheckpointGivenUp) }, missing("tree_root"));
    let of_acme = |kind| Record { tenant: "acme".to_owned(), ..blank(kind) };
    check(blank(Kind::KekRotated), missing("tenant"));
    check(of_acme(Kind::KekRetired), missing("kek_id"));
    let kek_id = vec![1; 16].into();
    check(Record { kek_id, ..of_acme(Kind::KekRotated) }, missing("kek_version"));
    let (kek_id, kek_version) = (vec![1; 16].into(), 2);
    let rewrapped = Record { kek_id, kek_version, ..of_acme(Kind::KeyRewrapped) };
    check(rewrapped.clone(), missing("root_key_sha256"));
    check(Record { root_key_sha256: vec![1; 32].into(), ..rewrapped }, None);
}

#[test]
fn a_draft_has_neither_place_nor_time() {
    let draft = |record| RecordDraft::new(record).err();
    let started = || blank(Kind::BrokerStarted);
    assert_eq!(draft(Record { index: 1, ..started() }), Some(InvalidRecord::Field("index")));
    let time = Some(prost_types::Timestamp::default());
    assert_eq!(draft(Record { time, ..started() }), Some(InvalidRecord::Field("time")));
}

#[test]
fn an_entry_in_another_place_is_refused() {
    let Entry { body, .. } = seal(honest()).remove(3);
    assert_eq!(Entry { index: 4, body }.record(), Err(InvalidRecord::Field("index")));
}

#[test]
fn the_largest_record_fits_a_bundle() {
    let (name, uid) = ("a".repeat(256), vec![1; 16]);
    let hash: prost::bytes::Bytes = vec![1; 32].into();
    let record = Record {
        actor: "a".repeat(2048),
        certificate_sha256: hash.clone(),
        session_key_sha256: hash.clone(),
        method: name.clone(),
        tenant: name.clone(),
        credential: name.clone(),
        credential_uid: uid.clone().into(),
        credential_version: u64::MAX,
        revision: u64::MAX,
        provider: name.clone(),
        lease_hash: hash.clone(),
        lease_renewals: u32::MAX,
        virtual_key: name.clone(),
        trace_id: uid.clone().into(),
        request_id: name.clone(),
        root: name,
        root_key_sha256: hash.clone(),
        kek_overdue: true,
        kek_id: uid.clone().into(),
        kek_version: u32::MAX,
        config_sha256: hash.clone(),
        broker: uid.clone().into(),
        subject: "a".repeat(2048),
        policy_sha256: hash.clone(),
        tree_size: u64::MAX,
        tree_root: hash.clone(),
        prices_sha256: hash.clone(),
        approval_id: uid.into(),
        request_sha256: hash,
        lease_expire_time: Some(proto_time(Timestamp::from_millis(i64::MAX))),
        ..blank(Kind::BrokerStarted)
    };
    let entry = RecordDraft::new(record).unwrap().seal_at(u64::MAX, Timestamp::from_millis(-1));
    assert!(entry.body.len() < 8192, "{}", entry.body.len());
    assert!(entry.record().is_ok());
}

#[test]
fn revocations_name_what_must_be_dropped() {
    let target = |record: &Record| revocation(record).map(|revocation| revocation.target.unwrap());
    let credential = Target::Credential("tenants/acme/credentials/c1".to_owned());
    for kind in [Kind::CredentialDisabled, Kind::CredentialDeleted] {
        assert_eq!(target(&change(kind, 1, 2, 2)), Some(credential.clone()));
    }
    let versions = CredentialVersions {
        below: 2,
        credential: "tenants/acme/credentials/c1".into(),
        version: 0,
    };
    let rotated = change(Kind::CredentialRotated, 1, 2, 2);
    assert_eq!(target(&rotated), Some(Target::CredentialVersions(versions)));
    let key = Target::VirtualKey("tenants/acme/virtualKeys/k".to_owned());
    assert_eq!(target(&revoke_key("k")), Some(key));
    let lease = Target::LeaseHash(vec![3; 32].into());
    assert_eq!(target(&end(Kind::LeaseRevoked, 3)), Some(lease));
    let session = Record { session_key_sha256: vec![3; 32].into(), ..blank(Kind::SessionRevoked) };
    assert_eq!(target(&session), Some(Target::SessionKeySha256(vec![3; 32].into())));
    let blocked = Record { subject: "spiffe://a.b/c".to_owned(), ..blank(Kind::IdentityBlocked) };
    assert_eq!(target(&blocked), Some(Target::Identity("spiffe://a.b/c".to_owned())));
    for kind in [Kind::TenantUpdated, Kind::TenantSuspended] {
        let tenant = Record { tenant: "acme".to_owned(), index: 9, ..blank(kind) };
        assert_eq!(target(&tenant), Some(Target::Tenant("tenants/acme".to_owned())));
        assert_eq!(revocation(&tenant).unwrap().log_index, 9);
    }
    for kind in [Kind::CredentialCreated, Kind::CredentialEnabled, Kind::LeaseGranted] {
        assert_eq!(target(&change(kind, 1, 1, 1)), None);
    }
    assert_eq!(target(&end(Kind::LeaseReleased, 3)), None);
}

#[test]
fn whatever_revokes_also_changes_stored_state() {
    for record in honest() {
        let kind = Kind::try_from(record.kind).unwrap();
        assert!(mutates(kind) || revocation(&record).is_none(), "{kind:?}");
    }
    assert!(mutates(Kind::CredentialEnabled) && mutates(Kind::TenantCreated));
    assert!(!mutates(Kind::LeaseGranted) && !mutates(Kind::LeaseReleased));
}
