use domain::ProviderId;

use crate::{Edit, Format, InvalidRequest, RequestOutline};

/// The most output of one answer, and what must be changed for the provider to keep to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutputLimit {
    /// In tokens; 0 where there is no output.
    pub maximum: u64,
    /// The limit that the caller did not give.
    pub edit: Option<Edit>,
}

impl RequestOutline {
    /// The output limit that the caller gave, or `otherwise` and the edit that gives it.
    pub fn output_limit(
        &self,
        body: &[u8],
        provider: &ProviderId,
        format: Format,
        otherwise: u64,
    ) -> Result<OutputLimit, InvalidRequest> {
        let names = names(provider, format);
        let mut given = None;
        let mut empty = None;
        for (parent, name) in names {
            given = given.max(self.number(body, parent, name)?);
            // A null is no limit; what it stands for is the provider's own.
            empty = empty.or_else(|| self.value(parent, name));
        }
        let Some(first) = names.first() else {
            return Ok(OutputLimit { maximum: 0, edit: None });
        };
        if let Some(maximum) = given {
            return Ok(OutputLimit { maximum, edit: None });
        }
        let edit = match empty {
            Some(at) => Edit { at, with: otherwise.to_string().into_bytes() },
            None if first.0.is_empty() => self.insert(&format!("\"{}\":{otherwise}", first.1)),
            None => {
                // Both spellings of Gemini's object are one to it.
                let spelled = names.iter().find(|(parent, _)| self.value("", parent).is_some());
                let (parent, name) = spelled.unwrap_or(first);
                self.insert_into(body, parent, &format!("\"{name}\":{otherwise}"))
            }
        };
        Ok(OutputLimit { maximum: otherwise, edit: Some(edit) })
    }
}

/// Where a request of this dialect may limit its output: the first is where a limit is put.
fn names(provider: &ProviderId, format: Format) -> &'static [(&'static str, &'static str)] {
    match format {
        Format::OpenAiChat if NEWER.contains(&provider.as_str()) => {
            &[("", "max_completion_tokens"), ("", "max_tokens")]
        }
        Format::OpenAiChat => &[("", "max_tokens"), ("", "max_completion_tokens")],
        Format::OpenAiResponses => &[("", "max_output_tokens")],
        Format::AnthropicMessages | Format::BedrockInvoke | Format::CohereChat => {
            &[("", "max_tokens")]
        }
        Format::Gemini => &[
            ("generationConfig", "maxOutputTokens"),
            ("generationConfig", "max_output_tokens"),
            ("generation_config", "max_output_tokens"),
            ("generation_config", "maxOutputTokens"),
        ],
        Format::BedrockConverse => &[("inferenceConfig", "maxTokens")],
        Format::OpenAiEmbeddings | Format::CohereUnits => &[],
    }
}

/// Providers of models that think, which refuse the older name for those.
const NEWER: [&str; 3] = ["azure", "openai", "xai"];
