use std::collections::{BTreeSet, HashMap};

use domain::{ProviderId, SpiffeId, TenantId, Uid};

use crate::{
    APPROVE, Approvals, Disclosure, Finding, Hash, Kind, Names, PolicyDocument, Record,
    custody::CLOCKS_APART, record::Checked, timestamp,
};

/// Who may borrow, as the records so far tell it: brokers that run, sessions that are open, identities
/// and tenants that are not stopped, and the access rules of the time.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    policies: HashMap<Hash, PolicyDocument>,
    /// Named by a record, and not given to the verifier: nothing is held against them.
    unknown_policies: BTreeSet<Hash>,
    names: Names,
    /// How often rules were not held against somebody, in a loan or an approved call, because it is a person
    /// whose name was not given.
    unnamed: u64,
    /// Running brokers, with the latest rules of each.
    brokers: HashMap<Uid, Option<Loaded>>,
    sessions: HashMap<Hash, Session>,
    /// Where each identity was blocked last, and whether it still is.
    blocked: HashMap<String, (u64, bool)>,
    suspended: HashMap<String, u64>,
    /// Calls that need a second person.
    approvals: Approvals,
    /// Whether the beginning was pruned: brokers may run and sessions be open from there.
    begins_late: bool,
    /// Brokers that run no more, where that is not all that do not run.
    stopped: BTreeSet<Uid>,
}

#[derive(Clone, Copy, Debug)]
struct Loaded {
    policy: Hash,
    at: u64,
}

#[derive(Clone, Debug)]
struct Session {
    /// `None` if it was opened in a part that was pruned: no record says by whom.
    actor: Option<String>,
    opened_at: u64,
    revoked_at: Option<u64>,
}

impl Standing {
    /// For a log whose beginning was pruned.
    pub(crate) fn after_pruning() -> Self {
        Self { begins_late: true, ..Self::default() }
    }

    /// Takes a document of access rules that a record may name.
    pub(crate) fn know(&mut self, document: PolicyDocument) {
        self.policies.insert(*document.sha256(), document);
    }

    /// Takes the name of a person whom records may name by a commitment.
    pub(crate) fn know_name(&mut self, name: Disclosure) {
        self.names.know(name);
    }

    /// The rules that a broker decided by and that nobody gave.
    pub(crate) fn unknown_policies(&self) -> &BTreeSet<Hash> {
        &self.unknown_policies
    }

    /// How often rules were not held against somebody whose name nobody gave.
    pub(crate) fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// Takes in the next record. After a finding, nothing more is to be taken in.
    #[expect(clippy::too_many_lines, reason = "a table: each kind is in it")]
    pub(crate) fn follow(&mut self, checked: &Checked) -> Result<(), Finding> {
        let record = &checked.record;
        match checked.kind {
            Kind::BrokerStarted => {
                self.brokers.extend(broker(record).map(|broker| (broker, None)));
            }
            Kind::BrokerStopped => {
                let broker = broker(record);
                broker.and_then(|broker| self.brokers.remove(&broker));
                self.stopped.extend(broker.filter(|_| self.begins_late));
            }
            Kind::PolicyLoaded => self.load(record),
            Kind::SessionOpened => self.open(record),
            Kind::SessionRevoked => self.revoke(record),
            Kind::IdentityBlocked => {
                self.blocked.insert(subject(record), (record.index, true));
            }
            Kind::IdentityUnblocked => {
                if let Some((_, blocked)) = self.blocked.get_mut(&subject(record)) {
                    *blocked = false;
                }
            }
            // Nobody can resume what was erased: the name is nobody's any more.
            Kind::TenantSuspended | Kind::TenantShredded => {
                self.suspended.insert(record.tenant.clone(), record.index);
            }
            Kind::TenantResumed => {
                self.suspended.remove(&record.tenant);
            }
            Kind::ApprovalRequested
            | Kind::ApprovalGiven
            | Kind::ApprovalDeclined
            | Kind::ApprovalUsed => {
                // What was proposed in a part that was pruned is not known.
                if self.approvals.apply(record).is_err() && !self.begins_late {
                    return Err(Finding::NotApproved { index: record.index });
                }
                if checked.kind == Kind::ApprovalUsed {
                    return self.make_approved(record);
                }
            }
            Kind::LeaseGranted | Kind::LeaseRenewed => {
                self.unnamed += u64::from(self.names.actor(record).is_none());
                return self.borrow(checked);
            }
            Kind::Unspecified
            | Kind::Refused
            | Kind::Read
            | Kind::LeaseReleased
            | Kind::LeaseRevoked
            | Kind::TenantCreated
            | Kind::TenantUpdated
            | Kind::CredentialCreated
            | Kind::CredentialRotated
            | Kind::CredentialDisabled
            | Kind::CredentialEnabled
            | Kind::CredentialDeleted
            | Kind::CredentialRotationStarted
            | Kind::CredentialRotationAdvanced
            | Kind::CredentialRotationFinished
            | Kind::CredentialRotationRolledBack
            | Kind::CredentialTested
            | Kind::SecretInAnswer
            | Kind::VirtualKeyCreated
            | Kind::VirtualKeyRevoked
            | Kind::VirtualKeyUpdated
            | Kind::VirtualKeyRotated
            | Kind::VirtualKeyBlocked
            | Kind::VirtualKeyUnblocked
            | Kind::Finding
            | Kind::CheckpointGivenUp
            | Kind::LogPruned
            | Kind::PolicyAdmitted
            | Kind::PricesChanged
            | Kind::BudgetCreated
            | Kind::BudgetUpdated
            | Kind::BudgetDeleted
            | Kind::BudgetAlert
            | Kind::BudgetWouldRefuse
            | Kind::AllowanceSettled
            | Kind::AllowanceExpired
            | Kind::AllowanceReconciled
            | Kind::AllowanceDrawn
            | Kind::UsageReported
            | Kind::KekRotated
            | Kind::KekRetired
            | Kind::CredentialShredded
            | Kind::SharesDestroyed
            | Kind::KeyRewrapped
            | Kind::KekRotationBegun
            | Kind::KeyRewrapBegun => {}
        }
        Ok(())
    }

    /// Whether who proposed and who approved a call could still do so when it was made.
    fn make_approved(&mut self, record: &Record) -> Result<(), Finding> {
        let id = Uid::try_from(record.approval_id.as_ref()).ok();
        let Some(made) = id.and_then(|id| self.approvals.get(&id)).cloned() else { return Ok(()) };
        let tenant = made.tenant.parse::<TenantId>().ok();
        let loaded = broker(record).and_then(|broker| self.brokers.get(&broker).copied().flatten());
        let rules = loaded.and_then(|loaded| self.policies.get(&loaded.policy));
        let mut unnamed = 0;
        let mut may = |person: &Hash, method: &str| {
            let name = self.names.behind(person);
            let is_blocked =
                |name: &str| self.blocked.get(name).is_some_and(|(_, blocked)| *blocked);
            if is_blocked(&hex::encode(person)) || name.is_some_and(is_blocked) {
                return false;
            }
            let Some(rules) = rules else { return true };
            unnamed += u64::from(name.is_none());
            let Some(name) = name.and_then(|name| name.parse::<SpiffeId>().ok()) else {
                return true;
            };
            rules.policy().allows(&name, method, tenant.as_ref())
        };
        let decider = made.decider.as_ref();
        let is_allowed =
            may(&made.proposer, &made.method) && decider.is_some_and(|it| may(it, APPROVE));
        self.unnamed += unnamed;
        let index = record.index;
        if is_allowed { Ok(()) } else { Err(Finding::ApprovalLapsed { index }) }
    }

    fn load(&mut self, record: &Record) {
        let policy: Option<Hash> = record.policy_sha256.as_ref().try_into().ok();
        let broker = broker(record);
        if self.begins_late {
            self.brokers.extend(broker.filter(|it| self.may_run(it)).map(|broker| (broker, None)));
        }
        let running = broker.and_then(|broker| self.brokers.get_mut(&broker));
        if let (Some(policy), Some(running)) = (policy, running) {
            *running = Some(Loaded { policy, at: record.index });
            if !self.policies.contains_key(&policy) {
                self.unknown_policies.insert(policy);
            }
        }
    }

    fn open(&mut self, record: &Record) {
        if let Ok(key) = record.session_key_sha256.as_ref().try_into() {
            let (actor, opened_at) = (Some(actor(record)), record.index);
            self.sessions.insert(key, Session { actor, opened_at, revoked_at: None });
        }
    }

    fn revoke(&mut self, record: &Record) {
        let Ok(key) = Hash::try_from(&*record.session_key_sha256) else { return };
        if self.begins_late {
            self.sessions.entry(key).or_insert(EARLIER);
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.revoked_at.get_or_insert(record.index);
        }
    }

    /// Whether the broker, the session, the identity, the tenants and the rules allow this grant or
    /// renewal.
    fn borrow(&self, checked: &Checked) -> Result<(), Finding> {
        let record = &checked.record;
        let index = record.index;
        let broker = broker(record);
        let running = broker.and_then(|broker| self.brokers.get(&broker));
        if running.is_none() && !broker.is_some_and(|broker| self.may_run(&broker)) {
            return Err(Finding::BrokerNotRunning { index });
        }
        let actor = actor(record);
        let session = self.session(record, &actor).ok_or(Finding::SessionNotOpen { index })?;
        if let Some(revoked_at) = session.revoked_at {
            return Err(Finding::SessionRevoked { index, revoked_at });
        }
        match self.blocked.get(&actor) {
            Some(&(blocked_at, blocked)) if blocked || session.opened_at < blocked_at => {
                return Err(Finding::IdentityBlocked { index, blocked_at });
            }
            Some(_) | None => {}
        }
        let owner = record.credential.strip_prefix("tenants/").and_then(|it| it.split('/').next());
        for tenant in [Some(record.tenant.as_str()), owner].into_iter().flatten() {
            if let Some(suspended_at) = self.suspended.get(tenant).copied() {
                return Err(Finding::TenantSuspended { index, suspended_at });
            }
        }
        // The rules of a broker that started in a part that was pruned are not known.
        let Some(loaded) = running else { return Ok(()) };
        let loaded = loaded.ok_or(Finding::PolicyNotOnRecord { index })?;
        match self.policies.get(&loaded.policy) {
            Some(document) if !self.allows(document, checked) => {
                Err(Finding::PolicyForbids { index, loaded_at: loaded.at })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a broker that no record starts may have been started in a part that was pruned.
    fn may_run(&self, broker: &Uid) -> bool {
        self.begins_late && !self.brokers.contains_key(broker) && !self.stopped.contains(broker)
    }

    /// The session that a record names, if it is this actor's.
    fn session(&self, record: &Record, actor: &str) -> Option<&Session> {
        let key = Hash::try_from(&*record.session_key_sha256).ok()?;
        match self.sessions.get(&key) {
            Some(session) if session.actor.as_ref().is_none_or(|it| it == actor) => Some(session),
            None if self.begins_late => Some(&EARLIER),
            Some(_) | None => None,
        }
    }

    /// Whether the rules let the actor have this lease, for this long. Of a person who is not known
    /// by name nobody can tell.
    fn allows(&self, document: &PolicyDocument, checked: &Checked) -> bool {
        let record = &checked.record;
        let Some(actor) = self.names.actor(record) else { return true };
        let longest = (|| {
            let actor: SpiffeId = actor.parse().ok()?;
            let tenant: TenantId = record.tenant.parse().ok()?;
            let provider: ProviderId = record.provider.parse().ok()?;
            let permit = document.policy().permit(&actor, &record.method, &tenant)?;
            permit.longest_lease(&provider)
        })();
        let lasts = record.lease_expire_time.as_ref().and_then(timestamp);
        let lasts = lasts.map(|expiry| expiry.since(checked.time));
        longest.zip(lasts).is_some_and(|(longest, lasts)| lasts <= longest + CLOCKS_APART)
    }
}

/// A session from a part that was pruned.
const EARLIER: Session = Session { actor: None, opened_at: 0, revoked_at: None };

fn broker(record: &Record) -> Option<Uid> {
    Uid::try_from(record.broker.as_ref()).ok()
}

fn actor(record: &Record) -> String {
    called(&record.actor, &record.actor_commitment)
}

fn subject(record: &Record) -> String {
    called(&record.subject, &record.subject_commitment)
}

/// Whom a record names, in clear or as a commitment.
fn called(name: &str, commitment: &[u8]) -> String {
    if name.is_empty() { hex::encode(commitment) } else { name.to_owned() }
}
