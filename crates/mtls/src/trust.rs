use domain::SpiffeId;
use serde::Deserialize;
use thiserror::Error;

/// The trust domains whose workloads may connect: at least one, each valid by the SPIFFE standard.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Vec<String>")]
pub struct TrustDomains(Vec<String>);

/// Why a list of trust domains is not one.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum InvalidTrustDomain {
    /// The list has no entry; nobody could connect.
    #[error("the list of trust domains is empty")]
    Empty,
    /// The entry is not a trust domain's name, which has no scheme and no path.
    #[error("`{0}` is not a trust domain")]
    Malformed(String),
}

impl TrustDomains {
    /// The list, when it has an entry and each is valid.
    pub fn new<I, S>(domains: I) -> Result<Self, InvalidTrustDomain>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let domains: Vec<String> = domains.into_iter().map(Into::into).collect();
        if domains.is_empty() {
            return Err(InvalidTrustDomain::Empty);
        }
        match domains.iter().find(|domain| !is_trust_domain(domain)) {
            Some(domain) => Err(InvalidTrustDomain::Malformed(domain.clone())),
            None => Ok(Self(domains)),
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether the identity belongs to a domain of the list.
    pub fn admit(&self, id: &SpiffeId) -> bool {
        self.0.iter().any(|domain| domain == id.trust_domain())
    }
}

impl TryFrom<Vec<String>> for TrustDomains {
    type Error = InvalidTrustDomain;

    fn try_from(domains: Vec<String>) -> Result<Self, InvalidTrustDomain> {
        Self::new(domains)
    }
}

fn is_trust_domain(domain: &str) -> bool {
    !domain.contains('/') && format!("spiffe://{domain}/x").parse::<SpiffeId>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_a_valid_domain_is_refused() {
        assert_eq!(TrustDomains::new(Vec::<String>::new()), Err(InvalidTrustDomain::Empty));
        for malformed in ["", "Acme.internal", "spiffe://acme.internal", "acme.internal/x", "a b"] {
            let refused = TrustDomains::new(["acme.internal", malformed]).unwrap_err();
            assert_eq!(refused, InvalidTrustDomain::Malformed(malformed.to_owned()));
        }
    }

    #[test]
    fn only_listed_domains_are_admitted() {
        let domains = TrustDomains::new(["acme.internal", "acme.example"]).unwrap();
        assert!(domains.admit(&"spiffe://acme.example/broker".parse().unwrap()));
        assert!(!domains.admit(&"spiffe://acme.internal.evil/broker".parse().unwrap()));
        assert!(!domains.admit(&"spiffe://internal/broker".parse().unwrap()));
    }
}
