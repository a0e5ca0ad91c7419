use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use audit::{Approvals, Kind, Record};
use domain::{CredentialId, LONGEST_TTL, TenantId, Uid, VirtualKeyId};
use moka::sync::Cache;
use store::{BudgetRow, CredentialRow, KeyPurpose, KeyRow, Page, Store, TenantRow, VirtualKeyRow};
use tokio::sync::{OnceCell, watch};

use crate::{
    barred::Barred,
    custody::{Custody, Holder, StoredVersion},
    flights::Flights,
    prices::Prices,
    refused::Why,
    tokens::Tokens,
};

/// Tenants, credentials and virtual keys as of a known place in the log.
///
/// The log is what keeps these caches honest: every change of state is a record, a change that has
/// been applied here has thrown out what it concerns, and a lease is appended only if there is no
/// change after the place as of which it was decided ([`store::Pending::as_of`]). So a warm lease
/// reads no row, and yet none is granted on a state that no longer holds.
#[derive(Debug)]
pub(crate) struct Directory {
    store: Arc<dyn Store>,
    custody: Arc<Custody>,
    /// Every change before this index has been applied.
    applied: AtomicU64,
    /// The same, for those who wait for it to rise.
    progress: watch::Sender<u64>,
    /// Held while a change is applied and while something loaded is put in, never across an await:
    /// a load that began before a change does not get in after it.
    gate: Mutex<()>,
    tenants: Cache<TenantId, Arc<Tenant>>,
    /// `None` for an id that nobody has, so that asking for it again costs no more than one that is.
    virtual_keys: Cache<VirtualKeyId, Option<Arc<VirtualKeyRow>>>,
    /// What is being read, and the place in the log as of which: a read that began before a change
    /// answers nobody who asks after it.
    tenants_read: Flights<(TenantId, u64), Found<Tenant>>,
    virtual_keys_read: Flights<(VirtualKeyId, u64), Found<VirtualKeyRow>>,
    /// The revision that the log says each row has, or had when it was deleted. A row that is older
    /// has been put back.
    revisions: Mutex<HashMap<Named, u64>>,
    /// Leases that were revoked one by one; kept for as long as one can live.
    ended_leases: Cache<Vec<u8>, ()>,
    barred: Arc<Barred>,
    /// Tenants that were erased, by name: nobody can have it again.
    erased: Mutex<HashSet<String>>,
    /// Told of every change, too: what was made of credentials that have ended is over.
    tokens: Arc<Tokens>,
    prices: Arc<Prices>,
    /// Calls that need a second person.
    approvals: Mutex<Approvals>,
}

type Found<T> = Result<Option<Arc<T>>, Why>;

/// What has revisions.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Named {
    Tenant(String),
    Credential(Vec<u8>),
    VirtualKey(String),
    /// The tenant and the name, which may be used again.
    Budget(String, String),
}

/// A tenant with all that a route needs. Every row's MAC has been checked.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) row: TenantRow,
    pub(crate) keys: Vec<KeyRow>,
    /// By name.
    pub(crate) credentials: Vec<Held>,
    /// By name.
    pub(crate) budgets: Vec<BudgetRow>,
}

/// A credential, with its versions' ciphertext once that was needed.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) row: CredentialRow,
    current: OnceCell<StoredVersion>,
    /// The other one of a rotation.
    spare: OnceCell<StoredVersion>,
}

/// Tenants in memory; more are read again when they are needed.
const TENANTS: u64 = 20_000;

/// Virtual keys in memory.
const VIRTUAL_KEYS: u64 = 200_000;

/// How many rows one read of the store asks for.
const PAGE: u32 = 1000;

impl Directory {
    /// An empty directory that has applied nothing yet.
    pub(crate) fn new(store: &Arc<dyn Store>, custody: &Arc<Custody>, tokens: Arc<Tokens>) -> Self {
        Self {
            store: Arc::clone(store),
            custody: Arc::clone(custody),
            tokens,
            applied: AtomicU64::new(0),
            progress: watch::Sender::new(0),
            revisions: Mutex::default(),
            erased: Mutex::default(),
            gate: Mutex::new(()),
            tenants: Cache::new(TENANTS),
            virtual_keys: Cache::new(VIRTUAL_KEYS),
            tenants_read: Flights::default(),
            virtual_keys_read: Flights::default(),
            ended_leases: Cache::builder().time_to_live(LONGEST_TTL).build(),
            barred: Arc::default(),
            prices: Arc::default(),
            approvals: Mutex::default(),
        }
    }

    /// The place in the log as of which an answer given from now on holds, or a later one. Read it
    /// before the answers that a decision rests on.
    pub(crate) fn as_of(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Applies every change up to `changed`, if that is not done yet.
    pub(crate) async fn catch_up(&self, changed: u64) -> Result<(), Why> {
        loop {
            let applied = self.as_of();
            if applied >= changed {
                return Ok(());
            }
            let entries = self.store.changes(applied, PAGE).await?;
            let mut records = Vec::with_capacity(entries.len());
            for entry in &entries {
                records.push(entry.record().map_err(|error| Why::Corrupt(error.to_string()))?);
            }
            let full = records.len() == PAGE as usize;
            let reached = match entries.last() {
                Some(last) if full => last.index + 1,
                Some(last) => changed.max(last.index + 1),
                None => changed,
            };
            let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            for record in &records {
                self.raise(record);
                self.erase(record);
                self.barred.apply(record);
                self.tokens.apply(record);
                self.prices.apply(record);
                // A misstep is nothing to go by; who verifies the log is told of it.
                let _ = self.approvals.lock().unwrap_or_else(PoisonError::into_inner).apply(record);
                if let Ok(tenant) = record.tenant.parse::<TenantId>() {
                    self.tenants.invalidate(&tenant);
                }
                if let Ok(key) = record.virtual_key.parse::<VirtualKeyId>() {
                    self.virtual_keys.invalidate(&key);
                }
                if record.kind() == Kind::LeaseRevoked {
                    self.ended_leases.insert(record.lease_hash.to_vec(), ());
                }
            }
            let before = self.applied.fetch_max(reached, Ordering::Release);
            self.progress.send_replace(reached.max(before));
        }
    }

    /// Whether a lease was revoked. One that was revoked longer ago than a lease can live counts as
    /// not: it has ended by itself.
    pub(crate) fn lease_ended(&self, hash: &[u8; 32]) -> bool {
        self.ended_leases.contains_key(hash.as_slice())
    }

    /// Who must not go on.
    pub(crate) fn barred(&self) -> &Arc<Barred> {
        &self.barred
    }

    /// Looks at the calls that need a second person, and at the policy that was admitted.
    pub(crate) fn approvals<T>(&self, look: impl FnOnce(&Approvals) -> T) -> T {
        look(&self.approvals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which prices there are.
    pub(crate) fn prices(&self) -> &Arc<Prices> {
        &self.prices
    }

    /// Tells whenever changes have been applied.
    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// A tenant by name.
    pub(crate) async fn tenant(self: &Arc<Self>, id: &TenantId) -> Found<Tenant> {
        if let Some(tenant) = self.tenants.get(id) {
            return Ok(Some(tenant));
        }
        let as_of = self.as_of();
        let read = || {
            let (directory, id) = (Arc::clone(self), id.clone());
            async move { directory.read_tenant(&id, as_of).await }
        };
        self.tenants_read.join((id.clone(), as_of), read).await
    }

    async fn read_tenant(&self, id: &TenantId, as_of: u64) -> Found<Tenant> {
        let Some(tenant) = self.load_tenant(id).await?.map(Arc::new) else { return Ok(None) };
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if self.as_of() == as_of {
            self.tenants.insert(id.clone(), Arc::clone(&tenant));
        }
        Ok(Some(tenant))
    }

    /// A virtual key by the id inside it.
    pub(crate) async fn virtual_key(self: &Arc<Self>, id: &VirtualKeyId) -> Found<VirtualKeyRow> {
        if let Some(known) = self.virtual_keys.get(id) {
            return Ok(known);
        }
        let as_of = self.as_of();
        let read = || {
            let (directory, id) = (Arc::clone(self), id.clone());
            async move { directory.read_virtual_key(&id, as_of).await }
        };
        self.virtual_keys_read.join((id.clone(), as_of), read).await
    }

    async fn read_virtual_key(
        self: &Arc<Self>,
        id: &VirtualKeyId,
        as_of: u64,
    ) -> Found<VirtualKeyRow> {
        let row = self.load_virtual_key(id).await?.map(Arc::new);
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if self.as_of() == as_of {
            self.virtual_keys.insert(id.clone(), row.clone());
        }
        Ok(row)
    }

    async fn load_virtual_key(
        self: &Arc<Self>,
        id: &VirtualKeyId,
    ) -> Result<Option<VirtualKeyRow>, Why> {
        let Some(row) = self.store.virtual_key(id).await? else { return Ok(None) };
        let tenant = self.tenant(&row.tenant).await?.ok_or_else(|| orphan(&row))?;
        if tenant.row.uid != row.tenant_uid {
            return Err(orphan(&row));
        }
        self.custody.verify(tenant.holder(), &row).await?;
        self.check_age(&Named::VirtualKey(row.id.to_string()), row.revision)?;
        Ok(Some(row))
    }

    /// Forgets the keys of what was erased, at once.
    fn erase(&self, record: &Record) {
        if record.kind() == Kind::TenantShredded {
            if let Ok(key) = <[u8; 16]>::try_from(&*record.kek_id) {
                self.custody.forget(Uid::from_bytes(key));
            }
            let mut erased = self.erased.lock().unwrap_or_else(PoisonError::into_inner);
            erased.insert(record.tenant.clone());
        }
    }

    /// Whether a tenant of this name was erased.
    pub(crate) fn is_erased(&self, tenant: &TenantId) -> bool {
        let erased = self.erased.lock().unwrap_or_else(PoisonError::into_inner);
        erased.contains(tenant.as_str())
    }

    /// Takes note of the revision that a change made.
    fn raise(&self, record: &Record) {
        let named = if !record.budget.is_empty() {
            Named::Budget(record.tenant.clone(), record.budget.clone())
        } else if !record.virtual_key.is_empty() {
            Named::VirtualKey(record.virtual_key.clone())
        } else if !record.credential_uid.is_empty() {
            Named::Credential(record.credential_uid.to_vec())
        } else {
            Named::Tenant(record.tenant.clone())
        };
        // A revision is what these have; a lease, a session or an identity has none.
        // Prices count theirs apart from their tenant's.
        let kind = record.kind();
        let counts = !matches!(kind, Kind::LeaseRevoked | Kind::PricesChanged);
        if record.revision > 0 && counts {
            let mut revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
            let known = revisions.entry(named).or_default();
            // A budget of this name that is gone says nothing of a new one.
            let is_new = record.kind() == Kind::BudgetCreated;
            *known = if is_new { record.revision } else { record.revision.max(*known) };
        }
    }

    /// Refuses a row that is older than the log says: a genuine one, but put back.
    fn check_age(&self, named: &Named, revision: u64) -> Result<(), Why> {
        let revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        match revisions.get(named) {
            Some(known) if revision < *known => Err(Why::Corrupt(format!(
                "{named:?} has revision {revision}, and had {known}: an old row was put back"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    async fn load_tenant(&self, id: &TenantId) -> Result<Option<Tenant>, Why> {
        let Some(row) = self.store.tenant(id).await? else { return Ok(None) };
        if self.is_erased(id) {
            return Err(Why::Corrupt(format!("{} was erased, and put back", id.resource())));
        }
        let keys = self.store.keys(row.uid, KeyPurpose::Kek).await?;
        self.custody.check_roots(id, &keys)?;
        // A row that was read before the keys may be under a version that is gone since. One that is
        // read after them is under one of them, or under a newer one, which is looked up.
        let Some(row) = self.store.tenant(id).await?.filter(|again| again.uid == row.uid) else {
            return Ok(None);
        };
        let holder = Holder { tenant: id, uid: row.uid, keys: &keys };
        self.custody.verify(holder, &row).await?;
        self.check_age(&Named::Tenant(row.id.to_string()), row.revision)?;
        let mut credentials: Vec<Held> = Vec::new();
        loop {
            let after = credentials.last().map(|held| held.row.id.to_string()).unwrap_or_default();
            let page = Page { after: &after, limit: PAGE };
            let rows = self.store.credentials(id, page).await?;
            let full = rows.len() == PAGE as usize;
            for row in rows {
                // Not even which credential comes first can be believed of a tenant with such a row.
                let genuine = self.custody.verify(holder, &row).await;
                let named = Named::Credential(row.uid.as_bytes().to_vec());
                genuine
                    .and_then(|()| self.check_age(&named, row.revision))
                    .map_err(|why| why.of_credential(&row.name()))?;
                credentials.push(Held::from(row));
            }
            if !full {
                let budgets = self.load_budgets(holder).await?;
                return Ok(Some(Tenant { row, keys, credentials, budgets }));
            }
        }
    }
}

impl Directory {
    async fn load_budgets(&self, of: Holder<'_>) -> Result<Vec<BudgetRow>, Why> {
        let budgets = self.store.budgets(of.tenant, Page { after: "", limit: PAGE }).await?;
        for row in &budgets {
            self.custody.verify(of, row).await?;
            let named = Named::Budget(row.tenant.to_string(), row.id.to_string());
            self.check_age(&named, row.revision)?;
        }
        Ok(budgets)
    }
}

impl Tenant {
    /// Whose keys these are.
    pub(crate) fn holder(&self) -> Holder<'_> {
        Holder { tenant: &self.row.id, uid: self.row.uid, keys: &self.keys }
    }

    /// A credential of the tenant by name.
    pub(crate) fn credential(&self, id: &CredentialId) -> Option<&Held> {
        self.credentials.iter().find(|held| held.row.id == *id)
    }
}

#[cfg(test)]
impl Directory {
    /// Knows a tenant as if it had been read.
    pub(crate) fn knows(&self, tenant: Tenant) {
        self.tenants.insert(tenant.row.id.clone(), Arc::new(tenant));
    }
}

impl From<CredentialRow> for Held {
    fn from(row: CredentialRow) -> Self {
        Self { row, current: OnceCell::new(), spare: OnceCell::new() }
    }
}

impl Held {
    /// The ciphertext of the current version, or of the other one of a rotation.
    pub(crate) async fn version(
        &self,
        custody: &Custody,
        version: u64,
    ) -> Result<&StoredVersion, Why> {
        let is_current = version == self.row.current_version;
        let place = if is_current { &self.current } else { &self.spare };
        place.get_or_try_init(|| custody.version(&self.row, version)).await
    }
}

fn orphan(row: &VirtualKeyRow) -> Why {
    Why::Corrupt(format!("virtual key {} is of a tenant that is not there", row.id))
}
