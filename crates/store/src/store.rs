use std::{fmt, ops::Range, time::Duration};

use async_trait::async_trait;
use audit::{Entry, Frontier, Hash, Kind, RecordDraft};
use domain::{CredentialId, CredentialName, TenantId, Timestamp, Uid, VirtualKeyId};
use tokio::sync::watch;

use crate::{
    BudgetRow, BudgetStore, CallQuery, CheckStore, CredentialRow, ErasureRow, HealthRow,
    KeyPurpose, KeyRow, KeyStore, KeyWork, Legible, PersonRow, PriceRow, SinkRow, StoreError,
    TenantRow, TestRow, UsageQuery, UsageRow, UsageSum, VersionRow, VirtualKeyRow,
};

/// Everything that is kept. Implementations are cheap to clone behind an `Arc` and safe to use from
/// many tasks.
#[async_trait]
pub trait Store: BudgetStore + CheckStore + KeyStore + fmt::Debug + Send + Sync {
    /// The deployment's permanent id, made with the database.
    fn deployment(&self) -> Uid;

    /// The log's head as it stands now.
    async fn head(&self) -> Result<Head, StoreError>;

    /// The time by the database's clock, which the log's times come from.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// Appends records, in this order, in one transaction. Of those for which `audit::mutates`, only
    /// `LEASE_REVOKED`, `SESSION_REVOKED`, `IDENTITY_BLOCKED`, `IDENTITY_UNBLOCKED`,
    /// `CHECKPOINT_GIVEN_UP`, `POLICY_ADMITTED`, `APPROVAL_REQUESTED`, `APPROVAL_GIVEN` and
    /// `APPROVAL_DECLINED` may go in without a change of rows, because the record is all that is kept of
    /// them; others are an `InvalidRecord`.
    ///
    /// On `Ok` every [`Appended::Recorded`] record is durable. A record with `as_of` is left out as
    /// [`Appended::Stale`] when the log, or this batch before it, holds a change of one of its
    /// tenants at or after that index: what its writer decided by may no longer hold. A change that
    /// names no tenant counts as every tenant's, and so does one that is further back than a
    /// bounded look reaches. It is left out as well when the log ends before that index: its writer
    /// knows a log that is gone. On `Err` nothing was appended. When the connection is lost
    /// during the commit, the outcome is looked up on a new connection before this returns; only if
    /// that fails too may the records have become durable in spite of the error.
    ///
    /// A caller that stops waiting does not stop it: what was begun is finished, unseen.
    async fn append(&self, batch: &[Pending]) -> Result<Vec<Appended>, StoreError>;

    /// Changes state and appends the record of it in one transaction: both or neither.
    ///
    /// `Exists` and `Changed` say that the change does not fit what is kept; nothing was recorded.
    /// A record for which `audit::mutates` is false is an `InvalidRecord`, but for that of a test: what it
    /// keeps is nothing that a lease rests on.
    async fn apply(&self, change: &Change, record: &RecordDraft) -> Result<Entry, StoreError>;

    /// As [`Store::apply`], with `APPROVAL_USED` right before the record: an approval is spent by what it
    /// was given for, and by nothing else. [`Appended::Stale`], and nothing is done, when something has
    /// changed since `used` was decided. There is no change where the record is all that is kept, as for
    /// [`Store::append`]. What comes back is the entry of the record.
    async fn apply_approved(
        &self,
        used: &Pending,
        change: Option<&Change>,
        record: &RecordDraft,
    ) -> Result<Appended, StoreError>;

    /// A tenant by name.
    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRow>, StoreError>;

    /// Tenants after `after`, by name.
    async fn tenants(&self, page: Page<'_>) -> Result<Vec<TenantRow>, StoreError>;

    /// A tenant's wrapped keys of one purpose, the highest version first.
    async fn keys(&self, tenant: Uid, purpose: KeyPurpose) -> Result<Vec<KeyRow>, StoreError>;

    /// A credential by name.
    async fn credential(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
    ) -> Result<Option<CredentialRow>, StoreError>;

    /// A tenant's credentials after `after`, by name.
    async fn credentials(
        &self,
        tenant: &TenantId,
        page: Page<'_>,
    ) -> Result<Vec<CredentialRow>, StoreError>;

    /// The credentials after `after`, by name, with a rotation of which a step is due by this time. Of
    /// disabled credentials no step is due.
    async fn rotations_due(
        &self,
        by: Timestamp,
        after: Option<&CredentialName>,
        limit: u32,
    ) -> Result<Vec<CredentialName>, StoreError>;

    /// One version of a credential's secret.
    async fn version(
        &self,
        credential: Uid,
        version: u64,
    ) -> Result<Option<VersionRow>, StoreError>;

    /// Whether a call is kept that was answered well with this version of a credential.
    async fn has_served(
        &self,
        credential: &CredentialName,
        version: u64,
    ) -> Result<bool, StoreError>;

    /// What the last tests of a tenant's credentials have shown.
    async fn credential_tests(&self, tenant: &TenantId) -> Result<Vec<TestRow>, StoreError>;

    /// A virtual key by the id inside it.
    async fn virtual_key(&self, id: &VirtualKeyId) -> Result<Option<VirtualKeyRow>, StoreError>;

    /// A tenant's virtual keys after `after`, by id.
    async fn virtual_keys(
        &self,
        tenant: &TenantId,
        page: Page<'_>,
    ) -> Result<Vec<VirtualKeyRow>, StoreError>;

    /// Records from an index on, in order; those of one tenant if one is given.
    async fn records(
        &self,
        from: u64,
        limit: u32,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Records before an index, the latest first; those of one tenant if one is given.
    async fn records_before(
        &self,
        before: u64,
        limit: u32,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Records of changes (`audit::mutates`) from an index on, in order.
    async fn changes(&self, from: u64, limit: u32) -> Result<Vec<Entry>, StoreError>;

    /// All records of one kind of change (`audit::mutates`), in order; of another kind, none.
    async fn changes_of_kind(&self, kind: Kind) -> Result<Vec<Entry>, StoreError>;

    /// A count that rises soon after a change (`audit::mutates`) is durable, whichever broker made it.
    /// It may rise without one and miss some while the connection is lost, so it only says when to
    /// look. `None` when there is no other broker to hear of.
    fn wakeups(&self) -> Option<watch::Receiver<u64>>;

    /// Takes the lead, or keeps it, for so long from now on by the database's clock; says whether the
    /// holder leads. Another's lead stands until its time is up, but for one that ends later than any that
    /// is taken for as long now: no broker has taken it. Who leads may find out late that it
    /// does not, so nothing but economy may rest on this.
    async fn lead(&self, holder: Uid, term: Duration) -> Result<bool, StoreError>;

    /// Gives the lead up, if the holder has it.
    async fn resign(&self, holder: Uid) -> Result<(), StoreError>;

    /// All kept records that name a lease, in order.
    async fn lease_records(&self, lease_hash: &[u8]) -> Result<Vec<Entry>, StoreError>;

    /// The last grant or renewal of each of a tenant's leases that is neither released nor revoked
    /// and ends after `now`, the newest first, before index `before`.
    async fn live_leases(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError>;

    /// The leaf hashes of a range of records, in order; shorter when the log is.
    async fn leaf_hashes(&self, range: Range<u64>) -> Result<Vec<Hash>, StoreError>;

    /// Takes the bodies of all records before an index out, and appends the `LOG_PRUNED` record of it,
    /// in one transaction: both or neither. Leaf hashes stay, and records of changes stay for
    /// [`Store::changes`] alone.
    ///
    /// The index is a multiple of 256 and the record's `tree_size`; else the record is an
    /// `InvalidRecord`. `Changed` when the log is pruned up to there already, or does not reach it.
    async fn prune(&self, before: u64, record: &RecordDraft) -> Result<Entry, StoreError>;

    /// The first record that is kept: reads by [`Store::records`] and its like begin here.
    async fn first_kept(&self) -> Result<u64, StoreError>;

    /// The hashes of the perfect subtrees of a height that is a multiple of 8 and not 0, for a range
    /// of their places, in order; shorter when the log is. They are kept with the record that
    /// completes them.
    async fn node_hashes(&self, level: u32, range: Range<u64>) -> Result<Vec<Hash>, StoreError>;

    /// Keeps a document of access rules, so that a record may name it. What is there stays.
    async fn put_policy(&self, sha256: &Hash, document: &[u8]) -> Result<(), StoreError>;

    /// The document with this SHA-256, as it was put in.
    async fn policy(&self, sha256: &Hash) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keeps a request that needs a second person, by its digest, until a time; one that is there stays,
    /// for as long as either is to. Those whose time is up by `now` go.
    async fn put_proposal(
        &self,
        sha256: &Hash,
        request: &[u8],
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// The request with this digest, as it was put in.
    async fn proposal(&self, sha256: &Hash) -> Result<Option<Vec<u8>>, StoreError>;

    /// Keeps a person, unless one with this handle is there already.
    async fn put_person(&self, row: &PersonRow) -> Result<(), StoreError>;

    /// The person with this handle.
    async fn person(&self, handle: &[u8; 32]) -> Result<Option<PersonRow>, StoreError>;

    /// The person behind a commitment.
    async fn person_behind(&self, commitment: &Hash) -> Result<Option<PersonRow>, StoreError>;

    /// A tenant's people after this handle, by it.
    async fn people(
        &self,
        tenant: Uid,
        after: Option<[u8; 32]>,
        limit: u32,
    ) -> Result<Vec<PersonRow>, StoreError>;

    /// Erasures whose shares are not on record as destroyed, the oldest first.
    async fn erasures(&self) -> Result<Legible<ErasureRow>, StoreError>;

    /// Keeps a signed checkpoint. One of a smaller tree than the newest is ignored.
    async fn put_checkpoint(&self, size: u64, note: &str) -> Result<(), StoreError>;

    /// Takes a checkpoint of this size or a larger one out, so that one of a smaller tree can be kept.
    async fn drop_checkpoint(&self, size: u64) -> Result<(), StoreError>;

    /// The checkpoint of the largest tree.
    async fn checkpoint(&self) -> Result<Option<String>, StoreError>;

    /// How far a sink has come; `None` for one that has never moved.
    async fn sink(&self, name: &str) -> Result<Option<SinkRow>, StoreError>;

    /// How far each sink has come that ever was, by name.
    async fn sinks(&self) -> Result<Legible<SinkRow>, StoreError>;

    /// Keeps how far a sink has come, in the place of whatever is kept of it: of two brokers that send for a
    /// moment, the slower one may set it back, and the receiver gets some records twice.
    async fn put_sink(&self, row: &SinkRow) -> Result<(), StoreError>;

    /// Keeps how a credential fares, for other brokers to learn of. What is kept of a later revision, or
    /// of a rest that began later, stays. `Changed` when there is no such credential.
    async fn put_health(&self, row: &HealthRow) -> Result<(), StoreError>;

    /// Claims, for one of all brokers, the one call that sees whether a credential works again after
    /// the rest that began at `since`: false while that rest lasts, when it has ended or is not kept, and
    /// when another claim was made after `lost`.
    async fn claim_probe(
        &self,
        credential: Uid,
        since: Timestamp,
        now: Timestamp,
        lost: Timestamp,
    ) -> Result<bool, StoreError>;

    /// How credentials fare of which that was written at or after a time by the database's clock.
    async fn healths(&self, changed_from: Timestamp) -> Result<Vec<HealthRow>, StoreError>;

    /// How one credential fares, if that was ever written.
    async fn health(&self, credential: Uid) -> Result<Option<HealthRow>, StoreError>;
    /// Keeps calls that were made, each in one transaction with what it adds to the sums; says of each
    /// whether it is new. One whose id is kept already changes nothing. On `Err` some may be durable,
    /// and all of it may be given again.
    async fn count_usage(&self, calls: &[UsageRow]) -> Result<Vec<bool>, StoreError>;

    /// Sums of calls, in no order.
    async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, StoreError>;

    /// Calls, the latest first.
    async fn calls(&self, query: &CallQuery) -> Result<Vec<UsageRow>, StoreError>;

    /// Takes some of the calls that began before a time out, and some of the sums of quarters that
    /// ended before another; says how many rows. Call it again until there are none.
    async fn forget_usage(
        &self,
        calls_before: Timestamp,
        sums_before: Timestamp,
    ) -> Result<u64, StoreError>;

    /// The document of prices with this SHA-256, as it was put in.
    async fn prices(&self, sha256: &Hash) -> Result<Option<Vec<u8>>, StoreError>;

    /// Finishes what is being written and lets go of the database; what comes later is refused as
    /// `Unavailable`. A store that is dropped does the same, but nobody can wait for it.
    async fn close(&self);
}

/// The end of the log.
#[derive(Clone, Debug)]
pub struct Head {
    /// The tree at this point; its size is the index of the next record.
    pub frontier: Frontier,
    /// The time of the last record.
    pub time: Timestamp,
    /// One past the index of the last record of a change; 0 when there is none.
    pub changed: u64,
}

/// A record on its way into the log.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The record, but for its index and time.
    pub record: RecordDraft,
    /// The size of the log as of which its writer knew the state, when the record depends on it.
    pub as_of: Option<u64>,
    /// The tenants on whose state it depends; empty means all. Without `as_of` it says nothing.
    pub tenants: Vec<TenantId>,
}

/// What became of a [`Pending`] record.
#[derive(Clone, Debug)]
pub enum Appended {
    /// It is durable.
    Recorded(Entry),
    /// Left out: its writer did not know of a change of one of its tenants, or knew a log that is
    /// gone.
    Stale {
        /// [`Head::changed`] at the time: whoever knows the log up to here knows the change.
        changed: u64,
    },
}

/// A change of state. Rows come with the revision they are to have; an update or deletion is refused
/// as `Changed` unless the row that is kept has the revision before.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new tenant with its first keys.
    CreateTenant(TenantRow, Vec<KeyRow>),
    /// A tenant's new state.
    UpdateTenant(TenantRow),
    /// A new credential with its first version.
    CreateCredential(CredentialRow, VersionRow),
    /// A credential's new state, with a new version when it was rotated.
    UpdateCredential(CredentialRow, Option<VersionRow>),
    /// A credential's new state, and the end of this version of its secret.
    DropVersion(CredentialRow, u64),
    /// The end of a credential and of all its versions; of the row only the uid, the name and the
    /// revision count.
    DeleteCredential(CredentialRow),
    /// The end of a credential and of all its versions, and of its share: of the row only the uid, the name
    /// and the revision count.
    EraseCredential(CredentialRow, ErasureRow),
    /// The end of a tenant and of all that it owns, and of the shares; of the row only the uid, the name and
    /// the revision count. People are put in the place of what they were, with another tenant; `Changed`
    /// when some of the tenant's are left.
    EraseTenant(TenantRow, Vec<PersonRow>, ErasureRow),
    /// The shares of an erasure are destroyed. `Changed` when that is on record.
    EndErasure(Uid),
    /// What a test of a credential has shown, in the place of what was known; `Changed` when the
    /// credential is not there any more. The record is `CREDENTIAL_TESTED`.
    KeepTest(TestRow),
    /// A new virtual key.
    CreateVirtualKey(VirtualKeyRow),
    /// A virtual key's new state.
    UpdateVirtualKey(VirtualKeyRow),
    /// Other prices. `Exists` when there are prices of that revision.
    SetPrices(PriceRow),
    /// A new budget.
    CreateBudget(BudgetRow),
    /// A budget's new limits, mode or alerts. Its accounts have the new caps from then on.
    UpdateBudget(BudgetRow),
    /// The end of a budget and of its accounts; of the row only the uid, the name and the revision
    /// count.
    DeleteBudget(BudgetRow),
    /// A new version of a tenant's key. `Exists` when there is one already.
    AddKey(KeyRow),
    /// The end of all versions of a tenant's key before this one. `Changed` when there are none, or when
    /// something is still under them.
    RetireKeys(KeyRow),
    /// A key wrapped anew, in the place of what it was wrapped as; `Changed` when it no longer is.
    RewrapKey(KeyRow, Vec<u8>),
    /// Something that is to be done to all keys, in the place of what was to be done of that name.
    BeginKeyWork(KeyWork),
}

/// Which part of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Only what comes after this name; empty for the start.
    pub after: &'a str,
    /// How many at the most.
    pub limit: u32,
}
