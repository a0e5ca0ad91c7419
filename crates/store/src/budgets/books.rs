use std::collections::{BTreeMap, BTreeSet};

use domain::{
    Account, AccountKey, Hold, Ledger, LedgerError, Place, ReservationState, Timestamp, Uid,
};

use crate::{
    AllowanceRow, StoreError,
    backend::{Backend, Value},
    budgets::{
        BudgetDone, BudgetWork, Counted, Draw, Drawn, Granted, Report, Reported,
        rows::{self, AccountRow},
    },
};

/// The rows that one transaction concerns, in a ledger, and as they were.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    pub(crate) allowances: BTreeMap<Uid, Slip>,
    pub(crate) accounts: BTreeMap<AccountKey, Page>,
}

/// An allowance, and as what it is kept.
#[derive(Debug)]
pub(crate) struct Slip {
    pub(crate) row: AllowanceRow,
    kept: Option<AllowanceRow>,
    /// It is to be forgotten.
    pub(crate) gone: bool,
}

/// An account, and as what it is kept.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) row: AccountRow,
    kept: AccountRow,
}

/// For how long what is closed stays, so that a repeated settlement is known as one.
const KEPT_CLOSED: std::time::Duration = std::time::Duration::from_hours(1);

/// Does all of it in the transaction that is open on this connection.
///
/// Rows are locked in one order everywhere, allowances by id and then accounts by budget and window,
/// so that no two transactions wait for each other in a circle.
pub(crate) async fn carry_out<B: Backend>(
    connection: &mut B::Connection,
    works: &[BudgetWork],
    now: Timestamp,
) -> Result<Vec<BudgetDone>, StoreError> {
    let mut books = Books::default();
    let ids = works.iter().map(|work| match work {
        BudgetWork::Draw(draw) => draw.id,
        BudgetWork::Report(report) => report.id,
        BudgetWork::Undo { id, .. } => *id,
    });
    books.load_allowances::<B>(connection, ids.collect()).await?;
    books.load_accounts::<B>(connection, works, &BTreeSet::new(), now).await?;
    let done = works.iter().map(|work| match work {
        BudgetWork::Draw(draw) => books.draw(draw, draw.at.unwrap_or(now)).map(BudgetDone::Drawn),
        BudgetWork::Report(report) => {
            Ok(BudgetDone::Reported(books.report(report, report.at.unwrap_or(now))))
        }
        BudgetWork::Undo { id, attempt } => {
            books.undo(*id, *attempt);
            Ok(BudgetDone::Undone)
        }
    });
    let done = done.collect::<Result<Vec<_>, StoreError>>()?;
    books.save::<B>(connection, now).await?;
    Ok(done)
}

impl Books {
    /// Reads these allowances and locks them.
    pub(crate) async fn load_allowances<B: Backend>(
        &mut self,
        connection: &mut B::Connection,
        ids: BTreeSet<Uid>,
    ) -> Result<(), StoreError> {
        for id in ids {
            let values = [Value::Bytes(id.as_bytes())];
            let found = B::fetch(connection, B::LOCK_ALLOWANCE, &values).await;
            if let Some(row) = found.map_err(StoreError::from_sqlx)?.first() {
                let row = rows::allowance(row)?;
                let kept = Some(row.clone());
                self.allowances.insert(id, Slip { row, kept, gone: false });
            }
        }
        Ok(())
    }

    /// Reads the accounts of what was loaded, of what is to be reserved, and these windows', and locks
    /// them; makes those that are missing of what is to be reserved.
    pub(crate) async fn load_accounts<B: Backend>(
        &mut self,
        connection: &mut B::Connection,
        works: &[BudgetWork],
        windows: &BTreeSet<(Uid, Timestamp)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut wanted: BTreeMap<(Uid, Timestamp), Option<&Counted>> =
            windows.iter().map(|window| (*window, None)).collect();
        for slip in self.allowances.values() {
            let holds = slip.row.reservation.holds.iter();
            wanted.extend(holds.map(|hold| ((hold.key.budget, hold.key.window), None)));
        }
        for work in works {
            let BudgetWork::Draw(draw) = work else { continue };
            for counted in &draw.budgets {
                let window = counted.budget.period.window(draw.at.unwrap_or(now)).start;
                let newest = wanted.entry((counted.budget.id, window)).or_default();
                if newest.is_none_or(|newest| newest.revision < counted.revision) {
                    *newest = Some(counted);
                }
            }
        }
        // Before anything is done: what is told anew must not be taken for what was told long ago.
        let begins = works.iter().filter_map(|work| work.at(now)).min();
        let begins = begins.or_else(|| works.is_empty().then_some(now));
        for ((budget, window), counted) in wanted {
            let mut found = lock_accounts::<B>(connection, budget, window).await?;
            if let Some(counted) = counted
                && made_missing::<B>(connection, &found, counted, window).await?
            {
                found = lock_accounts::<B>(connection, budget, window).await?;
            }
            for row in found {
                let mut page = Page { kept: row.clone(), row };
                if let Some(begins) = begins {
                    page.row.roll(begins);
                }
                self.accounts.insert(page.row.key, page);
            }
        }
        for page in self.accounts.values() {
            self.ledger.restore_account(page.row.key, page.row.account.clone());
            self.ledger.put_budget(rows::budget_behind(&page.row));
        }
        for (id, slip) in &self.allowances {
            let mut reservation = slip.row.reservation.clone();
            // A budget that was deleted holds nothing any more.
            let is_gone = |hold: &&mut Hold| self.ledger.account(&hold.key).is_none();
            for hold in reservation.holds.iter_mut().filter(is_gone) {
                hold.place = Place::Gone;
            }
            self.ledger.restore_reservation(*id, reservation);
        }
        Ok(())
    }

    fn draw(&mut self, draw: &Draw, now: Timestamp) -> Result<Drawn, StoreError> {
        if let Some(slip) = self.allowances.get(&draw.id).filter(|slip| !slip.gone) {
            let same = slip.row.holder == draw.holder && slip.row.virtual_key == draw.virtual_key;
            return Ok(if same { self.granted(draw.id, now, false) } else { Drawn::Taken });
        }
        for Counted { budget, revision } in &draw.budgets {
            let pages = self.accounts.values_mut().filter(|it| it.row.key.budget == budget.id);
            for page in pages {
                if page.row.revision > *revision {
                    return Ok(Drawn::Stale);
                }
                page.row.revision = *revision;
                page.row.rolling = budget.period.rolling();
                page.row.alerts.clone_from(&budget.alerts);
            }
            self.ledger.put_budget(budget.clone());
        }
        self.ledger.roll(now);
        let windows = draw.budgets.iter().filter_map(|it| it.budget.period.window(now).end);
        let ends_at = windows.chain(draw.ends_at).fold(now + draw.lasts, Ord::min);
        let budgets: Vec<Uid> = draw.budgets.iter().map(|it| it.budget.id).collect();
        let (need, wanted) = (&draw.need, &draw.wanted);
        match self.ledger.slice(draw.id, &budgets, need, wanted, now, ends_at) {
            Ok(reservation) => {
                let row = AllowanceRow {
                    id: draw.id,
                    attempt: draw.attempt,
                    tenant: draw.tenant.clone(),
                    virtual_key: draw.virtual_key.clone(),
                    holder: draw.holder.clone(),
                    reservation: reservation.clone(),
                    granted_at: now,
                    recorded: false,
                };
                let kept = self.allowances.remove(&draw.id).and_then(|slip| slip.kept);
                self.allowances.insert(draw.id, Slip { row, kept, gone: false });
                Ok(self.granted(draw.id, now, true))
            }
            Err(LedgerError::Exhausted(exhausted)) => Ok(Drawn::Exhausted(exhausted)),
            Err(_) => Err(StoreError::Corrupt(format!("allowance {}", draw.id))),
        }
    }

    fn granted(&self, id: Uid, now: Timestamp, is_new: bool) -> Drawn {
        let Some(reservation) = self.ledger.reservation(id) else { return Drawn::Taken };
        let account = |key: &AccountKey| Some((*key, self.ledger.account(key)?.clone()));
        let over = reservation.holds.iter().filter(|hold| is_new && hold.over);
        Drawn::Granted(Box::new(Granted {
            granted: reservation.granted,
            now,
            expires_at: reservation.expires_at,
            accounts: reservation.holds.iter().filter_map(|hold| account(&hold.key)).collect(),
            over: over.map(|hold| hold.key).collect(),
        }))
    }

    fn report(&mut self, report: &Report, now: Timestamp) -> Reported {
        let others = |slip: &Slip| slip.row.holder != report.holder || slip.gone;
        if self.allowances.get(&report.id).is_none_or(others) {
            return Reported::NoSuchAllowance;
        }
        self.ledger.roll(now);
        match self.ledger.settle(report.id, &report.settlement, now) {
            Ok(settled) => {
                self.ledger.alerts();
                Reported::Settled(settled)
            }
            Err(LedgerError::Contradiction) => Reported::Contradiction,
            Err(_) => Reported::NoSuchAllowance,
        }
    }

    fn undo(&mut self, id: Uid, attempt: Uid) {
        let Some(slip) = self.allowances.get_mut(&id) else { return };
        if slip.row.attempt == attempt && self.ledger.undo(id) {
            slip.gone = true;
        }
    }

    /// Writes back what is different now.
    pub(crate) async fn save<B: Backend>(
        &mut self,
        connection: &mut B::Connection,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for (key, page) in &mut self.accounts {
            if let Some(account) = self.ledger.account(key) {
                page.row.account = account.clone();
            }
            page.row.told = page.row.told.min(page.row.account.alerted);
            page.row.over_told &= page.row.account.over.reservations > 0;
            if page.row != page.kept {
                rows::update_account::<B>(connection, &page.row).await?;
            }
        }
        for (id, slip) in &mut self.allowances {
            if slip.gone {
                if slip.kept.is_some() {
                    rows::delete_allowance::<B>(connection, *id).await?;
                }
                continue;
            }
            if let Some(reservation) = self.ledger.reservation(*id) {
                slip.row.reservation = reservation.clone();
            }
            let due_at = match slip.row.reservation.state {
                ReservationState::Closed if slip.row.recorded => Some(now + KEPT_CLOSED),
                ReservationState::Closed => Some(now),
                ReservationState::Open | ReservationState::Unknown => self.ledger.due_at(*id),
            };
            match &slip.kept {
                None => rows::insert_allowance::<B>(connection, &slip.row, due_at).await?,
                // Undone and reserved again at once.
                Some(kept) if kept.attempt != slip.row.attempt => {
                    rows::delete_allowance::<B>(connection, *id).await?;
                    rows::insert_allowance::<B>(connection, &slip.row, due_at).await?;
                }
                Some(kept) if *kept != slip.row => {
                    rows::update_allowance::<B>(connection, &slip.row, due_at).await?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

async fn lock_accounts<B: Backend>(
    connection: &mut B::Connection,
    budget: Uid,
    window: Timestamp,
) -> Result<Vec<AccountRow>, StoreError> {
    let values = [Value::Bytes(budget.as_bytes()), window.into()];
    let found = B::fetch(connection, B::LOCK_ACCOUNTS, &values).await;
    found.map_err(StoreError::from_sqlx)?.iter().map(rows::account).collect()
}

/// Makes the accounts of a budget that are not among these, and says whether there were any.
async fn made_missing<B: Backend>(
    connection: &mut B::Connection,
    found: &[AccountRow],
    Counted { budget, revision }: &Counted,
    window: Timestamp,
) -> Result<bool, StoreError> {
    let mut made = false;
    for limit in budget.caps().filter(|it| !found.iter().any(|row| row.key.unit == it.unit)) {
        let row = AccountRow {
            key: AccountKey { budget: budget.id, unit: limit.unit, window },
            account: Account::new(limit.cap, budget.mode),
            revision: *revision,
            rolling: budget.period.rolling(),
            alerts: budget.alerts.clone(),
            told: 0,
            over_told: false,
        };
        rows::make_account::<B>(connection, &row).await?;
        made = true;
    }
    Ok(made)
}
