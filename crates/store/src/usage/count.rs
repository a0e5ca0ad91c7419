use std::collections::{BTreeMap, HashSet};

use domain::Timestamp;
use serde_json::{Value as Json, json};

use super::{UsageKey, UsageRow, UsageSpent, quarter_of};
use crate::{backend::Backend, error::is_lost, mapping};

/// Statements that take all their rows as one JSON array: `$bytes` reads bytes from hex, and `$rows` is
/// the array as a table with the column `value`.
macro_rules! keep_calls {
    ($from_hex:literal, $end:literal, $rows:literal) => {
        concat!(
            "INSERT INTO usage_call (usage_id, tenant, started_at, virtual_key, credential, ",
            "provider, model, source, outcome, status, credential_version, requested_model, ",
            "dialect, endpoint, input, cache_read, cache_write_5m, cache_write_1h, audio_input, ",
            "output, reasoning, audio_output, searches, cost_micros, cost_picos, usage_known, ",
            "cost_known, cost_stated, price_version, latency_millis, first_token_millis, ",
            "lease_hash, allowance_id, attempts) SELECT ",
            $from_hex,
            "value->>0",
            $end,
            ", value->>1, CAST(value->>2 AS BIGINT), value->>3, ",
            "value->>4, value->>5, value->>6, CAST(value->>7 AS BIGINT), ",
            "CAST(value->>8 AS BIGINT), CAST(value->>9 AS BIGINT), CAST(value->>10 AS BIGINT), ",
            "value->>11, CAST(value->>12 AS BIGINT), value->>13, CAST(value->>14 AS BIGINT), ",
            "CAST(value->>15 AS BIGINT), CAST(value->>16 AS BIGINT), CAST(value->>17 AS BIGINT), ",
            "CAST(value->>18 AS BIGINT), CAST(value->>19 AS BIGINT), CAST(value->>20 AS BIGINT), ",
            "CAST(value->>21 AS BIGINT), CAST(value->>22 AS BIGINT), CAST(value->>23 AS BIGINT), ",
            "CAST(value->>24 AS BIGINT), CAST(value->>25 AS BIGINT), CAST(value->>26 AS BIGINT), ",
            "CAST(value->>27 AS BIGINT), value->>28, CAST(value->>29 AS BIGINT), ",
            "CAST(value->>30 AS BIGINT), ",
            $from_hex,
            "value->>31",
            $end,
            ", ",
            $from_hex,
            "value->>32",
            $end,
            ", CAST(value->>33 AS BIGINT) ",
            "FROM ",
            $rows,
            " WHERE true ON CONFLICT (usage_id) DO NOTHING RETURNING usage_id"
        )
    };
}
pub(crate) use keep_calls;

macro_rules! add_sums {
    ($rows:literal) => {
        concat!(
            "INSERT INTO usage_sum (tenant, quarter, virtual_key, credential, provider, model, ",
            "source, outcome, status, calls, input, cache_read, cache_write_5m, cache_write_1h, ",
            "audio_input, output, reasoning, audio_output, searches, cost_micros, cost_picos, ",
            "usage_unknown, cost_unknown, latency_millis, first_token_millis, first_tokens) ",
            "SELECT value->>0, CAST(value->>1 AS BIGINT), value->>2, value->>3, value->>4, ",
            "value->>5, CAST(value->>6 AS BIGINT), CAST(value->>7 AS BIGINT), ",
            "CAST(value->>8 AS BIGINT), CAST(value->>9 AS BIGINT), CAST(value->>10 AS BIGINT), ",
            "CAST(value->>11 AS BIGINT), CAST(value->>12 AS BIGINT), CAST(value->>13 AS BIGINT), ",
            "CAST(value->>14 AS BIGINT), CAST(value->>15 AS BIGINT), CAST(value->>16 AS BIGINT), ",
            "CAST(value->>17 AS BIGINT), CAST(value->>18 AS BIGINT), CAST(value->>19 AS BIGINT), ",
            "CAST(value->>20 AS BIGINT), CAST(value->>21 AS BIGINT), CAST(value->>22 AS BIGINT), ",
            "CAST(value->>23 AS BIGINT), CAST(value->>24 AS BIGINT), CAST(value->>25 AS BIGINT) ",
            "FROM ",
            $rows,
            " WHERE true ON CONFLICT (tenant, quarter, virtual_key, credential, ",
            "provider, model, source, outcome, status) DO UPDATE SET ",
            "calls = usage_sum.calls + excluded.calls, ",
            "input = usage_sum.input + excluded.input, ",
            "cache_read = usage_sum.cache_read + excluded.cache_read, ",
            "cache_write_5m = usage_sum.cache_write_5m + excluded.cache_write_5m, ",
            "cache_write_1h = usage_sum.cache_write_1h + excluded.cache_write_1h, ",
            "audio_input = usage_sum.audio_input + excluded.audio_input, ",
            "output = usage_sum.output + excluded.output, ",
            "reasoning = usage_sum.reasoning + excluded.reasoning, ",
            "audio_output = usage_sum.audio_output + excluded.audio_output, ",
            "searches = usage_sum.searches + excluded.searches, ",
            "cost_micros = usage_sum.cost_micros + excluded.cost_micros, ",
            "cost_picos = usage_sum.cost_picos + excluded.cost_picos, ",
            "usage_unknown = usage_sum.usage_unknown + excluded.usage_unknown, ",
            "cost_unknown = usage_sum.cost_unknown + excluded.cost_unknown, ",
            "latency_millis = usage_sum.latency_millis + excluded.latency_millis, ",
            "first_token_millis = usage_sum.first_token_millis + excluded.first_token_millis, ",
            "first_tokens = usage_sum.first_tokens + excluded.first_tokens"
        )
    };
}
pub(crate) use add_sums;

/// How many calls are counted in one transaction: where only one can write, the log waits for it.
pub(crate) const AT_ONCE: usize = 128;

/// Keeps calls and adds them to the sums, in one transaction. Says of each whether it is new.
///
/// Everything is in the order of keys, so that brokers that do this at the same time wait for each
/// other and never in a circle.
pub(crate) async fn count<B: Backend>(
    connection: &mut B::Connection,
    calls: &[UsageRow],
) -> Result<Vec<bool>, sqlx::Error> {
    let mut sorted: Vec<&UsageRow> = calls.iter().collect();
    sorted.sort_by_key(|call| *call.id.as_bytes());
    let rows = Json::Array(sorted.iter().map(|call| row_of(call)).collect()).to_string();
    B::execute(connection, B::BEGIN, &[]).await?;
    let counted = async {
        let kept = B::fetch(connection, B::KEEP_CALLS, &[rows.as_str().into()]).await?;
        let kept = kept.iter().map(mapping::usage_id).collect::<Result<HashSet<_>, _>>();
        let mut kept = kept.map_err(|error| sqlx::Error::Decode(error.into()))?;
        // Of a call that is there twice, the first one counts.
        let new: Vec<bool> = calls.iter().map(|call| kept.remove(&call.id)).collect();
        let news = calls.iter().zip(&new).filter(|(_, new)| **new).map(|(call, _)| call);
        let sums = Json::Array(sums_of(news)).to_string();
        B::execute(connection, B::ADD_SUMS, &[sums.as_str().into()]).await?;
        Ok(new)
    }
    .await;
    match counted {
        Ok(new) => B::commit(connection).await.map(|()| new),
        Err(error) => {
            if !is_lost(&error) {
                B::rollback(connection).await?;
            }
            Err(error)
        }
    }
}

fn row_of(call: &UsageRow) -> Json {
    let UsageKey { virtual_key, credential, provider, model, source, outcome, status } = &call.with;
    let UsageSpent { tokens, searches, cost_micros, cost_picos } = call.spent;
    json!([
        hex(call.id.as_bytes()),
        call.tenant.as_str(),
        call.started_at.as_millis(),
        virtual_key,
        credential,
        provider,
        model,
        source,
        outcome,
        status,
        call.credential_version,
        call.requested_model,
        call.dialect,
        call.endpoint,
        tokens.input,
        tokens.cache_read,
        tokens.cache_write_5m,
        tokens.cache_write_1h,
        tokens.audio_input,
        tokens.output,
        tokens.reasoning,
        tokens.audio_output,
        searches,
        cost_micros,
        cost_picos,
        u8::from(call.usage_known),
        u8::from(call.cost_known),
        u8::from(call.cost_stated),
        call.price_version,
        call.latency_millis,
        call.first_token_millis,
        hex(&call.lease_hash),
        hex(&call.allowance_id),
        call.attempts,
    ])
}

/// What calls add to each sum, in the order of the sums' keys.
fn sums_of<'a>(calls: impl Iterator<Item = &'a UsageRow>) -> Vec<Json> {
    let mut sums: BTreeMap<(&str, u64, &UsageKey), [u64; 17]> = BTreeMap::new();
    for call in calls {
        let UsageSpent { tokens, searches, cost_micros, cost_picos } = call.spent;
        let added = [
            1,
            tokens.input,
            tokens.cache_read,
            tokens.cache_write_5m,
            tokens.cache_write_1h,
            tokens.audio_input,
            tokens.output,
            tokens.reasoning,
            tokens.audio_output,
            searches,
            cost_micros,
            cost_picos,
            u64::from(!call.usage_known),
            u64::from(!call.cost_known),
            call.latency_millis,
            call.first_token_millis.unwrap_or(0),
            u64::from(call.first_token_millis.is_some()),
        ];
        let key = (call.tenant.as_str(), quarter_of(call.started_at), &call.with);
        let sum = sums.entry(key).or_default();
        for (sum, added) in sum.iter_mut().zip(added) {
            // What does not fit the column any more is refused there.
            *sum = sum.saturating_add(added);
        }
    }
    let row = |((tenant, quarter, with), sum): ((&str, u64, &UsageKey), [u64; 17])| {
        let UsageKey { virtual_key, credential, provider, model, source, outcome, status } = with;
        let mut row = vec![
            json!(tenant),
            json!(quarter),
            json!(virtual_key),
            json!(credential),
            json!(provider),
            json!(model),
            json!(source),
            json!(outcome),
            json!(status),
        ];
        row.extend(sum.map(Json::from));
        Json::Array(row)
    };
    sums.into_iter().map(row).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Takes out some of what is older, calls and sums each by their own time; says how many rows.
pub(crate) async fn forget<B: Backend>(
    connection: &mut B::Connection,
    calls_before: Timestamp,
    sums_before: Timestamp,
) -> Result<u64, sqlx::Error> {
    const CALLS: &str = "\
        DELETE FROM usage_call WHERE usage_id IN ( \
            SELECT usage_id FROM usage_call WHERE started_at < $1 ORDER BY started_at LIMIT $2)";
    const SUMS: &str = "\
        DELETE FROM usage_sum WHERE quarter < $1 \
            AND quarter < (SELECT min(quarter) FROM usage_sum) + $2";
    let values = [calls_before.into(), AT_A_TIME.into()];
    let calls = B::execute(connection, CALLS, &values).await?;
    let values = [quarter_of(sums_before).into(), QUARTERS_AT_A_TIME.into()];
    Ok(calls + B::execute(connection, SUMS, &values).await?)
}

/// Others wait for the writer, so it takes out little at a time.
const AT_A_TIME: u32 = 500;
const QUARTERS_AT_A_TIME: u32 = 4;
