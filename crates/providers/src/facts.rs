use std::{collections::BTreeMap, time::Duration};

use domain::Failure;
use serde::Deserialize;

use crate::{CredentialKind, Mint, MintFacts, Operation, Quirk, Rewrite, Steer};

/// A file of `data/`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Facts {
    pub(crate) slug: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) name: String,
    /// Scheme and host, without a path; a template. Absent when each credential brings its own.
    #[serde(default)]
    pub(crate) base_url: Option<String>,
    /// The same for credentials that name a region.
    #[serde(default)]
    pub(crate) regional_base_url: Option<String>,
    /// The dialect of the provider's own API: the shape of its errors.
    pub(crate) speaks: String,
    pub(crate) detect_rank: u8,
    pub(crate) detect: Vec<String>,
    /// Whether the names that are detected belong to no vendor more than to others.
    #[serde(default)]
    pub(crate) gateway: bool,
    /// Who serves the detected models under the same names.
    #[serde(default)]
    pub(crate) detect_also: Vec<String>,
    pub(crate) models: Vec<String>,
    #[serde(default)]
    pub(crate) quirks: Vec<Quirk>,
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, SettingFacts>,
    pub(crate) credentials: Vec<CredentialFacts>,
    pub(crate) dialects: BTreeMap<String, DialectFacts>,
    pub(crate) headers: HeaderFacts,
    pub(crate) native: NativeFacts,
    pub(crate) key: KeyFacts,
    /// What a body must not hold, in whichever format it is.
    #[serde(default)]
    pub(crate) steers: Vec<Steer>,
    #[serde(default)]
    pub(crate) errors: Vec<ErrorFacts>,
    #[serde(default)]
    pub(crate) key_tests: Vec<KeyTestFacts>,
    #[serde(default)]
    pub(crate) mints: Vec<MintFacts>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingFacts {
    pub(crate) help: String,
    pub(crate) looks_like: String,
    pub(crate) pattern: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialFacts {
    pub(crate) kind: CredentialKind,
    pub(crate) secret: String,
    #[serde(default)]
    pub(crate) requires: Vec<String>,
    #[serde(default)]
    pub(crate) accepts: Vec<String>,
    #[serde(default)]
    pub(crate) mint: Option<Mint>,
    /// `own`, `bearer`, `setting`, `nothing`, or the name of a header.
    pub(crate) sends: String,
    #[serde(default)]
    pub(crate) setting_headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) defaults: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) cut: Option<String>,
    /// How right secrets of this kind begin, where for other kinds that is wrong.
    #[serde(default)]
    pub(crate) begins: Option<String>,
    /// What the secret looks like today. Advisory: vendors change it without notice.
    #[serde(default)]
    pub(crate) pattern: Option<String>,
    #[serde(default)]
    pub(crate) looks_like: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DialectFacts {
    /// Scheme and host, where they are not the provider's; a template.
    #[serde(default)]
    pub(crate) base_url: Option<String>,
    /// What follows the base URL; a template.
    pub(crate) path: String,
    /// What a credential's own address may end with, and this dialect's paths have themselves.
    #[serde(default)]
    pub(crate) cut: String,
    pub(crate) header_name: String,
    pub(crate) header_prefix: String,
    /// Headers that are sent when the caller sends none of that name.
    #[serde(default)]
    pub(crate) extra: BTreeMap<String, String>,
    /// What is served, and which path each has behind `path`; templates.
    #[serde(default)]
    pub(crate) operations: BTreeMap<Operation, String>,
    /// The same for streams, where they have paths of their own.
    #[serde(default)]
    pub(crate) stream_operations: BTreeMap<Operation, String>,
    /// Other paths, when a setting is there.
    #[serde(default)]
    pub(crate) variant: Option<VariantFacts>,
    /// What stands in front of a model that has no `/`.
    #[serde(default)]
    pub(crate) model_prefix: String,
    #[serde(default)]
    pub(crate) rewrites: Vec<Rewrite>,
    /// Where answers say what was used, by shapes of `data/usage.toml`.
    #[serde(default)]
    pub(crate) usage: BTreeMap<Operation, String>,
    /// The same for the provider's own API.
    #[serde(default)]
    pub(crate) native_usage: Vec<String>,
    /// What does not work in this dialect, for people.
    #[serde(default)]
    pub(crate) gaps: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VariantFacts {
    pub(crate) setting: String,
    /// What has them; all else stays where it is.
    pub(crate) operations: Vec<Operation>,
    pub(crate) path: String,
    pub(crate) query: String,
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
    /// Parts of a query that go on.
    #[serde(default)]
    pub(crate) query: Vec<String>,
    pub(crate) paths: Vec<PathFacts>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathFacts {
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) upstream: Option<String>,
    /// Whether the model of the path stands in each item of the body too.
    #[serde(default)]
    pub(crate) repeats_model: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyFacts {
    /// Prefixes of right-looking keys of the wrong kind.
    pub(crate) wrong: Vec<WrongKind>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrongKind {
    pub(crate) prefix: String,
    pub(crate) means: String,
}

/// What an answer must have to be meant; what is not said is not asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatchFacts {
    #[serde(default)]
    pub(crate) status: Option<u16>,
    /// One of its codes, types or reasons.
    #[serde(default)]
    pub(crate) code: Option<String>,
    /// How its message begins.
    #[serde(default)]
    pub(crate) message: Option<String>,
    /// A header that it has, with this value if one is said.
    #[serde(default)]
    pub(crate) header: Option<String>,
    #[serde(default)]
    pub(crate) header_value: Option<String>,
    /// A place in its body, with the value that stands there.
    #[serde(default)]
    pub(crate) pointer: Option<String>,
    #[serde(default)]
    pub(crate) value: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ErrorFacts {
    pub(crate) when: MatchFacts,
    pub(crate) means: FailureWord,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureWord {
    CredentialRefused,
    NoQuota,
    NotAllowed,
    RateLimited,
    ProviderTrouble,
    TimedOut,
    CallersFault,
}

impl FailureWord {
    pub(crate) fn failure(self, retry_after: Option<Duration>) -> Failure {
        match self {
            Self::CredentialRefused => Failure::CredentialRefused,
            Self::NoQuota => Failure::NoQuota,
            Self::NotAllowed => Failure::NotAllowed,
            Self::RateLimited => Failure::RateLimited { retry_after },
            Self::ProviderTrouble => Failure::ProviderTrouble,
            Self::TimedOut => Failure::TimedOut,
            Self::CallersFault => Failure::CallersFault,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyTestFacts {
    pub(crate) kinds: Vec<CredentialKind>,
    /// How a secret begins for which this test is the right one.
    #[serde(default)]
    pub(crate) secret_prefix: Option<String>,
    pub(crate) method: String,
    /// Scheme and host, where they are not the provider's; a template.
    #[serde(default)]
    pub(crate) base_url: Option<String>,
    pub(crate) path: String,
    /// In which dialect's header the secret goes.
    pub(crate) dialect: String,
    /// The AWS service for which the request is signed, in place of a header.
    #[serde(default)]
    pub(crate) signed_for: Option<String>,
    #[serde(default)]
    pub(crate) content_type: Option<String>,
    #[serde(default)]
    pub(crate) body: Option<String>,
    pub(crate) results: Vec<ResultFacts>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultFacts {
    pub(crate) when: MatchFacts,
    pub(crate) verdict: crate::Verdict,
}
