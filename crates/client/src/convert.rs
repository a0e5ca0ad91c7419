use std::time::Duration;

use domain::{Dialect, Failure, Source, Timestamp};
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
        // No other credential would help; a broker that is told so lends nothing.
        Failure::CallersFault => v1::failed_attempt::Failure::Unspecified,
    }
}

pub(crate) fn dialect(dialect: Dialect) -> v1::Dialect {
    match dialect {
        Dialect::OpenAi => v1::Dialect::Openai,
        Dialect::Anthropic => v1::Dialect::Anthropic,
        Dialect::Native => v1::Dialect::Native,
    }
}
