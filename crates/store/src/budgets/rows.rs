use std::{str::FromStr as _, time::Duration};

use domain::{
    Account, AccountKey, Amounts, Budget, Cost, Limit, Period, Place, Quantity, Reservation,
    ReservationState, Spending, Timestamp, Uid, Unit,
};

use crate::{
    AllowanceRow, BudgetRow, StoreError,
    backend::{Backend, Row, Value},
    mapping::Columns,
};

/// An account as it is kept, with what is known of its budget beside it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AccountRow {
    pub(crate) key: AccountKey,
    pub(crate) account: Account,
    /// The revision of what gave it its cap.
    pub(crate) revision: u64,
    /// The length of a rolling window.
    pub(crate) rolling: Option<Duration>,
    pub(crate) alerts: Vec<u8>,
    /// The highest percentage whose alert is in the log.
    pub(crate) told: u8,
}

/// Reads one allowance and holds its row, or only reads it where one writer has the database alone.
macro_rules! lock_allowance {
    ($tail:literal) => {
        concat!("SELECT * FROM allowance WHERE id = $1", $tail)
    };
}

/// The same of the accounts of one budget's window.
macro_rules! lock_accounts {
    ($tail:literal) => {
        concat!(
            "SELECT * FROM budget_account WHERE budget = $1 AND window_start = $2 ORDER BY unit",
            $tail
        )
    };
}

pub(crate) use {lock_accounts, lock_allowance};

pub(crate) fn budget(row: &Row) -> Result<BudgetRow, StoreError> {
    let of = Columns { row, table: "budget" };
    let limits: Vec<(String, u64)> = of.json("limits")?;
    let limit = |(unit, cap): &(String, u64)| {
        let unit = Unit::from_str(unit).map_err(|_| of.corrupt("limits"))?;
        Ok::<_, StoreError>(Limit { unit, cap: *cap })
    };
    Ok(BudgetRow {
        tenant_uid: of.uid("tenant_uid")?,
        tenant: of.parsed("tenant")?,
        id: of.parsed("id")?,
        budget: Budget {
            id: of.uid("uid")?,
            holder: of.parsed("holder")?,
            period: of.parsed("period")?,
            mode: of.parsed("mode")?,
            limits: limits.iter().map(limit).collect::<Result<_, _>>()?,
            alerts: of.json("alerts")?,
        },
        revision: of.number("revision")?,
        request_id: of.optional_parsed("request_id")?,
        created_at: of.time("created_at")?,
        updated_at: of.time("updated_at")?,
        row_mac: of.array("row_mac")?,
    })
}

/// The one text for these limits; it is under the row's MAC.
pub fn write_limits(limits: &[Limit]) -> String {
    let limits: Vec<_> = limits.iter().map(|it| (it.unit.as_str(), it.cap)).collect();
    serde_json::to_string(&limits).unwrap_or_default()
}

pub(crate) fn account(row: &Row) -> Result<AccountRow, StoreError> {
    let of = Columns { row, table: "budget_account" };
    let quantity = |whole: &str, parts: &str| {
        let millionths = of.number::<u32>(parts)?;
        Ok::<_, StoreError>(Quantity::from_parts(of.number(whole)?, millionths))
    };
    let buckets: Vec<(i64, i64, u64, u32)> = of.json("buckets")?;
    let buckets = buckets.into_iter().map(|(start, leaves, whole, parts)| {
        let sum = Quantity::from_parts(whole, parts);
        (Timestamp::from_millis(start), Timestamp::from_millis(leaves), sum)
    });
    let mut account = Account::new(of.number("cap")?, of.parsed("mode")?);
    account.spent = quantity("spent", "spent_millionths")?;
    account.unknown = of.number("unknown")?;
    account.reserved = of.number("reserved")?;
    account.overrun = of.number("overrun")?;
    account.alerted = of.number("alerted")?;
    let rolling: u64 = of.number("rolling")?;
    Ok(AccountRow {
        key: AccountKey {
            budget: of.uid("budget")?,
            unit: of.parsed("unit")?,
            window: of.time("window_start")?,
        },
        account: account.with_buckets(buckets),
        revision: of.number("revision")?,
        rolling: (rolling > 0).then(|| Duration::from_millis(rolling)),
        alerts: of.json("alerts")?,
        told: of.number("told")?,
    })
}

pub(crate) fn allowance(row: &Row) -> Result<AllowanceRow, StoreError> {
    let of = Columns { row, table: "allowance" };
    let amounts = |column: &str| {
        let figures: [u64; Unit::ALL.len()] = of.json(column)?;
        let all = Unit::ALL.into_iter().zip(figures);
        Ok::<_, StoreError>(all.fold(Amounts::default(), |all, (unit, it)| all.with(unit, it)))
    };
    let (whole, parts, requests, input_tokens, output_tokens): (u64, u32, u64, u64, u64) =
        of.json("spent")?;
    let cost = Cost::of(whole, 1_000_000).plus(Cost::from_picos(parts.into()));
    let holds: Vec<(String, String, i64, String)> = of.json("holds")?;
    let holds = holds.iter().map(|hold| read_hold(hold).ok_or_else(|| of.corrupt("holds")));
    let state = match of.text("state")?.as_str() {
        "open" => ReservationState::Open,
        "unknown" => ReservationState::Unknown,
        "closed" => ReservationState::Closed,
        _ => return Err(of.corrupt("state")),
    };
    Ok(AllowanceRow {
        id: of.uid("id")?,
        attempt: of.uid("attempt")?,
        tenant: of.parsed("tenant")?,
        virtual_key: of.parsed("virtual_key")?,
        holder: of.text("holder")?,
        reservation: Reservation {
            granted: amounts("granted")?,
            covered: amounts("covered")?,
            returned: amounts("returned")?,
            spent: Spending { cost, requests, input_tokens, output_tokens },
            sequence: of.number("sequence")?,
            expires_at: of.time("expires_at")?,
            expired_at: of.optional_time("expired_at")?,
            state,
            holds: holds.collect::<Result<_, _>>()?,
        },
        granted_at: of.time("granted_at")?,
        recorded: of.flag("recorded")?,
    })
}

fn read_hold(
    (budget, unit, window, place): &(String, String, i64, String),
) -> Option<(AccountKey, Place)> {
    let place = match place.as_str() {
        "reserved" => Place::Reserved,
        "unknown" => Place::Unknown,
        "gone" => Place::Gone,
        _ => return None,
    };
    let key = AccountKey {
        budget: Uid::from_hex(budget)?,
        unit: unit.parse().ok()?,
        window: Timestamp::from_millis(*window),
    };
    Some((key, place))
}

pub(crate) fn uid(row: &Row) -> Result<Uid, StoreError> {
    Columns { row, table: "allowance" }.uid("id")
}

pub(crate) fn window(row: &Row) -> Result<(Uid, Timestamp), StoreError> {
    let of = Columns { row, table: "budget_account" };
    Ok((of.uid("budget")?, of.time("window_start")?))
}

/// Writes an account that is there.
pub(crate) async fn update_account<B: Backend>(
    connection: &mut B::Connection,
    row: &AccountRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        UPDATE budget_account SET cap = $1, mode = $2, rolling = $3, alerts = $4, revision = $5, \
            spent = $6, spent_millionths = $7, unknown = $8, reserved = $9, overrun = $10, \
            alerted = $11, told = $12, buckets = $13 \
        WHERE budget = $14 AND unit = $15 AND window_start = $16";
    let texts = AccountTexts::of(row);
    write_account::<B>(connection, SQL, row, &texts).await.map(drop)
}

/// Writes an account unless it is there already.
pub(crate) async fn make_account<B: Backend>(
    connection: &mut B::Connection,
    row: &AccountRow,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO budget_account (cap, mode, rolling, alerts, revision, spent, \
            spent_millionths, unknown, reserved, overrun, alerted, told, buckets, budget, unit, \
            window_start) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
        ON CONFLICT (budget, unit, window_start) DO NOTHING";
    let texts = AccountTexts::of(row);
    write_account::<B>(connection, SQL, row, &texts).await.map(drop)
}

struct AccountTexts {
    alerts: String,
    buckets: String,
}

impl AccountTexts {
    fn of(row: &AccountRow) -> Self {
        let buckets: Vec<_> = row
            .account
            .buckets()
            .map(|(start, leaves, sum)| {
                let (whole, parts) = sum.parts();
                (start.as_millis(), leaves.as_millis(), whole, parts)
            })
            .collect();
        Self {
            alerts: serde_json::to_string(&row.alerts).unwrap_or_default(),
            buckets: serde_json::to_string(&buckets).unwrap_or_default(),
        }
    }
}

async fn write_account<B: Backend>(
    connection: &mut B::Connection,
    sql: &'static str,
    AccountRow { key, account, revision, rolling, told, .. }: &AccountRow,
    texts: &AccountTexts,
) -> Result<u64, StoreError> {
    let (spent, millionths) = account.spent.parts();
    let rolling = rolling.map_or(0, |length| length.as_millis());
    let values = [
        account.cap.into(),
        account.mode.as_str().into(),
        u64::try_from(rolling).unwrap_or(u64::MAX).into(),
        texts.alerts.as_str().into(),
        (*revision).into(),
        spent.into(),
        millionths.into(),
        account.unknown.into(),
        account.reserved.into(),
        account.overrun.into(),
        u32::from(account.alerted).into(),
        u32::from(*told).into(),
        texts.buckets.as_str().into(),
        Value::Bytes(key.budget.as_bytes()),
        key.unit.as_str().into(),
        key.window.into(),
    ];
    B::execute(connection, sql, &values).await.map_err(StoreError::from_sqlx)
}

/// Writes a new allowance.
pub(crate) async fn insert_allowance<B: Backend>(
    connection: &mut B::Connection,
    row: &AllowanceRow,
    due_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        INSERT INTO allowance (covered, returned, spent, sequence, state, holds, recorded, \
            expired_at, due_at, id, attempt, tenant, virtual_key, holder, granted, granted_at, \
            expires_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
    let texts = AllowanceTexts::of(row);
    let granted = amounts(&row.reservation.granted);
    let mut values = progress(row, &texts, due_at).to_vec();
    values.extend([
        Value::Bytes(row.id.as_bytes()),
        Value::Bytes(row.attempt.as_bytes()),
        row.tenant.as_str().into(),
        row.virtual_key.as_str().into(),
        row.holder.as_str().into(),
        granted.as_str().into(),
        row.granted_at.into(),
        row.reservation.expires_at.into(),
    ]);
    B::execute(connection, SQL, &values).await.map(drop).map_err(StoreError::from_sqlx)
}

/// Writes what changes of an allowance.
pub(crate) async fn update_allowance<B: Backend>(
    connection: &mut B::Connection,
    row: &AllowanceRow,
    due_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    const SQL: &str = "\
        UPDATE allowance SET covered = $1, returned = $2, spent = $3, sequence = $4, state = $5, \
            holds = $6, recorded = $7, expired_at = $8, due_at = $9 \
        WHERE id = $10";
    let texts = AllowanceTexts::of(row);
    let mut values = progress(row, &texts, due_at).to_vec();
    values.push(Value::Bytes(row.id.as_bytes()));
    B::execute(connection, SQL, &values).await.map(drop).map_err(StoreError::from_sqlx)
}

/// Forgets an allowance.
pub(crate) async fn delete_allowance<B: Backend>(
    connection: &mut B::Connection,
    id: Uid,
) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM allowance WHERE id = $1";
    let done = B::execute(connection, SQL, &[Value::Bytes(id.as_bytes())]).await;
    done.map(drop).map_err(StoreError::from_sqlx)
}

struct AllowanceTexts {
    covered: String,
    returned: String,
    spent: String,
    holds: String,
}

impl AllowanceTexts {
    fn of(row: &AllowanceRow) -> Self {
        let Reservation { covered, returned, spent, holds, .. } = &row.reservation;
        let (whole, parts) = spent.of(Unit::Money).parts();
        let spent = (whole, parts, spent.requests, spent.input_tokens, spent.output_tokens);
        let holds: Vec<_> = holds
            .iter()
            .map(|(key, place)| {
                let place = match place {
                    Place::Reserved => "reserved",
                    Place::Unknown => "unknown",
                    Place::Gone => "gone",
                };
                (key.budget.to_string(), key.unit.as_str(), key.window.as_millis(), place)
            })
            .collect();
        Self {
            covered: amounts(covered),
            returned: amounts(returned),
            spent: serde_json::to_string(&spent).unwrap_or_default(),
            holds: serde_json::to_string(&holds).unwrap_or_default(),
        }
    }
}

fn amounts(amounts: &Amounts) -> String {
    serde_json::to_string(&Unit::ALL.map(|unit| amounts.of(unit))).unwrap_or_default()
}

/// The columns that change, in the order of both statements.
fn progress<'a>(
    row: &AllowanceRow,
    texts: &'a AllowanceTexts,
    due_at: Option<Timestamp>,
) -> [Value<'a>; 9] {
    let state = match row.reservation.state {
        ReservationState::Open => "open",
        ReservationState::Unknown => "unknown",
        ReservationState::Closed => "closed",
    };
    [
        texts.covered.as_str().into(),
        texts.returned.as_str().into(),
        texts.spent.as_str().into(),
        row.reservation.sequence.into(),
        state.into(),
        texts.holds.as_str().into(),
        Value::Flag(row.recorded),
        Value::Integer(row.reservation.expired_at.map(Timestamp::as_millis)),
        Value::Integer(due_at.map(Timestamp::as_millis)),
    ]
}

/// What of a budget its accounts know: enough to settle, not to reserve.
pub(crate) fn budget_behind(row: &AccountRow) -> Budget {
    Budget {
        id: row.key.budget,
        holder: domain::BudgetHolder::Tenant,
        period: row.rolling.map_or(Period::Total, Period::Rolling),
        mode: row.account.mode,
        limits: Vec::new(),
        alerts: row.alerts.clone(),
    }
}
