use audit::{Kind, Reason, Record, RecordDraft, Verdict, proto_time};
use domain::{
    CustomRule, EndpointKind, Fallback, FallbackRule, KeyTerms, KeylessRule, OnMissing, RateLimits,
    Rotation, RotationPlan, RoutingRules, Scope, SetBack, Timestamp, Uid,
};
use std::time::Duration;
use store::{
    Appended, Change, CredentialRow, KeyPurpose, KeyRow, Pending, PreviousKey, Store, TenantRow,
    VersionRow, VirtualKeyRow,
};

pub(crate) fn uid(number: u8) -> Uid {
    Uid::from_bytes([number; 16])
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000 + 7)
}

pub(crate) fn draft(record: Record) -> RecordDraft {
    RecordDraft::new(record).unwrap()
}

/// A record of something that changes nothing.
pub(crate) fn refusal(tenant: &str) -> RecordDraft {
    draft(Record {
        kind: Kind::Refused.into(),
        reason: Reason::NotPermitted.into(),
        tenant: tenant.to_owned(),
        ..Record::default()
    })
}

/// A record of a change; which one does not matter to the store.
pub(crate) fn changed() -> RecordDraft {
    let kind = Kind::TenantUpdated.into();
    draft(Record { kind, tenant: "acme".to_owned(), ..Record::default() })
}

pub(crate) fn granted(tenant: &str, lease: u8, end: Timestamp) -> RecordDraft {
    draft(Record {
        kind: Kind::LeaseGranted.into(),
        tenant: tenant.to_owned(),
        credential: format!("tenants/{tenant}/credentials/main"),
        credential_uid: vec![1; 16].into(),
        credential_version: 1,
        lease_hash: vec![lease; 32].into(),
        lease_expire_time: Some(proto_time(end)),
        ..Record::default()
    })
}

/// A record of a test.
pub(crate) fn tested(credential: &CredentialRow) -> RecordDraft {
    draft(Record {
        kind: Kind::CredentialTested.into(),
        tenant: credential.tenant.to_string(),
        credential: credential.name().to_string(),
        credential_uid: credential.uid.as_bytes().to_vec().into(),
        credential_version: 1,
        verdict: Verdict::Valid.into(),
        ..Record::default()
    })
}

pub(crate) fn renewed(tenant: &str, lease: u8, end: Timestamp) -> RecordDraft {
    let kind = Kind::LeaseRenewed.into();
    draft(Record { kind, ..granted(tenant, lease, end).record().clone() })
}

/// A refusal that names the lease which it left as it was.
pub(crate) fn refused_renewal(tenant: &str, lease: u8) -> RecordDraft {
    let lease_hash = vec![lease; 32].into();
    draft(Record { lease_hash, ..refusal(tenant).record().clone() })
}

pub(crate) fn revoked(lease: u8) -> RecordDraft {
    let kind = Kind::LeaseRevoked.into();
    draft(Record { kind, lease_hash: vec![lease; 32].into(), ..Record::default() })
}

pub(crate) fn released(lease: u8) -> RecordDraft {
    let kind = Kind::LeaseReleased.into();
    draft(Record { kind, lease_hash: vec![lease; 32].into(), ..Record::default() })
}

/// A revocation that says whose lease it was.
pub(crate) fn revoked_of(tenant: &str, lease: u8) -> RecordDraft {
    let (kind, tenant) = (Kind::LeaseRevoked.into(), tenant.to_owned());
    draft(Record { kind, tenant, lease_hash: vec![lease; 32].into(), ..Record::default() })
}

pub(crate) fn pending(record: RecordDraft) -> Pending {
    Pending { record, as_of: None, tenants: Vec::new() }
}

/// A record of a grant that was decided as of this size of the log, by the state of these tenants.
pub(crate) fn decided(as_of: u64, tenants: &[&str]) -> Pending {
    let tenants = tenants.iter().map(|tenant| tenant.parse().unwrap()).collect();
    Pending { record: granted("acme", 1, at(1)), as_of: Some(as_of), tenants }
}

/// Appends records that depend on nothing and gives their indexes.
pub(crate) async fn append(store: &dyn Store, records: Vec<RecordDraft>) -> Vec<u64> {
    let batch: Vec<_> = records.into_iter().map(pending).collect();
    let appended = store.append(&batch).await.unwrap();
    appended
        .into_iter()
        .map(|appended| match appended {
            Appended::Recorded(entry) => entry.index,
            Appended::Stale { .. } => panic!("nothing was decided by old state"),
        })
        .collect()
}

pub(crate) fn tenant(number: u8, name: &str) -> TenantRow {
    TenantRow {
        uid: uid(number),
        id: name.parse().unwrap(),
        display_name: "Äcme & \"Söhne\"".to_owned(),
        preferred_provider: Some("openai".parse().unwrap()),
        suspended: false,
        on_missing: OnMissing::Keyless,
        rules: rules(),
        revision: 1,
        request_id: Some("r-1".parse().unwrap()),
        created_at: at(10),
        updated_at: at(11),
        row_mac: [9; 32],
    }
}

fn rules() -> RoutingRules {
    let models = || "gpt-4o*".parse().unwrap();
    let (credential, provider) = ("own".parse().unwrap(), "openai".parse().unwrap());
    RoutingRules {
        custom: vec![CustomRule { models: models(), credential }],
        keyless: vec![KeylessRule { models: models(), provider, model: "gpt-4o-mini".to_owned() }],
        fallbacks: vec![FallbackRule {
            provider: "anthropic".parse().unwrap(),
            to: vec![Fallback::Credential("second".parse().unwrap()), Fallback::Managed],
        }],
    }
}

pub(crate) fn key(number: u8, tenant: Uid, version: u32) -> KeyRow {
    KeyRow {
        uid: uid(number),
        tenant_uid: tenant,
        purpose: KeyPurpose::Kek,
        version,
        wrapped: vec![0, 255, number],
        created_at: at(12),
    }
}

pub(crate) fn credential(number: u8, of: &TenantRow, name: &str) -> CredentialRow {
    CredentialRow {
        uid: uid(number),
        tenant_uid: of.uid,
        tenant: of.id.clone(),
        id: name.parse().unwrap(),
        provider: "custom".parse().unwrap(),
        kind: "header".to_owned(),
        settings: vec![
            ("header_name".to_owned(), "x-k".to_owned()),
            ("header_prefix".to_owned(), "a \" b".to_owned()),
        ],
        enabled: true,
        priority: -5,
        base_url: Some("https://llm.acme.example".to_owned()),
        models: vec!["a model, with a comma".to_owned(), "b\"\n".to_owned()],
        last_four: "wxyz".to_owned(),
        current_version: 1,
        rotation: Some(rotation()),
        revision: 1,
        created_at: at(13),
        updated_at: at(14),
        row_mac: [8; 32],
    }
}

/// One that is over.
pub(crate) fn rotation() -> Rotation {
    let plan = RotationPlan::new(5, Duration::from_millis(1500), Duration::ZERO, true).unwrap();
    let operation = "op-1".parse().unwrap();
    let begun = Rotation::begin(operation, (1, 2), plan, ("\"x\\y".to_owned(), false), at(20));
    begun.set_back(SetBack::NoQuota, at(21)).unwrap()
}

pub(crate) fn version(of: &CredentialRow, version: u64) -> VersionRow {
    VersionRow {
        credential_uid: of.uid,
        version,
        envelope: vec![1, 0, 2],
        request_id: None,
        created_at: at(15),
    }
}

pub(crate) fn virtual_key(id: &str, of: &TenantRow) -> VirtualKeyRow {
    VirtualKeyRow {
        id: id.parse().unwrap(),
        tenant_uid: of.uid,
        tenant: of.id.clone(),
        display_name: "ci".to_owned(),
        verifier: [3; 32],
        previous: vec![
            PreviousKey { verifier: [4; 32], ends_at: at(98) },
            PreviousKey { verifier: [5; 32], ends_at: at(97) },
        ],
        terms: terms(),
        group: Some("batch-jobs".parse().unwrap()),
        rates: RateLimits {
            requests_per_minute: Some(60),
            tokens_per_minute: Some(1 << 40),
            concurrent: Some(2),
        },
        blocked: true,
        revoked: false,
        revision: 1,
        created_at: at(16),
        updated_at: at(17),
        row_mac: [7; 32],
    }
}

fn terms() -> KeyTerms {
    let label = |(name, text): (&str, &str)| (name.parse().unwrap(), text.parse().unwrap());
    KeyTerms {
        scope: Scope {
            providers: vec!["openai".parse().unwrap()],
            models: vec!["gpt-4o*".parse().unwrap(), "o3".parse().unwrap()],
        },
        endpoints: vec![EndpointKind::ChatCompletions, EndpointKind::Native],
        networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        expires_at: Some(at(99)),
        labels: [("team", "Zoë, \"a\""), ("cost-center", "17")].map(label).into(),
        owner: Some("Zoë".parse().unwrap()),
    }
}

/// Makes the tenant `acme` with one key.
pub(crate) async fn acme(store: &dyn Store) -> TenantRow {
    let acme = tenant(1, "acme");
    let change = Change::CreateTenant(acme.clone(), vec![key(2, acme.uid, 1)]);
    store.apply(&change, &changed()).await.unwrap();
    acme
}
