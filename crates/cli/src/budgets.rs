use std::{str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use domain::{BudgetId, GroupId, VirtualKeyId, Zone};
use serde_json::json;
use strongroom_client::Broker;
use strongroom_proto::v1::{
    self, Budget, CreateBudgetRequest, DeleteBudgetRequest, Found, GetBudgetRequest, Limit,
    ListBudgetsRequest, ListUnknownAllowancesRequest, ReconcileAllowancesRequest, Spent, Unit,
    UpdateBudgetRequest, budget::Mode, period::Length,
};

use crate::{
    amounts::{amount, unit_name},
    budget_views::{AccountView, AllowanceView, BudgetView},
    context::Context,
    expiry,
    failure::Failure,
    names::{BudgetArg, Hex, TenantArg},
    output::table,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Says what may be spent, by a tenant, a group of keys or one key.
    Create(Create),
    /// Shows one budget and how it stands.
    Get {
        /// The budget's name, such as `acme/monthly`.
        budget: BudgetArg,
    },
    /// Lists a tenant's budgets and how they stand.
    List {
        /// The tenant, such as `acme`.
        tenant: TenantArg,
    },
    /// Changes limits, mode or alerts. What is not said stays.
    Update(Update),
    /// Ends a budget, and forgets what was counted in it.
    Delete {
        /// The budget's name, such as `acme/monthly`.
        budget: BudgetArg,
    },
    /// Lists allowances whose holders were lost, or says what became of one.
    Reconcile(Reconcile),
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The tenant, such as `acme`.
    tenant: TenantArg,
    /// The budget's name, such as `monthly`.
    budget: BudgetId,
    /// A limit, once for each unit: `500usd`, `1000requests`, `5000000tokens`, `9concurrent`.
    #[arg(long = "limit", required = true)]
    limits: Vec<LimitArg>,
    /// For how long a limit holds.
    #[arg(long, value_enum, default_value = "month", conflicts_with = "rolling")]
    per: Per,
    /// For the time just gone by, always, instead: `24h`, `30d`.
    #[arg(long, value_parser = expiry::parse)]
    rolling: Option<Duration>,
    /// Where days, weeks and months begin: a name of the IANA database. Absent: UTC.
    #[arg(long, value_parser = zone)]
    zone: Option<String>,
    /// Counts one virtual key only.
    #[arg(long, conflicts_with = "group")]
    key: Option<VirtualKeyId>,
    /// Counts the virtual keys of a group only.
    #[arg(long)]
    group: Option<GroupId>,
    /// Counts and raises alerts, and refuses nothing.
    #[arg(long)]
    shadow: bool,
    /// At which percentages to raise an alert, with commas between.
    #[arg(long = "alert", value_delimiter = ',')]
    alerts: Vec<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    /// The budget's name, such as `acme/monthly`.
    budget: BudgetArg,
    /// A limit of a unit, new or in the place of the one it had: `800usd`.
    #[arg(long = "limit")]
    limits: Vec<LimitArg>,
    /// Whether it refuses.
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// At which percentages to raise an alert, in the place of those it had.
    #[arg(long = "alert", value_delimiter = ',')]
    alerts: Vec<u32>,
}

#[derive(Args, Debug)]
pub(crate) struct Reconcile {
    /// The tenant, such as `acme`.
    tenant: TenantArg,
    /// Which allowance, as the list shows it. Absent: lists them.
    #[arg(long)]
    allowance: Option<Hex>,
    /// What its lost calls cost, as the provider counted them: `1.25`. Absent: nothing.
    #[arg(long, value_name = "USD", default_value = "0", requires = "allowance")]
    cost: domain::Money,
    /// How many they were.
    #[arg(long, default_value_t = 0, requires = "allowance")]
    requests: u64,
    /// What went in.
    #[arg(long, default_value_t = 0, requires = "allowance")]
    input_tokens: u64,
    /// What came out.
    #[arg(long, default_value_t = 0, requires = "allowance")]
    output_tokens: u64,
    /// They were made on managed credentials, not on the tenant's own.
    #[arg(long, requires = "allowance")]
    managed: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Per {
    Day,
    Week,
    Month,
    Total,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    Hard,
    Shadow,
}

/// A limit as people write it.
#[derive(Clone, Copy, Debug)]
struct LimitArg(Limit);

impl FromStr for LimitArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = "a limit is an amount and its unit: 500usd, 12.50usd, 1000requests, \
                     5000000tokens, 100input-tokens, 100output-tokens or 9concurrent";
        let end = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(wrong)?;
        let (amount, unit) = text.split_at_checked(end).ok_or(wrong)?;
        let units = [
            Unit::MicroUsd,
            Unit::Requests,
            Unit::InputTokens,
            Unit::OutputTokens,
            Unit::Tokens,
            Unit::Concurrent,
        ];
        let unit = units.into_iter().find(|it| unit_name(*it) == unit).ok_or(wrong)?;
        let cap = if unit == Unit::MicroUsd {
            amount.parse::<domain::Money>().map_err(|error| error.to_string())?.micros()
        } else {
            amount.parse().map_err(|_| wrong)?
        };
        Ok(Self(Limit { unit: unit.into(), cap }))
    }
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let broker = context.broker()?;
        let mut client = broker.budgets();
        let budget = match self {
            Self::Create(create) => client.create_budget(create.request()?).await?,
            Self::Get { budget } => {
                client.get_budget(GetBudgetRequest { name: budget.0.to_string() }).await?
            }
            Self::List { tenant } => return list_all(context, &broker, &tenant).await,
            Self::Update(update) => {
                let request = GetBudgetRequest { name: update.budget.0.to_string() };
                let known = client.get_budget(request).await?.into_inner();
                let budget = Some(update.of(known));
                client.update_budget(UpdateBudgetRequest { budget }).await?
            }
            Self::Delete { budget } => {
                let (name, etag) = (budget.0.to_string(), String::new());
                client.delete_budget(DeleteBudgetRequest { name: name.clone(), etag }).await?;
                return context
                    .output
                    .show(&json!({ "deleted": name }), |_| format!("{name} is gone"));
            }
            Self::Reconcile(reconcile) => return reconcile.run(context, &broker).await,
        };
        context.output.show(&BudgetView::from(budget.into_inner()), |view| human(&[view]))
    }
}

impl Create {
    fn request(self) -> Result<CreateBudgetRequest, Failure> {
        let length = match (self.rolling, self.per) {
            (Some(_), _) => Length::Rolling,
            (None, Per::Day) => Length::Day,
            (None, Per::Week) => Length::Week,
            (None, Per::Month) => Length::Month,
            (None, Per::Total) => Length::Total,
        };
        let period = v1::Period {
            length: length.into(),
            time_zone: self.zone.unwrap_or_default(),
            rolling: self.rolling.and_then(|it| prost_types::Duration::try_from(it).ok()),
        };
        let request_id = domain::Uid::random().map_err(|_| Failure::NoRandomness)?.to_string();
        Ok(CreateBudgetRequest {
            parent: self.tenant.0.resource(),
            budget_id: self.budget.to_string(),
            budget: Some(Budget {
                virtual_key: self.key.map(|key| key.to_string()).unwrap_or_default(),
                group: self.group.map(|group| group.to_string()).unwrap_or_default(),
                period: Some(period),
                mode: if self.shadow { Mode::Shadow } else { Mode::Hard }.into(),
                limits: self.limits.into_iter().map(|it| it.0).collect(),
                alerts: self.alerts,
                ..Budget::default()
            }),
            request_id,
        })
    }
}

impl Update {
    /// The budget as it is to be; its etag says what was read.
    fn of(self, mut budget: Budget) -> Budget {
        for LimitArg(limit) in self.limits {
            budget.limits.retain(|it| it.unit != limit.unit);
            budget.limits.push(limit);
        }
        if let Some(mode) = self.mode {
            budget.mode = match mode {
                ModeArg::Hard => Mode::Hard,
                ModeArg::Shadow => Mode::Shadow,
            }
            .into();
        }
        if !self.alerts.is_empty() {
            budget.alerts = self.alerts;
        }
        budget
    }
}

impl Reconcile {
    async fn run(self, context: &Context, broker: &Broker) -> Result<(), Failure> {
        let parent = self.tenant.0.resource();
        let Some(Hex(id)) = self.allowance else {
            return list_unknown(context, broker, parent).await;
        };
        let spent = Spent {
            micro_usd: self.cost.micros(),
            micro_usd_millionths: 0,
            requests: self.requests,
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
        };
        let managed = self.managed.then_some(spent);
        let found = vec![Found { allowance_id: id.clone().into(), spent: Some(spent), managed }];
        let request = ReconcileAllowancesRequest { parent, found };
        let answer = broker.budgets().reconcile_allowances(request).await?.into_inner();
        let reason = answer.not_accepted.into_iter().next().map(|it| it.reason);
        let (id, done) = (hex::encode(id), reason.is_none());
        let result = json!({ "allowance": id, "reconciled": done, "reason": reason });
        context.output.show(&result, |_| match &reason {
            None => format!("{id} is settled"),
            Some(reason) => format!("{id} is not settled: {reason}"),
        })
    }
}

async fn list_all(context: &Context, broker: &Broker, tenant: &TenantArg) -> Result<(), Failure> {
    let mut client = broker.budgets();
    let mut budgets: Vec<BudgetView> = Vec::new();
    let mut page_token = String::new();
    loop {
        let parent = tenant.0.resource();
        let request = ListBudgetsRequest { parent, page_size: 1000, page_token };
        let page = client.list_budgets(request).await?.into_inner();
        budgets.extend(page.budgets.into_iter().map(BudgetView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    context
        .output
        .show(&json!({ "budgets": budgets }), |_| human(&budgets.iter().collect::<Vec<_>>()))
}

async fn list_unknown(context: &Context, broker: &Broker, parent: String) -> Result<(), Failure> {
    let mut client = broker.budgets();
    let mut found: Vec<AllowanceView> = Vec::new();
    let mut page_token = String::new();
    loop {
        let parent = parent.clone();
        let request = ListUnknownAllowancesRequest { parent, page_size: 1000, page_token };
        let page = client.list_unknown_allowances(request).await?.into_inner();
        found.extend(page.allowances.into_iter().map(AllowanceView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    context.output.show(&json!({ "allowances": found }), |_| {
        let row = |it: &AllowanceView| {
            let [id, key, holder] = [&it.allowance, &it.virtual_key, &it.holder].map(Clone::clone);
            [id, key, holder, it.expire_time.clone(), it.spent.clone(), it.rest.clone()]
        };
        let header = ["ALLOWANCE", "VIRTUAL KEY", "HOLDER", "EXPIRED", "REPORTED", "UNKNOWN"];
        table(header, found.iter().map(row).collect())
    })
}

/// One line for each limit.
fn human(budgets: &[&BudgetView]) -> String {
    let header = [
        "NAME", "OF", "PER", "MODE", "UNIT", "CAP", "SPENT", "OWN", "MANAGED", "UNKNOWN",
        "RESERVED", "RENEWS",
    ];
    let mut rows = Vec::new();
    let mut over = Vec::new();
    for budget in budgets {
        for it in &budget.accounts {
            let whole = |count: u64| amount(it.of, count, 0);
            rows.push([
                budget.name.clone(),
                budget.of.clone(),
                budget.period.clone(),
                budget.mode.to_owned(),
                it.unit.to_owned(),
                whole(it.cap),
                amount(it.of, it.spent, it.spent_millionths),
                amount(it.of, it.own, it.own_millionths),
                amount(it.of, it.managed, it.managed_millionths),
                whole(it.unknown),
                whole(it.reserved),
                it.window_end_time.clone(),
            ]);
            over.extend(would_refuse(budget, it));
        }
    }
    let table = table(header, rows);
    if over.is_empty() { table } else { format!("{table}\n\n{}", over.join("\n")) }
}

/// What a hard budget would have refused, in a sentence.
fn would_refuse(budget: &BudgetView, account: &AccountView) -> Option<String> {
    let over = &account.would_refuse;
    (over.allowances > 0 || over.calls > 0).then(|| {
        format!(
            "{}: if it were hard, its limit of {} {} would have refused {} allowances, in which {} \
             calls came to {} {}",
            budget.name,
            amount(account.of, account.cap, 0),
            account.unit,
            over.allowances,
            over.calls,
            amount(account.of, over.spent, over.spent_millionths),
            account.unit,
        )
    })
}

fn zone(name: &str) -> Result<String, String> {
    name.parse::<Zone>().map(|zone| zone.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_an_amount_and_a_unit() {
        let check = |text: &str, expected: Option<(Unit, u64)>| {
            let parsed = text.parse::<LimitArg>().ok().map(|it| (it.0.unit(), it.0.cap));
            assert_eq!(parsed, expected, "{text}");
        };
        check("500usd", Some((Unit::MicroUsd, 500_000_000)));
        check("12.50usd", Some((Unit::MicroUsd, 12_500_000)));
        check("1000000tokens", Some((Unit::Tokens, 1_000_000)));
        check("7input-tokens", Some((Unit::InputTokens, 7)));
        check("9concurrent", Some((Unit::Concurrent, 9)));
        for wrong in ["", "500", "usd", "5eur", "1.5requests", "-1usd", "0.0000001usd"] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_the_tenants_own_and_what_a_shadow_would_refuse_is_shown() {
        let over =
            v1::WouldRefuse { allowances: 2, calls: 5, spent: 1_250_000, spent_millionths: 0 };
        let account = v1::Account {
            unit: Unit::MicroUsd.into(),
            cap: 10_000_000,
            spent: 11_000_000,
            managed: 750_000,
            managed_millionths: 500_000,
            would_refuse: Some(over),
            ..v1::Account::default()
        };
        let budget = Budget {
            name: "tenants/acme/budgets/team".to_owned(),
            mode: Mode::Shadow.into(),
            accounts: vec![account],
            ..Budget::default()
        };
        let shown = human(&[&BudgetView::from(budget)]);
        let line = shown.lines().nth(1).unwrap();
        let cells: Vec<_> = line.split_whitespace().collect();
        assert!(cells.ends_with(&["10.00", "11.00", "10.2499995", "0.7500005", "0.00", "0.00"]));
        let sentence = "tenants/acme/budgets/team: if it were hard, its limit of 10.00 usd would have \
                        refused 2 allowances, in which 5 calls came to 1.25 usd";
        assert_eq!(shown.lines().last(), Some(sentence), "{shown}");
    }
}
