use domain::{RequestId, Unit};

use crate::{
    BudgetRow, StoreError,
    backend::{Backend, Value},
    budgets::rows::write_limits,
    change::{before, insert, replace},
};

pub(crate) async fn create_budget<B: Backend>(
    connection: &mut B::Connection,
    row: &BudgetRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO budget (mode, limits, alerts, revision, updated_at, row_mac, uid, tenant_uid, \
            tenant, id, holder, period, request_id, created_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    let texts = Texts::of(row);
    let (holder, period) = (row.budget.holder.to_string(), row.budget.period.to_string());
    let mut values = state(row, &texts).to_vec();
    values.extend([
        Value::Bytes(row.budget.id.as_bytes()),
        Value::Bytes(row.tenant_uid.as_bytes()),
        row.tenant.as_str().into(),
        row.id.as_str().into(),
        holder.as_str().into(),
        period.as_str().into(),
        Value::Text(row.request_id.as_ref().map(RequestId::as_str)),
        row.created_at.into(),
    ]);
    insert::<B>(connection, SQL, &values, &row.name().to_string()).await
}

/// Changes a budget, and at once what its accounts may hold. What they hold already stays.
pub(crate) async fn update_budget<B: Backend>(
    connection: &mut B::Connection,
    row: &BudgetRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        UPDATE budget SET mode = $1, limits = $2, alerts = $3, revision = $4, updated_at = $5, \
            row_mac = $6 \
        WHERE uid = $7 AND revision = $8";
    const ACCOUNTS: &str = "\
        UPDATE budget_account SET cap = $1, mode = $2, alerts = $3, revision = $4 \
        WHERE budget = $5 AND unit = $6";
    let texts = Texts::of(row);
    let mut values = state(row, &texts).to_vec();
    values.extend([Value::Bytes(row.budget.id.as_bytes()), before(row.revision)]);
    replace::<B>(connection, SQL, &values, &row.name().to_string()).await?;
    for unit in Unit::ALL {
        let Some(limit) = row.budget.caps().find(|limit| limit.unit == unit) else { continue };
        let values = [
            limit.cap.into(),
            row.budget.mode.as_str().into(),
            texts.alerts.as_str().into(),
            row.revision.into(),
            Value::Bytes(row.budget.id.as_bytes()),
            unit.as_str().into(),
        ];
        B::execute(connection, ACCOUNTS, &values).await.map_err(StoreError::from_sqlx)?;
    }
    Ok(())
}

/// Ends a budget and all that is counted in it.
pub(crate) async fn delete_budget<B: Backend>(
    connection: &mut B::Connection,
    row: &BudgetRow,
) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM budget WHERE uid = $1 AND revision = $2";
    const ACCOUNTS: &str = "DELETE FROM budget_account WHERE budget = $1";
    let uid = Value::Bytes(row.budget.id.as_bytes());
    replace::<B>(connection, SQL, &[uid, before(row.revision)], &row.name().to_string()).await?;
    B::execute(connection, ACCOUNTS, &[uid]).await.map(drop).map_err(StoreError::from_sqlx)
}

struct Texts {
    limits: String,
    alerts: String,
}

impl Texts {
    fn of(row: &BudgetRow) -> Self {
        Self {
            limits: write_limits(&row.budget.limits),
            alerts: serde_json::to_string(&row.budget.alerts).unwrap_or_default(),
        }
    }
}

/// The columns that can change, in the order of both statements.
fn state<'a>(row: &'a BudgetRow, texts: &'a Texts) -> [Value<'a>; 6] {
    [
        row.budget.mode.as_str().into(),
        texts.limits.as_str().into(),
        texts.alerts.as_str().into(),
        row.revision.into(),
        row.updated_at.into(),
        Value::Bytes(&row.row_mac),
    ]
}
