use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::ProviderId;

/// What a virtual key may reach. An empty list means no limit of that kind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scope {
    /// The providers.
    pub providers: Vec<ProviderId>,
    /// The models.
    pub models: Vec<ModelPattern>,
}

impl Scope {
    /// Whether calls to this provider are allowed.
    pub fn allows_provider(&self, provider: &ProviderId) -> bool {
        self.providers.is_empty() || self.providers.contains(provider)
    }

    /// Whether this model is allowed; a call that names none is allowed only without a limit.
    pub fn allows_model(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| pattern.matches(model))
    }
}

/// A model's exact name, or a prefix that ends in `*`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ModelPattern(String);

/// A text that is not a model pattern.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a model is 1 to 128 of [A-Za-z0-9._:/@-], or a prefix of that with * at its end")]
pub struct InvalidPattern;

impl ModelPattern {
    /// Whether the pattern names this model.
    pub fn matches(&self, model: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => !model.is_empty() && model.starts_with(prefix),
            None => self.0 == model,
        }
    }

    /// The name, when the pattern names one model only.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.ends_with('*')).then_some(&*self.0)
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModelPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let valid = (1..=128).contains(&text.len()) && name.bytes().all(is_model_byte);
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidPattern) }
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text can be a model's name: 1 to 256 of `[A-Za-z0-9._:/@-]`. Whatever else stands where
/// a model belongs, a prompt perhaps, gets into no record.
pub fn is_model_name(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(is_model_byte)
}

fn is_model_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'@' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, model: &str, matches: bool) {
        assert_eq!(pattern.parse::<ModelPattern>().unwrap().matches(model), matches);
    }

    #[test]
    fn a_pattern_is_a_name_or_a_prefix() {
        check("gpt-4o", "gpt-4o", true);
        check("gpt-4o", "gpt-4o-mini", false);
        check("gpt-4o*", "gpt-4o-mini", true);
        check("*", "anything", true);
        check("*", "", false);
        check("gpt-4o", "GPT-4o", false);
        assert!("gpt-*-mini".parse::<ModelPattern>().is_err());
        assert!("".parse::<ModelPattern>().is_err());
    }

    #[test]
    fn a_name_is_no_sentence() {
        let names =
            ["gpt-4o", "@cf/meta/llama-3", "ft:gpt-4o-mini:acme::x", "meta-llama/Llama-3.3:free"];
        assert!(names.into_iter().all(is_model_name));
        assert!(is_model_name(&"m".repeat(256)));
        for other in ["", "two words", "quoted\"", "a\nb", "modèle", &"m".repeat(257)] {
            assert!(!is_model_name(other), "{other}");
        }
    }

    #[test]
    fn a_limit_on_models_refuses_calls_without_a_model() {
        let scope = Scope { models: vec!["gpt-4o".parse().unwrap()], ..Scope::default() };
        assert!(!scope.allows_model(""));
        assert!(Scope::default().allows_model(""));
    }
}
