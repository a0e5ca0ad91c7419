use std::time::Duration;

use domain::{Amounts, Dialect, Failure, Settlement, Source, Spending, Timestamp, Unit};
use strongroom_proto::v1;

/// Whole milliseconds; a contract's time is never negative.
pub(crate) fn duration(duration: prost_types::Duration) -> Option<Duration> {
    let millis = u64::try_from(duration.seconds)
        .ok()?
        .checked_mul(1000)?
        .checked_add(u64::try_from(duration.nanos).ok()? / 1_000_000)?;
    Some(Duration::from_millis(millis))
}

pub(crate) fn timestamp(time: prost_types::Timestamp) -> Option<Timestamp> {
    let millis = time.seconds.checked_mul(1000)?.checked_add(i64::from(time.nanos) / 1_000_000)?;
    Some(Timestamp::from_millis(millis))
}

pub(crate) fn source(source: v1::Source) -> Option<Source> {
    match source {
        v1::Source::Unspecified => None,
        v1::Source::Byok => Some(Source::Byok),
        v1::Source::Managed => Some(Source::Managed),
        v1::Source::Custom => Some(Source::Custom),
        v1::Source::Keyless => Some(Source::Keyless),
    }
}

pub(crate) fn failure(failure: Failure) -> v1::failed_attempt::Failure {
    match failure {
        Failure::CredentialRefused => v1::failed_attempt::Failure::CredentialRefused,
        Failure::NoQuota => v1::failed_attempt::Failure::NoQuota,
        Failure::NotAllowed => v1::failed_attempt::Failure::NotAllowed,
        Failure::RateLimited { .. } => v1::failed_attempt::Failure::RateLimited,
        Failure::ProviderTrouble => v1::failed_attempt::Failure::ProviderTrouble,
        Failure::TimedOut => v1::failed_attempt::Failure::TimedOut,
        Failure::Unreachable => v1::failed_attempt::Failure::Unreachable,
        Failure::SecretInAnswer => v1::failed_attempt::Failure::SecretInAnswer,
        // No other credential would help, or the broker knows it already; one that is told so lends nothing.
        Failure::CallersFault | Failure::Unusable => v1::failed_attempt::Failure::Unspecified,
    }
}

pub(crate) fn dialect(dialect: Dialect) -> v1::Dialect {
    match dialect {
        Dialect::OpenAi => v1::Dialect::Openai,
        Dialect::Anthropic => v1::Dialect::Anthropic,
        Dialect::Native => v1::Dialect::Native,
    }
}

pub(crate) fn unit(unit: v1::Unit) -> Option<Unit> {
    match unit {
        v1::Unit::Unspecified => None,
        v1::Unit::MicroUsd => Some(Unit::Money),
        v1::Unit::Requests => Some(Unit::Requests),
        v1::Unit::InputTokens => Some(Unit::InputTokens),
        v1::Unit::OutputTokens => Some(Unit::OutputTokens),
        v1::Unit::Tokens => Some(Unit::Tokens),
        v1::Unit::Concurrent => Some(Unit::Concurrent),
    }
}

pub(crate) fn wire_unit(unit: Unit) -> v1::Unit {
    match unit {
        Unit::Money => v1::Unit::MicroUsd,
        Unit::Requests => v1::Unit::Requests,
        Unit::InputTokens => v1::Unit::InputTokens,
        Unit::OutputTokens => v1::Unit::OutputTokens,
        Unit::Tokens => v1::Unit::Tokens,
        Unit::Concurrent => v1::Unit::Concurrent,
    }
}

pub(crate) fn amounts(wire: &v1::Amounts) -> Amounts {
    Amounts::default()
        .with(Unit::Money, wire.micro_usd)
        .with(Unit::Requests, wire.requests)
        .with(Unit::InputTokens, wire.input_tokens)
        .with(Unit::OutputTokens, wire.output_tokens)
        .with(Unit::Tokens, wire.tokens)
        .with(Unit::Concurrent, wire.concurrent)
}

pub(crate) fn wire_amounts(amounts: &Amounts) -> v1::Amounts {
    v1::Amounts {
        micro_usd: amounts.of(Unit::Money),
        requests: amounts.of(Unit::Requests),
        input_tokens: amounts.of(Unit::InputTokens),
        output_tokens: amounts.of(Unit::OutputTokens),
        tokens: amounts.of(Unit::Tokens),
        concurrent: amounts.of(Unit::Concurrent),
    }
}

pub(crate) fn settlement(id: &[u8; 16], settlement: &Settlement) -> v1::Settlement {
    v1::Settlement {
        allowance_id: id.to_vec().into(),
        sequence: settlement.sequence,
        covered: Some(wire_amounts(&settlement.covered)),
        returned: Some(wire_amounts(&settlement.returned)),
        spent: Some(wire_spent(&settlement.spent)),
        managed: Some(wire_spent(&settlement.managed)),
    }
}

fn wire_spent(spent: &Spending) -> v1::Spent {
    let (micro_usd, micro_usd_millionths) = spent.cost.split();
    v1::Spent {
        micro_usd,
        micro_usd_millionths,
        requests: spent.requests,
        input_tokens: spent.input_tokens,
        output_tokens: spent.output_tokens,
    }
}
