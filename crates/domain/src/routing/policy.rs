use crate::{CredentialId, ModelPattern, ProviderId};

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

/// The word that the store keeps of [`WhenMissing`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnMissing {
    /// Refuse the call.
    #[default]
    Refuse,
    /// Use a managed credential.
    Managed,
}

impl OnMissing {
    /// The word in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Managed => "managed",
        }
    }
}

impl From<OnMissing> for WhenMissing {
    fn from(word: OnMissing) -> Self {
        match word {
            OnMissing::Refuse => Self::Refuse,
            OnMissing::Managed => Self::Managed,
        }
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
    /// What to try when a credential of this provider fails.
    pub fn fallbacks_of(&self, provider: &ProviderId) -> &[Fallback] {
        let rule = self.fallbacks.iter().find(|rule| rule.provider == *provider);
        rule.map(|rule| &*rule.to).unwrap_or_default()
    }
}
