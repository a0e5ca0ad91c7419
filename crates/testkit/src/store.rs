mod budgets;
mod check;
mod keys;

use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use audit::{Entry, Hash, Kind, RecordDraft};
use domain::{CredentialId, CredentialName, TenantId, Timestamp, Uid, VirtualKeyId};
use store::{
    Appended, CallQuery, Change, CredentialRow, ErasureRow, Head, HealthRow, KeyPurpose, KeyRow,
    Legible, Page, Pending, PersonRow, SinkRow, Store, StoreError, TenantRow, TestRow, UsageQuery,
    UsageRow, UsageSum, VersionRow, VirtualKeyRow,
};
use tokio::sync::watch;

/// A store that does as another one does, until it is told to fail.
#[derive(Debug)]
pub struct FailingStore {
    inner: Arc<dyn Store>,
    cues: Mutex<Vec<Cue>>,
    healed: watch::Sender<u64>,
    hanging: watch::Sender<usize>,
    deaf: Option<watch::Sender<u64>>,
    reads: AtomicU64,
}

/// What can be made to fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// `append`.
    Append,
    /// `apply` and `prune`.
    Apply,
    /// `put_checkpoint`, `put_policy`, `put_proposal` and `put_person`.
    PutCheckpoint,
    /// `lead` and `resign`.
    Lead,
    /// `reseal` and `end_key_work`.
    Reseal,
    /// `put_sink`.
    PutSink,
    /// `put_health` and `claim_probe`.
    Health,
    /// `count_usage` and `forget_usage`.
    CountUsage,
    /// `draw`, `report`, `reconcile` and `sweep`.
    Budget,
    /// Everything that only reads, `head` too.
    Read,
}

/// How it fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// `Unavailable`, and nothing was done.
    Before,
    /// `Unavailable`, although it was done.
    AfterPersisting,
    /// No answer until [`FailingStore::heal`]; then it is done.
    Hang,
}

#[derive(Clone, Copy, Debug)]
struct Cue {
    operation: Operation,
    fault: Fault,
    once: bool,
}

impl FailingStore {
    /// A store that works.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            cues: Mutex::default(),
            healed: watch::Sender::new(0),
            hanging: watch::Sender::new(0),
            deaf: None,
            reads: AtomicU64::new(0),
        }
    }

    /// A store that works, but never hears of other brokers' changes.
    pub fn deaf(inner: Arc<dyn Store>) -> Self {
        Self { deaf: Some(watch::Sender::new(0)), ..Self::new(inner) }
    }

    /// How often anything was only read.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Lets the operation fail from now on.
    pub fn fail(&self, operation: Operation, fault: Fault) {
        self.cues().push(Cue { operation, fault, once: false });
    }

    /// Lets the operation fail the next time only.
    pub fn fail_once(&self, operation: Operation, fault: Fault) {
        self.cues().push(Cue { operation, fault, once: true });
    }

    /// Lets everything work again, what hangs too.
    pub fn heal(&self) {
        self.cues().clear();
        self.healed.send_modify(|times| *times += 1);
    }

    /// Returns when at least so many operations hang.
    pub async fn until_hanging(&self, count: usize) {
        // The sender is ours, so there is no error.
        let _ = self.hanging.subscribe().wait_for(|hanging| *hanging >= count).await;
    }

    fn cues(&self) -> std::sync::MutexGuard<'_, Vec<Cue>> {
        self.cues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first fault that was asked for, with what tells of the next healing.
    fn fault(&self, operation: Operation) -> Option<(Fault, watch::Receiver<u64>)> {
        let mut cues = self.cues();
        let at = cues.iter().position(|cue| cue.operation == operation)?;
        let cue = cues.get(at).copied()?;
        if cue.once {
            cues.remove(at);
        }
        // Subscribed before the lock is let go, or a healing could pass unseen.
        Some((cue.fault, self.healed.subscribe()))
    }

    async fn pass<T>(
        &self,
        operation: Operation,
        done: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let Some((fault, mut healed)) = self.fault(operation) else { return done.await };
        match fault {
            Fault::Before => Err(failed()),
            Fault::AfterPersisting => {
                done.await?;
                Err(failed())
            }
            Fault::Hang => {
                let _hanging = Hanging::one_more(&self.hanging);
                let _ = healed.changed().await;
                done.await
            }
        }
    }

    async fn read<T>(
        &self,
        done: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.pass(Operation::Read, done).await
    }
}

/// Counts an operation that hangs, also when its caller gives it up.
struct Hanging<'a>(&'a watch::Sender<usize>);

impl<'a> Hanging<'a> {
    fn one_more(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl Store for FailingStore {
    fn deployment(&self) -> Uid {
        self.inner.deployment()
    }

    async fn head(&self) -> Result<Head, StoreError> {
        self.read(self.inner.head()).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.read(self.inner.now()).await
    }

    async fn append(&self, batch: &[Pending]) -> Result<Vec<Appended>, StoreError> {
        self.pass(Operation::Append, self.inner.append(batch)).await
    }

    async fn apply(&self, change: &Change, record: &RecordDraft) -> Result<Entry, StoreError> {
        self.pass(Operation::Apply, self.inner.apply(change, record)).await
    }

    async fn apply_approved(
        &self,
        used: &Pending,
        change: Option<&Change>,
        record: &RecordDraft,
    ) -> Result<Appended, StoreError> {
        self.pass(Operation::Apply, self.inner.apply_approved(used, change, record)).await
    }

    async fn tenant(&self, id: &TenantId) -> Result<Option<TenantRow>, StoreError> {
        self.read(self.inner.tenant(id)).await
    }

    async fn tenants(&self, page: Page<'_>) -> Result<Vec<TenantRow>, StoreError> {
        self.read(self.inner.tenants(page)).await
    }

    async fn keys(&self, tenant: Uid, purpose: KeyPurpose) -> Result<Vec<KeyRow>, StoreError> {
        self.read(self.inner.keys(tenant, purpose)).await
    }

    async fn credential(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
    ) -> Result<Option<CredentialRow>, StoreError> {
        self.read(self.inner.credential(tenant, id)).await
    }

    async fn credentials(
        &self,
        tenant: &TenantId,
        page: Page<'_>,
    ) -> Result<Vec<CredentialRow>, StoreError> {
        self.read(self.inner.credentials(tenant, page)).await
    }

    async fn rotations_due(
        &self,
        by: Timestamp,
        after: Option<&CredentialName>,
        limit: u32,
    ) -> Result<Vec<CredentialName>, StoreError> {
        self.read(self.inner.rotations_due(by, after, limit)).await
    }

    async fn has_served(
        &self,
        credential: &CredentialName,
        version: u64,
    ) -> Result<bool, StoreError> {
        self.read(self.inner.has_served(credential, version)).await
    }

    async fn version(
        &self,
        credential: Uid,
        version: u64,
    ) -> Result<Option<VersionRow>, StoreError> {
        self.read(self.inner.version(credential, version)).await
    }

    async fn credential_tests(&self, tenant: &TenantId) -> Result<Vec<TestRow>, StoreError> {
        self.read(self.inner.credential_tests(tenant)).await
    }

    async fn virtual_key(&self, id: &VirtualKeyId) -> Result<Option<VirtualKeyRow>, StoreError> {
        self.read(self.inner.virtual_key(id)).await
    }

    async fn virtual_keys(
        &self,
        tenant: &TenantId,
        page: Page<'_>,
    ) -> Result<Vec<VirtualKeyRow>, StoreError> {
        self.read(self.inner.virtual_keys(tenant, page)).await
    }

    async fn records(
        &self,
        from: u64,
        limit: u32,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(self.inner.records(from, limit, tenant)).await
    }

    async fn records_before(
        &self,
        before: u64,
        limit: u32,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(self.inner.records_before(before, limit, tenant)).await
    }

    async fn changes(&self, from: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
        self.read(self.inner.changes(from, limit)).await
    }

    async fn changes_of_kind(&self, kind: Kind) -> Result<Vec<Entry>, StoreError> {
        self.read(self.inner.changes_of_kind(kind)).await
    }

    fn wakeups(&self) -> Option<watch::Receiver<u64>> {
        match &self.deaf {
            Some(silent) => Some(silent.subscribe()),
            None => self.inner.wakeups(),
        }
    }

    async fn lead(&self, holder: Uid, term: Duration) -> Result<bool, StoreError> {
        self.pass(Operation::Lead, self.inner.lead(holder, term)).await
    }

    async fn resign(&self, holder: Uid) -> Result<(), StoreError> {
        self.pass(Operation::Lead, self.inner.resign(holder)).await
    }

    async fn lease_records(&self, lease_hash: &[u8]) -> Result<Vec<Entry>, StoreError> {
        self.read(self.inner.lease_records(lease_hash)).await
    }

    async fn live_leases(
        &self,
        tenant: &TenantId,
        now: Timestamp,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(self.inner.live_leases(tenant, now, before, limit)).await
    }

    async fn leaf_hashes(&self, range: Range<u64>) -> Result<Vec<Hash>, StoreError> {
        self.read(self.inner.leaf_hashes(range)).await
    }

    async fn prune(&self, before: u64, record: &RecordDraft) -> Result<Entry, StoreError> {
        self.pass(Operation::Apply, self.inner.prune(before, record)).await
    }

    async fn first_kept(&self) -> Result<u64, StoreError> {
        self.read(self.inner.first_kept()).await
    }

    async fn node_hashes(&self, level: u32, range: Range<u64>) -> Result<Vec<Hash>, StoreError> {
        self.read(self.inner.node_hashes(level, range)).await
    }

    async fn put_policy(&self, sha256: &Hash, document: &[u8]) -> Result<(), StoreError> {
        self.pass(Operation::PutCheckpoint, self.inner.put_policy(sha256, document)).await
    }

    async fn policy(&self, sha256: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(self.inner.policy(sha256)).await
    }

    async fn put_proposal(
        &self,
        sha256: &Hash,
        request: &[u8],
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let put = self.inner.put_proposal(sha256, request, until, now);
        self.pass(Operation::PutCheckpoint, put).await
    }

    async fn proposal(&self, sha256: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(self.inner.proposal(sha256)).await
    }

    async fn put_person(&self, row: &PersonRow) -> Result<(), StoreError> {
        self.pass(Operation::PutCheckpoint, self.inner.put_person(row)).await
    }

    async fn person(&self, handle: &[u8; 32]) -> Result<Option<PersonRow>, StoreError> {
        self.read(self.inner.person(handle)).await
    }

    async fn person_behind(&self, commitment: &Hash) -> Result<Option<PersonRow>, StoreError> {
        self.read(self.inner.person_behind(commitment)).await
    }

    async fn people(
        &self,
        tenant: Uid,
        after: Option<[u8; 32]>,
        limit: u32,
    ) -> Result<Vec<PersonRow>, StoreError> {
        self.read(self.inner.people(tenant, after, limit)).await
    }

    async fn erasures(&self) -> Result<Legible<ErasureRow>, StoreError> {
        self.read(self.inner.erasures()).await
    }

    async fn put_checkpoint(&self, size: u64, note: &str) -> Result<(), StoreError> {
        self.pass(Operation::PutCheckpoint, self.inner.put_checkpoint(size, note)).await
    }

    async fn drop_checkpoint(&self, size: u64) -> Result<(), StoreError> {
        self.pass(Operation::PutCheckpoint, self.inner.drop_checkpoint(size)).await
    }

    async fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        self.read(self.inner.checkpoint()).await
    }

    async fn sink(&self, name: &str) -> Result<Option<SinkRow>, StoreError> {
        self.read(self.inner.sink(name)).await
    }

    async fn sinks(&self) -> Result<Legible<SinkRow>, StoreError> {
        self.read(self.inner.sinks()).await
    }

    async fn put_sink(&self, row: &SinkRow) -> Result<(), StoreError> {
        self.pass(Operation::PutSink, self.inner.put_sink(row)).await
    }

    async fn put_health(&self, row: &HealthRow) -> Result<(), StoreError> {
        self.pass(Operation::Health, self.inner.put_health(row)).await
    }

    async fn claim_probe(
        &self,
        credential: Uid,
        since: Timestamp,
        now: Timestamp,
        lost: Timestamp,
    ) -> Result<bool, StoreError> {
        let claimed = self.inner.claim_probe(credential, since, now, lost);
        self.pass(Operation::Health, claimed).await
    }

    async fn healths(&self, changed_from: Timestamp) -> Result<Vec<HealthRow>, StoreError> {
        self.read(self.inner.healths(changed_from)).await
    }

    async fn health(&self, credential: Uid) -> Result<Option<HealthRow>, StoreError> {
        self.read(self.inner.health(credential)).await
    }

    async fn count_usage(&self, calls: &[UsageRow]) -> Result<Vec<bool>, StoreError> {
        self.pass(Operation::CountUsage, self.inner.count_usage(calls)).await
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, StoreError> {
        self.read(self.inner.usage(query)).await
    }

    async fn calls(&self, query: &CallQuery) -> Result<Vec<UsageRow>, StoreError> {
        self.read(self.inner.calls(query)).await
    }

    async fn forget_usage(
        &self,
        calls_before: Timestamp,
        sums_before: Timestamp,
    ) -> Result<u64, StoreError> {
        let forgotten = self.inner.forget_usage(calls_before, sums_before);
        self.pass(Operation::CountUsage, forgotten).await
    }

    async fn prices(&self, sha256: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(self.inner.prices(sha256)).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

fn failed() -> StoreError {
    StoreError::unavailable(io::Error::other("failed on cue"))
}

#[cfg(test)]
mod tests;
