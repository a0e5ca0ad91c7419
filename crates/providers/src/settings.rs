use std::{borrow::Cow, collections::BTreeMap};

use regex::Regex;

use crate::{CatalogueError, facts::SettingFacts};

/// What a credential says beside its secret: region, project, deployment and the like.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings(BTreeMap<String, String>);

/// What is known of one setting of a provider.
#[derive(Clone, Debug)]
pub struct SettingForm {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub help: String,
    /// How it looks.
    pub looks_like: String,
    pattern: Regex,
}

impl Settings {
    /// The value of a setting; an empty one is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The same with these values where it has none.
    pub(crate) fn with_defaults(&self, defaults: &[(String, String)]) -> Self {
        let mut all: BTreeMap<_, _> = defaults.iter().cloned().collect();
        let given = self.0.iter().filter(|(_, value)| !value.is_empty());
        all.extend(given.map(|(name, value)| (name.clone(), value.clone())));
        Self(all)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Settings {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(all: T) -> Self {
        Self(all.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl SettingForm {
    pub(crate) fn new(name: String, facts: SettingFacts) -> Result<Self, CatalogueError> {
        let pattern = Regex::new(&facts.pattern);
        let pattern = pattern.map_err(|error| CatalogueError::invalid("a setting", &error))?;
        Ok(Self { name, help: facts.help, looks_like: facts.looks_like, pattern })
    }

    /// Whether the value has the right form. What has it can stand in a host name or path as it is.
    pub fn fits(&self, value: &str) -> bool {
        self.pattern.is_match(value)
    }
}

/// Puts values into a template: `{name}`. The error names the first one for which there is none.
pub(crate) fn fill<'a>(
    template: &str,
    value: impl Fn(&str) -> Option<Cow<'a, str>>,
) -> Result<String, String> {
    let mut filled = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        filled.push_str(before);
        filled.push_str(&value(name).ok_or_else(|| name.to_owned())?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The host of Google's cloud for a location.
pub(crate) fn google_host(location: &str) -> String {
    match location {
        "global" => "aiplatform.googleapis.com".to_owned(),
        "us" | "eu" => format!("aiplatform.{location}.rep.googleapis.com"),
        region => format!("{region}-aiplatform.googleapis.com"),
    }
}

/// A model as one segment of a path.
pub(crate) fn path_segment(model: &str) -> String {
    let mut segment = String::with_capacity(model.len());
    for byte in model.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => {
                segment.push(char::from(byte));
            }
            _ => {
                use std::fmt::Write as _;
                // Writing to a string cannot fail.
                let _ = write!(segment, "%{byte:02X}");
            }
        }
    }
    segment
}

/// A model whose slashes are those of the path.
pub(crate) fn path_segments(model: &str) -> String {
    model.split('/').map(path_segment).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_or_says_what_it_lacks() {
        let value = |name: &str| (name == "region").then_some(Cow::Borrowed("eu-west-1"));
        assert_eq!(
            fill("https://x.{region}.y/{region}", value).unwrap(),
            "https://x.eu-west-1.y/eu-west-1"
        );
        assert_eq!(fill("plain", value).unwrap(), "plain");
        assert_eq!(fill("{region}/{project}", value).unwrap_err(), "project");
    }

    #[test]
    fn a_models_name_cannot_leave_its_segment() {
        assert_eq!(path_segment("arn:aws:x/y"), "arn%3Aaws%3Ax%2Fy");
        assert_eq!(path_segment("claude@20240620"), "claude@20240620");
        assert_eq!(path_segment("../a?b#c%2f"), "..%2Fa%3Fb%23c%252f");
        assert_eq!(path_segments("@cf/meta/llama"), "@cf/meta/llama");
    }

    #[test]
    fn a_location_has_its_host() {
        assert_eq!(google_host("global"), "aiplatform.googleapis.com");
        assert_eq!(google_host("eu"), "aiplatform.eu.rep.googleapis.com");
        assert_eq!(google_host("europe-west4"), "europe-west4-aiplatform.googleapis.com");
    }
}
