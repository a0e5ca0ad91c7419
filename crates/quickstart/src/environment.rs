use std::env;

use domain::Secret;

/// A provider whose key is looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Known {
    /// Its slug, which is also what its credential is called.
    pub(crate) provider: &'static str,
    /// What the credential is called that holds the stand-in's key.
    pub(crate) stand_in: &'static str,
    /// Where its SDKs look for a key.
    pub(crate) variable: &'static str,
    /// A model to try it with.
    pub(crate) model: &'static str,
}

/// The providers that the quickstart sets up.
pub(crate) const KNOWN: [Known; 2] = [
    Known {
        provider: "openai",
        stand_in: "openai-stand-in",
        variable: "OPENAI_API_KEY",
        model: "gpt-4o-mini",
    },
    Known {
        provider: "anthropic",
        stand_in: "anthropic-stand-in",
        variable: "ANTHROPIC_API_KEY",
        model: "claude-haiku-4-5",
    },
];

/// A provider's key, for the broker.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) of: Known,
    pub(crate) key: Secret,
}

/// The keys that the environment holds. One that is empty is none; a line break after one is cut off.
pub(crate) fn keys() -> Vec<Found> {
    let found = KNOWN.iter().filter_map(|of| Some(Found { of: *of, key: variable(of.variable)? }));
    found.filter(|found| !found.key.is_empty()).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a newcomer's keys are in the environment, where SDKs look for them"
)]
fn variable(name: &str) -> Option<Secret> {
    let mut key = env::var(name).ok()?.into_bytes();
    key.truncate(key.trim_ascii_end().len());
    Some(Secret::new(key))
}
