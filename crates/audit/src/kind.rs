use strongroom_proto::v1::{Revocation, revocation::Target};

use crate::{Kind, Record};

/// Whether what is recorded changed stored state, so that whoever caches that state reads it anew.
pub fn mutates(kind: Kind) -> bool {
    match kind {
        Kind::LeaseRevoked
        | Kind::TenantCreated
        | Kind::TenantUpdated
        | Kind::CredentialCreated
        | Kind::CredentialRotated
        | Kind::CredentialDisabled
        | Kind::CredentialEnabled
        | Kind::CredentialDeleted
        | Kind::VirtualKeyCreated
        | Kind::VirtualKeyRevoked => true,
        Kind::Unspecified
        | Kind::BrokerStarted
        | Kind::BrokerStopped
        | Kind::SessionOpened
        | Kind::Refused
        | Kind::LeaseGranted
        | Kind::LeaseRenewed
        | Kind::LeaseReleased => false,
    }
}

/// What holders of leases must stop using because of this record, if anything.
pub fn revocation(record: &Record) -> Option<Revocation> {
    let target = match Kind::try_from(record.kind).ok()? {
        Kind::LeaseRevoked => Target::LeaseHash(record.lease_hash.clone()),
        Kind::TenantUpdated => Target::Tenant(format!("tenants/{}", record.tenant)),
        Kind::CredentialRotated | Kind::CredentialDisabled | Kind::CredentialDeleted => {
            Target::Credential(record.credential.clone())
        }
        Kind::VirtualKeyRevoked => Target::VirtualKey(format!(
            "tenants/{}/virtualKeys/{}",
            record.tenant, record.virtual_key
        )),
        Kind::Unspecified
        | Kind::BrokerStarted
        | Kind::BrokerStopped
        | Kind::SessionOpened
        | Kind::Refused
        | Kind::LeaseGranted
        | Kind::LeaseRenewed
        | Kind::LeaseReleased
        | Kind::TenantCreated
        | Kind::CredentialCreated
        | Kind::CredentialEnabled
        | Kind::VirtualKeyCreated => return None,
    };
    Some(Revocation { log_index: record.index, target: Some(target) })
}
