use domain::{Tokens, Uid};

use super::Columns;
use crate::{StoreError, UsageKey, UsageRow, UsageSpent, UsageSum, backend::Row};

/// The id of a call that was kept.
pub(crate) fn usage_id(row: &Row) -> Result<Uid, StoreError> {
    Columns { row, table: "usage_call" }.uid("usage_id")
}

pub(crate) fn usage_call(row: &Row) -> Result<UsageRow, StoreError> {
    let of = Columns { row, table: "usage_call" };
    let flag = |column| of.number::<u8>(column).map(|flag| flag != 0);
    let first_token: Option<i64> = row.read("usage_call", "first_token_millis")?;
    Ok(UsageRow {
        id: of.uid("usage_id")?,
        tenant: of.parsed("tenant")?,
        started_at: of.time("started_at")?,
        with: UsageKey {
            virtual_key: of.text("virtual_key")?,
            credential: of.text("credential")?,
            provider: of.text("provider")?,
            model: of.text("model")?,
            source: of.number("source")?,
            outcome: of.number("outcome")?,
            status: of.number("status")?,
        },
        credential_version: of.number("credential_version")?,
        requested_model: of.text("requested_model")?,
        dialect: of.number("dialect")?,
        endpoint: of.text("endpoint")?,
        spent: UsageSpent {
            tokens: tokens(&of)?,
            searches: of.number("searches")?,
            cost_micros: of.number("cost_micros")?,
            cost_picos: of.number("cost_picos")?,
        },
        usage_known: flag("usage_known")?,
        cost_known: flag("cost_known")?,
        cost_stated: flag("cost_stated")?,
        price_version: of.text("price_version")?,
        latency_millis: of.number("latency_millis")?,
        first_token_millis: first_token
            .map(|millis| u64::try_from(millis).map_err(|_| of.corrupt("first_token_millis")))
            .transpose()?,
        lease_hash: of.bytes("lease_hash")?,
        allowance_id: of.bytes("allowance_id")?,
        attempts: of.number("attempts")?,
    })
}

pub(crate) fn usage_sum(row: &Row) -> Result<UsageSum, StoreError> {
    let of = Columns { row, table: "usage_sum" };
    let (cost_micros, cost_picos) = cost(&of)?;
    Ok(UsageSum {
        stretch: of.number("stretch")?,
        tenant: of.text("of_tenant")?,
        with: UsageKey {
            virtual_key: of.text("of_virtual_key")?,
            credential: of.text("of_credential")?,
            provider: of.text("of_provider")?,
            model: of.text("of_model")?,
            source: of.number("of_source")?,
            outcome: of.number("of_outcome")?,
            status: of.number("of_status")?,
        },
        calls: of.number("calls")?,
        spent: UsageSpent {
            tokens: tokens(&of)?,
            searches: of.number("searches")?,
            cost_micros,
            cost_picos,
        },
        usage_unknown: of.number("usage_unknown")?,
        cost_unknown: of.number("cost_unknown")?,
        latency_millis: of.number("latency_millis")?,
        first_token_millis: of.number("first_token_millis")?,
        first_tokens: of.number("first_tokens")?,
    })
}

fn tokens(of: &Columns<'_>) -> Result<Tokens, StoreError> {
    Ok(Tokens {
        input: of.number("input")?,
        cache_read: of.number("cache_read")?,
        cache_write_5m: of.number("cache_write_5m")?,
        cache_write_1h: of.number("cache_write_1h")?,
        audio_input: of.number("audio_input")?,
        output: of.number("output")?,
        reasoning: of.number("reasoning")?,
        audio_output: of.number("audio_output")?,
    })
}

/// The parts of a sum of costs put together: whole micro-USD, and the pico-USD beside them.
fn cost(of: &Columns<'_>) -> Result<(u64, u64), StoreError> {
    let part = |column| of.number::<u64>(column).map(u128::from);
    let micros = part("cost_usd")? * 1_000_000 + part("cost_micros")? + part("cost_more_micros")?;
    let picos = part("cost_picos")?;
    let whole = u64::try_from(micros + picos / 1_000_000);
    let rest = u64::try_from(picos % 1_000_000);
    match (whole, rest) {
        (Ok(whole), Ok(rest)) => Ok((whole, rest)),
        (Err(_), _) | (_, Err(_)) => Err(of.corrupt("cost_micros")),
    }
}
