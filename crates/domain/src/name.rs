use std::{fmt, str::FromStr};

use serde::Deserialize;
use thiserror::Error;

use crate::VirtualKeyId;

/// A name that does not have the form it should.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct InvalidName(&'static str);

/// Defines a name made of one segment: 1 to 63 of `[a-z0-9-]`, starting with a letter.
macro_rules! segment {
    ($(#[$doc:meta])* $name:ident, $wrong:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if is_segment(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName($wrong)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

segment!(
    /// A tenant's last name segment.
    TenantId,
    "a tenant is 1 to 63 of [a-z0-9-], starting with a letter"
);
segment!(
    /// A credential's last name segment.
    CredentialId,
    "a credential is 1 to 63 of [a-z0-9-], starting with a letter"
);
segment!(
    /// A provider's slug.
    ProviderId,
    "a provider is 1 to 63 of [a-z0-9-], starting with a letter"
);
segment!(
    /// What a root key of a tenant's own is called.
    RootName,
    "a root key's name is 1 to 63 of [a-z0-9-], starting with a letter"
);

segment!(
    /// A name for virtual keys that share budgets.
    GroupId,
    "a group is 1 to 63 of [a-z0-9-], starting with a letter"
);

segment!(
    /// A budget's last name segment.
    BudgetId,
    "a budget is 1 to 63 of [a-z0-9-], starting with a letter"
);

impl TenantId {
    /// The tenant that owns the managed credentials.
    pub fn platform() -> Self {
        Self("platform".to_owned())
    }

    /// Reads `tenants/{tenant}`.
    pub fn from_resource(name: &str) -> Result<Self, InvalidName> {
        name.strip_prefix("tenants/")
            .ok_or(InvalidName("a tenant's name is tenants/{tenant}"))?
            .parse()
    }

    /// `tenants/{tenant}`.
    pub fn resource(&self) -> String {
        format!("tenants/{}", self.0)
    }
}

/// `tenants/{tenant}/credentials/{credential}`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CredentialName {
    /// Whose it is.
    pub tenant: TenantId,
    /// The last segment.
    pub credential: CredentialId,
}

impl FromStr for CredentialName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wrong = InvalidName("a credential's name is tenants/{tenant}/credentials/{credential}");
        let rest = text.strip_prefix("tenants/").ok_or(wrong)?;
        let (tenant, credential) = rest.split_once("/credentials/").ok_or(wrong)?;
        Ok(Self { tenant: tenant.parse()?, credential: credential.parse()? })
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/credentials/{}", self.tenant, self.credential)
    }
}

/// `tenants/{tenant}/budgets/{budget}`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BudgetName {
    /// Whose it is.
    pub tenant: TenantId,
    /// The last segment.
    pub budget: BudgetId,
}

impl FromStr for BudgetName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wrong = InvalidName("a budget's name is tenants/{tenant}/budgets/{budget}");
        let rest = text.strip_prefix("tenants/").ok_or(wrong)?;
        let (tenant, budget) = rest.split_once("/budgets/").ok_or(wrong)?;
        Ok(Self { tenant: tenant.parse()?, budget: budget.parse()? })
    }
}

impl fmt::Display for BudgetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/budgets/{}", self.tenant, self.budget)
    }
}

/// `tenants/{tenant}/virtualKeys/{id}`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VirtualKeyName {
    /// Whose it is.
    pub tenant: TenantId,
    /// The id inside the key.
    pub id: VirtualKeyId,
}

impl FromStr for VirtualKeyName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wrong = InvalidName("a virtual key's name is tenants/{tenant}/virtualKeys/{id}");
        let rest = text.strip_prefix("tenants/").ok_or(wrong)?;
        let (tenant, id) = rest.split_once("/virtualKeys/").ok_or(wrong)?;
        Ok(Self { tenant: tenant.parse()?, id: id.parse().map_err(|_| wrong)? })
    }
}

impl fmt::Display for VirtualKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenants/{}/virtualKeys/{}", self.tenant, self.id)
    }
}

/// What makes a request safe to repeat: 1 to 64 of `[A-Za-z0-9-]`, chosen by the caller.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RequestId(String);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName("a request_id is 1 to 64 of [A-Za-z0-9-]"))
        }
    }
}

fn is_segment(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, valid: bool) {
        assert_eq!(name.parse::<TenantId>().is_ok(), valid, "{name:?}");
    }

    #[test]
    fn segments_are_checked_once_and_for_all() {
        check("acme", true);
        check("a", true);
        check(&"a".repeat(63), true);
        check(&"a".repeat(64), false);
        check("", false);
        check("1a", false);
        check("-a", false);
        check("Acme", false);
        check("a/b", false);
        check("a\0", false);
        check("ä", false);
    }

    #[test]
    fn resource_names_read_back_as_written() {
        let name: CredentialName = "tenants/acme/credentials/openai-prod".parse().unwrap();
        assert_eq!(name.to_string(), "tenants/acme/credentials/openai-prod");
        assert!("tenants/acme/credentials/a/b".parse::<CredentialName>().is_err());
        assert!("acme/credentials/a".parse::<CredentialName>().is_err());
    }
}
