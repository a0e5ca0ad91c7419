use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use domain::{Cost, Dialect, Source, Spending, Timestamp, Tokens, Unit};
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use metering::{Basis, Ended, Framing, Meter, Metered, Priced, Prices, Reading, Usage};
use strongroom_client::{Held, LimitState};
use strongroom_proto::v1::{self, usage_record::Outcome};

use super::{Metering, Plan, kind::Kind, prices::price};
use crate::{Loan, encoding::is_encoded, route::Operation, upstream::Upstream};

/// What is known of one call, from its beginning until its record is written. Nothing of what was
/// asked or answered is in it.
///
/// However the call ends, what it holds of budgets is settled: with what it came to, with nothing when
/// it was not sent, and otherwise as unknown.
#[derive(Debug)]
pub(crate) struct Tab {
    metering: Arc<Metering>,
    start_time: Timestamp,
    started: Duration,
    requested_model: String,
    dialect: Dialect,
    operation: Operation,
    attempts: u32,
    attempt: Option<Attempt>,
    /// The slice that it counts in.
    allowance: Option<[u8; 16]>,
    /// How the limits stood when the attempt at hand began.
    limits: Vec<LimitState>,
    first_byte: Option<Duration>,
}

/// One try with one credential.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) loan: Arc<dyn Loan>,
    pub(crate) upstream: Arc<Upstream>,
    /// The model as the provider is asked for it.
    pub(crate) model: String,
    pub(crate) plan: Plan,
    /// What it is priced by; none when that cannot be had.
    pub(crate) prices: Option<Arc<Prices>>,
    pub(crate) held: Held,
    pub(crate) course: Course,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Course {
    /// Nothing was sent.
    Planned,
    /// The provider may have begun with it.
    Sent,
    /// It did not reach the provider.
    NotReached,
    /// The provider answered with an error of this status, for which none charges.
    Error(StatusCode),
}

/// What a call came to, as far as it is known.
#[derive(Clone, Copy, Debug)]
struct Came {
    usage: Usage,
    usage_known: bool,
    cost: Cost,
    cost_known: bool,
    is_stated: bool,
}

impl Tab {
    pub(crate) fn open(
        metering: &Arc<Metering>,
        started: Duration,
        (dialect, operation): (Dialect, Operation),
        requested_model: &str,
    ) -> Self {
        Self {
            metering: Arc::clone(metering),
            start_time: metering.clock.now(),
            started,
            requested_model: requested_model.to_owned(),
            dialect,
            operation,
            attempts: 0,
            attempt: None,
            allowance: None,
            limits: Vec::new(),
            first_byte: None,
        }
    }

    /// Begins with a credential. The attempt before, if there was one, has been settled.
    pub(crate) fn begin(&mut self, attempt: Attempt) {
        self.attempts += 1;
        self.settle(None);
        self.allowance = attempt.held.allowance_id();
        self.limits = attempt.held.states(self.metering.clock.elapsed());
        self.attempt = Some(attempt);
    }

    /// No attempt begins: a limit has no room, or nobody knows. This is how the limits stand.
    pub(crate) fn refused(&mut self, limits: Vec<LimitState>) {
        self.limits = limits;
    }

    /// From now on the provider may know of it.
    pub(crate) fn sent(&mut self) {
        self.turn(Course::Sent);
    }

    /// The attempt did not reach the provider.
    pub(crate) fn not_reached(&mut self) {
        self.turn(Course::NotReached);
        self.settle(None);
    }

    /// The provider answered with an error. It counts as a call, and costs nothing.
    pub(crate) fn answered_with_error(&mut self, status: StatusCode) {
        self.turn(Course::Error(status));
        self.settle(Some(&Spending { requests: 1, ..Spending::default() }));
    }

    /// The first byte of an answer is there.
    pub(crate) fn heard(&mut self) {
        if self.first_byte.is_none() {
            self.first_byte = Some(self.metering.clock.elapsed().saturating_sub(self.started));
        }
    }

    /// How the limits that the call counts in stand.
    pub(crate) fn limits(&self) -> &[LimitState] {
        &self.limits
    }

    /// What reads an answer with this head; none when nothing in it can be read.
    pub(crate) fn meter(&self, head: &HeaderMap) -> Option<Meter> {
        let attempt = self.attempt.as_ref()?;
        let Kind::Read(format) = attempt.plan.kind else { return None };
        if is_encoded(head) {
            return None;
        }
        let reading = Reading::of(attempt.loan.provider(), format).of_cache(attempt.plan.cache);
        let kind = head.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        Some(Meter::new(reading, Framing::of_content_type(kind)))
    }

    /// Ends a call whose caller went away, and of which nothing more is heard.
    pub(crate) fn gone(self) {
        self.close(NONE_SENT, Outcome::ClientGone);
    }

    /// Ends a call of which no answer of a provider's goes to the caller, but one with this status.
    pub(crate) fn end_without_answer(self, status: StatusCode) {
        let refused = matches!(self.course(), Some(Course::Error(of)) if of.is_client_error());
        let outcome = if refused { Outcome::RefusedByProvider } else { Outcome::Failed };
        self.close(status.as_u16(), outcome);
    }

    /// A call of which nothing was sent has no record.
    fn close(mut self, status: u16, outcome: Outcome) {
        let known = match self.course() {
            None | Some(Course::Planned) => return,
            Some(Course::Sent) => false,
            Some(Course::NotReached | Course::Error(_)) => true,
        };
        let came = Came { usage_known: known, cost_known: known, ..Came::NOTHING };
        self.record(status, outcome, came);
        self.settle(None);
    }

    /// Ends a call whose answer was read.
    pub(crate) fn finish(
        mut self,
        read: Option<Meter>,
        ended: Ended,
        outcome: Outcome,
        status: StatusCode,
    ) {
        let came = self.came(read, ended);
        self.record(status.as_u16(), outcome, came);
        let spent = Spending::of_call(came.cost, &came.usage.tokens);
        let Some(held) = self.attempt.as_ref().map(|attempt| &attempt.held) else { return };
        let money = held.limits(Unit::Money);
        let tokens = [Unit::InputTokens, Unit::OutputTokens, Unit::Tokens];
        let figures = money || tokens.into_iter().any(|unit| held.limits(unit));
        let is_known = (came.usage_known || !figures) && (came.cost_known || !money);
        self.settle(is_known.then_some(&spent));
    }

    fn came(&self, read: Option<Meter>, ended: Ended) -> Came {
        let Some(attempt) = &self.attempt else { return Came::NOTHING };
        if attempt.plan.kind == Kind::Free {
            return Came { usage_known: true, cost_known: true, ..Came::NOTHING };
        }
        let (usage, usage_known) = match read.map(|meter| meter.finish(ended)) {
            Some(Metered::Final(usage)) => (usage, true),
            Some(Metered::Partial(usage)) => (usage, false),
            Some(Metered::Missing) | None => return Came::NOTHING,
        };
        let models = [&*attempt.model, attempt.loan.model()];
        let (prices, provider) = (attempt.prices.as_deref(), attempt.loan.provider());
        let (cost, cost_known, is_stated) =
            match price(prices, self.start_time, provider, models, &usage) {
                Priced::Known { cost, basis } => (cost, usage_known, basis == Basis::Stated),
                Priced::Unknown { at_least, .. } => (at_least, false, false),
            };
        Came { usage, usage_known, cost, cost_known, is_stated }
    }

    /// Settles what the attempt holds: with this, or as what it is without a word.
    fn settle(&mut self, spent: Option<&Spending>) {
        let Some(attempt) = &mut self.attempt else { return };
        let held = std::mem::replace(&mut attempt.held, Held::nothing());
        match spent {
            Some(spent) => held.end(spent, attempt.loan.source()),
            None if attempt.course == Course::Sent => held.lose(attempt.loan.source()),
            None => held.release(),
        }
    }

    fn course(&self) -> Option<Course> {
        self.attempt.as_ref().map(|attempt| attempt.course)
    }

    fn turn(&mut self, course: Course) {
        if let Some(attempt) = &mut self.attempt {
            attempt.course = course;
        }
    }

    fn record(&self, status: u16, outcome: Outcome, came: Came) {
        let Some(attempt) = &self.attempt else { return };
        let usage_known = came.usage_known;
        attempt.upstream.series.metered(outcome, usage_known, &came.usage.tokens, came.cost);
        let loan = &*attempt.loan;
        let account = loan.account();
        let version = attempt.prices.as_deref().map(Prices::version);
        let (cost_micro_usd, cost_millionths) = came.cost.split();
        let latency = self.metering.clock.elapsed().saturating_sub(self.started);
        self.metering.purses.note(v1::UsageRecord {
            usage_id: Bytes::copy_from_slice(&self.metering.usage_id()),
            start_time: Some(timestamp(self.start_time)),
            tenant: account.tenant.to_owned(),
            virtual_key: account.virtual_key.to_owned(),
            credential: loan.credential().to_string(),
            credential_version: account.credential_version,
            provider: loan.provider().to_string(),
            model: attempt.model.clone(),
            requested_model: self.requested_model.clone(),
            source: source(loan.source()).into(),
            dialect: dialect(self.dialect).into(),
            endpoint: self.operation.as_str().to_owned(),
            status: status.into(),
            outcome: outcome.into(),
            tokens: Some(tokens(&came.usage.tokens)),
            usage_known,
            cost_known: came.cost_known,
            cost_micro_usd,
            cost_millionths,
            cost_stated: came.is_stated,
            price_version: version.unwrap_or(account.price_version).to_owned(),
            latency: latency.try_into().ok(),
            first_token: self.first_byte.and_then(|it| it.try_into().ok()),
            lease_hash: account.lease_hash,
            allowance_id: self.allowance.map(|id| Bytes::copy_from_slice(&id)).unwrap_or_default(),
            attempts: self.attempts,
            searches: came.usage.searches,
        });
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        // Whoever ended it has settled it. This is for a caller that went away before.
        self.settle(None);
    }
}

impl Came {
    const NOTHING: Self = Self {
        usage: Usage {
            tokens: Tokens {
                input: 0,
                cache_read: 0,
                cache_write_5m: 0,
                cache_write_1h: 0,
                audio_input: 0,
                output: 0,
                reasoning: 0,
                audio_output: 0,
            },
            searches: 0,
            stated: None,
        },
        usage_known: false,
        cost: Cost::ZERO,
        cost_known: false,
        is_stated: false,
    };
}

/// Where the caller was gone before there was a status to send.
const NONE_SENT: u16 = 499;

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let millis = time.as_millis();
    let nanos = i32::try_from(millis.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
    prost_types::Timestamp { seconds: millis.div_euclid(1000), nanos }
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

fn source(source: Source) -> v1::Source {
    match source {
        Source::Byok => v1::Source::Byok,
        Source::Managed => v1::Source::Managed,
        Source::Custom => v1::Source::Custom,
        Source::Keyless => v1::Source::Keyless,
    }
}

fn dialect(dialect: Dialect) -> v1::Dialect {
    match dialect {
        Dialect::OpenAi => v1::Dialect::Openai,
        Dialect::Anthropic => v1::Dialect::Anthropic,
        Dialect::Native => v1::Dialect::Native,
    }
}
