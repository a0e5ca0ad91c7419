use std::time::Duration;

use audit::timestamp;
use domain::{CredentialName, ProviderId, TenantId, Timestamp, Tokens, Uid, VirtualKeyName};
use store::{UsageKey, UsageRow, UsageSpent};
use strongroom_proto::v1::{self, usage_record::Outcome};

use crate::{
    caller::Caller,
    core::{Core, parse_tenant},
    refused::Why,
};

/// What became of a usage record.
#[derive(Debug)]
pub(crate) enum Noted {
    /// It is counted now.
    Counted,
    /// It was counted before: this time it counts for nothing.
    AlreadyCounted,
    /// It is not counted.
    Refused(Why),
}

/// How late a call may be reported: for a day less than it is kept at the least, so that it is known
/// again. `UsageConfig` sees to that.
const LATEST: Duration = Duration::from_hours(7 * 24);

/// How far a caller's clock may be ahead.
const AHEAD: Duration = Duration::from_mins(5);

/// The most of anything that one call can take: a million million tokens, a million USD.
const MOST: u64 = 1_000_000_000_000;

/// A call that takes longer is not one.
const LONGEST_CALL: Duration = Duration::from_hours(24);

/// The most records at once.
pub(crate) const MOST_RECORDS: usize = 1000;

impl Core {
    /// Counts calls that a caller made, and says of each what became of it. All that is counted is
    /// durable; on `Err` all of it may be sent again.
    pub(crate) async fn record_usage(
        &self,
        caller: &Caller,
        records: &[v1::UsageRecord],
    ) -> Result<Vec<Noted>, Why> {
        if records.len() > MOST_RECORDS {
            return Err(Why::InvalidField("at most 1000 usage records at once".into()));
        }
        let now = self.clock.now();
        let mut rows = Vec::with_capacity(records.len());
        let mut noted = Vec::with_capacity(records.len());
        for record in records {
            match self.usage_row(caller, record, now) {
                Ok(row) => {
                    rows.push(row);
                    noted.push(Noted::Counted);
                }
                Err(why) => noted.push(Noted::Refused(why)),
            }
        }
        let new = self.store.count_usage(&rows).await?;
        let counted = noted.iter_mut().filter(|it| matches!(it, Noted::Counted));
        for (it, _) in counted.zip(new).filter(|(_, new)| !*new) {
            *it = Noted::AlreadyCounted;
        }
        for it in &noted {
            let outcome = match it {
                Noted::Counted => "counted",
                Noted::AlreadyCounted => "repeated",
                Noted::Refused(_) => "refused",
            };
            metrics::counter!("strongroom_usage_records_total", "outcome" => outcome).increment(1);
        }
        Ok(noted)
    }

    /// A record as it is kept, if the caller may report it and it can be true.
    fn usage_row(
        &self,
        caller: &Caller,
        record: &v1::UsageRecord,
        now: Timestamp,
    ) -> Result<UsageRow, Why> {
        let tenant = parse_tenant(&record.tenant)?;
        self.access.permit_borrowing(caller, &tenant)?;
        let id = Uid::try_from(record.usage_id.as_ref())
            .map_err(|_| Why::InvalidField("usage_id has 16 bytes".into()))?;
        let started_at = started_at(record, now)?;
        let spent = spent(record)?;
        let latency = duration(record.latency, "latency")?.unwrap_or_default();
        let first_token = duration(record.first_token, "first_token")?;
        Ok(UsageRow {
            id,
            with: key(record, &tenant)?,
            tenant,
            started_at,
            credential_version: record.credential_version.min(MOST),
            requested_model: text(&record.requested_model, "requested_model", 256)?,
            dialect: record.dialect().into(),
            endpoint: text(&record.endpoint, "endpoint", 64)?,
            spent,
            usage_known: record.usage_known,
            cost_known: record.cost_known,
            cost_stated: record.cost_stated,
            price_version: text(&record.price_version, "price_version", 64)?,
            latency_millis: latency,
            first_token_millis: first_token,
            lease_hash: bytes(&record.lease_hash, "lease_hash", 32)?,
            allowance_id: bytes(&record.allowance_id, "allowance_id", 16)?,
            attempts: record.attempts,
        })
    }
}

/// When the call began; not in the future, and not longer ago than it would be known again.
fn started_at(record: &v1::UsageRecord, now: Timestamp) -> Result<Timestamp, Why> {
    // Kept to the millisecond.
    let whole = |time: &prost_types::Timestamp| prost_types::Timestamp {
        nanos: time.nanos / 1_000_000 * 1_000_000,
        ..*time
    };
    let started_at = record.start_time.as_ref().and_then(|time| timestamp(&whole(time)));
    started_at.filter(|it| now.since(*it) <= LATEST && it.since(now) <= AHEAD).ok_or_else(|| {
        Why::InvalidField("start_time is in the last 7 days; check the clock".into())
    })
}

/// What the call is told apart by, with names that fit together.
fn key(record: &v1::UsageRecord, tenant: &TenantId) -> Result<UsageKey, Why> {
    let wrong = |what: &str| Why::InvalidField(what.to_owned());
    let credential: CredentialName =
        record.credential.parse().map_err(|_| wrong("credential is a credential's name"))?;
    if credential.tenant != *tenant && credential.tenant != TenantId::platform() {
        return Err(wrong("credential is of another tenant"));
    }
    if !record.virtual_key.is_empty() {
        let key: VirtualKeyName =
            record.virtual_key.parse().map_err(|_| wrong("virtual_key is a virtual key's name"))?;
        if key.tenant != *tenant {
            return Err(wrong("virtual_key is of another tenant"));
        }
    }
    let provider: ProviderId =
        record.provider.parse().map_err(|_| wrong("provider is a provider's slug"))?;
    if record.source() == v1::Source::Unspecified || record.outcome() == Outcome::Unspecified {
        return Err(wrong("source and outcome must be set"));
    }
    let status = i32::try_from(record.status).ok().filter(|status| *status <= 999);
    Ok(UsageKey {
        virtual_key: record.virtual_key.clone(),
        credential: credential.to_string(),
        provider: provider.to_string(),
        model: text(&record.model, "model", 256)?,
        source: record.source,
        outcome: record.outcome,
        status: status.ok_or_else(|| wrong("status is an HTTP status"))?,
    })
}

fn spent(record: &v1::UsageRecord) -> Result<UsageSpent, Why> {
    let told = record.tokens.unwrap_or_default();
    let tokens = Tokens {
        input: told.input,
        cache_read: told.cache_read,
        cache_write_5m: told.cache_write_5m,
        cache_write_1h: told.cache_write_1h,
        audio_input: told.audio_input,
        output: told.output,
        reasoning: told.reasoning,
        audio_output: told.audio_output,
    };
    let searches = record.searches;
    let all = tokens.all().saturating_add(searches);
    if all > MOST || record.cost_micro_usd > MOST || record.cost_millionths >= 1_000_000 {
        let what = "no call takes a million million tokens or costs a million USD, and \
                    cost_millionths are fewer than a million";
        return Err(Why::InvalidField(what.into()));
    }
    let (cost_micros, cost_picos) = (record.cost_micro_usd, record.cost_millionths.into());
    Ok(UsageSpent { tokens, searches, cost_micros, cost_picos })
}

fn duration(told: Option<prost_types::Duration>, name: &str) -> Result<Option<u64>, Why> {
    let Some(told) = told else { return Ok(None) };
    let told = Duration::try_from(told).ok().filter(|it| *it <= LONGEST_CALL);
    let millis = told.and_then(|it| u64::try_from(it.as_millis()).ok());
    millis.map(Some).ok_or_else(|| Why::InvalidField(format!("{name} is a day at the most")))
}

fn text(told: &str, name: &str, longest: usize) -> Result<String, Why> {
    if told.len() <= longest && !told.chars().any(char::is_control) {
        Ok(told.to_owned())
    } else {
        Err(Why::InvalidField(format!("{name} is one line of {longest} bytes at most")))
    }
}

fn bytes(told: &[u8], name: &str, length: usize) -> Result<Vec<u8>, Why> {
    if told.is_empty() || told.len() == length {
        Ok(told.to_vec())
    } else {
        Err(Why::InvalidField(format!("{name} has {length} bytes, or none")))
    }
}

#[cfg(test)]
mod tests;
