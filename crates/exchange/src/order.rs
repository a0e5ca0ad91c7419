use std::time::Duration;

use domain::Secret;
use providers::{Minting, Settings};

use crate::ExchangeError;

/// What is to be made, and of what.
#[derive(Debug)]
pub struct Order {
    /// Which way, and where to ask.
    pub minting: Minting,
    /// What the credential says beside its secret.
    pub settings: Settings,
    /// The long-lived secret.
    pub secret: Secret,
    /// How long the token should live. The provider's bounds go before it.
    pub lifetime: Duration,
}

impl Order {
    /// The asked lifetime within what the provider gives, in whole seconds.
    pub(crate) fn lifetime(&self) -> Duration {
        let longest = self.minting.longest_seconds.unwrap_or(u64::MAX);
        let shortest = self.minting.shortest_seconds.unwrap_or(SHORTEST).min(longest);
        Duration::from_secs(self.lifetime.as_secs().clamp(shortest, longest))
    }

    pub(crate) fn setting(&self, name: &'static str) -> Result<&str, ExchangeError> {
        self.settings.get(name).ok_or(ExchangeError::MissingSetting(name))
    }

    /// The address to ask, which the catalogue has for every way that needs one.
    pub(crate) fn url(&self) -> Result<&str, ExchangeError> {
        self.minting.url.as_deref().ok_or(ExchangeError::NotMade(self.minting.how))
    }

    /// The secret as text that can stand in a header or a form.
    pub(crate) fn text(&self) -> Result<&str, ExchangeError> {
        std::str::from_utf8(self.secret.expose()).map_err(|_| ExchangeError::NotText)
    }
}

/// No token is made for less than a lease takes to be worth it.
const SHORTEST: u64 = 60;
