use std::collections::{BTreeMap, BTreeSet};

use audit::{Kind, Record, RecordDraft, proto_amounts, proto_spent, proto_unit};
use domain::{Amounts, Hold, LedgerError, Place, ReservationState, Settled, Timestamp, Uid};

use crate::{
    AllowanceRow, Found, Reconcile, Reconciled, StoreError,
    backend::{Backend, Value},
    budgets::{books::Books, rows},
};

/// How many allowances and how many alerts one transaction takes on.
const PAGE: u32 = 128;

/// What there is to append, and whether there may be more to do.
pub(crate) struct Due {
    pub(crate) records: Vec<RecordDraft>,
    pub(crate) changed: bool,
    pub(crate) more: bool,
}

/// Does what is due in the transaction that is open on this connection.
pub(crate) async fn sweep<B: Backend>(
    connection: &mut B::Connection,
    broker: Uid,
    now: Timestamp,
) -> Result<Due, StoreError> {
    let due = due_allowances::<B>(connection, now).await?;
    let alerts = due_alerts::<B>(connection).await?;
    let more = due.len() >= PAGE as usize || alerts.len() >= PAGE as usize;
    let changed = !due.is_empty() || !alerts.is_empty();
    let mut books = Books::default();
    books.load_allowances::<B>(connection, due).await?;
    books.load_accounts::<B>(connection, &[], &alerts, now).await?;
    books.ledger.expire(now);
    books.ledger.roll(now);
    books.ledger.alerts();
    let mut records = books.ends();
    let names = budgets_of::<B>(connection, &alerts).await?;
    records.extend(books.alarms(&names));
    books.save::<B>(connection, now).await?;
    let broker = broker.as_bytes().to_vec();
    let stamped =
        records.into_iter().map(|record| Record { broker: broker.clone().into(), ..record });
    let records = stamped.map(draft).collect::<Result<_, _>>()?;
    Ok(Due { records, changed, more })
}

/// Settles what an administrator has found out, in the transaction that is open on this connection.
pub(crate) async fn reconcile<B: Backend>(
    connection: &mut B::Connection,
    reconcile: &Reconcile,
    now: Timestamp,
) -> Result<(Vec<Reconciled>, Vec<RecordDraft>), StoreError> {
    let mut books = Books::default();
    let ids = reconcile.found.iter().map(|found| found.id).collect();
    books.load_allowances::<B>(connection, ids).await?;
    books.load_accounts::<B>(connection, &[], &BTreeSet::new(), now).await?;
    let (mut done, mut records) = (Vec::new(), Vec::new());
    for Found { id, spent, managed } in &reconcile.found {
        let own = books.allowances.get_mut(id).filter(|slip| slip.row.tenant == reconcile.tenant);
        let Some(slip) = own else {
            done.push(Reconciled::NoSuchAllowance);
            continue;
        };
        done.push(match books.ledger.reconcile(*id, spent, managed, now) {
            Ok(Settled::Now) => {
                slip.row.recorded = true;
                records.push(draft(Record {
                    kind: Kind::AllowanceReconciled.into(),
                    spent: Some(proto_spent(spent)),
                    ..named(&slip.row, reconcile.record.clone())
                })?);
                Reconciled::Settled(Settled::Now)
            }
            Ok(settled) => Reconciled::Settled(settled),
            Err(LedgerError::NotExpired) => Reconciled::Open,
            Err(LedgerError::Contradiction) => Reconciled::Contradiction,
            Err(_) => Reconciled::NoSuchAllowance,
        });
    }
    books.ledger.alerts();
    books.save::<B>(connection, now).await?;
    Ok((done, records))
}

impl Books {
    /// The records of what has ended, which are written once.
    fn ends(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        for (id, slip) in &mut self.allowances {
            let Some(reservation) = self.ledger.reservation(*id) else { continue };
            let was_open = slip.row.reservation.state == ReservationState::Open;
            match reservation.state {
                ReservationState::Unknown if was_open => {
                    let rest = reservation.rest();
                    let lost = |unit| {
                        let in_it =
                            |hold: &Hold| hold.key.unit == unit && hold.place == Place::Unknown;
                        reservation.holds.iter().any(in_it)
                    };
                    let unknown = rest.each(|unit, rest| if lost(unit) { rest } else { 0 });
                    records.push(Record {
                        kind: Kind::AllowanceExpired.into(),
                        amounts: Some(proto_amounts(&unknown)),
                        ..named(&slip.row, Record::default())
                    });
                }
                ReservationState::Closed if slip.row.recorded => {
                    // It was kept for who might repeat its settlement, and that is long ago.
                    slip.gone = true;
                }
                ReservationState::Closed => {
                    slip.row.recorded = true;
                    records.push(Record {
                        kind: Kind::AllowanceSettled.into(),
                        spent: Some(proto_spent(&reservation.spent)),
                        ..named(&slip.row, Record::default())
                    });
                }
                ReservationState::Open | ReservationState::Unknown => {}
            }
        }
        records
    }

    /// The records of alerts that are not in the log yet, and of shadows that a hard budget would have
    /// refused under for the first time in their window.
    fn alarms(&mut self, names: &BTreeMap<Uid, (String, String)>) -> Vec<Record> {
        let mut records = Vec::new();
        for (key, page) in &mut self.accounts {
            let Some(account) = self.ledger.account(key) else { continue };
            let reached = account.alerted > page.row.told;
            let is_over = account.over.reservations > 0 && !page.row.over_told;
            page.row.told = page.row.told.max(account.alerted);
            page.row.over_told |= is_over;
            let Some((tenant, budget)) = names.get(&key.budget) else { continue };
            let about = Record {
                tenant: tenant.clone(),
                budget: budget.clone(),
                unit: proto_unit(key.unit).into(),
                amounts: Some(proto_amounts(&Amounts::default().with(key.unit, account.cap))),
                ..Record::default()
            };
            if reached {
                let (kind, percent) = (Kind::BudgetAlert.into(), account.alerted.into());
                records.push(Record { kind, percent, ..about.clone() });
            }
            if is_over {
                records.push(Record { kind: Kind::BudgetWouldRefuse.into(), ..about });
            }
        }
        records
    }
}

async fn due_allowances<B: Backend>(
    connection: &mut B::Connection,
    now: Timestamp,
) -> Result<BTreeSet<Uid>, StoreError> {
    const SQL: &str = "SELECT id FROM allowance WHERE due_at <= $1 ORDER BY due_at LIMIT $2";
    let found = B::fetch(connection, SQL, &[now.into(), PAGE.into()]).await;
    let found = found.map_err(StoreError::from_sqlx)?;
    found.iter().map(rows::uid).collect()
}

async fn due_alerts<B: Backend>(
    connection: &mut B::Connection,
) -> Result<BTreeSet<(Uid, Timestamp)>, StoreError> {
    const SQL: &str = "\
        SELECT budget, window_start FROM budget_account \
        WHERE alerted > told OR (over_reservations > 0 AND NOT over_told) LIMIT $1";
    let found = B::fetch(connection, SQL, &[PAGE.into()]).await;
    found.map_err(StoreError::from_sqlx)?.iter().map(rows::window).collect()
}

/// What these budgets are called.
async fn budgets_of<B: Backend>(
    connection: &mut B::Connection,
    windows: &BTreeSet<(Uid, Timestamp)>,
) -> Result<BTreeMap<Uid, (String, String)>, StoreError> {
    const SQL: &str = "SELECT * FROM budget WHERE uid = $1";
    let mut names = BTreeMap::new();
    for (budget, _) in windows {
        let found = B::fetch(connection, SQL, &[Value::Bytes(budget.as_bytes())]).await;
        if let Some(row) = found.map_err(StoreError::from_sqlx)?.first() {
            let row = rows::budget(row)?;
            names.insert(*budget, (row.tenant.to_string(), row.id.to_string()));
        }
    }
    Ok(names)
}

fn named(row: &AllowanceRow, record: Record) -> Record {
    Record {
        tenant: row.tenant.to_string(),
        virtual_key: row.virtual_key.to_string(),
        allowance_id: row.id.as_bytes().to_vec().into(),
        ..record
    }
}

fn draft(record: Record) -> Result<RecordDraft, StoreError> {
    RecordDraft::new(record).map_err(StoreError::InvalidRecord)
}
