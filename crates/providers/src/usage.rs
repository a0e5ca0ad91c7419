use std::collections::BTreeMap;

use serde::Deserialize;

use crate::CatalogueError;

/// Where answers of one shape say what was used.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct UsageShape {
    /// In an answer that comes whole.
    pub answer: UsagePointers,
    /// In a stream; `None` when the shape has none.
    #[serde(default)]
    pub stream: Option<StreamUsage>,
    /// Whether the input tokens contain those read from and written to a cache.
    pub input_includes_cache: bool,
    /// Whether the output tokens contain those of reasoning.
    pub output_includes_reasoning: bool,
}

/// Where a stream says what was used.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct StreamUsage {
    /// How the stream is cut into events.
    pub framing: Framing,
    /// Whether the caller must ask for the figures: `stream_options.include_usage`.
    #[serde(default)]
    pub on_request: bool,
    /// The event that has them; `None` when any may, and the last one counts.
    #[serde(default)]
    pub event: Option<String>,
    /// The opening event's figures, which hold where later ones say nothing.
    #[serde(default)]
    pub opening: Option<UsagePointers>,
    /// Where they stand in the event.
    pub figures: UsagePointers,
}

/// How a stream is cut into events.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// AWS event stream frames.
    AwsEventStream,
}

/// JSON pointers (RFC 6901) to the figures of an answer. Where there are several, the first that is
/// there counts.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct UsagePointers {
    /// Input tokens.
    pub input: Vec<String>,
    /// Output tokens.
    pub output: Vec<String>,
    /// Input tokens read from a cache.
    pub cache_read: Vec<String>,
    /// Input tokens written to a cache.
    pub cache_write: Vec<String>,
    /// Those of them that are kept for an hour.
    pub cache_write_1h: Vec<String>,
    /// Output tokens of reasoning.
    pub reasoning: Vec<String>,
    /// Input tokens that tools used.
    pub tool_input: Vec<String>,
    /// All tokens.
    pub total: Vec<String>,
    /// What the provider charged, in US dollars.
    pub cost_usd: Vec<String>,
    /// What the provider charged, in its own ticks.
    pub cost_ticks: Vec<String>,
    /// Searches that were made.
    pub searches: Vec<String>,
}

impl UsagePointers {
    /// Every pointer.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        [
            &self.input,
            &self.output,
            &self.cache_read,
            &self.cache_write,
            &self.cache_write_1h,
            &self.reasoning,
            &self.tool_input,
            &self.total,
            &self.cost_usd,
            &self.cost_ticks,
            &self.searches,
        ]
        .into_iter()
        .flatten()
        .map(String::as_str)
    }
}

/// The shapes that answers have, by name.
pub(crate) fn shapes() -> Result<BTreeMap<String, UsageShape>, CatalogueError> {
    Ok(toml::from_str(include_str!("../data/usage.toml"))?)
}
