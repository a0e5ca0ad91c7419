use domain::{TenantId, Timestamp, Tokens, Uid};

mod ask;
mod count;

pub(crate) use ask::{calls, sums};
pub(crate) use count::{AT_ONCE, add_sums, count, forget, keep_calls};

/// One call as it is kept, without its content. Numbers of sources, dialects and outcomes are the
/// contract's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UsageRow {
    /// The call's own id: a call is counted once.
    pub id: Uid,
    /// For whom it was.
    pub tenant: TenantId,
    /// When it began.
    pub started_at: Timestamp,
    /// Whom and what it was with.
    pub with: UsageKey,
    /// The version of the credential's secret.
    pub credential_version: u64,
    /// The model that the application asked for.
    pub requested_model: String,
    /// In which format.
    pub dialect: i32,
    /// What was called, in a word.
    pub endpoint: String,
    /// What it took.
    pub spent: UsageSpent,
    /// Whether the tokens are the provider's last word.
    pub usage_known: bool,
    /// Whether the cost is all of it.
    pub cost_known: bool,
    /// Whether the provider stated the cost.
    pub cost_stated: bool,
    /// The prices that it was computed by.
    pub price_version: String,
    /// From its beginning to the answer's end.
    pub latency_millis: u64,
    /// From its beginning to the answer's first byte, if there was one.
    pub first_token_millis: Option<u64>,
    /// The lease that it was made under.
    pub lease_hash: Vec<u8>,
    /// The allowance that it was made in; may be empty.
    pub allowance_id: Vec<u8>,
    /// How many credentials were tried.
    pub attempts: u32,
}

/// What sums of calls are told apart by, beside the tenant and the time. What a query does not ask for
/// is empty, or -1.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct UsageKey {
    /// The virtual key's resource name; may be empty.
    pub virtual_key: String,
    /// The credential's resource name.
    pub credential: String,
    /// The provider's slug.
    pub provider: String,
    /// The model that the provider was asked for.
    pub model: String,
    /// Whose credential it was.
    pub source: i32,
    /// How it ended.
    pub outcome: i32,
    /// The HTTP status towards the client.
    pub status: i32,
}

/// What calls took.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UsageSpent {
    /// Tokens by kind.
    pub tokens: Tokens,
    /// Searches beside them.
    pub searches: u64,
    /// The known cost, in whole micro-USD.
    pub cost_micros: u64,
    /// The pico-USD beside them: of one call fewer than a million.
    pub cost_picos: u64,
}

/// What some calls took together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UsageSum {
    /// Which stretch of the query's time: the first is 0.
    pub stretch: u64,
    /// The tenant, if the query asks for it; else empty.
    pub tenant: String,
    /// What else it asks for.
    pub with: UsageKey,
    /// How many calls.
    pub calls: u64,
    /// What they took. `cost_picos` are fewer than a million.
    pub spent: UsageSpent,
    /// Of how many the tokens are not all known.
    pub usage_unknown: u64,
    /// Of how many the cost is not all known.
    pub cost_unknown: u64,
    /// Their latencies added up.
    pub latency_millis: u64,
    /// Their times to the first byte added up.
    pub first_token_millis: u64,
    /// How many had a first byte.
    pub first_tokens: u64,
}

/// Which calls: those to which all that is set applies.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UsageFilter {
    /// For this tenant; without one, for all.
    pub tenant: Option<TenantId>,
    /// With this virtual key, by its resource name.
    pub virtual_key: Option<String>,
    /// With this credential, by its resource name.
    pub credential: Option<String>,
    /// To this provider.
    pub provider: Option<String>,
    /// Of this model.
    pub model: Option<String>,
    /// From this source.
    pub source: Option<i32>,
    /// That ended so.
    pub outcome: Option<i32>,
    /// With this status.
    pub status: Option<i32>,
}

/// What sums to tell apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a yes or no of its own")]
pub struct UsageBy {
    /// Those of each tenant.
    pub tenant: bool,
    /// Those of each virtual key.
    pub virtual_key: bool,
    /// Those of each credential.
    pub credential: bool,
    /// Those of each provider.
    pub provider: bool,
    /// Those of each model.
    pub model: bool,
    /// Those of each source.
    pub source: bool,
    /// Those of each outcome.
    pub outcome: bool,
    /// Those of each status.
    pub status: bool,
}

/// A question for sums. Times are counted in quarters of an hour since 1970: there are time zones
/// whose days begin on a quarter, and none that have finer ones.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UsageQuery {
    /// Of which calls.
    pub filter: UsageFilter,
    /// What to tell apart.
    pub by: UsageBy,
    /// The first quarter.
    pub from: u64,
    /// The first quarter after it.
    pub until: u64,
    /// Where stretches of time are counted from: at or before `from`.
    pub origin: u64,
    /// How many quarters a stretch has.
    pub length: u64,
    /// The most rows.
    pub limit: u32,
}

/// A question for calls one by one, the latest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CallQuery {
    /// Which calls.
    pub filter: UsageFilter,
    /// That began then or later.
    pub from: Timestamp,
    /// That began before.
    pub until: Timestamp,
    /// Only those that come after this one: its time and id.
    pub after: Option<(Timestamp, Uid)>,
    /// The most of them.
    pub limit: u32,
}

/// The length of a quarter of an hour.
pub(crate) const QUARTER_MILLIS: i64 = 15 * 60 * 1000;

/// The quarter that a moment is in.
pub fn quarter_of(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis().div_euclid(QUARTER_MILLIS)).unwrap_or(0)
}

/// The moment a quarter begins.
pub fn quarter_start(quarter: u64) -> Timestamp {
    let quarter = i64::try_from(quarter).unwrap_or(i64::MAX / QUARTER_MILLIS);
    Timestamp::from_millis(quarter.saturating_mul(QUARTER_MILLIS))
}
