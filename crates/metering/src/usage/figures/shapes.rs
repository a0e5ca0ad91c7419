use domain::Cost;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Count, Figures};
use crate::usage::format::StatedCost;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct OpenAi<'a> {
    prompt_tokens: Count,
    completion_tokens: Count,
    input_tokens: Count,
    output_tokens: Count,
    prompt_tokens_details: Option<OpenAiDetails>,
    /// The spelling of Mistral.
    prompt_token_details: Option<OpenAiDetails>,
    completion_tokens_details: Option<OpenAiDetails>,
    input_tokens_details: Option<OpenAiDetails>,
    output_tokens_details: Option<OpenAiDetails>,
    /// Places of their own: of `DeepSeek`, Mistral and Perplexity.
    prompt_cache_hit_tokens: Count,
    num_cached_tokens: Count,
    reasoning_tokens: Count,
    num_search_queries: Count,
    #[serde(borrow)]
    cost: Option<&'a RawValue>,
    cost_details: Option<CostDetails<'a>>,
    is_byok: Option<bool>,
    cost_in_usd_ticks: Count,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(default)]
struct OpenAiDetails {
    #[serde(rename = "cached_tokens")]
    cached: Count,
    #[serde(rename = "cache_write_tokens")]
    cache_write: Count,
    #[serde(rename = "audio_tokens")]
    audio: Count,
    #[serde(rename = "reasoning_tokens")]
    reasoning: Count,
}

#[derive(Deserialize)]
struct CostDetails<'a> {
    #[serde(borrow)]
    upstream_inference_cost: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct TotalCost<'a> {
    #[serde(borrow)]
    total_cost: Option<&'a RawValue>,
}

fn usd(stated: Option<&RawValue>) -> Option<Cost> {
    Cost::from_usd(stated?.get()).ok()
}

impl OpenAi<'_> {
    pub(super) fn figures(&self, cost: StatedCost) -> Figures {
        let details = |one: Option<OpenAiDetails>, other: Option<OpenAiDetails>| {
            one.or(other).unwrap_or_default()
        };
        let into = details(self.prompt_tokens_details, self.input_tokens_details);
        let out = details(self.completion_tokens_details, self.output_tokens_details);
        let mistral = self.prompt_token_details.unwrap_or_default();
        let cached = into.cached.0.or(mistral.cached.0);
        Figures {
            input: self.prompt_tokens.0.or(self.input_tokens.0),
            output: self.completion_tokens.0.or(self.output_tokens.0),
            cache_read: cached.or(self.prompt_cache_hit_tokens.0).or(self.num_cached_tokens.0),
            cache_write: into.cache_write.0,
            reasoning: out.reasoning.0.or(self.reasoning_tokens.0),
            audio_input: into.audio.0,
            audio_output: out.audio.0,
            searches: self.num_search_queries.0,
            stated: self.stated(cost),
            ..Figures::default()
        }
    }

    fn stated(&self, cost: StatedCost) -> Option<Cost> {
        match cost {
            StatedCost::Nowhere => None,
            StatedCost::Xai => {
                self.cost_in_usd_ticks.0.map(|ticks| Cost::of(ticks, PICOS_IN_A_TICK))
            }
            StatedCost::Perplexity => {
                let cost: TotalCost<'_> = serde_json::from_str(self.cost?.get()).ok()?;
                usd(cost.total_cost)
            }
            StatedCost::OpenRouter => {
                let charged = usd(self.cost)?;
                if self.is_byok != Some(true) {
                    return Some(charged);
                }
                let upstream = self.cost_details.as_ref()?.upstream_inference_cost;
                Some(charged.plus(usd(upstream)?))
            }
        }
    }
}

const PICOS_IN_A_TICK: u64 = 100;

#[derive(Deserialize)]
pub(super) struct Anthropic {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    cache_read_input_tokens: Count,
    #[serde(default)]
    cache_creation_input_tokens: Count,
    cache_creation: Option<CacheCreation>,
    output_tokens_details: Option<OutputDetails>,
    server_tool_use: Option<ServerTools>,
}

#[derive(Deserialize, Clone, Copy, Default)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Count,
    ephemeral_1h_input_tokens: Count,
}

#[derive(Deserialize, Clone, Copy, Default)]
#[serde(default)]
struct OutputDetails {
    thinking_tokens: Count,
}

#[derive(Deserialize, Clone, Copy, Default)]
#[serde(default)]
struct ServerTools {
    web_search_requests: Count,
}

impl Anthropic {
    pub(super) fn figures(&self) -> Figures {
        let writes = self.cache_creation.unwrap_or_default();
        let searches = self.server_tool_use.unwrap_or_default().web_search_requests.0;
        Figures {
            input: self.input_tokens.0,
            output: self.output_tokens.0,
            cache_read: self.cache_read_input_tokens.0,
            cache_write: self.cache_creation_input_tokens.0,
            cache_write_5m: writes.ephemeral_5m_input_tokens.0,
            cache_write_1h: writes.ephemeral_1h_input_tokens.0,
            reasoning: self.output_tokens_details.unwrap_or_default().thinking_tokens.0,
            searches: searches.filter(|count| *count > 0),
            ..Figures::default()
        }
    }
}

/// What Bedrock adds to the last event of any model.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Invocation {
    #[serde(rename = "inputTokenCount")]
    input: Count,
    #[serde(rename = "outputTokenCount")]
    output: Count,
    #[serde(rename = "cacheReadInputTokenCount")]
    cache_read: Count,
    #[serde(rename = "cacheWriteInputTokenCount")]
    cache_write: Count,
}

impl Invocation {
    pub(super) fn figures(&self) -> Figures {
        Figures {
            input: self.input.0,
            output: self.output.0,
            cache_read: self.cache_read.0,
            cache_write: self.cache_write.0,
            ..Figures::default()
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Gemini {
    prompt_token_count: Count,
    candidates_token_count: Count,
    cached_content_token_count: Count,
    thoughts_token_count: Count,
    tool_use_prompt_token_count: Count,
    prompt_tokens_details: Vec<Modality>,
    candidates_tokens_details: Vec<Modality>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Modality {
    modality: String,
    token_count: Count,
}

impl Gemini {
    pub(super) fn figures(&self) -> Figures {
        let sound = |of: &[Modality]| {
            let of = of.iter().filter(|it| it.modality == "AUDIO");
            of.filter_map(|it| it.token_count.0).reduce(u64::saturating_add)
        };
        Figures {
            input: self.prompt_token_count.0,
            more_input: self.tool_use_prompt_token_count.0,
            output: self.candidates_token_count.0,
            cache_read: self.cached_content_token_count.0,
            reasoning: self.thoughts_token_count.0,
            audio_input: sound(&self.prompt_tokens_details),
            audio_output: sound(&self.candidates_tokens_details),
            ..Figures::default()
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Converse {
    input_tokens: Count,
    output_tokens: Count,
    cache_read_input_tokens: Count,
    cache_write_input_tokens: Count,
    cache_details: Vec<CacheDetail>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct CacheDetail {
    ttl: String,
    input_tokens: Count,
}

impl Converse {
    pub(super) fn figures(&self) -> Figures {
        let long = self.cache_details.iter().filter(|it| it.ttl == "1h");
        Figures {
            input: self.input_tokens.0,
            output: self.output_tokens.0,
            cache_read: self.cache_read_input_tokens.0,
            cache_write: self.cache_write_input_tokens.0,
            cache_write_1h: long.filter_map(|it| it.input_tokens.0).reduce(u64::saturating_add),
            ..Figures::default()
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Cohere {
    tokens: Option<CohereCounts>,
    billed_units: Option<CohereCounts>,
    cached_tokens: Count,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct CohereMeta {
    billed_units: Option<CohereCounts>,
}

#[derive(Deserialize, Clone, Copy, Default)]
#[serde(default)]
struct CohereCounts {
    input_tokens: Count,
    output_tokens: Count,
    search_units: Count,
}

impl Cohere {
    pub(super) fn figures(&self) -> Figures {
        let billed = self.billed_units.unwrap_or_default();
        let tokens = self.tokens.unwrap_or_default();
        // What is billed is less: the template of the chat is not in it. Whether cached input is, nobody
        // says; the total has it.
        let cached = self.cached_tokens.0.is_some_and(|count| count > 0);
        let (billed_input, all_input) = (billed.input_tokens.0, tokens.input_tokens.0);
        Figures {
            input: if cached { all_input.or(billed_input) } else { billed_input.or(all_input) },
            output: billed.output_tokens.0.or(tokens.output_tokens.0),
            cache_read: self.cached_tokens.0,
            searches: billed.search_units.0,
            ..Figures::default()
        }
    }
}

impl CohereMeta {
    pub(super) fn figures(&self) -> Figures {
        let billed = self.billed_units.unwrap_or_default();
        Figures {
            input: billed.input_tokens.0,
            output: billed.output_tokens.0,
            searches: billed.search_units.0,
            ..Figures::default()
        }
    }
}
