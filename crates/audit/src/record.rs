use domain::Timestamp;
use prost::Message as _;
use thiserror::Error;

use crate::{Kind, Reason, Record, Verdict};
use strongroom_proto::v1::{Source, Unit};

/// Why bytes or a draft cannot be a record. The offending value is never repeated.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum InvalidRecord {
    /// The bytes are not an encoding of the message.
    #[error("the record does not decode")]
    Malformed,
    /// The bytes are an encoding, but not the deterministic one, or have unknown fields.
    #[error("the record is not in its canonical encoding")]
    NotCanonical,
    /// The field holds something that a record must not.
    #[error("the record's `{0}` has a value that is not allowed")]
    Field(&'static str),
    /// A record of this kind must have the field.
    #[error("the record's `{0}` is missing")]
    Missing(&'static str),
}

/// Reads a record from the bytes that the tree hashes, and refuses any that this crate would not
/// have written.
pub fn decode_record(body: &[u8]) -> Result<Record, InvalidRecord> {
    let mut scratch = Vec::with_capacity(body.len());
    Ok(decode_with(body, &mut scratch)?.record)
}

/// A record that passed every check, and what the checks read.
pub(crate) struct Checked {
    pub(crate) record: Record,
    pub(crate) kind: Kind,
    pub(crate) time: Timestamp,
}

/// As [`decode_record`], with a buffer that a loop can use again.
pub(crate) fn decode_with(body: &[u8], scratch: &mut Vec<u8>) -> Result<Checked, InvalidRecord> {
    let record = Record::decode(body).map_err(|_| InvalidRecord::Malformed)?;
    scratch.clear();
    record.encode(scratch).map_err(|_| InvalidRecord::Malformed)?;
    if scratch.as_slice() != body {
        return Err(InvalidRecord::NotCanonical);
    }
    let kind = check(&record)?;
    let time = record.time.as_ref().ok_or(InvalidRecord::Missing("time"))?;
    let time = timestamp(time).ok_or(InvalidRecord::Field("time"))?;
    Ok(Checked { record, kind, time })
}

/// Checks everything but index and time, which a draft does not have yet.
pub(crate) fn check(record: &Record) -> Result<Kind, InvalidRecord> {
    let kind = Kind::try_from(record.kind).map_err(|_| InvalidRecord::Field("kind"))?;
    if kind == Kind::Unspecified {
        return Err(InvalidRecord::Missing("kind"));
    }
    let reason = Reason::try_from(record.reason).map_err(|_| InvalidRecord::Field("reason"))?;
    match (matches!(kind, Kind::Refused | Kind::Finding), reason == Reason::Unspecified) {
        (true, true) => return Err(InvalidRecord::Missing("reason")),
        (false, false) => return Err(InvalidRecord::Field("reason")),
        (true, false) | (false, true) => {}
    }
    Source::try_from(record.source).map_err(|_| InvalidRecord::Field("source"))?;
    Verdict::try_from(record.verdict).map_err(|_| InvalidRecord::Field("verdict"))?;
    check_values(record)?;
    for field in required(kind) {
        if field.is_unset(record) {
            return Err(InvalidRecord::Missing(field.name()));
        }
    }
    Ok(kind)
}

/// The protobuf form of a moment.
pub fn proto_time(time: Timestamp) -> prost_types::Timestamp {
    let millis = time.as_millis();
    // The remainder is below 1000, so it is below a billion in nanoseconds.
    let nanos = i32::try_from(millis.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
    prost_types::Timestamp { seconds: millis.div_euclid(1000), nanos }
}

/// The moment of a protobuf timestamp; `None` unless it is one of whole milliseconds.
pub fn timestamp(time: &prost_types::Timestamp) -> Option<Timestamp> {
    if !(0..1_000_000_000).contains(&time.nanos) || time.nanos % 1_000_000 != 0 {
        return None;
    }
    let millis = i64::from(time.nanos / 1_000_000);
    // Widened, because the smallest moment's seconds alone do not fit once multiplied.
    let millis = i128::from(time.seconds) * 1000 + i128::from(millis);
    i64::try_from(millis).ok().map(Timestamp::from_millis)
}

const LONGEST_ACTOR: usize = 2048;
const LONGEST_NAME: usize = 256;

fn check_values(record: &Record) -> Result<(), InvalidRecord> {
    check_texts(record)?;
    check_byte_strings(record)?;
    Unit::try_from(record.unit).map_err(|_| InvalidRecord::Field("unit"))?;
    if record.spent.as_ref().is_some_and(|spent| spent.micro_usd_millionths >= 1_000_000) {
        return Err(InvalidRecord::Field("spent"));
    }
    // A person stands in the record as a commitment, and nowhere else.
    if !record.actor.is_empty() && !record.actor_commitment.is_empty() {
        return Err(InvalidRecord::Field("actor_commitment"));
    }
    if !record.subject.is_empty() && !record.subject_commitment.is_empty() {
        return Err(InvalidRecord::Field("subject_commitment"));
    }
    let times = [
        ("lease_expire_time", &record.lease_expire_time),
        ("previous_expire_time", &record.previous_expire_time),
        ("copies_until_time", &record.copies_until_time),
    ];
    for (name, time) in times {
        if time.as_ref().is_some_and(|time| timestamp(time).is_none()) {
            return Err(InvalidRecord::Field(name));
        }
    }
    Ok(())
}

fn check_texts(record: &Record) -> Result<(), InvalidRecord> {
    let texts = [
        ("actor", &record.actor, LONGEST_ACTOR),
        ("subject", &record.subject, LONGEST_ACTOR),
        ("method", &record.method, LONGEST_NAME),
        ("tenant", &record.tenant, LONGEST_NAME),
        ("credential", &record.credential, LONGEST_NAME),
        ("provider", &record.provider, LONGEST_NAME),
        ("virtual_key", &record.virtual_key, LONGEST_NAME),
        ("request_id", &record.request_id, LONGEST_NAME),
        ("because", &record.because, LONGEST_NAME),
        ("budget", &record.budget, LONGEST_NAME),
        ("root", &record.root, LONGEST_NAME),
        ("table", &record.table, LONGEST_NAME),
    ];
    for (name, text, longest) in texts {
        if text.len() > longest || !text.bytes().all(is_allowed) {
            return Err(InvalidRecord::Field(name));
        }
    }
    Ok(())
}

fn check_byte_strings(record: &Record) -> Result<(), InvalidRecord> {
    let byte_strings = [
        ("certificate_sha256", &record.certificate_sha256, 32),
        ("session_key_sha256", &record.session_key_sha256, 32),
        ("credential_uid", &record.credential_uid, 16),
        ("lease_hash", &record.lease_hash, 32),
        ("trace_id", &record.trace_id, 16),
        ("kek_id", &record.kek_id, 16),
        ("config_sha256", &record.config_sha256, 32),
        ("broker", &record.broker, 16),
        ("policy_sha256", &record.policy_sha256, 32),
        ("tree_root", &record.tree_root, 32),
        ("root_key_sha256", &record.root_key_sha256, 32),
        ("actor_commitment", &record.actor_commitment, 32),
        ("subject_commitment", &record.subject_commitment, 32),
        ("prices_sha256", &record.prices_sha256, 32),
        ("allowance_id", &record.allowance_id, 16),
        ("approval_id", &record.approval_id, 16),
        ("request_sha256", &record.request_sha256, 32),
        ("erasure_id", &record.erasure_id, 16),
    ];
    for (name, bytes, length) in byte_strings {
        if !bytes.is_empty() && bytes.len() != length {
            return Err(InvalidRecord::Field(name));
        }
    }
    Ok(())
}

/// What SPIFFE IDs, names, slugs and methods are made of. Quotes, spaces, brackets and control
/// bytes are out, so that no viewer, shell or table can be talked into anything by a record.
fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'/')
}

#[derive(Clone, Copy)]
enum Required {
    Tenant,
    Credential,
    CredentialUid,
    CredentialVersion,
    LeaseHash,
    LeaseExpireTime,
    VirtualKey,
    Method,
    SessionKey,
    Subject,
    Policy,
    TreeSize,
    TreeRoot,
    RotationPercent,
    Verdict,
    Prices,
    Budget,
    Allowance,
    Percent,
    Unit,
    Approval,
    Request,
    KekId,
    KekVersion,
    RootKey,
    Erasure,
    CopiesUntil,
}

impl Required {
    fn is_unset(self, record: &Record) -> bool {
        match self {
            Self::Tenant => record.tenant.is_empty(),
            Self::Credential => record.credential.is_empty(),
            Self::CredentialUid => record.credential_uid.is_empty(),
            Self::CredentialVersion => record.credential_version == 0,
            Self::LeaseHash => record.lease_hash.is_empty(),
            Self::LeaseExpireTime => record.lease_expire_time.is_none(),
            Self::VirtualKey => record.virtual_key.is_empty(),
            Self::Method => record.method.is_empty(),
            Self::SessionKey => record.session_key_sha256.is_empty(),
            Self::Subject => record.subject.is_empty() && record.subject_commitment.is_empty(),
            Self::Policy => record.policy_sha256.is_empty(),
            Self::TreeSize => record.tree_size == 0,
            Self::TreeRoot => record.tree_root.is_empty(),
            Self::RotationPercent => record.rotation_percent == 0,
            Self::Verdict => record.verdict == 0,
            Self::Prices => record.prices_sha256.is_empty(),
            Self::Budget => record.budget.is_empty(),
            Self::Allowance => record.allowance_id.is_empty(),
            Self::Percent => record.percent == 0,
            Self::Unit => record.unit == 0,
            Self::Approval => record.approval_id.is_empty(),
            Self::Request => record.request_sha256.is_empty(),
            Self::KekId => record.kek_id.is_empty(),
            Self::KekVersion => record.kek_version == 0,
            Self::RootKey => record.root_key_sha256.is_empty(),
            Self::Erasure => record.erasure_id.is_empty(),
            Self::CopiesUntil => record.copies_until_time.is_none(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Credential => "credential",
            Self::CredentialUid => "credential_uid",
            Self::CredentialVersion => "credential_version",
            Self::LeaseHash => "lease_hash",
            Self::LeaseExpireTime => "lease_expire_time",
            Self::VirtualKey => "virtual_key",
            Self::Method => "method",
            Self::SessionKey => "session_key_sha256",
            Self::Subject => "subject",
            Self::Policy => "policy_sha256",
            Self::TreeSize => "tree_size",
            Self::TreeRoot => "tree_root",
            Self::RotationPercent => "rotation_percent",
            Self::Verdict => "verdict",
            Self::Prices => "prices_sha256",
            Self::Budget => "budget",
            Self::Allowance => "allowance_id",
            Self::Percent => "percent",
            Self::Unit => "unit",
            Self::Approval => "approval_id",
            Self::Request => "request_sha256",
            Self::KekId => "kek_id",
            Self::KekVersion => "kek_version",
            Self::RootKey => "root_key_sha256",
            Self::Erasure => "erasure_id",
            Self::CopiesUntil => "copies_until_time",
        }
    }
}

/// Without these a record would not say what happened, and a revocation would name nothing.
#[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
fn required(kind: Kind) -> &'static [Required] {
    match kind {
        Kind::Unspecified
        | Kind::BrokerStarted
        | Kind::BrokerStopped
        | Kind::SessionOpened
        | Kind::Refused
        | Kind::KekRotationBegun
        | Kind::KeyRewrapBegun
        | Kind::Finding => &[],
        Kind::Read | Kind::UsageReported => &[Required::Method],
        Kind::PolicyLoaded | Kind::PolicyAdmitted => &[Required::Policy],
        Kind::ApprovalRequested
        | Kind::ApprovalGiven
        | Kind::ApprovalDeclined
        | Kind::ApprovalUsed => &[Required::Approval, Required::Request, Required::Method],
        Kind::KekRotated | Kind::KekRetired => {
            &[Required::Tenant, Required::KekId, Required::KekVersion]
        }
        Kind::KeyRewrapped => {
            &[Required::Tenant, Required::KekId, Required::KekVersion, Required::RootKey]
        }
        Kind::TenantShredded => &[Required::Tenant, Required::Erasure],
        Kind::CredentialShredded => {
            &[Required::Credential, Required::CredentialUid, Required::Erasure]
        }
        Kind::SharesDestroyed => &[Required::Tenant, Required::Erasure, Required::CopiesUntil],
        Kind::PricesChanged => &[Required::Prices],
        Kind::SessionRevoked => &[Required::SessionKey],
        Kind::IdentityBlocked | Kind::IdentityUnblocked => &[Required::Subject],
        Kind::CheckpointGivenUp | Kind::LogPruned => &[Required::TreeSize, Required::TreeRoot],
        Kind::LeaseGranted | Kind::LeaseRenewed => &[
            Required::LeaseHash,
            Required::LeaseExpireTime,
            Required::Tenant,
            Required::Credential,
            Required::CredentialUid,
            Required::CredentialVersion,
        ],
        Kind::LeaseReleased | Kind::LeaseRevoked => &[Required::LeaseHash],
        Kind::TenantCreated | Kind::TenantUpdated | Kind::TenantSuspended | Kind::TenantResumed => {
            &[Required::Tenant]
        }
        Kind::CredentialCreated
        | Kind::CredentialRotated
        | Kind::CredentialRotationFinished
        | Kind::CredentialRotationRolledBack => {
            &[Required::Credential, Required::CredentialUid, Required::CredentialVersion]
        }
        Kind::CredentialRotationStarted | Kind::CredentialRotationAdvanced => &[
            Required::Credential,
            Required::CredentialUid,
            Required::CredentialVersion,
            Required::RotationPercent,
        ],
        Kind::CredentialDisabled | Kind::CredentialEnabled | Kind::CredentialDeleted => {
            &[Required::Credential, Required::CredentialUid]
        }
        Kind::SecretInAnswer => &[Required::Tenant, Required::Credential, Required::CredentialUid],
        Kind::CredentialTested => &[
            Required::Credential,
            Required::CredentialUid,
            Required::CredentialVersion,
            Required::Verdict,
        ],
        Kind::VirtualKeyCreated
        | Kind::VirtualKeyRevoked
        | Kind::VirtualKeyUpdated
        | Kind::VirtualKeyRotated
        | Kind::VirtualKeyBlocked
        | Kind::VirtualKeyUnblocked => &[Required::Tenant, Required::VirtualKey],
        Kind::BudgetCreated | Kind::BudgetUpdated | Kind::BudgetDeleted => {
            &[Required::Tenant, Required::Budget]
        }
        Kind::BudgetAlert => {
            &[Required::Tenant, Required::Budget, Required::Percent, Required::Unit]
        }
        Kind::BudgetWouldRefuse => &[Required::Tenant, Required::Budget, Required::Unit],
        Kind::AllowanceSettled
        | Kind::AllowanceExpired
        | Kind::AllowanceReconciled
        | Kind::AllowanceDrawn => &[Required::Tenant, Required::VirtualKey, Required::Allowance],
    }
}
