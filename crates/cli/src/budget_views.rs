use domain::Quantity;
use serde::Serialize;
use strongroom_proto::v1::{Account, Budget, Unit, UnknownAllowance, budget::Mode, period::Length};

use crate::{amounts, views::time};

/// A budget and how it stands; of money in micro-USD.
#[derive(Debug, Serialize)]
pub(crate) struct BudgetView {
    pub(crate) name: String,
    /// Whose spending it counts, in words.
    pub(crate) of: String,
    pub(crate) virtual_key: String,
    pub(crate) group: String,
    pub(crate) period: String,
    pub(crate) mode: &'static str,
    pub(crate) alerts: Vec<u32>,
    pub(crate) accounts: Vec<AccountView>,
    pub(crate) create_time: String,
    pub(crate) update_time: String,
    pub(crate) etag: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct AccountView {
    #[serde(skip)]
    pub(crate) of: Unit,
    pub(crate) unit: &'static str,
    pub(crate) cap: u64,
    pub(crate) spent: u64,
    pub(crate) spent_millionths: u32,
    /// What of it was spent on managed credentials, and on the tenant's own.
    pub(crate) managed: u64,
    pub(crate) managed_millionths: u32,
    pub(crate) own: u64,
    pub(crate) own_millionths: u32,
    pub(crate) unknown: u64,
    pub(crate) reserved: u64,
    pub(crate) overrun: u64,
    pub(crate) would_refuse: WouldRefuseView,
    pub(crate) window_start_time: String,
    pub(crate) window_end_time: String,
}

/// What a hard budget would have refused.
#[derive(Debug, Default, Serialize)]
pub(crate) struct WouldRefuseView {
    pub(crate) allowances: u64,
    pub(crate) calls: u64,
    pub(crate) spent: u64,
    pub(crate) spent_millionths: u32,
}

/// An allowance of which nobody knows what became of the rest.
#[derive(Debug, Serialize)]
pub(crate) struct AllowanceView {
    pub(crate) allowance: String,
    pub(crate) virtual_key: String,
    pub(crate) holder: String,
    pub(crate) grant_time: String,
    pub(crate) expire_time: String,
    pub(crate) spent: String,
    pub(crate) rest: String,
}

impl From<Budget> for BudgetView {
    fn from(budget: Budget) -> Self {
        let mode = match budget.mode() {
            Mode::Unspecified | Mode::Hard => "hard",
            Mode::Shadow => "shadow",
        };
        let of = match (budget.virtual_key.as_str(), budget.group.as_str()) {
            ("", "") => "tenant".to_owned(),
            (key, "") => format!("key {key}"),
            (_, group) => format!("group {group}"),
        };
        let asked = budget.period.unwrap_or_default();
        let zone = &asked.time_zone;
        let period = match asked.length() {
            Length::Unspecified => String::new(),
            Length::Day => format!("day {zone}"),
            Length::Week => format!("week {zone}"),
            Length::Month => format!("month {zone}"),
            Length::Total => "total".to_owned(),
            Length::Rolling => format!("{} s", asked.rolling.unwrap_or_default().seconds),
        };
        Self {
            name: budget.name,
            of,
            virtual_key: budget.virtual_key,
            group: budget.group,
            period,
            mode,
            alerts: budget.alerts,
            accounts: budget.accounts.into_iter().map(AccountView::from).collect(),
            create_time: time(budget.create_time),
            update_time: time(budget.update_time),
            etag: budget.etag,
        }
    }
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        let exact = |whole, parts| Quantity::from_parts(whole, parts);
        let spent = exact(account.spent, account.spent_millionths);
        let managed = exact(account.managed, account.managed_millionths);
        let (own, own_millionths) = spent.less(managed).parts();
        let over = account.would_refuse.unwrap_or_default();
        Self {
            of: account.unit(),
            unit: amounts::unit_name(account.unit()),
            cap: account.cap,
            spent: account.spent,
            spent_millionths: account.spent_millionths,
            managed: account.managed,
            managed_millionths: account.managed_millionths,
            own,
            own_millionths,
            unknown: account.unknown,
            reserved: account.reserved,
            overrun: account.overrun,
            would_refuse: WouldRefuseView {
                allowances: over.allowances,
                calls: over.calls,
                spent: over.spent,
                spent_millionths: over.spent_millionths,
            },
            window_start_time: time(account.window_start_time),
            window_end_time: time(account.window_end_time),
        }
    }
}

impl From<UnknownAllowance> for AllowanceView {
    fn from(it: UnknownAllowance) -> Self {
        Self {
            allowance: hex::encode(&it.allowance_id),
            virtual_key: it.virtual_key,
            holder: it.holder,
            grant_time: time(it.grant_time),
            expire_time: time(it.expire_time),
            spent: it.spent.map(amounts::spent).unwrap_or_default(),
            rest: it.rest.map(amounts::amounts).unwrap_or_default(),
        }
    }
}
