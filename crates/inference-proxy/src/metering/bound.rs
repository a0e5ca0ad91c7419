use std::sync::Arc;

use domain::{Amounts, Cost, Timestamp, Unit};
use http::StatusCode;
use metering::{CacheUse, Edit, Format, InvalidRequest, NoBound, Prices, RequestOutline, Usage};
use providers::{Provider, Target};
use strongroom_client::LeaseKey;

use super::{Metering, kind::Kind, prices::price};
use crate::{
    Loan, OnProviderTools, OnUnknownPrice, body::Frames, outgoing::SHORT_WAIT, refusal::Refusal,
    route::Call, upstream::Upstream,
};

/// What is settled about an attempt before it goes out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    /// Into which cache its input may go.
    pub(crate) cache: CacheUse,
    /// The most that it can come to; none where nothing is limited.
    pub(crate) need: Option<Amounts>,
}

/// Which attempt is planned.
pub(crate) struct PlanFor<'a> {
    pub(crate) call: &'a Call<'a>,
    pub(crate) loan: &'a Arc<dyn Loan>,
    pub(crate) provider: &'a Provider,
    pub(crate) target: &'a Target,
    pub(crate) key: &'a LeaseKey,
    pub(crate) upstream: &'a Arc<Upstream>,
}

/// Says how an attempt is metered and what it can come to at the most. Where something is limited and
/// the caller set no limit for the output, one is put into the body.
pub(crate) fn plan(
    metering: &Metering,
    attempt: &PlanFor<'_>,
    prices: Option<&Prices>,
    frames: &mut Frames,
) -> Result<Plan, Refusal> {
    let kind = Kind::of(attempt.call);
    let now = metering.clock.now();
    let limited = attempt.loan.limited();
    if metering.config.unknown_price == OnUnknownPrice::Refuse && matches!(kind, Kind::Read(_)) {
        check_price(prices, now, attempt)?;
    }
    if limited.is_empty() {
        let cache = if says_long(kind, frames) { CacheUse::Long } else { CacheUse::None };
        return Ok(Plan { kind, cache, need: None });
    }
    let counts = Counts::of(&limited);
    match kind {
        Kind::Unknown if counts.figures => Err(not_metered()),
        Kind::Free | Kind::Unknown => {
            let need = Some(Amounts::of_call(Cost::ZERO, 0, 0));
            Ok(Plan { kind, cache: CacheUse::None, need })
        }
        Kind::Read(format) => {
            let (need, cache) =
                worst_case(metering, (prices, now), attempt, format, counts, frames)?;
            Ok(Plan { kind, cache, need: Some(need) })
        }
    }
}

/// What the key's limits count.
#[derive(Clone, Copy, Debug)]
struct Counts {
    money: bool,
    /// Money or tokens: more than calls.
    figures: bool,
}

impl Counts {
    fn of(limited: &[Unit]) -> Self {
        let money = limited.contains(&Unit::Money);
        let tokens = [Unit::InputTokens, Unit::OutputTokens, Unit::Tokens];
        Self { money, figures: money || limited.iter().any(|unit| tokens.contains(unit)) }
    }
}

fn worst_case(
    metering: &Metering,
    (prices, now): (Option<&Prices>, Timestamp),
    attempt: &PlanFor<'_>,
    format: Format,
    counts: Counts,
    frames: &mut Frames,
) -> Result<(Amounts, CacheUse), Refusal> {
    let body = frames.joined();
    let outline = RequestOutline::read(&body).map_err(invalid)?;
    if !counts.figures {
        return Ok((Amounts::of_call(Cost::ZERO, 0, 0), outline.cache(format)));
    }
    if outline.has_server_tools() && metering.config.provider_tools == OnProviderTools::Refuse {
        return Err(provider_tools());
    }
    let view = prices.ok_or_else(no_prices)?.at(now);
    let id = attempt.provider.id();
    let otherwise = metering.config.output_maximum;
    let limit = outline.output_limit(&body, id, format, otherwise).map_err(invalid)?;
    let bound = outline.bound(&body, format, limit.maximum).map_err(invalid)?;
    let mut worst = view.worst_case(id, &attempt.target.model, &bound);
    if worst.is_err() && attempt.loan.model() != attempt.target.model {
        worst = view.worst_case(id, attempt.loan.model(), &bound);
    }
    let need = match worst {
        Ok(worst) => Amounts::of_call(worst.cost, worst.input_tokens, worst.output_tokens),
        Err(NoBound::NoPrice { .. }) if counts.money => return Err(no_price()),
        Err(NoBound::NoPrice { input_tokens, output_tokens }) => {
            Amounts::of_call(Cost::ZERO, input_tokens, output_tokens)
        }
        Err(NoBound::Input) => return Err(no_bound()),
    };
    if let Some(Edit { at, with }) = limit.edit {
        frames.replace(at, &with);
    }
    Ok((need, outline.cache(format)))
}

/// Whether the body asks for something to be kept in a cache for long: only then does it matter how
/// a cache write of unstated length is counted.
fn says_long(kind: Kind, frames: &Frames) -> bool {
    match kind {
        Kind::Read(Format::AnthropicMessages | Format::BedrockInvoke | Format::BedrockConverse) => {
            frames.has(b"\"ttl\"")
        }
        Kind::Read(Format::OpenAiChat | Format::OpenAiResponses) => {
            frames.has(b"\"prompt_cache_retention\"")
        }
        Kind::Read(
            Format::OpenAiEmbeddings | Format::Gemini | Format::CohereChat | Format::CohereUnits,
        )
        | Kind::Free
        | Kind::Unknown => false,
    }
}

fn check_price(
    prices: Option<&Prices>,
    now: Timestamp,
    attempt: &PlanFor<'_>,
) -> Result<(), Refusal> {
    let prices = Some(prices.ok_or_else(no_prices)?);
    let models = [&*attempt.target.model, attempt.loan.model()];
    match price(prices, now, attempt.provider.id(), models, &Usage::default()) {
        metering::Priced::Known { .. } => Ok(()),
        metering::Priced::Unknown { .. } => Err(no_price()),
    }
}

fn invalid(error: InvalidRequest) -> Refusal {
    Refusal::bad_request("invalid_request_body", error.to_string())
}

fn no_prices() -> Refusal {
    let message = "the prices of this call cannot be had at the moment; nothing was sent to the provider, \
                   try again";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable", message)
        .retry_after(SHORT_WAIT)
}

fn no_price() -> Refusal {
    let message = "nobody knows what this model costs, so nothing was sent: ask whoever runs this \
                   gateway to set a price for it, or use a model that has one";
    Refusal::new(StatusCode::FORBIDDEN, "price_unknown", message).and_final().about("model")
}

fn no_bound() -> Refusal {
    let message = "the request speaks of more input than it holds, and nobody knows how much this model \
                   takes; under a limit of money or tokens nothing was sent: send the input itself, or \
                   ask whoever runs this gateway to set a price with a context for the model";
    Refusal::new(StatusCode::FORBIDDEN, "cost_unbounded", message).and_final()
}

fn not_metered() -> Refusal {
    let message = "what this kind of call takes is not read from its answers, so it cannot be made with \
                   a key that has a limit of money or tokens";
    Refusal::new(StatusCode::FORBIDDEN, "call_not_metered", message).and_final()
}

fn provider_tools() -> Refusal {
    let message = "tools that the provider runs by itself, such as web searches, have costs that cannot \
                   be bounded before; a key with a limit of money or tokens cannot use them. Whoever runs \
                   this gateway can allow them with `metering.provider_tools`";
    Refusal::new(StatusCode::FORBIDDEN, "provider_tools_refused", message)
        .and_final()
        .about("tools")
}
