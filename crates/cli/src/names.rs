use std::{fmt, str::FromStr};

use domain::{BudgetName, CredentialName, InvalidName, TenantId, VirtualKeyName};

/// A tenant as people write it: `acme` or `tenants/acme`.
#[derive(Clone, Debug)]
pub(crate) struct TenantArg(pub(crate) TenantId);

/// A credential as people write it: `acme/openai` or `tenants/acme/credentials/openai`.
#[derive(Clone, Debug)]
pub(crate) struct CredentialArg(pub(crate) CredentialName);

/// A virtual key as people write it: `acme/{id}` or `tenants/acme/virtualKeys/{id}`.
#[derive(Clone, Debug)]
pub(crate) struct KeyArg(pub(crate) VirtualKeyName);

/// A budget as people write it: `acme/monthly` or `tenants/acme/budgets/monthly`.
#[derive(Clone, Debug)]
pub(crate) struct BudgetArg(pub(crate) BudgetName);

impl FromStr for BudgetArg {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        spelled_out(text, "budgets").parse().map(Self)
    }
}

impl FromStr for TenantArg {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.strip_prefix("tenants/").unwrap_or(text).parse().map(Self)
    }
}

impl FromStr for CredentialArg {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        spelled_out(text, "credentials").parse().map(Self)
    }
}

impl FromStr for KeyArg {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        spelled_out(text, "virtualKeys").parse().map(Self)
    }
}

/// Hex, as lists and records show it.
#[derive(Clone)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl FromStr for Hex {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, hex::FromHexError> {
        hex::decode(text).map(Self)
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

fn spelled_out(text: &str, collection: &str) -> String {
    match text.split_once('/') {
        Some((tenant, last)) if tenant != "tenants" => {
            format!("tenants/{tenant}/{collection}/{last}")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, name: Option<&str>) {
        let parsed = text.parse::<CredentialArg>().ok().map(|arg| arg.0.to_string());
        assert_eq!(parsed.as_deref(), name, "{text:?}");
    }

    #[test]
    fn names_are_short_or_whole() {
        let whole = "tenants/acme/credentials/openai";
        check("acme/openai", Some(whole));
        check(whole, Some(whole));
        check("acme", None);
        check("acme/openai/x", None);
        check("acme/OpenAI", None);
        check("tenants/acme", None);
    }
}
