use std::{fmt, str::FromStr};

use crate::{CredentialId, InvalidName, ModelPattern, ProviderId};

/// What a tenant has laid down about where its calls go. The default is the narrowest: the tenant's
/// own credentials, one attempt, and a refusal when there is none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RoutingPolicy {
    /// Which `custom` endpoints serve which models; the first rule that fits wins.
    pub custom: Vec<CustomRule>,
    /// The provider for models of which nothing is known.
    pub preferred: Option<ProviderId>,
    /// What to do when the tenant has no credential for a route.
    pub on_missing: WhenMissing,
    /// What to try when a credential fails.
    pub fallbacks: Vec<FallbackRule>,
}

/// Models that a `custom` endpoint serves, beside those that its credential lists.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CustomRule {
    /// Which models.
    pub models: ModelPattern,
    /// The endpoint's credential.
    pub credential: CredentialId,
}

/// What to do when the tenant has no credential for a route.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum WhenMissing {
    /// Refuse the call.
    #[default]
    Refuse,
    /// Use a managed credential of the same provider.
    Managed,
    /// Put another model in the place of the one asked for, served with a managed credential; the
    /// first rule that fits wins.
    Keyless(Vec<KeylessRule>),
}

/// A model in the place of others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeylessRule {
    /// Which models are asked for.
    pub models: ModelPattern,
    /// Who serves the one in their place.
    pub provider: ProviderId,
    /// The one in their place.
    pub model: String,
}

/// What to try, in this order, when a credential of a provider fails.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FallbackRule {
    /// Whose credential failed.
    pub provider: ProviderId,
    /// What to try.
    pub to: Vec<Fallback>,
}

/// One thing to try when a credential fails. The provider stays the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fallback {
    /// Another credential of the tenant.
    Credential(CredentialId),
    /// The platform's credentials, by priority.
    Managed,
}

/// The lists of a tenant's routing policy, as they are written down.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RoutingRules {
    /// Which `custom` endpoints serve which models.
    pub custom: Vec<CustomRule>,
    /// Which models stand in the place of others, when the policy is keyless.
    pub keyless: Vec<KeylessRule>,
    /// What to try when a credential fails.
    pub fallbacks: Vec<FallbackRule>,
}

/// The word for [`Fallback::Managed`], where a credential's name could stand too.
const PLATFORM: &str = "platform/*";

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(credential) => credential.fmt(f),
            Self::Managed => f.write_str(PLATFORM),
        }
    }
}

impl FromStr for Fallback {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text == PLATFORM { Ok(Self::Managed) } else { text.parse().map(Self::Credential) }
    }
}

/// The word that the store keeps of [`WhenMissing`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnMissing {
    /// Refuse the call.
    #[default]
    Refuse,
    /// Use a managed credential.
    Managed,
    /// Put another model in the place of the one asked for.
    Keyless,
}

impl OnMissing {
    /// The word in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Managed => "managed",
            Self::Keyless => "keyless",
        }
    }
}

impl FromStr for OnMissing {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Refuse, Self::Managed, Self::Keyless];
        all.into_iter().find(|word| word.as_str() == text).ok_or(())
    }
}

impl WhenMissing {
    /// The word on explanations.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Managed => "managed",
            Self::Keyless(_) => "keyless",
        }
    }
}

impl RoutingPolicy {
    /// The policy that a tenant has written down.
    pub fn of(preferred: Option<ProviderId>, on_missing: OnMissing, rules: &RoutingRules) -> Self {
        let on_missing = match on_missing {
            OnMissing::Refuse => WhenMissing::Refuse,
            OnMissing::Managed => WhenMissing::Managed,
            OnMissing::Keyless => WhenMissing::Keyless(rules.keyless.clone()),
        };
        let (custom, fallbacks) = (rules.custom.clone(), rules.fallbacks.clone());
        Self { custom, preferred, on_missing, fallbacks }
    }

    /// Whether the platform's credentials may be used under it.
    pub fn names_the_platform(&self) -> bool {
        self.on_missing != WhenMissing::Refuse
            || self.fallbacks.iter().any(|rule| rule.to.contains(&Fallback::Managed))
    }

    /// What to try when a credential of this provider fails.
    pub fn fallbacks_of(&self, provider: &ProviderId) -> &[Fallback] {
        let rule = self.fallbacks.iter().find(|rule| rule.provider == *provider);
        rule.map(|rule| &*rule.to).unwrap_or_default()
    }
}
