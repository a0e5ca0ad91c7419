use domain::{Cost, ProviderId};
use thiserror::Error;

use crate::{CacheUse, ModelPrice, PriceView};

/// What is known of a call before it is made, that bounds what it can take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bound {
    /// How long the request's body is. A token of text is a byte at the least.
    pub body_bytes: u64,
    /// Whether the body speaks of what is not text in it: pictures, files, conversations kept by the
    /// provider. Then only the model's own limit bounds the input.
    pub has_more: bool,
    /// How many tools the body names by their type alone. Providers explain those to the model in words
    /// of their own.
    pub named_tools: u64,
    /// The most output of one answer.
    pub output_maximum: u64,
    /// How many answers are asked for.
    pub answers: u64,
    /// Into which cache the input may go.
    pub cache: CacheUse,
}

/// The most that a call can come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WorstCase {
    /// In money.
    pub cost: Cost,
    /// In tokens of input.
    pub input_tokens: u64,
    /// In tokens of output.
    pub output_tokens: u64,
}

/// Why there is no most.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum NoBound {
    /// There is no price; the tokens can be bounded all the same.
    #[error("there is no price for this model: set one, or update the table of prices")]
    NoPrice {
        /// The most input.
        input_tokens: u64,
        /// The most output.
        output_tokens: u64,
    },
    /// The body speaks of more than it holds, and nobody knows how much the model takes.
    #[error("nobody knows how much input this model takes: set a price with a context for it")]
    Input,
}

impl PriceView<'_> {
    /// What a call can come to at the most: each token of input at the dearest rate that it can have,
    /// cache writes and the tiers that it can reach included.
    pub fn worst_case(
        &self,
        provider: &ProviderId,
        model: &str,
        bound: &Bound,
    ) -> Result<WorstCase, NoBound> {
        let found = self.find(provider, model);
        let price = found.as_ref().map(|(price, ..)| *price);
        let input_tokens = input(bound, price)?;
        let output_tokens = output(provider, bound, price);
        let Some((price, _, parts)) = found else {
            return Err(NoBound::NoPrice { input_tokens, output_tokens });
        };
        let cost = dearest(price, bound.cache, input_tokens, output_tokens)
            .ok_or(NoBound::NoPrice { input_tokens, output_tokens })?;
        let cost = cost.parts_of_ten_thousand(parts);
        Ok(WorstCase { cost, input_tokens, output_tokens })
    }
}

fn input(bound: &Bound, price: Option<&ModelPrice>) -> Result<u64, NoBound> {
    let unseen = UNSEEN.saturating_mul(bound.named_tools.saturating_add(1));
    let text = bound.body_bytes.saturating_add(unseen);
    match price.and_then(|price| price.context) {
        Some(context) if bound.has_more => Ok(context.max(text)),
        Some(context) => Ok(context.min(text)),
        None if bound.has_more => Err(NoBound::Input),
        None => Ok(text),
    }
}

fn output(provider: &ProviderId, bound: &Bound, price: Option<&ModelPrice>) -> u64 {
    let mut one = bound.output_maximum;
    if THINKS_APART.contains(&provider.as_str()) {
        let most = price.and_then(|price| price.max_output).unwrap_or(one).max(one);
        one = one.saturating_add(most);
    }
    one.saturating_mul(bound.answers.max(1))
}

/// None when a rate that the call needs is missing.
fn dearest(price: &ModelPrice, cache: CacheUse, input: u64, output: u64) -> Option<Cost> {
    let reached = price.tiers.iter().map(|tier| tier.above).filter(|above| *above < input);
    let mut dearest = Cost::ZERO;
    for all_input in [0].into_iter().chain(reached.map(|above| above + 1)) {
        let rates = price.rates_for(all_input);
        let short = rates.cache_write_5m.filter(|_| cache != CacheUse::None);
        let long = rates.cache_write_1h.filter(|_| cache == CacheUse::Long);
        let of_input =
            rates.input?.max(short.unwrap_or(0)).max(long.unwrap_or(0)).max(rates.cache_read?);
        let of_output = rates.output.max(rates.reasoning).max(rates.audio_output);
        let of_output = if output == 0 { 0 } else { of_output? };
        dearest = dearest.max(Cost::of(input, of_input).plus(Cost::of(output, of_output)));
    }
    let per_call = price.request.unwrap_or(0).saturating_add(price.search.unwrap_or(0));
    Some(dearest.plus(Cost::from_picos(per_call.into())))
}

/// Tokens that providers add by themselves: the template of a chat, the words that explain tools in
/// general, and as many at the most for each of their own.
const UNSEEN: u64 = 1024;

/// Providers whose models' thoughts are not counted in the maximum of output.
const THINKS_APART: [&str; 2] = ["perplexity", "xai"];
