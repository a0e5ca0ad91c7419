use audit::{Entry, Kind, Reason, Record, RecordDraft, Verdict, proto_time};
use domain::Timestamp;
use sinks::{Destination, Event};
use strongroom_proto::v1::{Amounts, Source, Spent};

/// Every kind of record that there is.
pub(crate) fn kinds() -> Vec<Kind> {
    let all: Vec<_> = (1..256).filter_map(|number| Kind::try_from(number).ok()).collect();
    assert!(all.len() >= 27, "the kinds were not found");
    all
}

/// One record of each kind with all that such records have, then refusals for different reasons
/// and records by people.
pub(crate) fn every_event() -> Vec<Event> {
    let mut records: Vec<_> = kinds().into_iter().map(full).collect();
    let refused = |reason: Reason| Record { reason: reason.into(), ..full(Kind::Refused) };
    records.push(refused(Reason::Unidentified));
    records.push(Record {
        actor: String::new(),
        certificate_sha256: Vec::new().into(),
        count: 40,
        ..refused(Reason::HandshakeFailed)
    });
    records.push(refused(Reason::StoredDataCorrupt));
    for commitment in [KNOWN, UNKNOWN] {
        let actor_commitment = vec![commitment; 32].into();
        records.push(Record {
            actor: String::new(),
            actor_commitment,
            ..full(Kind::CredentialDisabled)
        });
        let subject_commitment = vec![commitment; 32].into();
        records.push(Record {
            subject: String::new(),
            subject_commitment,
            ..full(Kind::IdentityBlocked)
        });
    }
    events(records)
}

/// So many grants, from index 0 on.
pub(crate) fn grants(count: usize) -> Vec<Event> {
    events((0..count).map(|_| full(Kind::LeaseGranted)).collect())
}

pub(crate) fn events(records: Vec<Record>) -> Vec<Event> {
    let time = Timestamp::from_millis(1_700_000_000_005);
    let entries = (0..).zip(records).map(|(index, record)| {
        let draft = RecordDraft::new(record).unwrap();
        draft.seal_at(index, time)
    });
    entries.map(|entry: Entry| Event::read(&entry, disclose).unwrap()).collect()
}

pub(crate) fn destination(json: serde_json::Value) -> Destination {
    serde_json::from_value(json).unwrap()
}

const KNOWN: u8 = 0xc1;
const UNKNOWN: u8 = 0xc2;

fn disclose(commitment: &[u8]) -> Option<String> {
    // Not of the alphabet of records: whoever discloses may know names that need escaping.
    (commitment[0] == KNOWN).then(|| "spiffe://acme.internal/people/ann=b|c\\d\ne".to_owned())
}

fn by_someone(kind: Kind) -> Record {
    Record {
        kind: kind.into(),
        actor: "spiffe://acme.internal/inference-proxy".to_owned(),
        certificate_sha256: vec![0x11; 32].into(),
        request_id: "req-1".to_owned(),
        trace_id: vec![0x22; 16].into(),
        broker: vec![0x33; 16].into(),
        ..Record::default()
    }
}

#[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
fn full(kind: Kind) -> Record {
    let by = by_someone(kind);
    let itself = Record { kind: kind.into(), broker: vec![0x33; 16].into(), ..Record::default() };
    match kind {
        Kind::Unspecified => itself,
        Kind::BrokerStarted | Kind::BrokerStopped => {
            Record { config_sha256: vec![0x44; 32].into(), ..itself }
        }
        Kind::PricesChanged => Record {
            method: "Prices/SetTenantPrices".to_owned(),
            tenant: "acme".to_owned(),
            revision: 2,
            prices_sha256: vec![0x47; 32].into(),
            ..by
        },
        Kind::PolicyAdmitted => Record { policy_sha256: vec![0x45; 32].into(), ..by },
        Kind::ApprovalRequested
        | Kind::ApprovalGiven
        | Kind::ApprovalDeclined
        | Kind::ApprovalUsed => Record {
            method: "Approvals/Approve".to_owned(),
            approval_id: vec![0x9a; 16].into(),
            request_sha256: vec![0x9b; 32].into(),
            ..by
        },
        Kind::PolicyLoaded => Record { policy_sha256: vec![0x45; 32].into(), ..itself },
        Kind::Finding => {
            Record { reason: Reason::RowChanged.into(), table: "credential".to_owned(), ..itself }
        }
        Kind::CheckpointGivenUp | Kind::LogPruned => {
            Record { tree_size: 700, tree_root: vec![0x46; 32].into(), ..itself }
        }
        Kind::SessionOpened | Kind::SessionRevoked => Record {
            method: "Leases/OpenSession".to_owned(),
            session_key_sha256: vec![0x55; 32].into(),
            ..by
        },
        Kind::Refused => Record {
            method: "Leases/AcquireLease".to_owned(),
            reason: Reason::NotPermitted.into(),
            tenant: "acme".to_owned(),
            ..by
        },
        Kind::Read => Record { method: "Audit/ListRecords".to_owned(), ..by },
        Kind::IdentityBlocked | Kind::IdentityUnblocked => {
            let subject = "spiffe://acme.internal/batch/embeddings".to_owned();
            Record { method: "Leases/BlockIdentity".to_owned(), subject, ..by }
        }
        Kind::LeaseGranted | Kind::LeaseRenewed | Kind::LeaseReleased | Kind::LeaseRevoked => {
            lease(Record { method: "Leases/AcquireLease".to_owned(), ..by })
        }
        Kind::TenantCreated | Kind::TenantUpdated | Kind::TenantSuspended | Kind::TenantResumed => {
            let method = "Tenants/UpdateTenant".to_owned();
            Record { method, tenant: "acme".to_owned(), revision: 2, ..by }
        }
        Kind::CredentialCreated
        | Kind::CredentialRotated
        | Kind::CredentialDisabled
        | Kind::CredentialEnabled
        | Kind::CredentialDeleted => {
            credential(Record { method: "Credentials/UpdateCredential".to_owned(), ..by })
        }
        Kind::CredentialRotationStarted
        | Kind::CredentialRotationAdvanced
        | Kind::CredentialRotationFinished
        | Kind::CredentialRotationRolledBack => Record {
            rotation_percent: 25,
            deleted_version: 2,
            ..credential(Record { method: "Credentials/StartRotation".to_owned(), ..by })
        },
        Kind::CredentialShredded => Record {
            erasure_id: vec![0x81; 16].into(),
            ..credential(Record { method: "Credentials/ShredCredential".to_owned(), ..by })
        },
        Kind::TenantShredded | Kind::SharesDestroyed => Record {
            method: "Tenants/ShredTenant".to_owned(),
            tenant: "acme".to_owned(),
            erasure_id: vec![0x81; 16].into(),
            copies_until_time: Some(proto_time(Timestamp::from_millis(1_700_604_800_005))),
            ..by
        },
        Kind::KekRotated
        | Kind::KekRetired
        | Kind::KeyRewrapped
        | Kind::KekRotationBegun
        | Kind::KeyRewrapBegun => of_keys(kind, by),
        Kind::CredentialTested => Record {
            method: "Credentials/TestCredential".to_owned(),
            verdict: Verdict::NoQuota.into(),
            ..credential(by)
        },
        Kind::SecretInAnswer => Record {
            method: "Leases/ReportFailures".to_owned(),
            virtual_key: "aaaaaaaaaaaaaaaa".to_owned(),
            ..credential(by)
        },
        Kind::VirtualKeyCreated
        | Kind::VirtualKeyRevoked
        | Kind::VirtualKeyBlocked
        | Kind::VirtualKeyUnblocked => virtual_key(by),
        Kind::VirtualKeyUpdated | Kind::VirtualKeyRotated => Record {
            ends_leases: true,
            previous_expire_time: Some(proto_time(Timestamp::from_millis(1_700_000_090_005))),
            ..virtual_key(by)
        },
        Kind::BudgetCreated
        | Kind::BudgetUpdated
        | Kind::BudgetDeleted
        | Kind::BudgetAlert
        | Kind::BudgetWouldRefuse
        | Kind::AllowanceSettled
        | Kind::AllowanceReconciled
        | Kind::AllowanceExpired
        | Kind::AllowanceDrawn
        | Kind::UsageReported => spending(kind, by, itself),
    }
}

fn virtual_key(by: Record) -> Record {
    Record {
        method: "VirtualKeys/RevokeVirtualKey".to_owned(),
        tenant: "acme".to_owned(),
        virtual_key: "aaaaaaaaaaaaaaaa".to_owned(),
        revision: 1,
        ..by
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds that it is called with")]
fn spending(kind: Kind, by: Record, itself: Record) -> Record {
    match kind {
        Kind::BudgetAlert => Record { unit: 1, percent: 80, ..budget(itself) },
        Kind::BudgetWouldRefuse => Record { unit: 1, ..budget(itself) },
        Kind::AllowanceSettled | Kind::AllowanceReconciled => {
            Record { spent: Some(SPENT), ..allowance(itself) }
        }
        Kind::AllowanceExpired => Record { amounts: Some(AMOUNTS), ..allowance(itself) },
        Kind::AllowanceDrawn => {
            let method = "Leases/DrawAllowance".to_owned();
            Record { method, amounts: Some(AMOUNTS), ..allowance(by) }
        }
        Kind::UsageReported => Record { method: "Leases/SettleUsage".to_owned(), count: 3, ..by },
        _ => Record { method: "Budgets/UpdateBudget".to_owned(), revision: 2, ..budget(by) },
    }
}

const SPENT: Spent = Spent {
    micro_usd: 1_234,
    micro_usd_millionths: 500_000,
    requests: 3,
    input_tokens: 700,
    output_tokens: 90,
};

const AMOUNTS: Amounts = Amounts {
    micro_usd: 5_000,
    requests: 10,
    input_tokens: 1_000,
    output_tokens: 2_000,
    tokens: 3_000,
    concurrent: 1,
};

fn budget(by: Record) -> Record {
    Record { tenant: "acme".to_owned(), budget: "monthly".to_owned(), ..by }
}

fn allowance(by: Record) -> Record {
    Record {
        tenant: "acme".to_owned(),
        virtual_key: "aaaaaaaaaaaaaaaa".to_owned(),
        allowance_id: vec![0x99; 16].into(),
        ..by
    }
}

fn of_keys(kind: Kind, by: Record) -> Record {
    if matches!(kind, Kind::KekRotationBegun | Kind::KeyRewrapBegun) {
        let (method, root) = ("Kms/RewrapKeys".to_owned(), "acme-aws".to_owned());
        return Record { method, root, ..by };
    }
    Record {
        method: "Kms/RotateKek".to_owned(),
        tenant: "acme".to_owned(),
        kek_id: vec![0x77; 16].into(),
        kek_version: 2,
        root_key_sha256: vec![0x78; 32].into(),
        ..by
    }
}

fn credential(by: Record) -> Record {
    Record {
        tenant: "acme".to_owned(),
        credential: "tenants/acme/credentials/openai".to_owned(),
        credential_uid: vec![0x66; 16].into(),
        credential_version: 3,
        revision: 7,
        provider: "openai".to_owned(),
        kek_id: vec![0x77; 16].into(),
        kek_version: 1,
        ..by
    }
}

fn lease(by: Record) -> Record {
    Record {
        session_key_sha256: vec![0x55; 32].into(),
        source: Source::Byok.into(),
        virtual_key: "aaaaaaaaaaaaaaaa".to_owned(),
        lease_hash: vec![0x88; 32].into(),
        lease_expire_time: Some(proto_time(Timestamp::from_millis(1_700_000_060_005))),
        lease_renewals: 1,
        because: "fallback.no_quota".to_owned(),
        kek_overdue: true,
        ..credential(by)
    }
}
