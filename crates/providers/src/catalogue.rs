use domain::{Detection, Origin, ProviderId};
use thiserror::Error;

use crate::{Ask, NoTarget, Provider, Target, facts::Facts, usage};

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

    /// The same, with another address for one provider's token service: an endpoint in the own network,
    /// another cloud's, or a stand-in.
    pub fn with_token_origin(
        mut self,
        provider: &ProviderId,
        origin: &str,
    ) -> Result<Self, CatalogueError> {
        let checked = Origin::of_url(origin)
            .map_err(|source| CatalogueError::InvalidAddress { url: origin.to_owned(), source })?;
        let found = self.providers.iter_mut().find(|known| known.id() == provider);
        found
            .ok_or_else(|| CatalogueError::UnknownProvider(provider.to_string()))?
            .set_token_origin(checked.as_str());
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

    /// The provider with this slug or alias, or an error that says which there are.
    pub fn find(&self, name: &str) -> Result<&Provider, NoTarget> {
        self.named(name).ok_or_else(|| {
            let known = self.providers.iter().map(|known| known.id().as_str());
            let mut known = known.collect::<Vec<_>>();
            known.sort_unstable();
            NoTarget::UnknownProvider {
                name: name.chars().filter(char::is_ascii_graphic).take(63).collect(),
                known: known.join(", "),
            }
        })
    }

    /// Where a call to this provider goes, and what must be done to it on the way.
    pub fn target(&self, provider: &str, ask: &Ask<'_>) -> Result<Target, NoTarget> {
        self.find(provider)?.target(ask)
    }

    /// What a model's name alone says about who serves it.
    pub fn recognize(&self, model: &str) -> Detection {
        let Some(first) = self.providers.iter().find(|known| known.detects(model)) else {
            return Detection::Unknown;
        };
        if !first.is_gateway() {
            return first.detection();
        }
        let gateways = self.providers.iter().filter(|one| one.is_gateway() && one.detects(model));
        Detection::Several(gateways.map(|gateway| gateway.id().clone()).collect())
    }

    /// The provider whose models have names like this one, when there is exactly one.
    pub fn detect(&self, model: &str) -> Option<&ProviderId> {
        let first = self.providers.iter().find(|provider| provider.detects(model));
        first.filter(|provider| !provider.is_gateway()).map(Provider::id)
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
        let shapes = usage::shapes()?;
        let facts = files.iter().map(|file| toml::from_str::<Facts>(file));
        let providers = facts.map(|facts| Provider::new(facts?, &shapes));
        let mut providers = providers.collect::<Result<Vec<_>, CatalogueError>>()?;
        providers.sort_by_key(|provider| provider.detect_rank);
        Ok(Self { providers })
    }
}

impl CatalogueError {
    pub(crate) fn invalid(what: &str, detail: &dyn std::fmt::Display) -> Self {
        Self::Invalid(format!("{what}: {detail}"))
    }
}

const FILES: [&str; 15] = [
    include_str!("../data/anthropic.toml"),
    include_str!("../data/azure.toml"),
    include_str!("../data/bedrock.toml"),
    include_str!("../data/cloudflare.toml"),
    include_str!("../data/cohere.toml"),
    include_str!("../data/custom.toml"),
    include_str!("../data/deepseek.toml"),
    include_str!("../data/google.toml"),
    include_str!("../data/mistral.toml"),
    include_str!("../data/openai.toml"),
    include_str!("../data/openrouter.toml"),
    include_str!("../data/perplexity.toml"),
    include_str!("../data/vercel.toml"),
    include_str!("../data/vertex.toml"),
    include_str!("../data/xai.toml"),
];
