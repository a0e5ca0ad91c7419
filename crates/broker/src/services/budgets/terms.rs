use std::time::Duration;

use audit::{proto_time, proto_unit};
use domain::{
    Account, AccountKey, Budget, BudgetHolder, Limit, Mode, Over, Period, Uid, Window, Zone,
};
use store::BudgetRow;
use strongroom_proto::v1::{self, budget::Mode as ToldMode, period::Length};

use crate::{
    core::{etag, parse_optional},
    refused::Why,
};

/// The lengths that a rolling window may have.
const SHORTEST: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// The most alerts of one budget.
const MOST_ALERTS: usize = 8;

/// What a new budget says.
pub(super) fn budget(id: Uid, asked: &v1::Budget) -> Result<Budget, Why> {
    let (mode, limits, alerts) = changeable(asked)?;
    let holder = match (parse_optional(&asked.virtual_key)?, parse_optional(&asked.group)?) {
        (None, None) => BudgetHolder::Tenant,
        (Some(key), None) => BudgetHolder::VirtualKey(key),
        (None, Some(group)) => BudgetHolder::Group(group),
        (Some(_), Some(_)) => {
            return Err(Why::InvalidField("a budget is a virtual key's or a group's".into()));
        }
    };
    let period = period(&asked.period.clone().unwrap_or_default())?;
    Ok(Budget { id, holder, period, mode, limits, alerts })
}

/// What of a budget can change.
pub(super) fn changeable(asked: &v1::Budget) -> Result<(Mode, Vec<Limit>, Vec<u8>), Why> {
    let mode = match asked.mode() {
        ToldMode::Unspecified | ToldMode::Hard => Mode::Hard,
        ToldMode::Shadow => Mode::Shadow,
    };
    let limit = |told: &v1::Limit| {
        let unit = audit::unit(told.unit());
        let unit = unit.ok_or_else(|| Why::InvalidField("each limit names its unit".into()))?;
        if i64::try_from(told.cap).is_err() {
            return Err(Why::InvalidField("a cap is less than 2^63".into()));
        }
        Ok(Limit { unit, cap: told.cap })
    };
    let mut limits = asked.limits.iter().map(limit).collect::<Result<Vec<_>, _>>()?;
    limits.sort_by_key(|limit| limit.unit);
    if limits.is_empty() || limits.windows(2).any(is_same) {
        return Err(Why::InvalidField("limits are one or more, each of another unit".into()));
    }
    let percent = |told: &u32| u8::try_from(*told).ok().filter(|it| (1..=100).contains(it));
    let alerts = asked.alerts.iter().map(percent).collect::<Option<Vec<u8>>>();
    let alerts = alerts.filter(|alerts| alerts.len() <= MOST_ALERTS);
    let mut alerts = alerts.ok_or_else(|| {
        Why::InvalidField("alerts are 8 percentages from 1 to 100 at most".into())
    })?;
    alerts.sort_unstable();
    alerts.dedup();
    Ok((mode, limits, alerts))
}

fn is_same(pair: &[Limit]) -> bool {
    matches!(pair, [one, other] if one.unit == other.unit)
}

fn period(asked: &v1::Period) -> Result<Period, Why> {
    let zone = || match asked.time_zone.as_str() {
        "" => Ok(Zone::UTC),
        name => name.parse().map_err(|_| {
            Why::InvalidField("time_zone is a name of the IANA database, such as UTC".into())
        }),
    };
    match asked.length() {
        Length::Unspecified => Err(Why::InvalidField("period says how long a window is".into())),
        Length::Day => zone().map(Period::Day),
        Length::Week => zone().map(Period::Week),
        Length::Month => zone().map(Period::Month),
        Length::Total => Ok(Period::Total),
        Length::Rolling => {
            let length = asked.rolling.and_then(|it| Duration::try_from(it).ok());
            let length = length.filter(|it| (SHORTEST..=LONGEST).contains(it));
            let wrong = || Why::InvalidField("a rolling window is a minute to 366 days".into());
            length.filter(|it| it.subsec_nanos() == 0).map(Period::Rolling).ok_or_else(wrong)
        }
    }
}

/// A budget as the contract tells it, without its accounts.
pub(super) fn message(row: &BudgetRow) -> v1::Budget {
    let budget = &row.budget;
    let (virtual_key, group) = match &budget.holder {
        BudgetHolder::Tenant => (String::new(), String::new()),
        BudgetHolder::Group(group) => (String::new(), group.to_string()),
        BudgetHolder::VirtualKey(key) => (key.to_string(), String::new()),
    };
    let limit = |it: &Limit| v1::Limit { unit: proto_unit(it.unit).into(), cap: it.cap };
    let mode = match budget.mode {
        Mode::Hard => ToldMode::Hard,
        Mode::Shadow => ToldMode::Shadow,
    };
    v1::Budget {
        name: row.name().to_string(),
        virtual_key,
        group,
        period: Some(period_message(&budget.period)),
        mode: mode.into(),
        limits: budget.limits.iter().map(limit).collect(),
        alerts: budget.alerts.iter().map(|it| u32::from(*it)).collect(),
        create_time: Some(proto_time(row.created_at)),
        update_time: Some(proto_time(row.updated_at)),
        etag: etag(row.revision),
        accounts: Vec::new(),
    }
}

fn period_message(period: &Period) -> v1::Period {
    let (length, zone) = match period {
        Period::Day(zone) => (Length::Day, Some(zone)),
        Period::Week(zone) => (Length::Week, Some(zone)),
        Period::Month(zone) => (Length::Month, Some(zone)),
        Period::Rolling(_) => (Length::Rolling, None),
        Period::Total => (Length::Total, None),
    };
    v1::Period {
        length: length.into(),
        time_zone: zone.map(ToString::to_string).unwrap_or_default(),
        rolling: period.rolling().and_then(|it| prost_types::Duration::try_from(it).ok()),
    }
}

/// How each limit stands in a window: all 0 when nothing was reserved in it yet.
pub(super) fn accounts(
    budget: &Budget,
    window: Window,
    found: &[(AccountKey, Account)],
) -> Vec<v1::Account> {
    let account = |limit: Limit| {
        let known = found.iter().find(|(key, _)| key.unit == limit.unit);
        let known = known.map(|(_, account)| account.clone()).unwrap_or_default();
        let (spent, spent_millionths) = known.spent.parts();
        let (managed, managed_millionths) = known.managed.parts();
        // Rolling and total windows begin with time itself.
        let start = Some(window.start).filter(|start| start.as_millis() != 0);
        v1::Account {
            unit: proto_unit(limit.unit).into(),
            cap: limit.cap,
            spent,
            spent_millionths,
            unknown: known.unknown,
            reserved: known.reserved,
            overrun: known.overrun,
            window_start_time: start.map(proto_time),
            window_end_time: window.end.map(proto_time),
            managed,
            managed_millionths,
            would_refuse: (known.over != Over::default()).then(|| would_refuse(&known.over)),
        }
    };
    budget.caps().map(account).collect()
}

fn would_refuse(over: &Over) -> v1::WouldRefuse {
    let (spent, spent_millionths) = over.spent.parts();
    let (allowances, calls) = (over.reservations, over.calls);
    v1::WouldRefuse { allowances, calls, spent, spent_millionths }
}
