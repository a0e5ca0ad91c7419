use domain::ProviderId;

use crate::{Edit, Format, RequestOutline};

/// Whether a streamed answer will say what it took.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum UsageOptIn {
    /// It will by itself, or nothing is streamed.
    Unneeded,
    /// The caller asked for it and is to get it.
    Asked,
    /// It will with this edit; then [`crate::Filter`] takes it out of the answer again.
    Added(Edit),
}

impl RequestOutline {
    /// Sees to it that a stream of OpenAI's chat completions ends in usage.
    pub fn usage_opt_in(&self, body: &[u8], provider: &ProviderId, format: Format) -> UsageOptIn {
        let by_itself = BY_ITSELF.contains(&provider.as_str());
        let streamed = self.text(body, "", "stream") == Some(b"true");
        if format != Format::OpenAiChat || by_itself || !streamed {
            return UsageOptIn::Unneeded;
        }
        match self.value("stream_options", "include_usage") {
            Some(value) if body.get(value.clone()) == Some(b"true") => UsageOptIn::Asked,
            Some(value) => UsageOptIn::Added(Edit { at: value, with: b"true".to_vec() }),
            None => {
                let member = r#""include_usage":true"#;
                UsageOptIn::Added(self.insert_into(body, "stream_options", member))
            }
        }
    }
}

/// Providers whose streams say it unasked, and that do not know the option.
const BY_ITSELF: [&str; 2] = ["mistral", "perplexity"];
