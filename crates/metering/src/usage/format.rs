use domain::ProviderId;

use crate::CacheUse;

/// In which dialect an answer is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Format {
    /// OpenAI's chat completions and older completions, at whichever provider.
    OpenAiChat,
    /// OpenAI's responses.
    OpenAiResponses,
    /// OpenAI's embeddings.
    OpenAiEmbeddings,
    /// Anthropic's messages: at Anthropic, Google Cloud, Azure, and in Bedrock's `invoke`.
    AnthropicMessages,
    /// Google's `generateContent` and `streamGenerateContent`.
    Gemini,
    /// Bedrock's `converse` and `converse-stream`.
    BedrockConverse,
    /// Bedrock's `invoke-with-response-stream`, whose frames hold the model's own events.
    BedrockInvoke,
    /// Cohere's chat, version 2.
    CohereChat,
    /// Cohere's embeddings and reranking, which state billed units.
    CohereUnits,
}

/// How to read usage of one provider in one dialect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reading {
    pub(crate) format: Format,
    /// Whether thoughts are counted beside the output rather than in it.
    pub(crate) reasoning_is_extra: bool,
    /// Whether a stream says usage again and again, each time with the sums so far.
    pub(crate) is_cumulative: bool,
    pub(crate) cost: StatedCost,
    /// Whether cache writes of unstated length are long ones.
    pub(crate) writes_long: bool,
}

/// Where a provider states what a call cost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StatedCost {
    Nowhere,
    /// USD under `cost`, and on top of it what another provider charged under the customer's own key.
    OpenRouter,
    /// USD under `cost.total_cost`.
    Perplexity,
    /// 10⁻¹⁰ USD under `cost_in_usd_ticks`.
    Xai,
}

impl Reading {
    /// How this provider's answers in this dialect are read.
    pub fn of(provider: &ProviderId, format: Format) -> Self {
        let openai = matches!(format, Format::OpenAiChat | Format::OpenAiResponses);
        let (chat, gemini) = (format == Format::OpenAiChat, format == Format::Gemini);
        let (cost, apart) = match provider.as_str() {
            "openrouter" if openai => (StatedCost::OpenRouter, false),
            "perplexity" if openai => (StatedCost::Perplexity, chat),
            "xai" if openai => (StatedCost::Xai, chat),
            _ => (StatedCost::Nowhere, gemini),
        };
        let anthropic = matches!(format, Format::AnthropicMessages | Format::BedrockInvoke);
        let is_cumulative = gemini || anthropic || cost == StatedCost::Perplexity;
        Self { format, reasoning_is_extra: apart, is_cumulative, cost, writes_long: false }
    }

    /// The same for a call that may write into this cache: where the provider does not say how long
    /// something is kept, it is kept as long as was asked for.
    #[must_use]
    pub fn of_cache(self, cache: CacheUse) -> Self {
        Self { writes_long: cache == CacheUse::Long, ..self }
    }

    /// The dialect.
    pub fn format(&self) -> Format {
        self.format
    }
}

impl Format {
    /// Where usage stands in a document or an event. Nothing else that is called so is looked at:
    /// what a model says may hold objects with such members, as arguments of tools do.
    pub(crate) const fn places(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::OpenAiChat | Self::OpenAiEmbeddings | Self::BedrockConverse => &[&["usage"]],
            Self::OpenAiResponses => &[&["usage"], &["response", "usage"]],
            Self::AnthropicMessages => &[&["usage"], &["message", "usage"]],
            Self::BedrockInvoke => {
                &[&["usage"], &["message", "usage"], &["amazon-bedrock-invocationMetrics"]]
            }
            Self::Gemini => &[&["usageMetadata"]],
            Self::CohereChat => &[&["usage"], &["delta", "usage"]],
            Self::CohereUnits => &[&["meta"]],
        }
    }

    /// Which of the places says how a call begins, with figures that are not the last ones.
    pub(crate) const fn opening(self) -> Option<usize> {
        match self {
            Self::AnthropicMessages | Self::BedrockInvoke => Some(1),
            Self::OpenAiChat
            | Self::OpenAiResponses
            | Self::OpenAiEmbeddings
            | Self::BedrockConverse
            | Self::Gemini
            | Self::CohereChat
            | Self::CohereUnits => None,
        }
    }
}
