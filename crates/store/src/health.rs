use domain::{Failure, Health, Rest, Timestamp, Uid};

use crate::{
    StoreError,
    backend::{Backend, Row, Value},
    mapping::Columns,
};

/// How a credential fares, as one broker tells the others. It spares calls that would fail; no promise
/// rests on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthRow {
    /// Which credential.
    pub credential_uid: Uid,
    /// The credential's revision that fared so; a later one begins anew.
    pub revision: u64,
    /// When the rest began, also of one that has ended.
    pub since: Timestamp,
    /// The failures and the rest.
    pub health: Health,
    /// When this was written, by the database's clock; what is put in says nothing by it.
    pub changed_at: Timestamp,
}

/// The statements, with the database's time in place.
macro_rules! put_health {
    ($now:literal) => {
        concat!(
            "INSERT INTO credential_health (credential_uid, revision, failures, since, until, \
                why, probe, changed_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, ",
            $now,
            ") ON CONFLICT (credential_uid) DO UPDATE SET revision = excluded.revision, \
                failures = excluded.failures, since = excluded.since, until = excluded.until, \
                why = excluded.why, probe = excluded.probe, changed_at = excluded.changed_at \
             WHERE excluded.revision > credential_health.revision \
                OR (excluded.revision = credential_health.revision \
                    AND excluded.since >= credential_health.since)"
        )
    };
}
macro_rules! claim_probe {
    ($now:literal) => {
        concat!(
            "UPDATE credential_health SET probe = $3, changed_at = ",
            $now,
            " WHERE credential_uid = $1 AND since = $2 AND until <= $3 \
                AND (probe IS NULL OR probe <= $4)"
        )
    };
}
pub(crate) use {claim_probe, put_health};

/// Writes a row, unless a newer one is there.
pub(crate) async fn put<B: Backend>(
    connection: &mut B::Connection,
    row: &HealthRow,
) -> Result<u64, sqlx::Error> {
    let rest = row.health.rest();
    let millis = |time: Option<Timestamp>| Value::Integer(time.map(Timestamp::as_millis));
    let values = [
        row.credential_uid.as_ref().into(),
        row.revision.into(),
        row.health.failures().into(),
        row.since.into(),
        millis(rest.map(|rest| rest.until)),
        Value::Text(rest.map(|rest| rest.why.as_str())),
        millis(rest.and_then(|rest| rest.probe)),
    ];
    B::execute(connection, B::PUT_HEALTH, &values).await
}

/// Reads a row.
pub(crate) fn read(row: &Row) -> Result<HealthRow, StoreError> {
    let of = Columns { row, table: "credential_health" };
    let since = of.time("since")?;
    let why = of.optional_text("why")?;
    let rest = match (of.optional_time("until")?, why) {
        (Some(until), Some(why)) => {
            let why = Failure::of_word(&why).ok_or_else(|| of.corrupt("why"))?;
            Some(Rest { since, until, why, probe: of.optional_time("probe")? })
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(of.corrupt("why")),
    };
    Ok(HealthRow {
        credential_uid: of.uid("credential_uid")?,
        revision: of.number("revision")?,
        since,
        health: Health::of(of.number("failures")?, rest),
        changed_at: of.time("changed_at")?,
    })
}
