use std::time::Duration;

use domain::{Dialect, Failure, Timestamp, VirtualKeyDigest, VirtualKeyId, is_model_name};
use strongroom_proto::v1::{self, acquire_lease_request};

use crate::{
    allowances::Wish,
    core::{parse, parse_optional, parse_tenant},
    lending::{Ask, Target},
    refused::Why,
    route::Failed,
};

pub(super) fn ask(request: v1::AcquireLeaseRequest, now: Timestamp) -> Result<Ask, Why> {
    let dialect = dialect(request.dialect());
    if request.failed.len() > MOST_ATTEMPTS {
        return Err(Why::InvalidField("failed names 16 attempts at most".into()));
    }
    let ttl = ttl(request.ttl)?;
    let request_id = parse_optional::<domain::RequestId>(&request.request_id)?;
    let target = match request.target {
        Some(acquire_lease_request::Target::VirtualKey(target)) => {
            let (id, digest) = presented(&target.virtual_key_id, &target.key_sha256)?;
            let v1::VirtualKeyTarget { model, provider, .. } = target;
            check_model(&model)?;
            if provider.len() > 63 {
                return Err(Why::InvalidField("provider is too long".into()));
            }
            Target::VirtualKey { id, digest, model, provider }
        }
        Some(acquire_lease_request::Target::Tenant(target)) => {
            match parse_optional(&target.credential)? {
                Some(name) => Target::Credential(name),
                None => Target::Provider {
                    tenant: parse_tenant(&target.tenant)?,
                    provider: target.provider,
                },
            }
        }
        None => return Err(Why::InvalidField("a lease needs virtual_key or tenant".into())),
    };
    let request_id = request_id.map(|id| id.as_str().to_owned()).unwrap_or_default();
    let failed = request.failed.iter().map(|it| failed(it, now)).collect::<Result<_, Why>>()?;
    let allowance = request.allowance.as_ref().map(Wish::of).transpose()?;
    Ok(Ask { target, dialect, ttl, request_id, failed, allowance })
}

pub(super) fn dialect(dialect: v1::Dialect) -> Dialect {
    match dialect {
        v1::Dialect::Openai => Dialect::OpenAi,
        v1::Dialect::Anthropic => Dialect::Anthropic,
        v1::Dialect::Native | v1::Dialect::Unspecified => Dialect::Native,
    }
}

/// The most attempts at one call.
const MOST_ATTEMPTS: usize = 16;

pub(super) fn failed(attempt: &v1::FailedAttempt, now: Timestamp) -> Result<Failed, Why> {
    use v1::failed_attempt::Failure as Told;

    let failure = match attempt.failure() {
        Told::Unspecified => {
            return Err(Why::InvalidField("failed says what went wrong with each attempt".into()));
        }
        Told::CredentialRefused => Failure::CredentialRefused,
        Told::NoQuota => Failure::NoQuota,
        Told::NotAllowed => Failure::NotAllowed,
        Told::RateLimited => Failure::RateLimited { retry_after: ttl(attempt.retry_after)? },
        Told::ProviderTrouble => Failure::ProviderTrouble,
        Told::TimedOut => Failure::TimedOut,
        Told::Unreachable => Failure::Unreachable,
        Told::SecretInAnswer => Failure::SecretInAnswer,
    };
    let ago = ttl(attempt.began_ago)?.unwrap_or_default();
    let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    let begun = Timestamp::from_millis(now.as_millis().saturating_sub(ago));
    let (credential, version) = (parse(&attempt.credential)?, attempt.credential_version);
    Ok(Failed { credential, version, failure, begun })
}

/// What proves that the caller has seen a virtual key. A malformed proof is as wrong as any other.
pub(super) fn presented(id: &str, digest: &[u8]) -> Result<(VirtualKeyId, VirtualKeyDigest), Why> {
    let id = id.parse().map_err(|_| Why::VirtualKeyRefused)?;
    let digest: [u8; 32] = digest.try_into().map_err(|_| Why::VirtualKeyRefused)?;
    Ok((id, VirtualKeyDigest::from_bytes(digest)))
}

pub(super) fn ttl(asked: Option<prost_types::Duration>) -> Result<Option<Duration>, Why> {
    duration(asked, "ttl")
}

/// Reads a length of time, which is not negative.
pub(in crate::services) fn duration(
    asked: Option<prost_types::Duration>,
    name: &str,
) -> Result<Option<Duration>, Why> {
    let wrong = || Why::InvalidField(format!("{name} must not be negative"));
    let plain = |time: prost_types::Duration| {
        let seconds = u64::try_from(time.seconds).map_err(|_| wrong())?;
        let nanos = u32::try_from(time.nanos).map_err(|_| wrong())?;
        Ok(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
    };
    asked.map(plain).transpose()
}

/// A call may name no model, but nothing else in the place of one.
pub(super) fn check_model(model: &str) -> Result<(), Why> {
    if model.is_empty() || is_model_name(model) {
        return Ok(());
    }
    Err(Why::InvalidField("model is 1 to 256 of [A-Za-z0-9._:/@-]".into()))
}
