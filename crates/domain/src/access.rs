use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{LONGEST_TTL, ProviderId, SpiffeId, SpiffePattern, TenantId};

/// Who may call which method, for whom. What no rule allows is refused.
#[derive(Clone, Debug, Default)]
pub struct AccessPolicy(Vec<AccessRule>);

/// One row of the policy. A call is allowed when every part of some rule names it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRule {
    /// Whom the rule is for: SPIFFE IDs, or `…/*` for all below a path. Empty: nobody, which says
    /// that a method is meant to be closed.
    pub identities: Vec<SpiffePattern>,
    /// `Service/Method`, or `Service/*`.
    pub methods: Vec<String>,
    /// Tenants by their last name segment, or `*`.
    pub tenants: Vec<String>,
    /// Providers by slug, or `*`.
    #[serde(default = "all")]
    pub providers: Vec<String>,
    /// No lease under this rule is longer.
    #[serde(default = "longest", deserialize_with = "seconds", serialize_with = "in_seconds")]
    pub longest_lease_seconds: Duration,
}

/// Leave to act for one tenant, made by the policy only. Without one no secret can be opened.
#[derive(Clone, Debug)]
pub struct Permit {
    tenant: TenantId,
    rules: Vec<(Vec<String>, Duration)>,
}

impl AccessPolicy {
    /// The policy of these rules.
    pub fn new(rules: Vec<AccessRule>) -> Self {
        Self(rules)
    }

    /// Whether some rule speaks of this method, be it to close it.
    pub fn mentions(&self, method: &str) -> bool {
        self.0.iter().any(|rule| rule.names_method(method))
    }

    /// Method patterns that name none of `known`: a mistake in the configuration.
    pub fn unknown_methods<'a>(&'a self, known: &'a [String]) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .flat_map(|rule| &rule.methods)
            .map(String::as_str)
            .filter(|pattern| !known.iter().any(|method| method_matches(pattern, method)))
    }

    /// Whether the identity may call the method at all, for whichever tenant.
    pub fn may_call(&self, id: &SpiffeId, method: &str) -> bool {
        self.0.iter().any(|rule| rule.names_identity(id) && rule.names_method(method))
    }

    /// Whether the identity may call the method for every tenant.
    pub fn may_call_for_all(&self, id: &SpiffeId, method: &str) -> bool {
        self.0.iter().any(|rule| {
            rule.names_identity(id)
                && rule.names_method(method)
                && rule.tenants.iter().any(|tenant| tenant == "*")
        })
    }

    /// Leave for the identity to call the method for the tenant, if any rule gives it.
    pub fn permit(&self, id: &SpiffeId, method: &str, tenant: &TenantId) -> Option<Permit> {
        let rules: Vec<_> = self
            .0
            .iter()
            .filter(|rule| {
                rule.names_identity(id)
                    && rule.names_method(method)
                    && rule.tenants.iter().any(|name| name == "*" || name == tenant.as_str())
            })
            .map(|rule| (rule.providers.clone(), rule.longest_lease_seconds))
            .collect();
        (!rules.is_empty()).then(|| Permit { tenant: tenant.clone(), rules })
    }
}

impl AccessRule {
    fn names_identity(&self, id: &SpiffeId) -> bool {
        self.identities.iter().any(|pattern| pattern.matches(id))
    }

    fn names_method(&self, method: &str) -> bool {
        self.methods.iter().any(|pattern| method_matches(pattern, method))
    }
}

impl Permit {
    /// For whom it is.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The longest lease for this provider; nothing when no rule names the provider.
    pub fn longest_lease(&self, provider: &ProviderId) -> Option<Duration> {
        self.rules
            .iter()
            .filter(|(providers, _)| {
                providers.iter().any(|name| name == "*" || name == provider.as_str())
            })
            .map(|(_, longest)| (*longest).min(LONGEST_TTL))
            .max()
    }
}

fn method_matches(pattern: &str, method: &str) -> bool {
    match pattern.strip_suffix("/*") {
        Some(service) => method.split_once('/').is_some_and(|(name, _)| name == service),
        None => pattern == method,
    }
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

fn longest() -> Duration {
    LONGEST_TTL
}

fn seconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let seconds = u64::deserialize(from)?;
    if (1..=LONGEST_TTL.as_secs()).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(serde::de::Error::custom("longest_lease_seconds is from 1 to 300"))
    }
}

fn in_seconds<S: serde::Serializer>(longest: &Duration, into: S) -> Result<S::Ok, S::Error> {
    into.serialize_u64(longest.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> AccessPolicy {
        AccessPolicy::new(vec![
            AccessRule {
                identities: vec!["spiffe://a.b/proxy".parse().unwrap()],
                methods: vec!["Leases/AcquireLease".into()],
                tenants: vec!["acme".into()],
                providers: vec!["openai".into()],
                longest_lease_seconds: Duration::from_secs(90),
            },
            AccessRule {
                identities: vec!["spiffe://a.b/admin/*".parse().unwrap()],
                methods: vec!["Credentials/*".into()],
                tenants: all(),
                providers: all(),
                longest_lease_seconds: LONGEST_TTL,
            },
            AccessRule {
                identities: vec![],
                methods: vec!["Audit/TailRecords".into()],
                tenants: all(),
                providers: all(),
                longest_lease_seconds: LONGEST_TTL,
            },
        ])
    }

    #[track_caller]
    fn check(id: &str, method: &str, tenant: &str, allowed: bool) {
        let permit = policy().permit(&id.parse().unwrap(), method, &tenant.parse().unwrap());
        assert_eq!(permit.is_some(), allowed);
    }

    #[test]
    fn what_no_rule_allows_is_refused() {
        check("spiffe://a.b/proxy", "Leases/AcquireLease", "acme", true);
        check("spiffe://a.b/proxy", "Leases/AcquireLease", "umbrella", false);
        check("spiffe://a.b/proxy", "Leases/RenewLease", "acme", false);
        check("spiffe://a.b/other", "Leases/AcquireLease", "acme", false);
        check("spiffe://x.y/proxy", "Leases/AcquireLease", "acme", false);
        check("spiffe://a.b/admin/eve", "Credentials/ListCredentials", "umbrella", true);
        check("spiffe://a.b/admin/eve", "CredentialsX/ListCredentials", "umbrella", false);
        check("spiffe://a.b/admin/eve", "Audit/TailRecords", "umbrella", false);
    }

    #[test]
    fn a_permit_is_for_the_providers_of_its_rule() {
        let permit = policy()
            .permit(
                &"spiffe://a.b/proxy".parse().unwrap(),
                "Leases/AcquireLease",
                &"acme".parse().unwrap(),
            )
            .unwrap();
        assert_eq!(permit.longest_lease(&"openai".parse().unwrap()), Some(Duration::from_secs(90)));
        assert_eq!(permit.longest_lease(&"anthropic".parse().unwrap()), None);
    }

    #[test]
    fn a_closed_method_is_mentioned() {
        assert!(policy().mentions("Audit/TailRecords"));
        assert!(!policy().mentions("Audit/ListRecords"));
        let known = ["Leases/AcquireLease".to_owned(), "Credentials/ListCredentials".to_owned()];
        let policy = policy();
        assert_eq!(policy.unknown_methods(&known).collect::<Vec<_>>(), ["Audit/TailRecords"]);
    }
}
