use domain::{Cost, Tokens};
use serde::{Deserialize, Deserializer, de};

mod shapes;

use shapes::{Anthropic, Cohere, CohereMeta, Converse, Gemini, Invocation, OpenAi};

use crate::{Format, Reading, Usage};

/// What a provider's usage object says, with the differences between dialects taken out, but not yet
/// those in what includes what. A figure that is not stated is none, so that a later object can leave
/// out what an earlier one said.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Figures {
    input: Option<u64>,
    /// Input that is counted beside `input`.
    more_input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
    reasoning: Option<u64>,
    audio_input: Option<u64>,
    audio_output: Option<u64>,
    searches: Option<u64>,
    stated: Option<Cost>,
}

impl Figures {
    /// Reads an object at one of the dialect's places; none when it is not one of usage.
    pub(crate) fn read(reading: Reading, place: usize, object: &[u8]) -> Option<Self> {
        let figures = match reading.format {
            Format::OpenAiChat | Format::OpenAiResponses | Format::OpenAiEmbeddings => {
                serde_json::from_slice::<OpenAi<'_>>(object).ok()?.figures(reading.cost)
            }
            Format::BedrockInvoke if place == 2 => {
                serde_json::from_slice::<Invocation>(object).ok()?.figures()
            }
            Format::AnthropicMessages | Format::BedrockInvoke => {
                serde_json::from_slice::<Anthropic>(object).ok()?.figures()
            }
            Format::Gemini => serde_json::from_slice::<Gemini>(object).ok()?.figures(),
            Format::BedrockConverse => serde_json::from_slice::<Converse>(object).ok()?.figures(),
            Format::CohereChat => serde_json::from_slice::<Cohere>(object).ok()?.figures(),
            Format::CohereUnits => serde_json::from_slice::<CohereMeta>(object).ok()?.figures(),
        };
        (figures != Self::default()).then_some(figures)
    }

    /// These, and what only the earlier ones say.
    pub(crate) fn or(self, earlier: Self) -> Self {
        Self {
            input: self.input.or(earlier.input),
            more_input: self.more_input.or(earlier.more_input),
            output: self.output.or(earlier.output),
            cache_read: self.cache_read.or(earlier.cache_read),
            cache_write: self.cache_write.or(earlier.cache_write),
            cache_write_5m: self.cache_write_5m.or(earlier.cache_write_5m),
            cache_write_1h: self.cache_write_1h.or(earlier.cache_write_1h),
            reasoning: self.reasoning.or(earlier.reasoning),
            audio_input: self.audio_input.or(earlier.audio_input),
            audio_output: self.audio_output.or(earlier.audio_output),
            searches: self.searches.or(earlier.searches),
            stated: self.stated.or(earlier.stated),
        }
    }

    /// The same in kinds that do not overlap.
    pub(crate) fn usage(&self, reading: Reading) -> Usage {
        let of = |figure: Option<u64>| figure.unwrap_or(0);
        let cache_read = of(self.cache_read);
        let cache_write_1h = of(self.cache_write_1h);
        // The total of writes is stated beside its parts, or without them.
        let writes =
            of(self.cache_write).max(of(self.cache_write_5m).saturating_add(cache_write_1h));
        let is_split = self.cache_write_5m.or(self.cache_write_1h).is_some();
        let cache_write_1h = if reading.writes_long && !is_split { writes } else { cache_write_1h };
        let audio_input = of(self.audio_input);
        let apart = match reading.format {
            Format::AnthropicMessages | Format::BedrockInvoke | Format::BedrockConverse => 0,
            Format::OpenAiChat
            | Format::OpenAiResponses
            | Format::OpenAiEmbeddings
            | Format::Gemini
            | Format::CohereChat
            | Format::CohereUnits => cache_read.saturating_add(writes),
        };
        let input = of(self.input);
        // xAI has been seen to count cached input beside the rest of it.
        let input = if apart > input { input } else { input - apart };
        let (output, audio_output) = (of(self.output), of(self.audio_output));
        let reasoning = of(self.reasoning);
        let within = if reading.reasoning_is_extra { 0 } else { reasoning };
        let tokens = Tokens {
            input: input.saturating_sub(audio_input).saturating_add(of(self.more_input)),
            cache_read,
            cache_write_5m: writes.saturating_sub(cache_write_1h),
            cache_write_1h,
            audio_input,
            output: output.saturating_sub(within).saturating_sub(audio_output),
            reasoning: if reading.reasoning_is_extra { reasoning } else { reasoning.min(output) },
            audio_output: audio_output.min(output),
        };
        Usage { tokens, searches: of(self.searches), stated: self.stated }
    }
}

/// A number of tokens. Some providers write 9 as 9.0, and some a figure that they do not have as null.
#[derive(Clone, Copy, Debug, Default)]
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Number)
    }
}

struct Number;

impl de::Visitor<'_> for Number {
    type Value = Count;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number of tokens")
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<Count, E> {
        Ok(Count(Some(count)))
    }

    fn visit_f64<E: de::Error>(self, count: f64) -> Result<Count, E> {
        if !(0.0..=LARGEST).contains(&count) {
            return Err(E::custom("not a number of tokens"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked, and a part of a token is a token"
        )]
        Ok(Count(Some(count.ceil() as u64)))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Count, E> {
        Ok(Count(None))
    }
}

/// Far above any number of tokens, and exact as a decimal.
const LARGEST: f64 = 1e15;
