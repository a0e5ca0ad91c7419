use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use domain::Uid;

use crate::{
    Finding, Hash, InvalidRecord, Kind, Record, erasures::Erasures, keks::Keks, record::Checked,
    timestamp,
};

mod versions;

use versions::{Lends, Versions};

/// The longest time from the record of a grant or renewal to the lease's expiry.
pub const LONGEST_LEASE: Duration = domain::LONGEST_TTL;

/// A lease's end is by the broker's clock, its record's time by the database's.
pub(crate) const CLOCKS_APART: Duration = Duration::from_secs(10);

/// What may be lent, as the records so far tell it.
#[derive(Debug, Default)]
pub(crate) struct Custody {
    credentials: HashMap<Uid, Credential>,
    leases: HashMap<Hash, Lease>,
    keks: Keks,
    erasures: Erasures,
    /// The ids of revoked virtual keys, and where they were revoked.
    revoked: HashMap<String, u64>,
    /// The same of those that are blocked.
    blocked: HashMap<String, u64>,
    /// Whether the beginning was pruned: what began there is as the first record tells that names it.
    begins_late: bool,
}

#[derive(Clone, Copy, Debug)]
struct Credential {
    versions: Versions,
    revision: u64,
    changed_at: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Enabled,
    Disabled,
    Deleted,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    credential: Uid,
    granted_at: u64,
    ended_at: Option<u64>,
}

impl Custody {
    /// For a log whose beginning was pruned.
    pub(crate) fn after_pruning() -> Self {
        Self { begins_late: true, ..Self::default() }
    }

    /// Takes in the next record. After a finding, nothing more is to be taken in: what follows a
    /// record that must not be there has no meaning.
    #[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
    pub(crate) fn follow(&mut self, checked: &Checked) -> Result<(), Finding> {
        let record = &checked.record;
        match checked.kind {
            Kind::LeaseGranted => self.grant(checked),
            Kind::LeaseRenewed => self.renew(checked),
            Kind::LeaseReleased | Kind::LeaseRevoked => self.end(record),
            Kind::CredentialCreated => self.create(record),
            Kind::CredentialRotated => self.rotate(record, Versions::rotate),
            Kind::CredentialRotationStarted => {
                self.rotate(record, |it, version| it.start(version, record.rotation_percent))
            }
            Kind::CredentialRotationAdvanced => {
                self.rotate(record, |it, version| it.advance(version, record.rotation_percent))
            }
            Kind::CredentialRotationFinished => self.rotate(record, Versions::finish),
            Kind::CredentialRotationRolledBack => self.rotate(record, Versions::roll_back),
            Kind::CredentialEnabled => self.turn(record, State::Enabled),
            Kind::CredentialDisabled => self.turn(record, State::Disabled),
            Kind::CredentialDeleted => self.turn(record, State::Deleted),
            Kind::CredentialShredded => {
                self.turn(record, State::Deleted)?;
                self.erasures.begin(record)
            }
            Kind::TenantShredded => self.erasures.begin(record),
            Kind::SharesDestroyed => self.erasures.end(record, self.begins_late),
            Kind::VirtualKeyRevoked => {
                self.revoked.entry(record.virtual_key.clone()).or_insert(record.index);
                Ok(())
            }
            Kind::VirtualKeyBlocked => {
                self.blocked.entry(record.virtual_key.clone()).or_insert(record.index);
                Ok(())
            }
            Kind::VirtualKeyUnblocked => {
                self.blocked.remove(&record.virtual_key);
                Ok(())
            }
            Kind::TenantCreated => {
                self.keks.create(record);
                Ok(())
            }
            Kind::KekRotationBegun => {
                self.keks.ask();
                Ok(())
            }
            Kind::KekRotated => self.keks.rotate(record, self.begins_late),
            Kind::KekRetired => self.keks.retire(record, self.begins_late),
            Kind::Unspecified
            | Kind::KeyRewrapped
            | Kind::KeyRewrapBegun
            | Kind::BrokerStarted
            | Kind::BrokerStopped
            | Kind::SessionOpened
            | Kind::Refused
            | Kind::Read
            | Kind::PolicyLoaded
            | Kind::SessionRevoked
            | Kind::IdentityBlocked
            | Kind::IdentityUnblocked
            | Kind::Finding
            | Kind::CheckpointGivenUp
            | Kind::LogPruned
            | Kind::ApprovalRequested
            | Kind::ApprovalGiven
            | Kind::ApprovalDeclined
            | Kind::ApprovalUsed
            | Kind::PolicyAdmitted
            | Kind::PricesChanged
            | Kind::TenantUpdated
            | Kind::TenantSuspended
            | Kind::TenantResumed
            | Kind::CredentialTested
            | Kind::SecretInAnswer
            | Kind::VirtualKeyCreated
            | Kind::VirtualKeyUpdated
            | Kind::VirtualKeyRotated
            | Kind::BudgetCreated
            | Kind::BudgetUpdated
            | Kind::BudgetDeleted
            | Kind::BudgetAlert
            | Kind::BudgetWouldRefuse
            | Kind::AllowanceSettled
            | Kind::AllowanceExpired
            | Kind::AllowanceReconciled
            | Kind::AllowanceDrawn
            | Kind::UsageReported => Ok(()),
        }
    }

    fn grant(&mut self, checked: &Checked) -> Result<(), Finding> {
        let index = checked.record.index;
        let credential = credential_uid(&checked.record)?;
        match self.leases.entry(lease_hash(&checked.record)?) {
            Entry::Occupied(lease) => {
                let granted_at = lease.get().granted_at;
                return Err(Finding::LeaseGrantedTwice { index, granted_at });
            }
            Entry::Vacant(place) => {
                place.insert(Lease { credential, granted_at: index, ended_at: None });
            }
        }
        self.lend(checked, &credential)
    }

    fn renew(&mut self, checked: &Checked) -> Result<(), Finding> {
        let index = checked.record.index;
        let credential = credential_uid(&checked.record)?;
        let lease = self.lease(&checked.record)?;
        if let Some(ended_at) = lease.ended_at {
            return Err(Finding::LeaseEnded { index, ended_at });
        }
        if lease.credential != credential {
            return Err(Finding::LeaseMoved { index });
        }
        self.lend(checked, &credential)
    }

    /// Whether the credential, the virtual key and the time allow this grant or renewal.
    fn lend(&mut self, checked: &Checked, credential: &Uid) -> Result<(), Finding> {
        let Checked { record, time, .. } = checked;
        let index = record.index;
        if self.begins_late {
            self.credentials.entry(*credential).or_insert(Credential {
                versions: Versions::pruned(),
                revision: record.revision,
                changed_at: index,
                state: State::Enabled,
            });
        }
        let credential = self.credentials.get_mut(credential);
        let credential = credential.ok_or(Finding::CredentialNotOnRecord { index })?;
        if credential.state != State::Enabled {
            return Err(Finding::CredentialEnded { index, ended_at: credential.changed_at });
        }
        let lends = credential.versions.lend(record.credential_version);
        if record.revision < credential.revision || lends == Lends::Stale {
            return Err(Finding::CredentialStale { index, changed_at: credential.changed_at });
        }
        if record.revision > credential.revision || lends == Lends::NotOnRecord {
            return Err(Finding::CredentialNotOnRecord { index });
        }
        if let Some(revoked_at) = self.revoked.get(&record.virtual_key).copied() {
            return Err(Finding::VirtualKeyRevoked { index, revoked_at });
        }
        if let Some(blocked_at) = self.blocked.get(&record.virtual_key).copied() {
            return Err(Finding::VirtualKeyBlocked { index, blocked_at });
        }
        self.keks.lend(record)?;
        let expiry = record.lease_expire_time.as_ref().and_then(timestamp);
        match expiry {
            Some(expiry) if expiry.since(*time) <= LONGEST_LEASE + CLOCKS_APART => Ok(()),
            Some(_) | None => Err(Finding::LeaseTooLong { index }),
        }
    }

    /// A lease ends once; to end it again says nothing new.
    fn end(&mut self, record: &Record) -> Result<(), Finding> {
        self.lease(record)?.ended_at.get_or_insert(record.index);
        Ok(())
    }

    /// The lease that a record names, which was granted before it.
    fn lease(&mut self, record: &Record) -> Result<&mut Lease, Finding> {
        let (index, hash) = (record.index, lease_hash(record)?);
        match self.leases.entry(hash) {
            Entry::Occupied(lease) => Ok(lease.into_mut()),
            // A record that ends it need not say of which credential it was; nothing asks then.
            Entry::Vacant(place) if self.begins_late => {
                let credential = credential_uid(record).unwrap_or(Uid::from_bytes([0; 16]));
                Ok(place.insert(Lease { credential, granted_at: index, ended_at: None }))
            }
            Entry::Vacant(_) => Err(Finding::LeaseNeverGranted { index }),
        }
    }

    fn create(&mut self, record: &Record) -> Result<(), Finding> {
        match self.credentials.entry(credential_uid(record)?) {
            Entry::Occupied(_) => Err(Finding::ChangeOutOfStep { index: record.index }),
            Entry::Vacant(place) => {
                place.insert(Credential {
                    versions: Versions::new(record.credential_version),
                    revision: record.revision,
                    changed_at: record.index,
                    state: State::Enabled,
                });
                Ok(())
            }
        }
    }

    /// A disabled credential stays disabled when it is rotated.
    fn rotate(
        &mut self,
        record: &Record,
        step: impl FnOnce(&mut Versions, u64) -> bool,
    ) -> Result<(), Finding> {
        if step(&mut self.change(record)?.versions, record.credential_version) {
            Ok(())
        } else {
            Err(Finding::ChangeOutOfStep { index: record.index })
        }
    }

    fn turn(&mut self, record: &Record, state: State) -> Result<(), Finding> {
        self.change(record)?.state = state;
        Ok(())
    }

    fn change(&mut self, record: &Record) -> Result<&mut Credential, Finding> {
        let out_of_step = Finding::ChangeOutOfStep { index: record.index };
        let uid = credential_uid(record)?;
        if self.begins_late {
            self.credentials.entry(uid).or_insert(Credential {
                versions: Versions::pruned(),
                revision: record.revision.saturating_sub(1),
                changed_at: record.index,
                state: State::Enabled,
            });
        }
        let credential = self.credentials.get_mut(&uid).ok_or(out_of_step)?;
        let next = credential.revision.saturating_add(1);
        if credential.state == State::Deleted || record.revision != next {
            return Err(out_of_step);
        }
        credential.revision = next;
        credential.changed_at = record.index;
        Ok(credential)
    }
}

/// The checks of [`crate::decode_record`] have made sure of the field; without them there is none.
fn credential_uid(record: &Record) -> Result<Uid, Finding> {
    Uid::try_from(record.credential_uid.as_ref()).map_err(|_| Finding::Malformed {
        index: record.index,
        source: InvalidRecord::Missing("credential_uid"),
    })
}

fn lease_hash(record: &Record) -> Result<Hash, Finding> {
    Hash::try_from(record.lease_hash.as_ref()).map_err(|_| Finding::Malformed {
        index: record.index,
        source: InvalidRecord::Missing("lease_hash"),
    })
}
