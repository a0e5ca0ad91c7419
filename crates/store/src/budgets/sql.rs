use async_trait::async_trait;
use domain::{Account, AccountKey, BudgetId, TenantId, Timestamp, Uid};
use tokio::sync::oneshot;

use crate::{
    AllowanceRow, BudgetRow, BudgetStore, Page, StoreError,
    backend::{Backend, Value},
    budgets::{
        BudgetDone, BudgetWork, Draw, Drawn, Reconcile, Reconciled, Report, Reported, Swept,
        lock_accounts,
        queue::{Queued, STEP},
        rows,
    },
    sql_store::SqlStore,
    writer::Job,
};

#[async_trait]
impl<B: Backend> BudgetStore for SqlStore<B> {
    async fn budget(
        &self,
        tenant: &TenantId,
        id: &BudgetId,
    ) -> Result<Option<BudgetRow>, StoreError> {
        const SQL: &str = "SELECT * FROM budget WHERE tenant = $1 AND id = $2";
        self.one(SQL, &[tenant.as_str().into(), id.as_str().into()], rows::budget).await
    }

    async fn budgets(
        &self,
        tenant: &TenantId,
        page: Page<'_>,
    ) -> Result<Vec<BudgetRow>, StoreError> {
        const SQL: &str = "\
            SELECT * FROM budget WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3";
        let values = [tenant.as_str().into(), page.after.into(), page.limit.into()];
        self.all(SQL, &values, rows::budget).await
    }

    async fn accounts(
        &self,
        budget: Uid,
        window: Timestamp,
    ) -> Result<Vec<(AccountKey, Account)>, StoreError> {
        const SQL: &str = lock_accounts!("");
        let values = [Value::Bytes(budget.as_bytes()), window.into()];
        let found = self.all(SQL, &values, rows::account).await?;
        Ok(found.into_iter().map(|row| (row.key, row.account)).collect())
    }

    async fn draw(&self, draw: &Draw) -> Result<Drawn, StoreError> {
        match self.work(vec![BudgetWork::Draw(Box::new(draw.clone()))]).await?.pop() {
            Some(BudgetDone::Drawn(drawn)) => Ok(drawn),
            Some(BudgetDone::Reported(_) | BudgetDone::Undone) | None => {
                Err(StoreError::not_taken_on())
            }
        }
    }

    fn undo(&self, id: Uid, attempt: Uid) {
        let queued = Queued { works: vec![BudgetWork::Undo { id, attempt }], answer: None };
        if self.budgets.try_send(queued).is_err() {
            tracing::warn!(allowance = %id, "an allowance that nobody heard of stays until it expires");
        }
    }

    async fn report(&self, reports: Vec<Report>) -> Result<Vec<Reported>, StoreError> {
        let mut reported = Vec::with_capacity(reports.len());
        for step in reports.chunks(STEP) {
            let works = step.iter().cloned().map(Box::new).map(BudgetWork::Report).collect();
            for done in self.work(works).await? {
                match done {
                    BudgetDone::Reported(it) => reported.push(it),
                    BudgetDone::Drawn(_) | BudgetDone::Undone => {
                        return Err(StoreError::not_taken_on());
                    }
                }
            }
        }
        Ok(reported)
    }

    async fn unknown_allowances(
        &self,
        tenant: &TenantId,
        after: Option<Uid>,
        limit: u32,
    ) -> Result<Vec<AllowanceRow>, StoreError> {
        const SQL: &str = "\
            SELECT * FROM allowance WHERE tenant = $1 AND state = 'unknown' AND id > $2 \
            ORDER BY id LIMIT $3";
        let after = after.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
        let values = [tenant.as_str().into(), Value::Bytes(&after), limit.into()];
        self.all(SQL, &values, rows::allowance).await
    }

    async fn reconcile(&self, reconcile: Reconcile) -> Result<Vec<Reconciled>, StoreError> {
        self.write(|answer| Job::Reconcile(Box::new(reconcile), answer)).await
    }

    async fn sweep(&self, broker: Uid, at: Option<Timestamp>) -> Result<Swept, StoreError> {
        self.write(|answer| Job::Sweep(broker, at, answer)).await
    }
}

impl<B: Backend> SqlStore<B> {
    async fn work(&self, works: Vec<BudgetWork>) -> Result<Vec<BudgetDone>, StoreError> {
        let (answer, done) = oneshot::channel();
        let queued = Queued { works, answer: Some(answer) };
        self.budgets.send(queued).await.map_err(|_| StoreError::not_taken_on())?;
        done.await.map_err(|_| StoreError::not_taken_on())?
    }
}
