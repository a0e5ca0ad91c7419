use http::Method;

use crate::{
    CatalogueError,
    facts::PathFacts,
    settings::{path_segment, path_segments},
};

/// One call of a provider's own API that may be passed through.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NativePath {
    /// The method; no other is let through.
    pub method: Method,
    /// The path. Its variable parts are `{model}`, one segment or the front of one before a `:verb`;
    /// `{encoded_model}`, a segment with `:` and `/` escaped; `{model_path}`, all that is left; and the
    /// names of settings, for which a caller may write anything: the credential's own are put there.
    pub template: String,
    /// What the provider calls it, when that differs.
    pub(crate) upstream: Option<String>,
    /// Whether the model of the path stands in each item of the body too, so that no other can be put
    /// in its place.
    pub(crate) repeats_model: bool,
}

/// A request that matches a [`NativePath`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NativeCall<'p, 'a> {
    /// What it matched.
    pub path: &'p NativePath,
    /// The model that the request's path names, as it stands there.
    pub model: Option<&'a str>,
    /// Where that stands in the path.
    model_at: usize,
}

impl NativeCall<'_, '_> {
    /// The model that the request's path names, without escapes.
    pub fn model_name(&self) -> Option<String> {
        let model = self.model?;
        let plain = model.replace("%3A", ":").replace("%3a", ":");
        Some(plain.replace("%2F", "/").replace("%2f", "/"))
    }

    /// The path with another model in the place of its own; `None` where there is none, or where it
    /// could be no part of such a path.
    pub(crate) fn path_with(&self, path: &str, model: &str) -> Option<String> {
        let named = self.model.filter(|_| !self.path.repeats_model)?;
        let is_all_the_rest = self.path.template.ends_with("{model_path}");
        let written = if is_all_the_rest { path_segments(model) } else { path_segment(model) };
        let (before, after) = path.split_at_checked(self.model_at)?;
        let path = format!("{before}{written}{}", after.strip_prefix(named)?);
        let again = self.path.matches(&self.path.method, &path)?;
        (again.model_name().as_deref() == Some(model)).then_some(path)
    }
}

impl NativePath {
    pub(crate) fn new(facts: &PathFacts) -> Result<Self, CatalogueError> {
        let method = facts.method.parse();
        Ok(Self {
            method: method.map_err(|error| CatalogueError::invalid("native.paths", &error))?,
            template: facts.path.clone(),
            upstream: facts.upstream.clone(),
            repeats_model: facts.repeats_model,
        })
    }

    pub(crate) fn matches<'a>(&self, method: &Method, path: &'a str) -> Option<NativeCall<'_, 'a>> {
        if self.method != *method {
            return None;
        }
        let mut model = None;
        let mut model_at = 0;
        let mut rest = path;
        let mut at_end = false;
        for expected in self.template.split('/') {
            if at_end {
                return None;
            }
            if expected == "{model_path}" {
                model_at = path.len() - rest.len();
                let segments = rest.split('/');
                let fits = (1..=4).contains(&segments.clone().count())
                    && segments.into_iter().all(is_model_segment);
                model = Some(rest).filter(|_| fits);
                at_end = true;
                model?;
                continue;
            }
            let (part, after) = match rest.split_once('/') {
                Some((part, after)) => (part, Some(after)),
                None => (rest, None),
            };
            if let Some(verb) = expected.strip_prefix("{model}") {
                let named = part.strip_suffix(verb)?;
                model_at = path.len() - rest.len();
                model = Some(named).filter(|named| is_model_segment(named));
                // Without a verb the whole segment is the model, `:` and all.
                model.filter(|named| verb.is_empty() || !named.contains(':'))?;
            } else if let Some(verb) = expected.strip_prefix("{encoded_model}") {
                let named = part.strip_suffix(verb)?;
                model_at = path.len() - rest.len();
                model = Some(named).filter(|named| is_model_segment(&without_escapes(named)));
                model?;
            } else if expected.starts_with('{') {
                Some(part).filter(|part| is_model_segment(part))?;
            } else if part != expected {
                return None;
            }
            match after {
                Some(after) => rest = after,
                None => at_end = true,
            }
        }
        at_end.then_some(NativeCall { path: self, model, model_at })
    }
}

/// A segment that means itself wherever it is put into a URL: no escapes, no dots alone.
fn is_model_segment(segment: &str) -> bool {
    let fits =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'@' | b'-');
    (1..=256).contains(&segment.len())
        && segment.bytes().all(fits)
        && segment.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

/// The two escapes that a resource name needs to be one segment, made harmless for the check.
fn without_escapes(segment: &str) -> String {
    ["%3A", "%3a", "%2F", "%2f"].iter().fold(segment.to_owned(), |text, one| text.replace(one, "-"))
}
