use std::time::Duration;

use egress::EgressError;
use providers::{Mint, UnusableSecret, Verdict};
use thiserror::Error;

/// Why there is no token. It repeats nothing of a secret, and of what a provider says only codes.
#[derive(Clone, Debug, Error)]
pub enum ExchangeError {
    /// The provider makes no token of this credential: the credential's fault, or its account's.
    #[error("the provider makes no token of the credential ({code}): {verdict}")]
    Refused {
        /// What that shows of the credential.
        verdict: Verdict,
        /// The provider's own code.
        code: String,
    },
    /// The stored secret is not what it should be.
    #[error("the credential cannot be exchanged: {0}")]
    Unusable(#[from] UnusableSecret),
    /// The stored secret is no text.
    #[error("the credential cannot be exchanged: the secret is no text")]
    NotText,
    /// The file of a service account has no key that can sign.
    #[error(
        "the `private_key` of the service account's file is no RSA key in PKCS #8: store the file as \
         Google gave it"
    )]
    NoSigningKey,
    /// Something is missing beside the secret.
    #[error("the credential cannot be exchanged: it lacks the setting `{0}`")]
    MissingSetting(&'static str),
    /// A role can be taken only by somebody.
    #[error(
        "the broker has no AWS identity with which to take roles: give it one in its configuration"
    )]
    NoIdentity,
    /// The broker's own AWS identity is not accepted, which says nothing about the credential.
    #[error("AWS does not accept the broker's own identity ({code}): renew it")]
    OwnIdentity {
        /// AWS's own code.
        code: String,
    },
    /// The times that a request was signed with are not the token service's, which says nothing about the
    /// credential.
    #[error("the token service's clock and this machine's are minutes apart: set this machine's")]
    Clock,
    /// Nobody answered.
    #[error("the provider's token service was not reached; try again")]
    Unreachable(#[source] EgressError),
    /// Too many tokens were asked for.
    #[error("the provider's token service allows no more requests at the moment; try again")]
    Limited {
        /// How long it says to wait.
        retry_after: Option<Duration>,
    },
    /// The provider has trouble.
    #[error("the provider's token service has trouble (status {status}); try again")]
    Trouble {
        /// The status that it answered with.
        status: u16,
    },
    /// What came is no token, or one that has ended.
    #[error("the provider's token service answered with something that is no token")]
    Unreadable,
    /// Too many callers wait for this one credential.
    #[error("too many calls wait for this credential's token; try again")]
    Busy,
    /// The credential was forgotten, or the service stopped, while its token was being made.
    #[error("the token is not wanted any more")]
    Stopped,
    /// Tokens of this kind are known and not made.
    #[error(
        "nothing is made of a credential in this way ({0:?}): store one that goes on calls as it is"
    )]
    NotMade(Mint),
}

impl ExchangeError {
    /// What it shows of the credential.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Refused { verdict, .. } => *verdict,
            Self::Unusable(_) | Self::NotText | Self::NoSigningKey => Verdict::Invalid,
            Self::Unreachable(error) if !error.is_refusal() => Verdict::Unreachable,
            Self::Limited { .. } | Self::Trouble { .. } => Verdict::Unreachable,
            Self::MissingSetting(_)
            | Self::NoIdentity
            | Self::OwnIdentity { .. }
            | Self::Clock
            | Self::Unreachable(_)
            | Self::Unreadable
            | Self::Busy
            | Self::Stopped
            | Self::NotMade(_) => Verdict::Unverifiable,
        }
    }

    /// The word in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Unusable(_) | Self::NotText | Self::NoSigningKey | Self::MissingSetting(_) => {
                "unusable"
            }
            Self::NoIdentity | Self::OwnIdentity { .. } => "own_identity",
            Self::Clock => "clock",
            Self::Unreachable(_) => "unreachable",
            Self::Limited { .. } => "limited",
            Self::Trouble { .. } => "trouble",
            Self::Unreadable => "unreadable",
            Self::Busy => "busy",
            Self::Stopped => "stopped",
            Self::NotMade(_) => "not_made",
        }
    }

    /// Whether asking again helps before anybody changes something.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(error) => !error.is_refusal(),
            Self::Limited { .. }
            | Self::Trouble { .. }
            | Self::Unreadable
            | Self::Busy
            | Self::Stopped => true,
            Self::Refused { .. }
            | Self::Unusable(_)
            | Self::NotText
            | Self::NoSigningKey
            | Self::MissingSetting(_)
            | Self::NoIdentity
            | Self::OwnIdentity { .. }
            | Self::Clock
            | Self::NotMade(_) => false,
        }
    }

    /// How long to leave the token service alone.
    pub fn retry_after(&self) -> Duration {
        if let Self::Limited { retry_after: Some(asked) } = self {
            return (*asked).clamp(SHORT, LONG);
        }
        if self.is_passing() { SHORT } else { MEDIUM }
    }
}

const SHORT: Duration = Duration::from_secs(3);
const MEDIUM: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_mins(2);
