use std::collections::BTreeMap;

use serde::Deserialize;

/// A file of `data/`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Facts {
    pub(crate) slug: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) name: String,
    /// Scheme and host, without a path. Absent when each credential brings its own.
    #[serde(default)]
    pub(crate) base_url: Option<String>,
    /// The dialect of the provider's own API: the shape of its errors.
    pub(crate) speaks: String,
    pub(crate) detect_rank: u8,
    pub(crate) detect: Vec<String>,
    pub(crate) models: Vec<String>,
    pub(crate) dialects: BTreeMap<String, DialectFacts>,
    pub(crate) headers: HeaderFacts,
    pub(crate) native: NativeFacts,
    pub(crate) key: KeyFacts,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DialectFacts {
    /// What follows the provider's base URL.
    pub(crate) path: String,
    pub(crate) header_name: String,
    pub(crate) header_prefix: String,
    /// Headers that are sent when the caller sends none of that name.
    #[serde(default)]
    pub(crate) extra: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderFacts {
    pub(crate) forward: Vec<String>,
    pub(crate) pass_back: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NativeFacts {
    pub(crate) paths: Vec<PathFacts>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathFacts {
    pub(crate) method: String,
    pub(crate) path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyFacts {
    /// What keys look like today. Advisory: vendors change it without notice.
    #[serde(default)]
    pub(crate) pattern: Option<String>,
    #[serde(default)]
    pub(crate) looks_like: Option<String>,
    /// Prefixes of right-looking keys of the wrong kind.
    pub(crate) wrong: Vec<WrongKind>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrongKind {
    pub(crate) prefix: String,
    pub(crate) means: String,
}
