use std::collections::BTreeMap;

use audit::{proto_time, timestamp};
use domain::{
    EndpointKind, KeyTerms, LabelName, LabelText, ModelPattern, ProviderId, RateLimits, Scope,
    Timestamp, parse_network,
};
use ipnet::IpNet;
use store::VirtualKeyRow;
use strongroom_proto::v1::{self, virtual_key::State};

use crate::{
    core::{Core, etag, parse, parse_optional},
    refused::Why,
};

/// The most of a kind that a key's terms name.
const LONGEST_LIST: usize = 100;

/// The most labels of a key.
const MOST_LABELS: usize = 64;

/// The highest limit of a rate: far above what anybody can use, and far below what a column holds.
const HIGHEST_RATE: u64 = 1_000_000_000_000;

impl Core {
    /// Reads a key's terms.
    pub(super) fn key_terms(&self, asked: &v1::VirtualKey) -> Result<KeyTerms, Why> {
        Ok(KeyTerms {
            scope: Scope { providers: self.providers(asked)?, models: models(asked)? },
            endpoints: endpoints(asked)?,
            networks: networks(asked)?,
            expires_at: self.expires_at(asked)?,
            labels: labels(asked)?,
            owner: parse_optional(&asked.owner)?,
        })
    }

    pub(super) fn providers(&self, asked: &v1::VirtualKey) -> Result<Vec<ProviderId>, Why> {
        let provider = |name: &String| {
            let known = self.catalogue.named(name).map(|known| known.id().clone());
            known.ok_or_else(|| Why::InvalidField("providers names one that is not known".into()))
        };
        short(&asked.providers)?.iter().map(provider).collect()
    }

    /// When the key is to end. A time that has passed is refused.
    pub(super) fn expires_at(&self, asked: &v1::VirtualKey) -> Result<Option<Timestamp>, Why> {
        let Some(time) = &asked.expire_time else { return Ok(None) };
        let end = timestamp(time).filter(|end| *end > self.clock.now());
        end.map(Some).ok_or_else(|| Why::InvalidField("expire_time must lie in the future".into()))
    }
}

pub(super) fn models(asked: &v1::VirtualKey) -> Result<Vec<ModelPattern>, Why> {
    short(&asked.models)?.iter().map(|model| parse(model)).collect()
}

pub(super) fn endpoints(asked: &v1::VirtualKey) -> Result<Vec<EndpointKind>, Why> {
    let kinds = short(&asked.endpoints)?.iter().map(|kind| parse(kind));
    let mut kinds: Vec<EndpointKind> = kinds.collect::<Result<_, Why>>()?;
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
}

pub(super) fn networks(asked: &v1::VirtualKey) -> Result<Vec<IpNet>, Why> {
    let network =
        |text: &String| parse_network(text).map_err(|error| Why::InvalidField(error.to_string()));
    short(&asked.networks)?.iter().map(network).collect()
}

pub(super) fn labels(asked: &v1::VirtualKey) -> Result<BTreeMap<LabelName, LabelText>, Why> {
    if asked.labels.len() > MOST_LABELS {
        return Err(Why::InvalidField("a virtual key has 64 labels at most".into()));
    }
    asked.labels.iter().map(|(name, text)| Ok((parse(name)?, parse(text)?))).collect()
}

fn short(list: &[String]) -> Result<&[String], Why> {
    let what = "a virtual key names 100 providers, models, endpoints or networks at most";
    (list.len() <= LONGEST_LIST).then_some(list).ok_or_else(|| Why::InvalidField(what.into()))
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
        previous_expire_times: row.previous.iter().map(|it| proto_time(it.ends_at)).collect(),
        state: state(row).into(),
        create_time: Some(proto_time(row.created_at)),
        update_time: Some(proto_time(row.updated_at)),
        etag: etag(row.revision),
    }
}

fn state(row: &VirtualKeyRow) -> State {
    match row {
        VirtualKeyRow { revoked: true, .. } => State::Revoked,
        VirtualKeyRow { blocked: true, .. } => State::Blocked,
        _ => State::Active,
    }
}
