use std::{sync::Arc, time::Duration};

use audit::{proto_time, timestamp};
use domain::{CredentialName, TenantId, Timestamp, Tokens, Uid, VirtualKeyName, Zone};
use store::{
    CallQuery, UsageBy, UsageFilter, UsageQuery, UsageRow, UsageSum, quarter_of, quarter_start,
};
use strongroom_proto::v1::{
    self,
    query_usage_request::{Dimension, Order},
    usage_server::Usage,
};
use tonic::{Request, Response, Status};

use self::stretches::{Run, runs};
use crate::{
    caller::Caller,
    core::{Core, accept, page_size, parse, parse_tenant},
    refused::{About, Refused, Why},
};

mod stretches;

/// `strongroom.v1.Usage`.
#[derive(Clone, Debug)]
pub(crate) struct UsageService(pub(crate) Arc<Core>);

/// The most rows of one answer.
const MOST_SUMS: u32 = 10_000;

/// The most stretches of time.
const MOST_STRETCHES: u64 = 10_000;

/// The longest time that one question is about.
const LONGEST: Duration = Duration::from_hours(10 * 366 * 24);

#[tonic::async_trait]
impl Usage for UsageService {
    async fn query_usage(
        &self,
        request: Request<v1::QueryUsageRequest>,
    ) -> Result<Response<v1::QueryUsageResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.query_usage(&caller, &request)).await
    }

    async fn list_calls(
        &self,
        request: Request<v1::ListCallsRequest>,
    ) -> Result<Response<v1::ListCallsResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.list_calls(&caller, &request)).await
    }
}

impl Core {
    pub(crate) async fn query_usage(
        &self,
        caller: &Caller,
        request: &v1::QueryUsageRequest,
    ) -> Result<v1::QueryUsageResponse, Refused> {
        let (tenant, about) = self.whose(caller, &request.parent).await?;
        let work = async {
            let filter = filter(tenant, request.filter.as_ref())?;
            let by = by(&request.by().collect::<Vec<_>>())?;
            let zone: Zone = match &*request.time_zone {
                "" => Zone::UTC,
                name => parse(name)?,
            };
            let (from, until) = self.quarters(request)?;
            let runs = runs(from, until, request.per(), &zone);
            if runs.iter().map(Run::count).sum::<u64>() > MOST_STRETCHES {
                return Err(too_much());
            }
            let mut sums = Vec::new();
            for run in &runs {
                let room = MOST_SUMS.saturating_sub(u32::try_from(sums.len()).unwrap_or(u32::MAX));
                let query = UsageQuery {
                    filter: filter.clone(),
                    by,
                    from: from.max(run.origin),
                    until: until.min(run.end),
                    origin: run.origin,
                    length: run.length,
                    limit: room + 1,
                };
                let found = self.store.usage(&query).await?;
                if found.len() > room as usize {
                    return Err(too_much());
                }
                sums.extend(found.into_iter().map(|sum| (run.start_of(sum.stretch), sum)));
            }
            let is_split = request.per() != v1::query_usage_request::Per::Unspecified;
            Ok(v1::QueryUsageResponse {
                sums: in_order(sums, request.order(), request.limit)
                    .map(|(start, it)| sum(&it, is_split.then_some(start)))
                    .collect(),
                start_time: Some(proto_time(quarter_start(from))),
                end_time: Some(proto_time(quarter_start(until))),
            })
        };
        work.await.map_err(|why: Why| Refused::about(why, &about))
    }

    pub(crate) async fn list_calls(
        &self,
        caller: &Caller,
        request: &v1::ListCallsRequest,
    ) -> Result<v1::ListCallsResponse, Refused> {
        let (tenant, about) = self.whose(caller, &request.parent).await?;
        let work = async {
            let limit = page_size(request.page_size)?;
            let now = self.clock.now();
            let query = CallQuery {
                filter: filter(tenant, request.filter.as_ref())?,
                from: time(request.start_time.as_ref())?.unwrap_or_default(),
                // Clocks of callers may be ahead.
                until: time(request.end_time.as_ref())?.unwrap_or(now + Duration::from_hours(1)),
                after: page(&request.page_token)?,
                limit,
            };
            let calls = self.store.calls(&query).await?;
            let full = calls.len() >= limit as usize;
            let next = calls.last().filter(|_| full).map(|last| {
                format!("{}-{}", last.started_at.as_millis(), hex::encode(last.id.as_bytes()))
            });
            Ok(v1::ListCallsResponse {
                calls: calls.into_iter().map(call).collect(),
                next_page_token: next.unwrap_or_default(),
            })
        };
        work.await.map_err(|why: Why| Refused::about(why, &about))
    }

    /// Whose usage is asked for: a tenant's that the caller may act for, or all tenants'.
    async fn whose(
        &self,
        caller: &Caller,
        parent: &str,
    ) -> Result<(Option<TenantId>, About), Refused> {
        if parent.is_empty() {
            self.access.permit_all(caller)?;
            return Ok((None, About::default()));
        }
        let tenant = parse_tenant(parent)?;
        let about = About::from(&tenant);
        caller.concerns(about.clone());
        let found = self.tenant(caller, &tenant).await;
        found.map_err(|why| Refused::about(why, &about))?;
        Ok((Some(tenant), about))
    }

    /// The quarters that a question is about.
    fn quarters(&self, request: &v1::QueryUsageRequest) -> Result<(u64, u64), Why> {
        let wrong = "start_time is before end_time, and not more than ten years";
        let wrong = || Why::InvalidField(wrong.to_owned());
        let end = time(request.end_time.as_ref())?.unwrap_or_else(|| self.clock.now());
        let start = time(request.start_time.as_ref())?.ok_or_else(wrong)?;
        let from = quarter_of(start);
        let until = quarter_of(Timestamp::from_millis(end.as_millis().saturating_sub(1))) + 1;
        if start >= end || from >= until || end.since(start) > LONGEST {
            return Err(wrong());
        }
        Ok((from, until))
    }
}

/// Reads a time; parts of a millisecond do not count.
fn time(told: Option<&prost_types::Timestamp>) -> Result<Option<Timestamp>, Why> {
    let Some(told) = told else { return Ok(None) };
    let whole = prost_types::Timestamp { nanos: told.nanos / 1_000_000 * 1_000_000, ..*told };
    let read = timestamp(&whole);
    read.map(Some).ok_or_else(|| Why::InvalidField("a time is out of range".into()))
}

fn page(token: &str) -> Result<Option<(Timestamp, Uid)>, Why> {
    if token.is_empty() {
        return Ok(None);
    }
    let read = || {
        let (millis, id) = token.rsplit_once('-')?;
        let id = hex::decode(id).ok()?;
        Some((Timestamp::from_millis(millis.parse().ok()?), Uid::try_from(&*id).ok()?))
    };
    read().map(Some).ok_or_else(|| {
        Why::InvalidField("page_token is not one of ours: leave it out for the first page".into())
    })
}

fn too_much() -> Why {
    let what = "that is more than 10000 rows: ask for a shorter time, longer stretches of it, or \
                fewer things to tell apart";
    Why::InvalidField(what.into())
}

fn filter(tenant: Option<TenantId>, asked: Option<&v1::UsageFilter>) -> Result<UsageFilter, Why> {
    let Some(asked) = asked else { return Ok(UsageFilter { tenant, ..UsageFilter::default() }) };
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let number = |number: i32| (number != 0).then_some(number);
    if !asked.virtual_key.is_empty() {
        parse::<VirtualKeyName>(&asked.virtual_key)?;
    }
    if !asked.credential.is_empty() {
        parse::<CredentialName>(&asked.credential)?;
    }
    Ok(UsageFilter {
        tenant,
        virtual_key: text(&asked.virtual_key),
        credential: text(&asked.credential),
        provider: text(&asked.provider),
        model: text(&asked.model),
        source: number(asked.source),
        outcome: number(asked.outcome),
        status: number(i32::try_from(asked.status).unwrap_or(i32::MAX)),
    })
}

fn by(asked: &[Dimension]) -> Result<UsageBy, Why> {
    if asked.len() > 3 {
        return Err(Why::InvalidField("by names 3 at the most".into()));
    }
    let mut by = UsageBy::default();
    for dimension in asked {
        match dimension {
            Dimension::Tenant => by.tenant = true,
            Dimension::VirtualKey => by.virtual_key = true,
            Dimension::Model => by.model = true,
            Dimension::Provider => by.provider = true,
            Dimension::Credential => by.credential = true,
            Dimension::Source => by.source = true,
            Dimension::Outcome => by.outcome = true,
            Dimension::Status => by.status = true,
            Dimension::Unspecified => {
                return Err(Why::InvalidField("by names things to tell apart".into()));
            }
        }
    }
    Ok(by)
}

/// Stretch by stretch the largest first; of each stretch only so many, unless that is 0.
fn in_order(
    mut sums: Vec<(Timestamp, UsageSum)>,
    order: Order,
    limit: u32,
) -> impl Iterator<Item = (Timestamp, UsageSum)> {
    let size = |sum: &UsageSum| match order {
        Order::Calls => (sum.calls, 0),
        Order::Tokens => (sum.spent.tokens.all(), 0),
        Order::Unspecified => (sum.spent.cost_micros, sum.spent.cost_picos),
    };
    sums.sort_by(|(start, one), (next, other)| {
        let names = |sum: &UsageSum| (sum.tenant.clone(), sum.with.clone());
        start
            .cmp(next)
            .then_with(|| size(other).cmp(&size(one)))
            // Of equal size: always in the same order.
            .then_with(|| names(one).cmp(&names(other)))
    });
    let mut stretch = None;
    let mut place = 0;
    sums.into_iter().filter(move |(start, _)| {
        place = if stretch == Some(*start) { place + 1 } else { 1 };
        stretch = Some(*start);
        limit == 0 || place <= limit
    })
}

fn sum(sum: &UsageSum, period_start: Option<Timestamp>) -> v1::UsageSum {
    let tenant: Result<TenantId, _> = sum.tenant.parse();
    let with = sum.with.clone();
    v1::UsageSum {
        period_start: period_start.map(proto_time),
        tenant: tenant.map(|tenant| tenant.resource()).unwrap_or_default(),
        virtual_key: with.virtual_key,
        model: with.model,
        provider: with.provider,
        credential: with.credential,
        source: with.source.max(0),
        outcome: with.outcome.max(0),
        status: u32::try_from(with.status).unwrap_or(0),
        calls: sum.calls,
        tokens: Some(tokens(&sum.spent.tokens)),
        searches: sum.spent.searches,
        calls_of_unknown_usage: sum.usage_unknown,
        calls_of_unknown_cost: sum.cost_unknown,
        cost_micro_usd: sum.spent.cost_micros,
        cost_millionths: u32::try_from(sum.spent.cost_picos).unwrap_or(0),
        latency: mean(sum.latency_millis, sum.calls),
        first_token: mean(sum.first_token_millis, sum.first_tokens),
    }
}

fn mean(millis: u64, of: u64) -> Option<prost_types::Duration> {
    let mean = millis.checked_div(of)?;
    prost_types::Duration::try_from(Duration::from_millis(mean)).ok()
}

fn call(row: UsageRow) -> v1::UsageRecord {
    let duration = |millis| prost_types::Duration::try_from(Duration::from_millis(millis)).ok();
    v1::UsageRecord {
        usage_id: row.id.as_bytes().to_vec().into(),
        start_time: Some(proto_time(row.started_at)),
        tenant: row.tenant.resource(),
        virtual_key: row.with.virtual_key,
        credential: row.with.credential,
        credential_version: row.credential_version,
        provider: row.with.provider,
        model: row.with.model,
        requested_model: row.requested_model,
        source: row.with.source,
        dialect: row.dialect,
        endpoint: row.endpoint,
        status: u32::try_from(row.with.status).unwrap_or(0),
        outcome: row.with.outcome,
        tokens: Some(tokens(&row.spent.tokens)),
        usage_known: row.usage_known,
        cost_known: row.cost_known,
        cost_micro_usd: row.spent.cost_micros,
        cost_millionths: u32::try_from(row.spent.cost_picos).unwrap_or(0),
        cost_stated: row.cost_stated,
        price_version: row.price_version,
        latency: duration(row.latency_millis),
        first_token: row.first_token_millis.and_then(duration),
        lease_hash: row.lease_hash.into(),
        allowance_id: row.allowance_id.into(),
        attempts: row.attempts,
        searches: row.spent.searches,
    }
}

fn tokens(tokens: &Tokens) -> v1::Tokens {
    v1::Tokens {
        input: tokens.input,
        cache_read: tokens.cache_read,
        cache_write_5m: tokens.cache_write_5m,
        cache_write_1h: tokens.cache_write_1h,
        audio_input: tokens.audio_input,
        output: tokens.output,
        reasoning: tokens.reasoning,
        audio_output: tokens.audio_output,
    }
}
