use strongroom_proto::v1::{CredentialVersions, Revocation, revocation::Target};

use crate::{Kind, Record};

/// Whether what is recorded changed stored state, so that whoever caches that state reads it anew.
#[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
pub fn mutates(kind: Kind) -> bool {
    match kind {
        Kind::LeaseRevoked
        | Kind::SessionRevoked
        | Kind::IdentityBlocked
        | Kind::IdentityUnblocked
        | Kind::TenantCreated
        | Kind::TenantUpdated
        | Kind::TenantSuspended
        | Kind::TenantResumed
        | Kind::CredentialCreated
        | Kind::CredentialRotated
        | Kind::CredentialDisabled
        | Kind::CredentialEnabled
        | Kind::CredentialDeleted
        | Kind::CredentialRotationStarted
        | Kind::CredentialRotationAdvanced
        | Kind::CredentialRotationFinished
        | Kind::CredentialRotationRolledBack
        | Kind::VirtualKeyCreated
        | Kind::VirtualKeyRevoked
        | Kind::PricesChanged
        | Kind::VirtualKeyUpdated
        | Kind::VirtualKeyRotated
        | Kind::VirtualKeyBlocked
        | Kind::VirtualKeyUnblocked
        | Kind::BudgetCreated
        | Kind::BudgetUpdated
        | Kind::BudgetDeleted
        | Kind::ApprovalRequested
        | Kind::ApprovalGiven
        | Kind::ApprovalDeclined
        | Kind::ApprovalUsed
        | Kind::PolicyAdmitted
        | Kind::KekRotated
        | Kind::KekRetired
        | Kind::KeyRewrapped
        | Kind::KekRotationBegun
        | Kind::KeyRewrapBegun
        | Kind::CredentialShredded
        | Kind::TenantShredded
        | Kind::SharesDestroyed
        | Kind::CheckpointGivenUp => true,
        Kind::Unspecified
        | Kind::BrokerStarted
        | Kind::BrokerStopped
        | Kind::SessionOpened
        | Kind::Refused
        | Kind::Read
        | Kind::PolicyLoaded
        | Kind::Finding
        | Kind::LogPruned
        | Kind::LeaseGranted
        | Kind::LeaseRenewed
        | Kind::LeaseReleased
        | Kind::CredentialTested
        | Kind::SecretInAnswer
        | Kind::BudgetAlert
        | Kind::BudgetWouldRefuse
        | Kind::AllowanceSettled
        | Kind::AllowanceExpired
        | Kind::AllowanceReconciled
        | Kind::AllowanceDrawn
        | Kind::UsageReported => false,
    }
}

/// What holders of leases must stop using because of this record, if anything.
#[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
pub fn revocation(record: &Record) -> Option<Revocation> {
    let target = match Kind::try_from(record.kind).ok()? {
        Kind::LeaseRevoked => Target::LeaseHash(record.lease_hash.clone()),
        Kind::TenantUpdated | Kind::TenantSuspended | Kind::TenantShredded => {
            Target::Tenant(format!("tenants/{}", record.tenant))
        }
        Kind::SessionRevoked => Target::SessionKeySha256(record.session_key_sha256.clone()),
        // A person's SPIFFE ID is not in the record: the person's own stream has it put in.
        Kind::IdentityBlocked if record.subject.is_empty() => {
            Target::Identity(format!("sha256:{}", hex::encode(&record.subject_commitment)))
        }
        Kind::IdentityBlocked => Target::Identity(record.subject.clone()),
        // The new version's leases go on: its grants stand after this record, but an answer may
        // overtake the stream.
        Kind::CredentialRotated | Kind::CredentialRotationFinished => {
            Target::CredentialVersions(CredentialVersions {
                credential: record.credential.clone(),
                below: record.credential_version,
                version: 0,
            })
        }
        // And here those of the old one do.
        Kind::CredentialRotationRolledBack => Target::CredentialVersions(CredentialVersions {
            credential: record.credential.clone(),
            below: 0,
            version: record.credential_version,
        }),
        Kind::CredentialDisabled | Kind::CredentialDeleted | Kind::CredentialShredded => {
            Target::Credential(record.credential.clone())
        }
        Kind::VirtualKeyRevoked | Kind::VirtualKeyBlocked => virtual_key(record),
        Kind::VirtualKeyUpdated | Kind::VirtualKeyRotated if record.ends_leases => {
            virtual_key(record)
        }
        // Whoever holds an allowance under the old rules comes back for one under the new.
        Kind::BudgetCreated | Kind::BudgetUpdated | Kind::BudgetDeleted => {
            if record.virtual_key.is_empty() {
                Target::Tenant(format!("tenants/{}", record.tenant))
            } else {
                virtual_key(record)
            }
        }
        Kind::BudgetAlert
        | Kind::BudgetWouldRefuse
        | Kind::AllowanceSettled
        | Kind::AllowanceExpired
        | Kind::AllowanceReconciled
        | Kind::AllowanceDrawn
        | Kind::UsageReported
        | Kind::Unspecified
        | Kind::BrokerStarted
        | Kind::BrokerStopped
        | Kind::SessionOpened
        | Kind::Refused
        | Kind::Read
        | Kind::PolicyLoaded
        | Kind::ApprovalRequested
        | Kind::ApprovalGiven
        | Kind::ApprovalDeclined
        | Kind::ApprovalUsed
        | Kind::PolicyAdmitted
        | Kind::Finding
        | Kind::CheckpointGivenUp
        | Kind::LogPruned
        | Kind::KekRotated
        | Kind::KekRetired
        | Kind::KeyRewrapped
        | Kind::KekRotationBegun
        | Kind::KeyRewrapBegun
        | Kind::SharesDestroyed
        | Kind::IdentityUnblocked
        | Kind::LeaseGranted
        | Kind::LeaseRenewed
        | Kind::LeaseReleased
        | Kind::TenantCreated
        | Kind::TenantResumed
        | Kind::CredentialCreated
        | Kind::CredentialEnabled
        | Kind::CredentialRotationStarted
        | Kind::CredentialRotationAdvanced
        | Kind::CredentialTested
        | Kind::SecretInAnswer
        // Other prices come into force after every lease of now has ended.
        | Kind::PricesChanged
        | Kind::VirtualKeyCreated
        | Kind::VirtualKeyUpdated
        | Kind::VirtualKeyRotated
        | Kind::VirtualKeyUnblocked => return None,
    };
    Some(Revocation { log_index: record.index, target: Some(target) })
}

fn virtual_key(record: &Record) -> Target {
    Target::VirtualKey(format!("tenants/{}/virtualKeys/{}", record.tenant, record.virtual_key))
}
