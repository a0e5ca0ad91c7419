use std::fmt;

use crate::{CredentialId, Failure, NoRoute, ProviderId, Source, Timestamp};

/// Why a provider or credential was chosen.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Because {
    /// The tenant has an endpoint of its own for the model.
    CustomEndpoint,
    /// The call's path names the provider.
    NamedByPath,
    /// The provider stands in front of the model.
    NamedInModel,
    /// The model's name is one of the provider's.
    Detected,
    /// Several providers serve such models, and the tenant has a credential for this one only.
    OnlyOneHeld,
    /// The tenant prefers the provider.
    Preferred,
    /// Nothing else said which provider: the first of a fixed order that the tenant has.
    FixedOrder,
    /// The tenant has no credential, and its policy says to use the platform's.
    Managed,
    /// The tenant has no credential, and its policy puts another model in the place of this one.
    Keyless,
    /// The tenant's policy lists it for when those before it failed.
    Fallback,
    /// It rests, but no other is listed, and what it rests from may not be so for this call.
    LastResort,
}

/// Why a credential is not used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PassedOver {
    /// It is disabled.
    Disabled,
    /// It rests after a failure.
    Resting {
        /// When it may be asked again.
        until: Timestamp,
        /// What it rests from.
        why: Failure,
    },
    /// Another one comes before it, and no policy lists it for when that one fails.
    NotListed,
    /// It is listed for falling back, but is of another provider.
    OtherProvider,
    /// It is a `custom` endpoint that does not serve the model.
    ModelNotServed,
    /// Its provider does not serve the dialect of the call.
    DialectNotServed,
    /// The virtual key may not reach its provider or the model there.
    NotInScope,
    /// It is listed for falling back, but does not exist.
    Unknown,
}

/// One step to a decision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// This provider serves the call.
    Provider {
        /// Which one.
        provider: ProviderId,
        /// Why it.
        because: Because,
    },
    /// The tenant has no credential for the route; its policy says what then.
    Missing {
        /// The word of the policy.
        policy: &'static str,
    },
    /// This credential is one that the call may go out with.
    Taken {
        /// Which one.
        credential: CredentialId,
        /// Whose it is.
        source: Source,
        /// Why it stands where it does.
        because: Because,
    },
    /// This credential is not.
    PassedOver {
        /// Which one.
        credential: CredentialId,
        /// Whose it is.
        source: Source,
        /// Why not.
        why: PassedOver,
    },
    /// The call is refused.
    Refused(NoRoute),
}

impl Because {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::CustomEndpoint,
        Self::NamedByPath,
        Self::NamedInModel,
        Self::Detected,
        Self::OnlyOneHeld,
        Self::Preferred,
        Self::FixedOrder,
        Self::Managed,
        Self::Keyless,
        Self::Fallback,
        Self::LastResort,
    ];

    /// The word on responses, metrics and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CustomEndpoint => "custom_endpoint",
            Self::NamedByPath => "named_by_path",
            Self::NamedInModel => "named_in_model",
            Self::Detected => "detected",
            Self::OnlyOneHeld => "only_one_held",
            Self::Preferred => "preferred",
            Self::FixedOrder => "fixed_order",
            Self::Managed => "managed",
            Self::Keyless => "keyless",
            Self::Fallback => "fallback",
            Self::LastResort => "last_resort",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::CustomEndpoint => "the tenant has an endpoint of its own for this model",
            Self::NamedByPath => "the path of the call names it",
            Self::NamedInModel => "it stands in front of the model",
            Self::Detected => "the model's name is one of its models'",
            Self::OnlyOneHeld => {
                "of those who serve models of this name it is the one with a credential"
            }
            Self::Preferred => "the tenant prefers it",
            Self::FixedOrder => {
                "nothing says which provider, and it comes first of anthropic, openai, openrouter"
            }
            Self::Managed => "the tenant's policy says to use the platform's credential",
            Self::Keyless => "the tenant's policy puts a model of its in the place of this one",
            Self::Fallback => "the tenant's policy lists it for when those before it fail",
            Self::LastResort => {
                "no other is listed for when it fails, and the next call may fare better"
            }
        }
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "it is disabled",
            Self::Resting { until, why } => {
                return write!(f, "it rests after {why} until {} ms", until.as_millis());
            }
            Self::NotListed => "another comes before it, and no fallback rule lists it",
            Self::OtherProvider => "a fallback stays with the provider, and it is of another",
            Self::ModelNotServed => "its endpoint does not serve this model",
            Self::DialectNotServed => "its provider does not serve the format of the call",
            Self::NotInScope => "the virtual key may not reach it",
            Self::Unknown => "a fallback rule lists it, but there is no such credential",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider { provider, because } => {
                write!(f, "{provider} serves the call: {}", because.sentence())
            }
            Self::Missing { policy } => {
                write!(f, "the tenant has no credential for it, and its policy says `{policy}`")
            }
            Self::Taken { credential, source, because } => {
                write!(f, "{source} credential {credential}: {}", because.sentence())
            }
            Self::PassedOver { credential, source, why } => {
                write!(f, "not {source} credential {credential}: {why}")
            }
            Self::Refused(none) => write!(f, "refused: {none}"),
        }
    }
}

impl fmt::Display for NoRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownModel => f.write_str(
                "nothing says which provider has this model: write provider/model, or set the \
                 tenant's preferred provider",
            ),
            Self::Ambiguous(providers) => write!(
                f,
                "{} serve models of this name and the tenant has credentials for more than one: \
                 write provider/model, or prefer one of them",
                names(providers, " and ")
            ),
            Self::NoCredential(provider) => write!(
                f,
                "the tenant has no credential for {provider}: store one, or allow managed or \
                 keyless calls in its policy"
            ),
            Self::NoCredentialOfAny(providers) => write!(
                f,
                "the tenant has a credential for none of {}: store one, or write provider/model",
                names(providers, ", ")
            ),
            Self::AllDisabled(provider) => {
                write!(f, "every credential for {provider} is disabled: enable one")
            }
            Self::AllResting { provider, why, .. } => write!(
                f,
                "every credential for {provider} rests after failures, the last one being {why}: \
                 try again later, or check the credentials"
            ),
            Self::DialectNotServed(provider) => write!(
                f,
                "{provider} does not serve the format of this call: use another format or model"
            ),
            Self::ProviderNotInScope(provider) => {
                write!(f, "the virtual key may not reach {provider}: widen its scope")
            }
            Self::ModelNotInScope(model) => {
                write!(f, "the virtual key may not reach the model `{model}`: widen its scope")
            }
        }
    }
}

fn names(providers: &[ProviderId], between: &str) -> String {
    providers.iter().map(ProviderId::as_str).collect::<Vec<_>>().join(between)
}
