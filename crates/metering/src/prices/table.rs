use std::collections::BTreeMap;

use domain::{Cost, Tokens};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Usage;

/// List prices, by provider and model: one version of them, which is never changed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// Which version it is. Another table has another.
    pub version: u32,
    /// The day on which the figures were taken, as 2026-11-21.
    pub date: Day,
    /// Where the figures are from.
    #[serde(default)]
    pub sources: BTreeMap<String, BTreeMap<String, String>>,
    /// The prices, by provider and by the name that a client sends to it.
    pub providers: BTreeMap<String, BTreeMap<String, ModelPrice>>,
}

/// The version of the table that comes with this build.
pub const BUILTIN_VERSION: u32 = 1;

/// A day, as 2026-11-21.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(jiff::civil::Date);

/// What one model costs, in pico-USD.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPrice {
    /// What the model does.
    pub kind: ModelKind,
    /// What a token costs.
    pub rates: Rates,
    /// What tokens cost in calls with much input, in ascending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
    /// What each call costs besides its tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// What each search, or search unit, costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<u64>,
    /// The most input that the model takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// The most output that the model gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output: Option<u64>,
}

/// The price of one token of each kind. Of what has no price of its own, cached input costs as other
/// input does, reasoning as other output; of sound, a price is never assumed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Input without a part of a cache in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// Output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Input from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<u64>,
    /// Input into a cache, for minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_5m: Option<u64>,
    /// Input into a cache, for an hour or longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<u64>,
    /// Output that is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
    /// Input that is sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_input: Option<u64>,
    /// Output that is sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_output: Option<u64>,
}

/// The prices of a call with more input than this: of all of its tokens.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// All input tokens together are more than these.
    pub above: u64,
    /// What a token then costs. What is missing costs what it does without the tier, or what the tier
    /// says of tokens like it, whichever is more.
    pub rates: Rates,
}

/// What a model does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// It talks.
    Chat,
    /// It talks, in OpenAI's newer API only.
    Responses,
    /// It goes on with a text.
    Completion,
    /// It turns texts into vectors.
    Embedding,
    /// It sorts texts.
    Rerank,
    /// It judges texts.
    Moderation,
}

/// Why a cost cannot be stated. It is then unknown, which is not nothing.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum NoPrice {
    /// Neither the table nor the tenant's own prices have the model.
    #[error("there is no price for this model: set one, or update the table of prices")]
    UnknownModel,
    /// The model has no price for a kind of token that was used.
    #[error("the model has no price for {0}: set one, or update the table of prices")]
    NoRate(&'static str),
}

/// Why a table cannot be used.
#[derive(Debug, Error)]
pub enum PriceTableError {
    /// It is not of the right form.
    #[error("the table of prices is unreadable")]
    Unreadable(#[from] serde_json::Error),
    /// A model's tiers are not in ascending order.
    #[error("the tiers of {provider}'s {model} are not in ascending order")]
    Tiers {
        /// The provider.
        provider: String,
        /// The model.
        model: String,
    },
    /// It has a provider or a model pattern that is none.
    #[error("`{0}` is neither a provider nor a model, nor a prefix with * at its end")]
    Name(String),
    /// A discount is more than the whole price.
    #[error("{0} of 10000 is more than the list price: write an override for it")]
    Discount(u32),
    /// There is no table in it.
    #[error("the document of prices has no table")]
    NoTable,
    /// It does not say from when on a table or terms count.
    #[error("the document of prices has no time for what it changes")]
    NoTime,
}

impl PriceTable {
    /// The table that comes with this build.
    pub fn builtin() -> Result<Self, PriceTableError> {
        Self::parse(include_str!("../../data/prices.json"))
    }

    /// Reads a table.
    pub fn parse(text: &str) -> Result<Self, PriceTableError> {
        serde_json::from_str::<Self>(text)?.checked()
    }

    /// The table, if its prices can be used.
    pub(crate) fn checked(self) -> Result<Self, PriceTableError> {
        for (provider, models) in &self.providers {
            for (model, price) in models {
                price.check(provider, model)?;
            }
        }
        Ok(self)
    }

    /// The price of a model, by the name that was sent to the provider.
    ///
    /// Of a fine-tuned model that is the price of what it was made from (`ft:gpt-4o:acme::x` is
    /// `ft:gpt-4o`), and of a resource's name that of its last part. No other name is guessed at.
    pub fn price(&self, provider: &str, model: &str) -> Option<&ModelPrice> {
        let models = self.providers.get(provider)?;
        models.get(model).or_else(|| models.get(short_name(model)?))
    }
}

fn short_name(model: &str) -> Option<&str> {
    if let Some(tuned) = model.strip_prefix("ft:") {
        let base = tuned.split(':').next()?;
        return model.get(..3 + base.len());
    }
    let resource = ["arn:", "models/", "projects/", "publishers/"];
    resource.iter().any(|it| model.starts_with(it)).then(|| model.rsplit('/').next())?
}

impl ModelPrice {
    /// Refuses a price whose tiers are not in ascending order.
    pub(crate) fn check(&self, provider: &str, model: &str) -> Result<(), PriceTableError> {
        if self.tiers.is_sorted_by(|one, next| one.above < next.above) {
            return Ok(());
        }
        let (provider, model) = (provider.to_owned(), model.to_owned());
        Err(PriceTableError::Tiers { provider, model })
    }

    /// What a call came to, by its tokens.
    pub fn cost(&self, usage: &Usage) -> Result<Cost, NoPrice> {
        let Usage { tokens, searches, .. } = usage;
        let rates = self.rates_for(tokens.all_input());
        let mut cost = Cost::from_picos(self.request.unwrap_or(0).into());
        for (kind, count, rate) in rates.of_kinds(tokens) {
            if count > 0 {
                cost = cost.plus(Cost::of(count, rate.ok_or(NoPrice::NoRate(kind))?));
            }
        }
        if *searches > 0 {
            let rate = self.search.ok_or(NoPrice::NoRate("searches"))?;
            cost = cost.plus(Cost::of(*searches, rate));
        }
        Ok(cost)
    }

    /// What is known of a cost that has an unknown part.
    pub(crate) fn known_part(&self, usage: &Usage) -> Cost {
        let rates = self.rates_for(usage.tokens.all_input());
        rates.of_kinds(&usage.tokens).into_iter().fold(Cost::ZERO, |cost, (_, count, rate)| {
            cost.plus(Cost::of(count, rate.unwrap_or(0)))
        })
    }

    /// What tokens cost in a call with this much input.
    pub fn rates_for(&self, all_input: u64) -> Rates {
        let tier = self.tiers.iter().rev().find(|tier| all_input > tier.above);
        tier.map_or(self.rates.filled(), |tier| tier.rates.over(&self.rates))
    }
}

impl Rates {
    /// The same with what is missing taken from what is like it.
    fn filled(self) -> Self {
        let cache_write_5m = self.cache_write_5m.or(self.input);
        Self {
            cache_read: self.cache_read.or(self.input),
            cache_write_5m,
            cache_write_1h: self.cache_write_1h.or(cache_write_5m),
            reasoning: self.reasoning.or(self.output),
            ..self
        }
    }

    fn over(self, base: &Self) -> Self {
        let own = self.filled();
        let or = |stated: Option<u64>, like: Option<u64>, base: Option<u64>| {
            stated.or_else(|| like.max(base))
        };
        Self {
            input: or(self.input, None, base.input),
            output: or(self.output, None, base.output),
            cache_read: or(self.cache_read, own.cache_read, base.cache_read),
            cache_write_5m: or(self.cache_write_5m, own.cache_write_5m, base.cache_write_5m),
            cache_write_1h: or(self.cache_write_1h, own.cache_write_1h, base.cache_write_1h),
            reasoning: or(self.reasoning, own.reasoning, base.reasoning),
            audio_input: or(self.audio_input, None, base.audio_input),
            audio_output: or(self.audio_output, None, base.audio_output),
        }
        .filled()
    }

    fn of_kinds(&self, tokens: &Tokens) -> [(&'static str, u64, Option<u64>); 8] {
        [
            ("input tokens", tokens.input, self.input),
            ("cached input tokens", tokens.cache_read, self.cache_read),
            ("cache writes", tokens.cache_write_5m, self.cache_write_5m),
            ("long cache writes", tokens.cache_write_1h, self.cache_write_1h),
            ("audio input", tokens.audio_input, self.audio_input),
            ("output tokens", tokens.output, self.output),
            ("reasoning tokens", tokens.reasoning, self.reasoning),
            ("audio output", tokens.audio_output, self.audio_output),
        ]
    }
}

impl TryFrom<String> for Day {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, jiff::Error> {
        text.parse().map(Self)
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.0.to_string()
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
