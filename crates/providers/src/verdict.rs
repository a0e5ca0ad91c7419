use std::fmt;

use serde::Deserialize;

/// What a test has shown of a credential. It holds nothing of what the provider answered, so it can be
/// shown and stored anywhere.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The provider accepts it.
    Valid,
    /// The provider does not accept it.
    Invalid,
    /// It is accepted, but its account has no money or quota left.
    NoQuota,
    /// It is accepted, but not for this model.
    NoModelAccess,
    /// It is a key of another kind, which cannot be used for calls.
    WrongKind,
    /// It is not accepted here: a region, a permission, a network rule or a switched-off service.
    RegionOrPermission,
    /// The provider gave no answer, or has trouble; nothing is known of the credential.
    Unreachable,
    /// The provider answered, but that shows nothing about the credential.
    Unverifiable,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Valid,
        Self::Invalid,
        Self::NoQuota,
        Self::NoModelAccess,
        Self::WrongKind,
        Self::RegionOrPermission,
        Self::Unreachable,
        Self::Unverifiable,
    ];

    /// Whether it is proven that the credential cannot work: the one case in which it may be disabled
    /// without asking.
    pub const fn is_confirmed_bad(self) -> bool {
        matches!(self, Self::Invalid | Self::WrongKind)
    }

    /// The word in API, records and store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::NoQuota => "no_quota",
            Self::NoModelAccess => "no_model_access",
            Self::WrongKind => "wrong_kind",
            Self::RegionOrPermission => "region_or_permission",
            Self::Unreachable => "unreachable",
            Self::Unverifiable => "unverifiable",
        }
    }

    /// What it means and what to do, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Valid => "the provider accepts the credential",
            Self::Invalid => {
                "the provider does not accept the credential: it is wrong, revoked or expired; store a \
                 new one"
            }
            Self::NoQuota => {
                "the credential is good, but its account has no credit or quota left: top it up at the \
                 provider"
            }
            Self::NoModelAccess => {
                "the credential is good, but may not use this model: ask the provider for access, or \
                 use another model"
            }
            Self::WrongKind => {
                "this is a key of another kind, which cannot be used for calls: store one that is made \
                 for inference"
            }
            Self::RegionOrPermission => {
                "the credential is not accepted here: check its region, its permissions and network \
                 rules, and that the service is switched on"
            }
            Self::Unreachable => {
                "the provider could not be reached or has trouble, so nothing is known of the \
                 credential: try again later"
            }
            Self::Unverifiable => "the provider's answer shows nothing about the credential",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}
