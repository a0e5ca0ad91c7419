use domain::Dialect;
use serde::Deserialize;

/// One thing that a caller can ask for in the format of OpenAI or Anthropic.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// OpenAI's chat completions.
    ChatCompletions,
    /// OpenAI's older completions.
    Completions,
    /// OpenAI's embeddings.
    Embeddings,
    /// OpenAI's responses.
    Responses,
    /// OpenAI's moderations.
    Moderations,
    /// OpenAI's list of models.
    Models,
    /// Anthropic's messages.
    Messages,
    /// Anthropic's count of tokens.
    CountTokens,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Embeddings,
        Self::Responses,
        Self::Moderations,
        Self::Models,
        Self::Messages,
        Self::CountTokens,
    ];

    /// The format it belongs to.
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::ChatCompletions
            | Self::Completions
            | Self::Embeddings
            | Self::Responses
            | Self::Moderations
            | Self::Models => Dialect::OpenAi,
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
        }
    }

    /// What people call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Moderations => "moderations",
            Self::Models => "models",
            Self::Messages => "messages",
            Self::CountTokens => "count tokens",
        }
    }
}
