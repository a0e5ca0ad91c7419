use std::{fmt, time::Duration};

/// What went wrong with one attempt at a call, told by whose matter it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The provider does not accept the credential.
    CredentialRefused,
    /// The credential is good, but its account has no money or quota left.
    NoQuota,
    /// The credential is good, but it may not do this: a model, a permission, a region.
    NotAllowed,
    /// The credential is good, but used too often at the moment.
    RateLimited {
        /// When the provider says to come back.
        retry_after: Option<Duration>,
    },
    /// The provider answered that it has trouble.
    ProviderTrouble,
    /// The provider did not answer in time.
    TimedOut,
    /// No connection came about.
    Unreachable,
    /// The request itself is wrong; with any other credential it would be, too.
    CallersFault,
    /// The answer held the credential that the call went out with. It says something of the provider's
    /// address, and nothing of whether the credential works.
    SecretInAnswer,
    /// What is stored of the credential does not open: it was erased, or is not what was written. The
    /// broker alone comes to that; nothing was sent to anyone.
    Unusable,
}

impl Failure {
    /// What an answer's status says by itself; `None` for an answer that is no failure. A provider
    /// whose words differ from HTTP's is read with the catalogue's rules instead.
    pub const fn of_status(status: u16, retry_after: Option<Duration>) -> Option<Self> {
        match status {
            100..=299 => None,
            401 => Some(Self::CredentialRefused),
            402 => Some(Self::NoQuota),
            403 => Some(Self::NotAllowed),
            408 | 504 => Some(Self::TimedOut),
            429 => Some(Self::RateLimited { retry_after }),
            400..=499 => Some(Self::CallersFault),
            // A redirect is not followed with a credential: the provider's address has trouble.
            _ => Some(Self::ProviderTrouble),
        }
    }

    /// Whether it is the key's matter: with another key of the same account it might not have happened.
    pub const fn is_the_keys(self) -> bool {
        matches!(
            self,
            Self::CredentialRefused
                | Self::NoQuota
                | Self::NotAllowed
                | Self::RateLimited { .. }
                | Self::Unusable
        )
    }

    /// Whether another credential might do better.
    pub const fn may_fall_back(self) -> bool {
        !matches!(self, Self::CallersFault | Self::SecretInAnswer)
    }

    /// The word on responses, metrics and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CredentialRefused => "credential_refused",
            Self::NoQuota => "no_quota",
            Self::NotAllowed => "not_allowed",
            Self::RateLimited { .. } => "rate_limited",
            Self::ProviderTrouble => "provider_trouble",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::CallersFault => "callers_fault",
            Self::SecretInAnswer => "secret_in_answer",
            Self::Unusable => "unusable",
        }
    }

    /// The failure of this word, without what it says of time.
    pub fn of_word(word: &str) -> Option<Self> {
        let all = [
            Self::CredentialRefused,
            Self::NoQuota,
            Self::NotAllowed,
            Self::RateLimited { retry_after: None },
            Self::ProviderTrouble,
            Self::TimedOut,
            Self::Unreachable,
            Self::CallersFault,
            Self::SecretInAnswer,
            Self::Unusable,
        ];
        all.into_iter().find(|one| one.as_str() == word)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whose_matter_a_failure_is() {
        let limited = Failure::RateLimited { retry_after: None };
        for (status, expected) in [
            (200, None),
            (204, None),
            (307, Some(Failure::ProviderTrouble)),
            (400, Some(Failure::CallersFault)),
            (401, Some(Failure::CredentialRefused)),
            (402, Some(Failure::NoQuota)),
            (403, Some(Failure::NotAllowed)),
            (404, Some(Failure::CallersFault)),
            (408, Some(Failure::TimedOut)),
            (422, Some(Failure::CallersFault)),
            (429, Some(limited)),
            (500, Some(Failure::ProviderTrouble)),
            (504, Some(Failure::TimedOut)),
            (529, Some(Failure::ProviderTrouble)),
        ] {
            assert_eq!(Failure::of_status(status, None), expected, "{status}");
            if let Some(failure) = expected {
                assert_eq!(Failure::of_word(failure.as_str()), Some(failure));
            }
        }
        assert_eq!(Failure::of_word("else"), None);
        assert_eq!(Failure::of_word("unusable"), Some(Failure::Unusable));
        assert_eq!(Failure::of_word("secret_in_answer"), Some(Failure::SecretInAnswer));
    }
}
