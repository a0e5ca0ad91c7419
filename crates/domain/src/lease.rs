use std::{fmt, str::FromStr, time::Duration};

/// The lease that is given when none is asked for.
pub const DEFAULT_TTL: Duration = Duration::from_mins(1);

/// No lease is longer, whatever policy says.
pub const LONGEST_TTL: Duration = Duration::from_mins(5);

/// How long a lease is: what was asked for, lowered to what policy allows and to [`LONGEST_TTL`].
pub fn granted_ttl(asked: Option<Duration>, allowed: Duration) -> Duration {
    asked.unwrap_or(DEFAULT_TTL).max(Duration::from_secs(1)).min(allowed).min(LONGEST_TTL)
}

/// Names a lease to its holder. 128 random bits; the log and the store know only its HMAC.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct LeaseId([u8; 16]);

impl LeaseId {
    /// A new one from the operating system's random source.
    ///
    /// # Errors
    /// When that source fails; there is nothing to fall back to.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The one with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseId(…)")
    }
}

/// Whose credential serves a call.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Source {
    /// The tenant's own.
    Byok,
    /// The platform's, as the tenant's policy allows.
    Managed,
    /// The tenant's own endpoint.
    Custom,
    /// The platform's, for a model that the tenant's policy puts in the place of the one asked for.
    Keyless,
}

impl Source {
    /// Whether the credential is the platform's: what is spent on it is spent on a managed credential.
    pub const fn is_managed(self) -> bool {
        matches!(self, Self::Managed | Self::Keyless)
    }

    /// The word on responses, metrics and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Byok => "byok",
            Self::Managed => "managed",
            Self::Custom => "custom",
            Self::Keyless => "keyless",
        }
    }

    /// Whether the credential is the platform's and not the tenant's own.
    pub const fn is_platforms(self) -> bool {
        matches!(self, Self::Managed | Self::Keyless)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// In which format a caller speaks to a provider.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Dialect {
    /// OpenAI's API, from the provider itself or its compatibility layer.
    OpenAi,
    /// Anthropic's API.
    Anthropic,
    /// The provider's own API, whichever it is.
    Native,
}

impl Dialect {
    /// The word in errors and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Native => "native",
        }
    }
}

impl FromStr for Dialect {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::OpenAi, Self::Anthropic, Self::Native]
            .into_iter()
            .find(|dialect| dialect.as_str() == text)
            .ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_never_outlives_the_longest_allowed() {
        let seconds = Duration::from_secs;
        assert_eq!(granted_ttl(None, seconds(300)), seconds(60));
        assert_eq!(granted_ttl(Some(seconds(120)), seconds(90)), seconds(90));
        assert_eq!(granted_ttl(Some(seconds(9000)), seconds(9000)), LONGEST_TTL);
        assert_eq!(granted_ttl(Some(seconds(0)), seconds(300)), seconds(1));
    }
}
