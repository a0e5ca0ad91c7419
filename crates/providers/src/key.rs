use regex::bytes::Regex;

use crate::{CatalogueError, facts::KeyFacts};

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

/// What is known of a provider's keys.
#[derive(Clone, Debug)]
pub(crate) struct KeyForm {
    pattern: Option<Regex>,
    looks_like: String,
    wrong: Vec<(String, String)>,
}

impl KeyForm {
    pub(crate) fn new(facts: KeyFacts) -> Result<Self, CatalogueError> {
        let pattern = facts.pattern.as_deref().map(Regex::new).transpose();
        Ok(Self {
            pattern: pattern.map_err(|error| CatalogueError::invalid("key.pattern", &error))?,
            looks_like: facts.looks_like.unwrap_or_default(),
            wrong: facts.wrong.into_iter().map(|wrong| (wrong.prefix, wrong.means)).collect(),
        })
    }

    pub(crate) fn check(&self, key: &[u8]) -> KeyHint<'_> {
        let wrong = self.wrong.iter().find(|(prefix, _)| key.starts_with(prefix.as_bytes()));
        if let Some((_, means)) = wrong {
            return KeyHint::WrongKind { means };
        }
        match &self.pattern {
            Some(pattern) if !pattern.is_match(key) => {
                KeyHint::Unusual { looks_like: &self.looks_like }
            }
            _ => KeyHint::Plausible,
        }
    }
}
