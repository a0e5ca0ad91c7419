use http::Method;

use crate::{CatalogueError, facts::PathFacts};

/// One call of a provider's own API that may be passed through.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NativePath {
    /// The method; no other is let through.
    pub method: Method,
    /// The path; its one variable part is a whole segment, `{model}`.
    pub template: String,
}

/// A request that matches a [`NativePath`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NativeCall<'a> {
    /// What it matched.
    pub path: &'a NativePath,
    /// The model that the request's path names.
    pub model: Option<&'a str>,
}

impl NativePath {
    pub(crate) fn new(facts: &PathFacts) -> Result<Self, CatalogueError> {
        let method = facts.method.parse();
        Ok(Self {
            method: method.map_err(|error| CatalogueError::invalid("native.paths", &error))?,
            template: facts.path.clone(),
        })
    }

    pub(crate) fn matches<'a>(&'a self, method: &Method, path: &'a str) -> Option<NativeCall<'a>> {
        if self.method != *method {
            return None;
        }
        let mut model = None;
        let mut parts = path.split('/');
        for expected in self.template.split('/') {
            let part = parts.next()?;
            if expected == "{model}" {
                model = Some(part).filter(|part| is_model_segment(part));
                model?;
            } else if part != expected {
                return None;
            }
        }
        parts.next().is_none().then_some(NativeCall { path: self, model })
    }
}

/// A segment that means itself wherever it is put into a URL: no escapes, no dots alone.
fn is_model_segment(segment: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    (1..=128).contains(&segment.len())
        && segment.bytes().all(fits)
        && segment.bytes().any(|byte| byte.is_ascii_alphanumeric())
}
