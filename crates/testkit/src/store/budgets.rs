use async_trait::async_trait;
use domain::{Account, AccountKey, BudgetId, TenantId, Timestamp, Uid};
use store::{
    AllowanceRow, BudgetRow, BudgetStore, Draw, Drawn, Page, Reconcile, Reconciled, Report,
    Reported, StoreError, Swept,
};

use super::{FailingStore, Operation};

#[async_trait]
impl BudgetStore for FailingStore {
    async fn budget(
        &self,
        tenant: &TenantId,
        id: &BudgetId,
    ) -> Result<Option<BudgetRow>, StoreError> {
        self.read(self.inner.budget(tenant, id)).await
    }

    async fn budgets(
        &self,
        tenant: &TenantId,
        page: Page<'_>,
    ) -> Result<Vec<BudgetRow>, StoreError> {
        self.read(self.inner.budgets(tenant, page)).await
    }

    async fn accounts(
        &self,
        budget: Uid,
        window: Timestamp,
    ) -> Result<Vec<(AccountKey, Account)>, StoreError> {
        self.read(self.inner.accounts(budget, window)).await
    }

    async fn draw(&self, draw: &Draw) -> Result<Drawn, StoreError> {
        self.pass(Operation::Budget, self.inner.draw(draw)).await
    }

    fn undo(&self, id: Uid, attempt: Uid) {
        self.inner.undo(id, attempt);
    }

    async fn report(&self, reports: Vec<Report>) -> Result<Vec<Reported>, StoreError> {
        self.pass(Operation::Budget, self.inner.report(reports)).await
    }

    async fn unknown_allowances(
        &self,
        tenant: &TenantId,
        after: Option<Uid>,
        limit: u32,
    ) -> Result<Vec<AllowanceRow>, StoreError> {
        self.read(self.inner.unknown_allowances(tenant, after, limit)).await
    }

    async fn reconcile(&self, reconcile: Reconcile) -> Result<Vec<Reconciled>, StoreError> {
        self.pass(Operation::Budget, self.inner.reconcile(reconcile)).await
    }

    async fn sweep(&self, broker: Uid, at: Option<Timestamp>) -> Result<Swept, StoreError> {
        self.pass(Operation::Budget, self.inner.sweep(broker, at)).await
    }
}
