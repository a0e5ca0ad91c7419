//! What budgets have in the database: their rows, the accounts of their windows, and the allowances
//! that are held of them. The rules are `domain::Ledger`'s: a transaction brings the rows that it
//! concerns into one, carries the work out there, and writes back what is different.

use std::time::Duration;

use async_trait::async_trait;
use audit::{Entry, Record};
use domain::{
    Account, AccountKey, Amounts, Budget, BudgetId, BudgetName, Exhausted, RequestId, Reservation,
    Settled, Settlement, Spending, TenantId, Timestamp, Uid, VirtualKeyId,
};

use crate::{Page, RowMac, StoreError};

mod books;
pub(crate) mod change;
pub(crate) mod queue;
pub(crate) mod rows;
mod sql;
pub(crate) mod sweep;

pub(crate) use books::carry_out;
pub use rows::write_limits;
pub(crate) use rows::{lock_accounts, lock_allowance};

/// What is kept of budgets and allowances.
///
/// Nothing here is a record in the log but what [`BudgetStore::sweep`] and
/// [`BudgetStore::reconcile`] say is one: a lease that spends is on record by itself.
#[async_trait]
pub trait BudgetStore {
    /// A budget by name.
    async fn budget(
        &self,
        tenant: &TenantId,
        id: &BudgetId,
    ) -> Result<Option<BudgetRow>, StoreError>;

    /// A tenant's budgets after `after`, by name.
    async fn budgets(
        &self,
        tenant: &TenantId,
        page: Page<'_>,
    ) -> Result<Vec<BudgetRow>, StoreError>;

    /// The accounts of one budget's window. None of a limit of which nothing was ever reserved in it.
    async fn accounts(
        &self,
        budget: Uid,
        window: Timestamp,
    ) -> Result<Vec<(AccountKey, Account)>, StoreError>;

    /// Reserves an allowance in all of its budgets or in none. The same id again is the same
    /// allowance, whatever became of the first answer.
    async fn draw(&self, draw: &Draw) -> Result<Drawn, StoreError>;

    /// Takes an allowance back whose answer reaches nobody, soon and without an answer. Only what this
    /// very attempt reserved goes, and only if nothing was settled of it.
    fn undo(&self, id: Uid, attempt: Uid);

    /// Settles allowances, each once, however often it is said. What is not refused is durable.
    async fn report(&self, reports: Vec<Report>) -> Result<Vec<Reported>, StoreError>;

    /// A tenant's allowances of which nobody knows what became of the rest, after an id, by id.
    async fn unknown_allowances(
        &self,
        tenant: &TenantId,
        after: Option<Uid>,
        limit: u32,
    ) -> Result<Vec<AllowanceRow>, StoreError>;

    /// Says of a tenant's unknown allowances what became of the rest, and appends a record of each, like
    /// `record` in all else, in one transaction: all or nothing.
    async fn reconcile(&self, reconcile: Reconcile) -> Result<Vec<Reconciled>, StoreError>;

    /// Does what time has made due, a page of it: gives up what has expired, raises alerts, forgets what
    /// is long settled, and appends the records of it in the same transaction. `at` is when; by the
    /// database's clock when it does not say.
    async fn sweep(&self, broker: Uid, at: Option<Timestamp>) -> Result<Swept, StoreError>;
}

/// A budget as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BudgetRow {
    /// Whose it is.
    pub tenant_uid: Uid,
    /// The tenant's name, which never changes.
    pub tenant: TenantId,
    /// The name, unique for the tenant.
    pub id: BudgetId,
    /// What may be spent, with the permanent id.
    pub budget: Budget,
    /// Rises by 1 with each change, from 1.
    pub revision: u64,
    /// The request that made it, so that it can be repeated.
    pub request_id: Option<RequestId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The MAC over all of the above.
    pub row_mac: RowMac,
}

impl BudgetRow {
    /// The resource name.
    pub fn name(&self) -> BudgetName {
        BudgetName { tenant: self.tenant.clone(), budget: self.id.clone() }
    }
}

/// An allowance as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AllowanceRow {
    /// Chosen by who asked for it.
    pub id: Uid,
    /// Names the request that reserved it.
    pub attempt: Uid,
    /// Whose money it is.
    pub tenant: TenantId,
    /// For whose calls it is.
    pub virtual_key: VirtualKeyId,
    /// What the log calls who may settle it.
    pub holder: String,
    /// What is held, and where.
    pub reservation: Reservation,
    /// When it was reserved.
    pub granted_at: Timestamp,
    /// Whether its end is in the log.
    pub recorded: bool,
}

/// A wish for an allowance.
#[derive(Clone, Debug)]
pub struct Draw {
    /// Chosen by who asks.
    pub id: Uid,
    /// Names this request; see [`BudgetStore::undo`].
    pub attempt: Uid,
    /// Whose money it is.
    pub tenant: TenantId,
    /// For whose calls.
    pub virtual_key: VirtualKeyId,
    /// What the log calls who asks.
    pub holder: String,
    /// The budgets that the calls count in: at least one.
    pub budgets: Vec<Counted>,
    /// What the call at hand may come to.
    pub need: Amounts,
    /// What would be welcome.
    pub wanted: Amounts,
    /// How long it is to last at the most. It ends before, with the first of its windows.
    pub lasts: Duration,
    /// When it is to end at the latest.
    pub ends_at: Option<Timestamp>,
    /// When it is asked for; by the database's clock when it does not say.
    pub at: Option<Timestamp>,
}

/// A budget, and how often what limits it had changed.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The budget.
    pub budget: Budget,
    /// Its revision, or that of the row whose rate limits it is.
    pub revision: u64,
}

/// What became of a [`Draw`].
#[derive(Clone, Debug)]
pub enum Drawn {
    /// It is reserved, now or by the same wish before.
    Granted(Box<Granted>),
    /// A limit has no room. Nothing was reserved.
    Exhausted(Exhausted),
    /// The id is that of another's allowance.
    Taken,
    /// A budget has changed since the caller read it: read it again.
    Stale,
}

/// An allowance that is reserved.
#[derive(Clone, Debug)]
pub struct Granted {
    /// How much.
    pub granted: Amounts,
    /// When it was looked at, by the clock that `expires_at` is of.
    pub now: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The accounts that it is of, as they stand now.
    pub accounts: Vec<(AccountKey, Account)>,
    /// Those of them that granted it without room, as shadows do: told when it is reserved, not when it
    /// is asked for again.
    pub over: Vec<AccountKey>,
}

/// What a holder says of its allowance.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which.
    pub id: Uid,
    /// What the log calls who says it.
    pub holder: String,
    /// What it says.
    pub settlement: Settlement,
    /// When; by the database's clock when it does not say.
    pub at: Option<Timestamp>,
}

/// What became of a [`Report`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reported {
    /// It is on the books.
    Settled(Settled),
    /// This holder has no such allowance.
    NoSuchAllowance,
    /// It takes back what was said before, or gives back more than was granted.
    Contradiction,
}

/// What an administrator says of unknown allowances.
#[derive(Clone, Debug)]
pub struct Reconcile {
    /// Whose they are.
    pub tenant: TenantId,
    /// What the rest of each turned out to be.
    pub found: Vec<Found>,
    /// Who says it and how.
    pub record: Record,
    /// When; by the database's clock when it does not say.
    pub at: Option<Timestamp>,
}

/// What the rest of an unknown allowance turned out to be.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Which.
    pub id: Uid,
    /// What its calls came to beyond what had been reported.
    pub spent: Spending,
    /// What of that was on managed credentials.
    pub managed: Spending,
}

/// What became of one of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reconciled {
    /// It is settled, now or before.
    Settled(Settled),
    /// The tenant has no such allowance.
    NoSuchAllowance,
    /// Its holder may still say.
    Open,
    /// More of it is managed than was spent.
    Contradiction,
}

/// What a [`BudgetStore::sweep`] has done.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// What it recorded.
    pub entries: Vec<Entry>,
    /// Whether there may be more to do at once.
    pub more: bool,
}

/// One thing to do in a transaction, which may be done again if nobody knows whether it was done.
#[derive(Clone, Debug)]
pub(crate) enum BudgetWork {
    Draw(Box<Draw>),
    Report(Box<Report>),
    Undo { id: Uid, attempt: Uid },
}

impl BudgetWork {
    /// When it is done, of what has a time.
    pub(crate) fn at(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Draw(draw) => Some(draw.at.unwrap_or(now)),
            Self::Report(report) => Some(report.at.unwrap_or(now)),
            Self::Undo { .. } => None,
        }
    }
}

/// What became of it.
#[derive(Clone, Debug)]
pub(crate) enum BudgetDone {
    Drawn(Drawn),
    Reported(Reported),
    Undone,
}
