use audit::{proto_time, timestamp};
use domain::{
    EndpointKind, KeyTerms, LabelName, LabelText, RateLimits, Scope, Timestamp, parse_network,
};
use store::VirtualKeyRow;
use strongroom_proto::v1::{self, virtual_key::State};

use crate::{
    core::{Core, etag, parse, parse_optional},
    refused::Why,
};

/// The most providers, models or networks that a key's terms name.
const LONGEST_LIST: usize = 100;

/// The most labels of a key.
const MOST_LABELS: usize = 64;

/// The highest limit of a rate: far above what anybody can use, and far below what a column holds.
const HIGHEST_RATE: u64 = 1_000_000_000_000;

impl Core {
    /// Reads a key's terms. A time that has passed is refused.
    pub(super) fn key_terms(&self, asked: &v1::VirtualKey) -> Result<KeyTerms, Why> {
        let now = self.clock.now();
        let wrong_time = || Why::InvalidField("expire_time must lie in the future".into());
        let expires_at = match &asked.expire_time {
            Some(time) => Some(timestamp(time).filter(|end| *end > now).ok_or_else(wrong_time)?),
            None => None,
        };
        self.key_terms_until(asked, expires_at)
    }

    /// Reads a key's terms, but for when it ends.
    pub(super) fn key_terms_until(
        &self,
        asked: &v1::VirtualKey,
        expires_at: Option<Timestamp>,
    ) -> Result<KeyTerms, Why> {
        let lists = [asked.providers.len(), asked.models.len(), asked.networks.len()];
        if lists.into_iter().any(|length| length > LONGEST_LIST) {
            let what = "a virtual key names 100 providers, models and networks at most";
            return Err(Why::InvalidField(what.into()));
        }
        let network = |text: &String| {
            parse_network(text).map_err(|error| Why::InvalidField(error.to_string()))
        };
        let mut endpoints: Vec<EndpointKind> =
            asked.endpoints.iter().map(|kind| parse(kind)).collect::<Result<_, _>>()?;
        endpoints.sort_unstable();
        endpoints.dedup();
        if asked.labels.len() > MOST_LABELS {
            return Err(Why::InvalidField("a virtual key has 64 labels at most".into()));
        }
        let label = |(name, text): (&String, &String)| {
            Ok((parse::<LabelName>(name)?, parse::<LabelText>(text)?))
        };
        Ok(KeyTerms {
            scope: self.scope(asked)?,
            endpoints,
            networks: asked.networks.iter().map(network).collect::<Result<_, _>>()?,
            expires_at,
            labels: asked.labels.iter().map(label).collect::<Result<_, Why>>()?,
            owner: parse_optional(&asked.owner)?,
        })
    }

    fn scope(&self, asked: &v1::VirtualKey) -> Result<Scope, Why> {
        let provider = |name: &String| {
            let known = self.catalogue.named(name).map(|known| known.id().clone());
            known.ok_or_else(|| Why::InvalidField("providers names one that is not known".into()))
        };
        Ok(Scope {
            providers: asked.providers.iter().map(provider).collect::<Result<_, _>>()?,
            models: asked.models.iter().map(|model| parse(model)).collect::<Result<_, _>>()?,
        })
    }
}

/// Reads how fast a key may be used.
pub(super) fn rates(asked: &v1::VirtualKey) -> Result<RateLimits, Why> {
    let v1::VirtualKey { requests_per_minute, tokens_per_minute, concurrent, .. } = *asked;
    if [requests_per_minute, tokens_per_minute, concurrent].into_iter().any(|it| it > HIGHEST_RATE)
    {
        return Err(Why::InvalidField("a rate limit is 1000000000000 at most".into()));
    }
    let limit = |most: u64| (most > 0).then_some(most);
    Ok(RateLimits {
        requests_per_minute: limit(requests_per_minute),
        tokens_per_minute: limit(tokens_per_minute),
        concurrent: limit(concurrent),
    })
}

/// A key as callers are told of it.
pub(super) fn message(row: &VirtualKeyRow) -> v1::VirtualKey {
    let (terms, rates) = (&row.terms, &row.rates);
    let label = |(name, text): (&LabelName, &LabelText)| (name.as_str().into(), text.to_string());
    v1::VirtualKey {
        name: row.name().to_string(),
        display_name: row.display_name.clone(),
        providers: terms.scope.providers.iter().map(ToString::to_string).collect(),
        models: terms.scope.models.iter().map(ToString::to_string).collect(),
        endpoints: terms.endpoints.iter().map(|kind| kind.as_str().to_owned()).collect(),
        networks: terms.networks.iter().map(ToString::to_string).collect(),
        expire_time: terms.expires_at.map(proto_time),
        labels: terms.labels.iter().map(label).collect(),
        owner: terms.owner.as_ref().map(ToString::to_string).unwrap_or_default(),
        group: row.group.as_ref().map(ToString::to_string).unwrap_or_default(),
        requests_per_minute: rates.requests_per_minute.unwrap_or_default(),
        tokens_per_minute: rates.tokens_per_minute.unwrap_or_default(),
        concurrent: rates.concurrent.unwrap_or_default(),
        previous_expire_time: row.previous.map(|previous| proto_time(previous.ends_at)),
        state: if row.revoked { State::Revoked } else { State::Active }.into(),
        create_time: Some(proto_time(row.created_at)),
        update_time: Some(proto_time(row.updated_at)),
        etag: etag(row.revision),
    }
}
