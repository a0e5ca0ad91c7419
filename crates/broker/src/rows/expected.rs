use std::collections::{BTreeMap, BTreeSet};

use audit::{Hash, Kind, Record};
use store::Store;

use crate::{refused::Why, rekeying::Task};

/// What the database must hold, as the log tells it.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Every change before this index counts.
    applied: u64,
    /// One past the index of the last change.
    pub(super) changed: u64,
    pub(super) tenants: BTreeMap<String, ExpectedTenant>,
    /// Documents of prices, by tenant and revision.
    pub(super) prices: BTreeMap<(String, u64), Hash>,
    /// People who are blocked, by commitment.
    pub(super) blocked: BTreeSet<Vec<u8>>,
    /// Erasures that have no receipt, with whose they are.
    pub(super) erasures: BTreeMap<Vec<u8>, (String, String)>,
    /// What was asked to be done to all keys, by name.
    pub(super) key_work: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ExpectedTenant {
    pub(super) revision: u64,
    pub(super) kek_id: Vec<u8>,
    pub(super) kek_versions: BTreeSet<u32>,
    /// By permanent id.
    pub(super) credentials: BTreeMap<Vec<u8>, ExpectedCredential>,
    /// Revisions.
    pub(super) virtual_keys: BTreeMap<String, u64>,
    /// Revisions.
    pub(super) budgets: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ExpectedCredential {
    pub(super) name: String,
    pub(super) revision: u64,
    pub(super) versions: BTreeSet<u64>,
}

/// Changes read at a time.
const PAGE: u32 = 1000;

impl Expected {
    /// Takes in what has been recorded since.
    pub(super) async fn catch_up(&mut self, store: &dyn Store) -> Result<(), Why> {
        loop {
            let entries = store.changes(self.applied, PAGE).await?;
            for entry in &entries {
                // One that cannot be read is found where the log itself is looked at.
                if let Ok(record) = entry.record() {
                    self.apply(&record);
                }
                self.applied = entry.index + 1;
                self.changed = self.applied;
            }
            if entries.len() < PAGE as usize {
                return Ok(());
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "no other kind says what rows there are")]
    fn apply(&mut self, record: &Record) {
        match record.kind() {
            Kind::TenantShredded => {
                self.tenants.remove(&record.tenant);
                self.begin_erasure(record);
            }
            Kind::SharesDestroyed => {
                self.erasures.remove(&*record.erasure_id);
            }
            Kind::KekRotationBegun => {
                self.key_work.insert(Task::RotateAll.name());
            }
            Kind::KeyRewrapBegun => {
                let root = Some(&record.root).filter(|root| !root.is_empty());
                if let Ok(root) = root.map(|root| root.parse()).transpose() {
                    self.key_work.insert(Task::Rewrap(root).name());
                }
            }
            Kind::PricesChanged => {
                if let Ok(sha256) = Hash::try_from(&*record.prices_sha256) {
                    self.prices.insert((record.tenant.clone(), record.revision), sha256);
                }
            }
            Kind::IdentityBlocked if !record.subject_commitment.is_empty() => {
                self.blocked.insert(record.subject_commitment.to_vec());
            }
            Kind::IdentityUnblocked => {
                self.blocked.remove(&*record.subject_commitment);
            }
            Kind::TenantCreated
            | Kind::TenantUpdated
            | Kind::TenantSuspended
            | Kind::TenantResumed => {
                let tenant = self.tenants.entry(record.tenant.clone()).or_default();
                tenant.revision = record.revision;
                if record.kind() == Kind::TenantCreated {
                    tenant.kek_id = record.kek_id.to_vec();
                    tenant.kek_versions.insert(record.kek_version);
                }
            }
            _ if record.tenant.is_empty() => {}
            _ => {
                if record.kind() == Kind::CredentialShredded {
                    self.begin_erasure(record);
                }
                let Some(tenant) = self.tenants.get_mut(&record.tenant) else { return };
                tenant.apply(record);
            }
        }
    }

    fn begin_erasure(&mut self, record: &Record) {
        let of = (record.tenant.clone(), record.credential.clone());
        self.erasures.insert(record.erasure_id.to_vec(), of);
    }
}

impl ExpectedTenant {
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other kind says what rows there are")]
    fn apply(&mut self, record: &Record) {
        match record.kind() {
            Kind::KekRotated => {
                self.kek_versions.insert(record.kek_version);
            }
            Kind::KekRetired => {
                self.kek_versions = self.kek_versions.split_off(&record.kek_version);
            }
            Kind::BudgetDeleted => {
                self.budgets.remove(&record.budget);
            }
            Kind::BudgetCreated | Kind::BudgetUpdated => {
                self.budgets.insert(record.budget.clone(), record.revision);
            }
            Kind::VirtualKeyCreated
            | Kind::VirtualKeyRevoked
            | Kind::VirtualKeyUpdated
            | Kind::VirtualKeyRotated
            | Kind::VirtualKeyBlocked
            | Kind::VirtualKeyUnblocked => {
                self.virtual_keys.insert(record.virtual_key.clone(), record.revision);
            }
            Kind::CredentialDeleted | Kind::CredentialShredded => {
                self.credentials.remove(&*record.credential_uid);
            }
            Kind::CredentialCreated
            | Kind::CredentialRotated
            | Kind::CredentialDisabled
            | Kind::CredentialEnabled
            | Kind::CredentialRotationStarted
            | Kind::CredentialRotationAdvanced
            | Kind::CredentialRotationFinished
            | Kind::CredentialRotationRolledBack => {
                let uid = record.credential_uid.to_vec();
                let credential = self.credentials.entry(uid).or_default();
                credential.name.clone_from(&record.credential);
                credential.revision = record.revision;
                let is_new = matches!(
                    record.kind(),
                    Kind::CredentialCreated
                        | Kind::CredentialRotated
                        | Kind::CredentialRotationStarted
                );
                if is_new {
                    credential.versions.insert(record.credential_version);
                }
                credential.versions.remove(&record.deleted_version);
            }
            _ => {}
        }
    }
}
