use audit::{Kind, Reason};

use crate::Event;

/// How much a record asks of whoever reads it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Weight {
    /// The daily run.
    Routine,
    /// Someone was refused.
    Notice,
    /// Something was taken away or given back: the work of administrators.
    Warning,
    /// Stored data or the log is not what it was.
    Alarm,
}

/// What happened, in words.
#[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
pub(crate) fn summary(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "Unknown",
        Kind::BrokerStarted => "Broker started",
        Kind::BrokerStopped => "Broker stopped",
        Kind::SessionOpened => "Session opened",
        Kind::Refused => "Call refused",
        Kind::Read => "Records or state read",
        Kind::PolicyLoaded => "Access rules loaded",
        Kind::SessionRevoked => "Session revoked",
        Kind::IdentityBlocked => "Identity blocked",
        Kind::IdentityUnblocked => "Identity unblocked",
        Kind::LeaseGranted => "Lease granted",
        Kind::LeaseRenewed => "Lease renewed",
        Kind::LeaseReleased => "Lease released",
        Kind::LeaseRevoked => "Lease revoked",
        Kind::TenantCreated => "Tenant created",
        Kind::TenantUpdated => "Tenant updated",
        Kind::TenantSuspended => "Tenant suspended",
        Kind::TenantResumed => "Tenant resumed",
        Kind::CredentialCreated => "Credential created",
        Kind::CredentialRotated => "Credential rotated",
        Kind::CredentialDisabled => "Credential disabled",
        Kind::CredentialEnabled => "Credential enabled",
        Kind::CredentialDeleted => "Credential deleted",
        Kind::CredentialRotationStarted => "Credential rotation started",
        Kind::CredentialRotationAdvanced => "Credential rotation advanced",
        Kind::CredentialRotationFinished => "Credential rotation finished",
        Kind::CredentialRotationRolledBack => "Credential rotation rolled back",
        Kind::CredentialTested => "Credential tested",
        Kind::VirtualKeyCreated => "Virtual key created",
        Kind::VirtualKeyRevoked => "Virtual key revoked",
        Kind::VirtualKeyUpdated => "Virtual key updated",
        Kind::VirtualKeyRotated => "Virtual key rotated",
        Kind::VirtualKeyBlocked => "Virtual key blocked",
        Kind::VirtualKeyUnblocked => "Virtual key unblocked",
        Kind::Finding => "Stored data or log found changed",
        Kind::CheckpointGivenUp => "Checkpoint given up",
        Kind::LogPruned => "Log pruned",
        Kind::PricesChanged => "Prices changed",
        Kind::BudgetCreated => "Budget created",
        Kind::BudgetUpdated => "Budget updated",
        Kind::BudgetDeleted => "Budget deleted",
        Kind::BudgetAlert => "Budget nearly or wholly spent",
        Kind::BudgetWouldRefuse => "Shadow budget would have refused",
        Kind::AllowanceSettled => "Allowance settled",
        Kind::AllowanceExpired => "Allowance expired",
        Kind::AllowanceReconciled => "Allowance reconciled",
        Kind::AllowanceDrawn => "Allowance drawn",
        Kind::UsageReported => "Usage reported",
        Kind::ApprovalRequested => "Second person asked for",
        Kind::ApprovalGiven => "Approved by a second person",
        Kind::ApprovalDeclined => "Approval declined",
        Kind::ApprovalUsed => "Approved call made",
        Kind::PolicyAdmitted => "Access policy admitted",
        Kind::KekRotated => "Tenant key rotated",
        Kind::KekRetired => "Tenant key versions retired",
        Kind::KeyRewrapped => "Key wrapped under another root key",
        Kind::KekRotationBegun => "Rotation of all tenant keys begun",
        Kind::KeyRewrapBegun => "Rewrapping under a root key begun",
        Kind::CredentialShredded => "Credential erased",
        Kind::TenantShredded => "Tenant erased",
        Kind::SharesDestroyed => "Key shares destroyed",
        Kind::SecretInAnswer => "Secret in a provider's answer",
    }
}

/// How much the record asks of whoever reads it.
#[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
pub(crate) fn weight(event: &Event) -> Weight {
    match event.kind {
        Kind::Refused if is_tampering(event.reason) => Weight::Alarm,
        Kind::Refused | Kind::AllowanceExpired => Weight::Notice,
        Kind::SessionRevoked
        | Kind::IdentityBlocked
        | Kind::IdentityUnblocked
        | Kind::LeaseRevoked
        | Kind::TenantSuspended
        | Kind::TenantResumed
        | Kind::CredentialDisabled
        | Kind::CredentialEnabled
        | Kind::CredentialDeleted
        | Kind::CredentialRotationRolledBack
        | Kind::VirtualKeyRevoked
        | Kind::PricesChanged
        | Kind::VirtualKeyBlocked
        | Kind::VirtualKeyUnblocked
        | Kind::BudgetUpdated
        | Kind::BudgetDeleted
        | Kind::BudgetAlert
        | Kind::BudgetWouldRefuse
        | Kind::AllowanceReconciled
        | Kind::ApprovalRequested
        | Kind::ApprovalGiven
        | Kind::ApprovalDeclined
        | Kind::ApprovalUsed
        | Kind::PolicyAdmitted
        | Kind::KekRotated
        | Kind::KekRetired
        | Kind::KekRotationBegun
        | Kind::KeyRewrapBegun
        | Kind::CredentialShredded
        | Kind::TenantShredded
        | Kind::SharesDestroyed
        | Kind::LogPruned => Weight::Warning,
        Kind::Finding | Kind::CheckpointGivenUp | Kind::SecretInAnswer => Weight::Alarm,
        Kind::Unspecified
        | Kind::BrokerStarted
        | Kind::BrokerStopped
        | Kind::SessionOpened
        | Kind::Read
        | Kind::PolicyLoaded
        | Kind::LeaseGranted
        | Kind::LeaseRenewed
        | Kind::LeaseReleased
        | Kind::TenantCreated
        | Kind::TenantUpdated
        | Kind::CredentialCreated
        | Kind::CredentialRotated
        | Kind::CredentialRotationStarted
        | Kind::CredentialRotationAdvanced
        | Kind::CredentialRotationFinished
        | Kind::CredentialTested
        | Kind::VirtualKeyCreated
        | Kind::VirtualKeyUpdated
        | Kind::VirtualKeyRotated
        | Kind::BudgetCreated
        | Kind::AllowanceSettled
        | Kind::AllowanceDrawn
        | Kind::UsageReported
        | Kind::KeyRewrapped => Weight::Routine,
    }
}

/// Whether a refusal says that what is stored is not what was written.
fn is_tampering(reason: Reason) -> bool {
    matches!(reason, Reason::StoredDataCorrupt | Reason::LogBehindCheckpoint | Reason::LogForked)
}

/// The reasons for which a caller was not known, or not let in.
pub(crate) fn is_about_identity(reason: Reason) -> bool {
    matches!(reason, Reason::Unidentified | Reason::HandshakeFailed)
}
