use regex::bytes::Regex;

use crate::CatalogueError;

/// What the form of a key says about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyHint<'a> {
    /// Nothing is odd about it.
    Plausible,
    /// It does not look as this provider's keys do today. Worth a warning; vendors change the form.
    Unusual {
        /// How keys look today.
        looks_like: &'a str,
    },
    /// It is a key of another kind or provider and cannot work here.
    WrongKind {
        /// What it is, for people.
        means: &'a str,
    },
}

/// What is known of the form of one kind of secret.
#[derive(Clone, Debug)]
pub(crate) struct KeyForm {
    pattern: Option<Regex>,
    looks_like: String,
    wrong: Vec<(String, String)>,
}

impl KeyForm {
    pub(crate) fn new(
        pattern: Option<&str>,
        looks_like: Option<String>,
        wrong: Vec<(String, String)>,
    ) -> Result<Self, CatalogueError> {
        let pattern = pattern.map(Regex::new).transpose();
        Ok(Self {
            pattern: pattern.map_err(|error| CatalogueError::invalid("a key's pattern", &error))?,
            looks_like: looks_like.unwrap_or_default(),
            wrong,
        })
    }

    pub(crate) fn check(&self, key: &[u8]) -> KeyHint<'_> {
        let wrong = self.wrong.iter().find(|(prefix, _)| key.starts_with(prefix.as_bytes()));
        match (&self.pattern, wrong) {
            (Some(pattern), None) if !pattern.is_match(key) => {
                KeyHint::Unusual { looks_like: &self.looks_like }
            }
            (_, Some((_, means))) => KeyHint::WrongKind { means },
            _ => KeyHint::Plausible,
        }
    }
}
