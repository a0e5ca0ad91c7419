use std::sync::Arc;

use audit::{Kind, Record, proto_amounts, proto_spent};
use domain::{BudgetHolder, BudgetName, RequestId, Uid, VirtualKeyName};
use store::{AllowanceRow, BudgetRow, Change, Found, Page, Reconcile, Reconciled};
use strongroom_proto::v1::{self, budgets_server::Budgets};
use tonic::{Request, Response, Status};

use crate::{
    allowances::allowance_id,
    caller::Caller,
    core::{Core, accept, check_etag, next_page, page_size, parse, parse_optional, parse_tenant},
    custody::Sealed as _,
    directory::Tenant,
    refused::{About, Refused, Why},
};

mod terms;

use terms::{accounts, message};

/// `strongroom.v1.Budgets`.
#[derive(Clone, Debug)]
pub(crate) struct BudgetService(pub(crate) Arc<Core>);

/// The most budgets of one tenant: each lease looks through them.
const MOST: usize = 100;

/// The most allowances that are reconciled at once.
const MOST_FOUND: usize = 1000;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Budgets for BudgetService {
    async fn create_budget(&self, request: Request<v1::CreateBudgetRequest>) -> Answer<v1::Budget> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.create_budget(&caller, request)).await
    }

    async fn get_budget(&self, request: Request<v1::GetBudgetRequest>) -> Answer<v1::Budget> {
        let (caller, request) = accept(request)?;
        let work = async {
            let name: BudgetName = parse(&request.name)?;
            let about = About::from(&name.tenant);
            caller.concerns(about.clone());
            let tenant = self.0.tenant(&caller, &name.tenant).await;
            let tenant = tenant.map_err(|why| Refused::about(why, &about))?;
            let row = named(&tenant, &name).map_err(|why| Refused::about(why, &about))?;
            self.0.standing(row).await.map_err(|why| Refused::about(why, &about))
        };
        self.0.answer(&caller, work).await
    }

    async fn list_budgets(
        &self,
        request: Request<v1::ListBudgetsRequest>,
    ) -> Answer<v1::ListBudgetsResponse> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.list_budgets(&caller, &request)).await
    }

    async fn update_budget(&self, request: Request<v1::UpdateBudgetRequest>) -> Answer<v1::Budget> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.update_budget(&caller, request)).await
    }

    async fn delete_budget(
        &self,
        request: Request<v1::DeleteBudgetRequest>,
    ) -> Answer<v1::DeleteBudgetResponse> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.delete_budget(&caller, &request)).await
    }

    async fn list_unknown_allowances(
        &self,
        request: Request<v1::ListUnknownAllowancesRequest>,
    ) -> Answer<v1::ListUnknownAllowancesResponse> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.list_unknown_allowances(&caller, &request)).await
    }

    async fn reconcile_allowances(
        &self,
        request: Request<v1::ReconcileAllowancesRequest>,
    ) -> Answer<v1::ReconcileAllowancesResponse> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.reconcile_allowances(&caller, &request)).await
    }
}

impl Core {
    pub(crate) async fn create_budget(
        &self,
        caller: &Caller,
        request: v1::CreateBudgetRequest,
    ) -> Result<v1::Budget, Refused> {
        let tenant = parse_tenant(&request.parent)?;
        let about = About::from(&tenant);
        caller.concerns(about.clone());
        let work = async {
            let name = BudgetName { tenant, budget: parse(&request.budget_id)? };
            let request_id = parse_optional::<RequestId>(&request.request_id)?;
            self.catch_up().await?;
            let tenant = self.tenant(caller, &name.tenant).await?;
            if let Ok(existing) = named(&tenant, &name) {
                // The same request again: its answer may have been lost.
                return if request_id.is_some() && existing.request_id == request_id {
                    self.standing(existing).await
                } else {
                    Err(Why::NameTaken(name.to_string()))
                };
            }
            if tenant.budgets.len() >= MOST {
                return Err(Why::InvalidField("a tenant has 100 budgets at most".into()));
            }
            let asked = request.budget.unwrap_or_default();
            let budget = terms::budget(Uid::random()?, &asked)?;
            if let BudgetHolder::VirtualKey(id) = &budget.holder {
                let key = VirtualKeyName { tenant: name.tenant.clone(), id: id.clone() };
                let row = self.directory.virtual_key(&key.id).await?;
                row.filter(|row| row.tenant == key.tenant).ok_or(Why::NoSuchVirtualKey)?;
            }
            let now = self.clock.now();
            let mut row = BudgetRow {
                tenant_uid: tenant.row.uid,
                tenant: name.tenant.clone(),
                id: name.budget.clone(),
                budget,
                revision: 1,
                request_id,
                created_at: now,
                updated_at: now,
                row_mac: [0; 36],
            };
            row.row_mac = row.mac_under(&*self.custody.kek(&tenant.keys).await?);
            let change = Change::CreateBudget(row.clone());
            self.change(&change, caller.stamp(record(Kind::BudgetCreated, &row))).await?;
            self.standing(&row).await
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    pub(crate) async fn list_budgets(
        &self,
        caller: &Caller,
        request: &v1::ListBudgetsRequest,
    ) -> Result<v1::ListBudgetsResponse, Refused> {
        let id = parse_tenant(&request.parent)?;
        let about = About::from(&id);
        caller.concerns(about.clone());
        let tenant = self.tenant(caller, &id).await.map_err(|why| Refused::about(why, &about))?;
        let limit = page_size(request.page_size)?;
        let rows = self.store.budgets(&id, Page { after: &request.page_token, limit }).await?;
        let mut budgets = Vec::with_capacity(rows.len());
        for row in &rows {
            self.custody.verify(tenant.holder(), row).await?;
            budgets.push(self.standing(row).await?);
        }
        let next_page_token = next_page(&rows, limit, |row| row.id.to_string());
        Ok(v1::ListBudgetsResponse { budgets, next_page_token })
    }

    pub(crate) async fn update_budget(
        &self,
        caller: &Caller,
        request: v1::UpdateBudgetRequest,
    ) -> Result<v1::Budget, Refused> {
        let asked = request.budget.unwrap_or_default();
        let name: BudgetName = parse(&asked.name)?;
        let about = About::from(&name.tenant);
        caller.concerns(about.clone());
        let work = async {
            self.catch_up().await?;
            let tenant = self.tenant(caller, &name.tenant).await?;
            let mut row = named(&tenant, &name)?.clone();
            check_etag(&asked.etag, row.revision)?;
            (row.budget.mode, row.budget.limits, row.budget.alerts) = terms::changeable(&asked)?;
            row.revision += 1;
            row.updated_at = self.clock.now();
            row.row_mac = row.mac_under(&*self.custody.kek(&tenant.keys).await?);
            let change = Change::UpdateBudget(row.clone());
            self.change(&change, caller.stamp(record(Kind::BudgetUpdated, &row))).await?;
            self.standing(&row).await
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    pub(crate) async fn delete_budget(
        &self,
        caller: &Caller,
        request: &v1::DeleteBudgetRequest,
    ) -> Result<v1::DeleteBudgetResponse, Refused> {
        let name: BudgetName = parse(&request.name)?;
        let about = About::from(&name.tenant);
        caller.concerns(about.clone());
        let work = async {
            self.catch_up().await?;
            let tenant = self.tenant(caller, &name.tenant).await?;
            let mut row = named(&tenant, &name)?.clone();
            check_etag(&request.etag, row.revision)?;
            row.revision += 1;
            let change = Change::DeleteBudget(row.clone());
            self.change(&change, caller.stamp(record(Kind::BudgetDeleted, &row))).await?;
            Ok::<_, Why>(v1::DeleteBudgetResponse {})
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    pub(crate) async fn list_unknown_allowances(
        &self,
        caller: &Caller,
        request: &v1::ListUnknownAllowancesRequest,
    ) -> Result<v1::ListUnknownAllowancesResponse, Refused> {
        let id = parse_tenant(&request.parent)?;
        let about = About::from(&id);
        caller.concerns(about.clone());
        self.tenant(caller, &id).await.map_err(|why| Refused::about(why, &about))?;
        let limit = page_size(request.page_size)?;
        let wrong = || Why::InvalidField("page_token is of an earlier answer".into());
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(Uid::from_hex(token).ok_or_else(wrong)?),
        };
        let rows = self.store.unknown_allowances(&id, after, limit).await?;
        Ok(v1::ListUnknownAllowancesResponse {
            next_page_token: next_page(&rows, limit, |row| row.id.to_string()),
            allowances: rows.iter().map(unknown).collect(),
        })
    }

    pub(crate) async fn reconcile_allowances(
        &self,
        caller: &Caller,
        request: &v1::ReconcileAllowancesRequest,
    ) -> Result<v1::ReconcileAllowancesResponse, Refused> {
        let tenant = parse_tenant(&request.parent)?;
        let about = About::from(&tenant);
        caller.concerns(about.clone());
        let work = async {
            self.tenant(caller, &tenant).await?;
            if request.found.is_empty() || request.found.len() > MOST_FOUND {
                return Err(Why::InvalidField("found names 1 to 1000 allowances".into()));
            }
            let wrong = || Why::InvalidField("micro_usd_millionths is less than a million".into());
            let figures = |told: Option<v1::Spent>| {
                audit::spending(&told.unwrap_or_default()).ok_or_else(wrong)
            };
            let read = |found: &v1::Found| {
                let (spent, managed) = (figures(found.spent)?, figures(found.managed)?);
                Ok(Found { id: allowance_id(&found.allowance_id)?, spent, managed })
            };
            let found = request.found.iter().map(read).collect::<Result<Vec<_>, Why>>()?;
            let ids: Vec<Uid> = found.iter().map(|found| found.id).collect();
            let record = Record { kind: Kind::AllowanceReconciled.into(), ..Record::default() };
            let reconcile = Reconcile { tenant, found, record, at: None };
            let done = self.log.reconcile(caller, reconcile).await?;
            let refused = ids.iter().zip(done).filter_map(|(id, done)| {
                let reason = match done {
                    Reconciled::Settled(_) => return None,
                    Reconciled::NoSuchAllowance => "NO_SUCH_ALLOWANCE",
                    Reconciled::Open => "ALLOWANCE_IS_OPEN",
                    Reconciled::Contradiction => "SETTLEMENT_CONTRADICTS",
                };
                let id = id.as_bytes().to_vec().into();
                Some(v1::NotAccepted { id, sequence: 0, reason: reason.to_owned() })
            });
            Ok(v1::ReconcileAllowancesResponse { not_accepted: refused.collect() })
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    /// A budget and how it stands.
    async fn standing(&self, row: &BudgetRow) -> Result<v1::Budget, Why> {
        let window = row.budget.period.window(self.store.now().await?);
        let found = self.store.accounts(row.budget.id, window.start).await?;
        Ok(v1::Budget { accounts: accounts(&row.budget, window, &found), ..message(row) })
    }
}

fn named<'a>(tenant: &'a Tenant, name: &BudgetName) -> Result<&'a BudgetRow, Why> {
    tenant.budgets.iter().find(|row| row.id == name.budget).ok_or(Why::NoSuchBudget)
}

fn record(kind: Kind, row: &BudgetRow) -> Record {
    let virtual_key = match &row.budget.holder {
        BudgetHolder::VirtualKey(id) => id.to_string(),
        BudgetHolder::Group(_) | BudgetHolder::Tenant => String::new(),
    };
    Record {
        kind: kind.into(),
        tenant: row.tenant.to_string(),
        budget: row.id.to_string(),
        virtual_key,
        revision: row.revision,
        ..Record::default()
    }
}

fn unknown(row: &AllowanceRow) -> v1::UnknownAllowance {
    let name = VirtualKeyName { tenant: row.tenant.clone(), id: row.virtual_key.clone() };
    let held = &row.reservation;
    v1::UnknownAllowance {
        allowance_id: row.id.as_bytes().to_vec().into(),
        virtual_key: name.to_string(),
        holder: row.holder.clone(),
        grant_time: Some(audit::proto_time(row.granted_at)),
        expire_time: held.expired_at.map(audit::proto_time),
        granted: Some(proto_amounts(&held.granted)),
        spent: Some(proto_spent(&held.spent)),
        rest: Some(proto_amounts(&held.rest())),
    }
}
