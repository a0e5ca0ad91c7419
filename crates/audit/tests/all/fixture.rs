use audit::{
    Checkpoint, Entry, Finding, Frontier, Kind, PolicyDocument, Record, RecordDraft, Report,
    SignerKey, Verifier, proto_time,
};
use domain::Timestamp;

pub(crate) const START: i64 = 1_700_000_000_000;

pub(crate) fn key() -> SignerKey {
    SignerKey::from_seed("strongroom.test/log", &[7; 32]).unwrap()
}

/// When the record at `index` is appended in [`seal`]: one a second.
pub(crate) fn time_of(index: u64) -> Timestamp {
    Timestamp::from_millis(START + 1000 * i64::try_from(index).unwrap())
}

pub(crate) fn blank(kind: Kind) -> Record {
    Record { kind: kind.into(), ..Record::default() }
}

/// A change of credential `uid`.
pub(crate) fn change(kind: Kind, uid: u8, version: u64, revision: u64) -> Record {
    Record {
        actor: "spiffe://acme.internal/admin".to_owned(),
        tenant: "acme".to_owned(),
        credential: format!("tenants/acme/credentials/c{uid}"),
        credential_uid: vec![uid; 16].into(),
        credential_version: version,
        revision,
        ..blank(kind)
    }
}

/// A grant or renewal of lease `lease` for credential `uid`, expiring 60 s after `START`.
pub(crate) fn lend(kind: Kind, lease: u8, uid: u8, version: u64, revision: u64) -> Record {
    Record {
        actor: "spiffe://acme.internal/proxy".to_owned(),
        provider: "openai".to_owned(),
        lease_hash: vec![lease; 32].into(),
        lease_expire_time: Some(proto_time(Timestamp::from_millis(START + 60_000))),
        virtual_key: "abcdefgh234567ab".to_owned(),
        method: if kind == Kind::LeaseGranted {
            "Leases/AcquireLease"
        } else {
            "Leases/RenewLease"
        }
        .to_owned(),
        broker: vec![6; 16].into(),
        session_key_sha256: vec![3; 32].into(),
        ..change(kind, uid, version, revision)
    }
}

/// What stands before the first lease: a broker that runs by these rules, and a session.
pub(crate) fn beginning(policy: &PolicyDocument) -> [Record; 3] {
    let broker = || vec![6; 16].into();
    let policy_sha256 = policy.sha256().to_vec().into();
    let opened = Record {
        actor: "spiffe://acme.internal/proxy".to_owned(),
        session_key_sha256: vec![3; 32].into(),
        ..blank(Kind::SessionOpened)
    };
    [
        Record { broker: broker(), ..blank(Kind::BrokerStarted) },
        Record { broker: broker(), policy_sha256, ..blank(Kind::PolicyLoaded) },
        Record { broker: broker(), ..opened },
    ]
}

/// Rules that let the proxy borrow for acme, for this long.
pub(crate) fn policy(longest: u64) -> PolicyDocument {
    let rules = format!(
        r#"{{"rules":[{{"identities":["spiffe://acme.internal/proxy"],"methods":["Leases/*"],
        "tenants":["acme"],"providers":["openai"],"longest_lease_seconds":{longest}}}]}}"#
    );
    PolicyDocument::parse(rules.into_bytes()).unwrap()
}

pub(crate) fn kek() -> prost::bytes::Bytes {
    vec![12; 16].into()
}

pub(crate) fn end(kind: Kind, lease: u8) -> Record {
    Record { lease_hash: vec![lease; 32].into(), ..blank(kind) }
}

pub(crate) fn revoke_key(id: &str) -> Record {
    Record {
        tenant: "acme".to_owned(),
        virtual_key: id.to_owned(),
        ..blank(Kind::VirtualKeyRevoked)
    }
}

pub(crate) fn seal(records: Vec<Record>) -> Vec<Entry> {
    (0..)
        .zip(records)
        .map(|(index, record)| RecordDraft::new(record).unwrap().seal_at(index, time_of(index)))
        .collect()
}

pub(crate) fn bodies(entries: &[Entry]) -> Vec<Vec<u8>> {
    entries.iter().map(|entry| entry.body.clone()).collect()
}

pub(crate) fn sign(bodies: &[Vec<u8>]) -> String {
    let mut frontier = Frontier::default();
    for body in bodies {
        frontier.push(audit::leaf_hash(body));
    }
    Checkpoint::sign(frontier.size(), &frontier.root(), &key()).unwrap()
}

pub(crate) fn verify(checkpoint: &str, bodies: &[Vec<u8>]) -> Result<Report, Finding> {
    let mut verifier = Verifier::open(key().verifier(), checkpoint).unwrap();
    for body in bodies {
        verifier.push(body)?;
    }
    verifier.finish()
}

/// A step of a call that needs a second person.
pub(crate) fn step(kind: Kind, who: u8) -> Record {
    Record {
        actor_commitment: vec![who; 32].into(),
        method: "Kms/RotateKek".to_owned(),
        approval_id: vec![7; 16].into(),
        request_sha256: vec![8; 32].into(),
        ..blank(kind)
    }
}

/// A log in which everything is as it should be, with every kind of record in it.
#[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
pub(crate) fn honest() -> Vec<Record> {
    let [started, loaded, opened] = beginning(&policy(300));
    let tenant = |kind| Record { tenant: "acme".to_owned(), revision: 1, ..blank(kind) };
    vec![
        Record { config_sha256: vec![9; 32].into(), ..started },
        loaded,
        Record { kek_id: kek(), kek_version: 1, ..tenant(Kind::TenantCreated) },
        change(Kind::CredentialCreated, 1, 1, 1),
        Record { virtual_key: "abcdefgh234567ab".to_owned(), ..tenant(Kind::VirtualKeyCreated) },
        opened,
        lend(Kind::LeaseGranted, 1, 1, 1, 1),
        Record { lease_renewals: 1, ..lend(Kind::LeaseRenewed, 1, 1, 1, 1) },
        end(Kind::LeaseReleased, 1),
        change(Kind::CredentialCreated, 2, 1, 1),
        Record { reason: audit::Reason::NotPermitted.into(), ..blank(Kind::Refused) },
        change(Kind::CredentialRotated, 1, 2, 2),
        lend(Kind::LeaseGranted, 2, 1, 2, 2),
        end(Kind::LeaseRevoked, 2),
        change(Kind::CredentialDisabled, 1, 2, 3),
        change(Kind::CredentialEnabled, 1, 2, 4),
        lend(Kind::LeaseGranted, 3, 1, 2, 4),
        Record { revision: 2, ..tenant(Kind::TenantUpdated) },
        revoke_key("abcdefgh234567ab"),
        Record { virtual_key: String::new(), ..lend(Kind::LeaseGranted, 4, 2, 1, 1) },
        change(Kind::CredentialDeleted, 1, 2, 5),
        Record { method: "Audit/ListRecords".to_owned(), ..blank(Kind::Read) },
        step(Kind::ApprovalRequested, 1),
        step(Kind::ApprovalGiven, 2),
        step(Kind::ApprovalUsed, 1),
        Record { approval_id: vec![9; 16].into(), ..step(Kind::ApprovalRequested, 1) },
        Record { approval_id: vec![9; 16].into(), ..step(Kind::ApprovalDeclined, 2) },
        Record { policy_sha256: vec![8; 32].into(), ..blank(Kind::PolicyAdmitted) },
        Record { session_key_sha256: vec![3; 32].into(), ..blank(Kind::SessionRevoked) },
        Record { subject: "spiffe://a.b/c".to_owned(), ..blank(Kind::IdentityBlocked) },
        Record { subject_commitment: vec![4; 32].into(), ..blank(Kind::IdentityUnblocked) },
        blank(Kind::KekRotationBegun),
        Record { kek_id: kek(), kek_version: 2, ..tenant(Kind::KekRotated) },
        Record { kek_id: kek(), kek_version: 2, ..tenant(Kind::KekRetired) },
        blank(Kind::KeyRewrapBegun),
        Record {
            kek_id: kek(),
            kek_version: 2,
            root_key_sha256: vec![8; 32].into(),
            ..tenant(Kind::KeyRewrapped)
        },
        Record { revision: 3, ..tenant(Kind::TenantSuspended) },
        Record { revision: 4, ..tenant(Kind::TenantResumed) },
        erased(2, change(Kind::CredentialShredded, 2, 1, 2)),
        erased(3, tenant(Kind::TenantShredded)),
        erased(3, tenant(Kind::SharesDestroyed)),
        Record { reason: audit::Reason::LogForked.into(), ..blank(Kind::Finding) },
        Record { revision: 1, prices_sha256: vec![7; 32].into(), ..blank(Kind::PricesChanged) },
        Record { tree_size: 1, tree_root: vec![5; 32].into(), ..blank(Kind::LogPruned) },
        Record { tree_size: 1, tree_root: vec![5; 32].into(), ..blank(Kind::CheckpointGivenUp) },
        budget(Kind::BudgetCreated),
        budget(Kind::BudgetUpdated),
        Record { percent: 80, unit: 1, ..budget(Kind::BudgetAlert) },
        Record { unit: 1, ..budget(Kind::BudgetWouldRefuse) },
        budget(Kind::BudgetDeleted),
        allowance(Kind::AllowanceDrawn),
        Record { method: "Leases/SettleUsage".to_owned(), count: 1, ..blank(Kind::UsageReported) },
        change(Kind::SecretInAnswer, 1, 2, 4),
        allowance(Kind::AllowanceSettled),
        allowance(Kind::AllowanceExpired),
        allowance(Kind::AllowanceReconciled),
        Record { broker: vec![6; 16].into(), ..blank(Kind::BrokerStopped) },
    ]
}

pub(crate) fn erased(id: u8, record: Record) -> Record {
    let until = proto_time(Timestamp::from_millis(9));
    Record { erasure_id: vec![id; 16].into(), copies_until_time: Some(until), ..record }
}

fn budget(kind: Kind) -> Record {
    Record { tenant: "acme".to_owned(), budget: "monthly".to_owned(), ..blank(kind) }
}

fn allowance(kind: Kind) -> Record {
    let spent = strongroom_proto::v1::Spent {
        micro_usd: 12,
        micro_usd_millionths: 500_000,
        requests: 3,
        ..Default::default()
    };
    Record {
        tenant: "acme".to_owned(),
        virtual_key: "abcdefgh234567ab".to_owned(),
        allowance_id: vec![8; 16].into(),
        spent: Some(spent),
        ..blank(kind)
    }
}
