use std::{str::FromStr as _, time::Duration};

use domain::{
    Account, AccountKey, Amounts, Budget, Cost, Hold, Limit, Over, Period, Place, Quantity,
    Reservation, ReservationState, Spending, Sums, Timestamp, Uid, Unit,
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
    /// Whether the log says that a hard budget would have refused.
    pub(crate) over_told: bool,
}

impl AccountRow {
    /// Moves a rolling window on, and forgets that what has left it was told.
    pub(crate) fn roll(&mut self, now: Timestamp) {
        if self.rolling.is_some() {
            self.account.roll(now);
            self.told = self.told.min(self.account.alerted);
            self.over_told &= self.account.over.reservations > 0;
        }
    }
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

/// Quantities as they are kept: whole units, and millionths of one.
type Parts = (u64, u32);

/// Sums as a bucket keeps them: what was spent, what of it was managed, and what a hard account would have
/// refused: how many reservations, how many calls, and what these came to.
type SumsText = (Parts, Parts, (u64, u64, Parts));

fn read_sums((spent, managed, (reservations, calls, over)): SumsText) -> Sums {
    let quantity = |(whole, parts): Parts| Quantity::from_parts(whole, parts);
    let over = Over { reservations, calls, spent: quantity(over) };
    Sums { spent: quantity(spent), managed: quantity(managed), over }
}

fn write_sums(Sums { spent, managed, over }: &Sums) -> SumsText {
    let over = (over.reservations, over.calls, over.spent.parts());
    (spent.parts(), managed.parts(), over)
}

pub(crate) fn account(row: &Row) -> Result<AccountRow, StoreError> {
    let of = Columns { row, table: "budget_account" };
    let quantity = |whole: &str, parts: &str| {
        let millionths = of.number::<u32>(parts)?;
        Ok::<_, StoreError>(Quantity::from_parts(of.number(whole)?, millionths))
    };
    let buckets: Vec<(i64, i64, SumsText)> = of.json("buckets")?;
    let buckets = buckets.into_iter().map(|(start, leaves, sums)| {
        (Timestamp::from_millis(start), Timestamp::from_millis(leaves), read_sums(sums))
    });
    let mut account = Account::new(of.number("cap")?, of.parsed("mode")?);
    account.spent = quantity("spent", "spent_millionths")?;
    account.managed = quantity("managed", "managed_millionths")?;
    account.over = Over {
        reservations: of.number("over_reservations")?,
        calls: of.number("over_calls")?,
        spent: quantity("over_spent", "over_spent_millionths")?,
    };
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
        over_told: of.flag("over_told")?,
    })
}

pub(crate) fn allowance(row: &Row) -> Result<AllowanceRow, StoreError> {
    let of = Columns { row, table: "allowance" };
    let amounts = |column: &str| {
        let figures: [u64; Unit::ALL.len()] = of.json(column)?;
        let all = Unit::ALL.into_iter().zip(figures);
        Ok::<_, StoreError>(all.fold(Amounts::default(), |all, (unit, it)| all.with(unit, it)))
    };
    let holds: Vec<HoldText> = of.json("holds")?;
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
            spent: read_spending(of.json("spent")?),
            managed: read_spending(of.json("managed")?),
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

/// Spending as it is kept: the cost's micro-USD and millionths of one, requests, input and output.
type SpendingText = (u64, u32, u64, u64, u64);

fn read_spending((whole, parts, requests, input, output): SpendingText) -> Spending {
    let cost = Cost::of(whole, 1_000_000).plus(Cost::from_picos(parts.into()));
    Spending { cost, requests, input_tokens: input, output_tokens: output }
}

fn write_spending(spent: &Spending) -> String {
    let (whole, parts) = spent.of(Unit::Money).parts();
    let text: SpendingText =
        (whole, parts, spent.requests, spent.input_tokens, spent.output_tokens);
    serde_json::to_string(&text).unwrap_or_default()
}

/// A hold as it is kept: its budget, unit and window, its place, and whether it is over.
type HoldText = (String, String, i64, String, bool);

fn read_hold((budget, unit, window, place, over): &HoldText) -> Option<Hold> {
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
    Some(Hold { key, place, over: *over })
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
            spent = $6, spent_millionths = $7, managed = $8, managed_millionths = $9, \
            over_reservations = $10, over_calls = $11, over_spent = $12, \
            over_spent_millionths = $13, unknown = $14, reserved = $15, overrun = $16, \
            alerted = $17, told = $18, over_told = $19, buckets = $20 \
        WHERE budget = $21 AND unit = $22 AND window_start = $23";
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
            spent_millionths, managed, managed_millionths, over_reservations, over_calls, \
            over_spent, over_spent_millionths, unknown, reserved, overrun, alerted, told, \
            over_told, buckets, budget, unit, window_start) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
            $19, $20, $21, $22, $23) \
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
            .map(|(start, leaves, sums)| (start.as_millis(), leaves.as_millis(), write_sums(&sums)))
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
    AccountRow { key, account, revision, rolling, told, over_told, .. }: &AccountRow,
    texts: &AccountTexts,
) -> Result<u64, StoreError> {
    let (spent, spent_millionths) = account.spent.parts();
    let (managed, managed_millionths) = account.managed.parts();
    let (over, over_millionths) = account.over.spent.parts();
    let rolling = rolling.map_or(0, |length| length.as_millis());
    let values = [
        account.cap.into(),
        account.mode.as_str().into(),
        u64::try_from(rolling).unwrap_or(u64::MAX).into(),
        texts.alerts.as_str().into(),
        (*revision).into(),
        spent.into(),
        spent_millionths.into(),
        managed.into(),
        managed_millionths.into(),
        account.over.reservations.into(),
        account.over.calls.into(),
        over.into(),
        over_millionths.into(),
        account.unknown.into(),
        account.reserved.into(),
        account.overrun.into(),
        u32::from(account.alerted).into(),
        u32::from(*told).into(),
        Value::Flag(*over_told),
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
        INSERT INTO allowance (covered, returned, spent, managed, sequence, state, holds, recorded, \
            expired_at, due_at, id, attempt, tenant, virtual_key, holder, granted, granted_at, \
            expires_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
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
        UPDATE allowance SET covered = $1, returned = $2, spent = $3, managed = $4, sequence = $5, \
            state = $6, holds = $7, recorded = $8, expired_at = $9, due_at = $10 \
        WHERE id = $11";
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
    managed: String,
    holds: String,
}

impl AllowanceTexts {
    fn of(row: &AllowanceRow) -> Self {
        let Reservation { covered, returned, spent, managed, holds, .. } = &row.reservation;
        let holds: Vec<_> = holds
            .iter()
            .map(|Hold { key, place, over }| {
                let place = match place {
                    Place::Reserved => "reserved",
                    Place::Unknown => "unknown",
                    Place::Gone => "gone",
                };
                (key.budget.to_string(), key.unit.as_str(), key.window.as_millis(), place, over)
            })
            .collect();
        Self {
            covered: amounts(covered),
            returned: amounts(returned),
            spent: write_spending(spent),
            managed: write_spending(managed),
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
) -> [Value<'a>; 10] {
    let state = match row.reservation.state {
        ReservationState::Open => "open",
        ReservationState::Unknown => "unknown",
        ReservationState::Closed => "closed",
    };
    [
        texts.covered.as_str().into(),
        texts.returned.as_str().into(),
        texts.spent.as_str().into(),
        texts.managed.as_str().into(),
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
