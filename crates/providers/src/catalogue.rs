use domain::{Origin, ProviderId};
use thiserror::Error;

use crate::{Provider, facts::Facts};

/// All providers that are known, in the order in which their models are recognized.
#[derive(Clone, Debug)]
pub struct Catalogue {
    providers: Vec<Provider>,
}

/// Why a catalogue cannot be used.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// A provider's file is not of the right form.
    #[error("a provider's facts are unreadable")]
    Unreadable(#[from] toml::de::Error),
    /// A provider's file has a value that cannot be.
    #[error("a provider's facts are wrong: {0}")]
    Invalid(String),
    /// Nobody here knows this provider.
    #[error("no provider is called `{0}`")]
    UnknownProvider(String),
    /// The address cannot be used.
    #[error("`{url}` cannot be a provider's address")]
    InvalidAddress {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        #[source]
        source: domain::InvalidOrigin,
    },
}

impl Catalogue {
    /// The providers that come with this build.
    pub fn builtin() -> Result<Self, CatalogueError> {
        Self::parse(&FILES)
    }

    /// The same, with another address for one provider: a regional host, or a stand-in.
    pub fn with_base_url(
        mut self,
        provider: &ProviderId,
        base_url: &str,
    ) -> Result<Self, CatalogueError> {
        Origin::of_url(base_url).map_err(|source| CatalogueError::InvalidAddress {
            url: base_url.to_owned(),
            source,
        })?;
        let found = self.providers.iter_mut().find(|known| known.id() == provider);
        found
            .ok_or_else(|| CatalogueError::UnknownProvider(provider.to_string()))?
            .set_base_url(base_url);
        Ok(self)
    }

    /// The provider with this slug.
    pub fn provider(&self, id: &ProviderId) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.id() == id)
    }

    /// The provider with this slug or alias.
    pub fn named(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.is_called(name))
    }

    /// All of them.
    pub fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// The provider whose models have names like this one.
    pub fn detect(&self, model: &str) -> Option<&ProviderId> {
        self.providers.iter().find(|provider| provider.detects(model)).map(Provider::id)
    }

    /// Takes a provider from the front of a model: `openai/gpt-4o` is `gpt-4o` of `openai`. A prefix
    /// that names no provider is a part of the model's own name.
    pub fn split_model<'a>(&self, model: &'a str) -> (Option<ProviderId>, &'a str) {
        model
            .split_once('/')
            .and_then(|(prefix, rest)| Some((self.named(prefix)?.id().clone(), rest)))
            .map_or((None, model), |(provider, rest)| (Some(provider), rest))
    }

    fn parse(files: &[&str]) -> Result<Self, CatalogueError> {
        let facts = files.iter().map(|file| toml::from_str::<Facts>(file));
        let mut providers =
            facts.map(|facts| Provider::new(facts?)).collect::<Result<Vec<_>, CatalogueError>>()?;
        providers.sort_by_key(|provider| provider.detect_rank);
        Ok(Self { providers })
    }
}

impl CatalogueError {
    pub(crate) fn invalid(what: &str, detail: &dyn std::fmt::Display) -> Self {
        Self::Invalid(format!("{what}: {detail}"))
    }
}

const FILES: [&str; 3] = [
    include_str!("../data/anthropic.toml"),
    include_str!("../data/custom.toml"),
    include_str!("../data/openai.toml"),
];
