use domain::Timestamp;

use super::{CallQuery, UsageFilter, UsageQuery};
use crate::backend::Value;

/// Sums over the rows of one tenant or of all. Costs are added up in two parts, so that no sum of
/// what fits a column is larger than one.
macro_rules! sums {
    ($whose:literal) => {
        concat!(
            "SELECT (quarter - $2) / $3 AS stretch, ",
            "CASE WHEN $6 THEN tenant ELSE '' END AS of_tenant, ",
            "CASE WHEN $7 THEN virtual_key ELSE '' END AS of_virtual_key, ",
            "CASE WHEN $8 THEN credential ELSE '' END AS of_credential, ",
            "CASE WHEN $9 THEN provider ELSE '' END AS of_provider, ",
            "CASE WHEN $10 THEN model ELSE '' END AS of_model, ",
            "CASE WHEN $11 THEN source ELSE -1 END AS of_source, ",
            "CASE WHEN $12 THEN outcome ELSE -1 END AS of_outcome, ",
            "CASE WHEN $13 THEN status ELSE -1 END AS of_status, ",
            "CAST(sum(calls) AS BIGINT) AS calls, CAST(sum(input) AS BIGINT) AS input, ",
            "CAST(sum(cache_read) AS BIGINT) AS cache_read, ",
            "CAST(sum(cache_write_5m) AS BIGINT) AS cache_write_5m, ",
            "CAST(sum(cache_write_1h) AS BIGINT) AS cache_write_1h, ",
            "CAST(sum(audio_input) AS BIGINT) AS audio_input, ",
            "CAST(sum(output) AS BIGINT) AS output, CAST(sum(reasoning) AS BIGINT) AS reasoning, ",
            "CAST(sum(audio_output) AS BIGINT) AS audio_output, ",
            "CAST(sum(searches) AS BIGINT) AS searches, ",
            "CAST(sum(cost_micros / 1000000) AS BIGINT) AS cost_usd, ",
            "CAST(sum(cost_micros % 1000000) AS BIGINT) AS cost_micros, ",
            "CAST(sum(cost_picos / 1000000) AS BIGINT) AS cost_more_micros, ",
            "CAST(sum(cost_picos % 1000000) AS BIGINT) AS cost_picos, ",
            "CAST(sum(usage_unknown) AS BIGINT) AS usage_unknown, ",
            "CAST(sum(cost_unknown) AS BIGINT) AS cost_unknown, ",
            "CAST(sum(latency_millis) AS BIGINT) AS latency_millis, ",
            "CAST(sum(first_token_millis) AS BIGINT) AS first_token_millis, ",
            "CAST(sum(first_tokens) AS BIGINT) AS first_tokens ",
            "FROM usage_sum WHERE ",
            $whose,
            " AND quarter >= $4 AND quarter < $5 ",
            "AND ($14 IS NULL OR virtual_key = $14) AND ($15 IS NULL OR credential = $15) ",
            "AND ($16 IS NULL OR provider = $16) AND ($17 IS NULL OR model = $17) ",
            "AND ($18 IS NULL OR source = $18) AND ($19 IS NULL OR outcome = $19) ",
            "AND ($20 IS NULL OR status = $20) ",
            "GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9 LIMIT $21"
        )
    };
}

/// The statement and the values that answer a question for sums.
pub(crate) fn sums(query: &UsageQuery) -> (&'static str, Vec<Value<'_>>) {
    const OF_TENANT: &str = sums!("tenant = $1");
    const OF_ALL: &str = sums!("$1 = ''");
    let UsageQuery { filter, by, from, until, origin, length, limit } = query;
    let (sql, tenant) = match &filter.tenant {
        Some(tenant) => (OF_TENANT, tenant.as_str()),
        None => (OF_ALL, ""),
    };
    let mut values = vec![
        tenant.into(),
        (*origin).into(),
        (*length).max(1).into(),
        (*from).into(),
        (*until).into(),
        Value::Flag(by.tenant),
        Value::Flag(by.virtual_key),
        Value::Flag(by.credential),
        Value::Flag(by.provider),
        Value::Flag(by.model),
        Value::Flag(by.source),
        Value::Flag(by.outcome),
        Value::Flag(by.status),
    ];
    values.extend(filtered(filter));
    values.push((*limit).into());
    (sql, values)
}

macro_rules! calls {
    ($whose:literal) => {
        concat!(
            "SELECT * FROM usage_call WHERE ",
            $whose,
            " AND started_at >= $2 ",
            "AND started_at < $3 AND (started_at < $4 OR (started_at = $4 AND usage_id < $5)) ",
            "AND ($6 IS NULL OR virtual_key = $6) AND ($7 IS NULL OR credential = $7) ",
            "AND ($8 IS NULL OR provider = $8) AND ($9 IS NULL OR model = $9) ",
            "AND ($10 IS NULL OR source = $10) AND ($11 IS NULL OR outcome = $11) ",
            "AND ($12 IS NULL OR status = $12) ",
            "ORDER BY started_at DESC, usage_id DESC LIMIT $13"
        )
    };
}

/// The statement and the values that answer a question for calls.
pub(crate) fn calls(query: &CallQuery) -> (&'static str, Vec<Value<'_>>) {
    const OF_TENANT: &str = calls!("tenant = $1");
    const OF_ALL: &str = calls!("$1 = ''");
    let CallQuery { filter, from, until, after, limit } = query;
    let (sql, tenant) = match &filter.tenant {
        Some(tenant) => (OF_TENANT, tenant.as_str()),
        None => (OF_ALL, ""),
    };
    let (before, id): (Timestamp, &[u8]) = match after {
        Some((at, id)) => (*at, id.as_ref()),
        None => (*until, &[]),
    };
    let mut values =
        vec![tenant.into(), (*from).into(), (*until).into(), before.into(), Value::Bytes(id)];
    values.extend(filtered(filter));
    values.push((*limit).into());
    (sql, values)
}

fn filtered(filter: &UsageFilter) -> [Value<'_>; 7] {
    let number = |number: Option<i32>| Value::Integer(number.map(i64::from));
    [
        Value::Text(filter.virtual_key.as_deref()),
        Value::Text(filter.credential.as_deref()),
        Value::Text(filter.provider.as_deref()),
        Value::Text(filter.model.as_deref()),
        number(filter.source),
        number(filter.outcome),
        number(filter.status),
    ]
}
