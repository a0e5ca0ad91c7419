use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{LONGEST_TTL, ProviderId, SpiffeId, SpiffePattern, TenantId};

/// Who may call which method, for whom. What no rule allows is refused.
#[derive(Clone, Debug, Default)]
pub struct AccessPolicy {
    rules: Vec<AccessRule>,
    two_people: Vec<String>,
}

/// One row of the policy. A call is allowed when every part of some rule names it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRule {
    /// The role that the rule gives, as the policy file names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// Whom the rule is for: SPIFFE IDs, or `…/*` for all below a path.
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

/// Methods that concern the whole deployment. Who holds a role for some tenants only may not call them,
/// whatever the role names.
pub const PLATFORM_METHODS: &[&str] = &[
    ADMIT_POLICY,
    "Audit/CheckRows",
    "Audit/GetPolicy",
    "Audit/PruneRecords",
    "Identities/BlockIdentity",
    "Identities/ListBlockedIdentities",
    "Identities/RevokeSession",
    "Identities/UnblockIdentity",
    "Kms/RewrapKeys",
    "Prices/ImportPrices",
];

/// Methods for which a policy may ask for a second person. Their requests are kept until then, so none of
/// them holds a secret.
pub const TWO_PERSON_METHODS: &[&str] = &[
    ADMIT_POLICY,
    "Credentials/ShredCredential",
    "Kms/RewrapKeys",
    "Kms/RotateKek",
    "Tenants/ShredTenant",
];

/// The method that says which policy comes into force.
pub const ADMIT_POLICY: &str = "Approvals/AdmitPolicy";

/// Leave to act for one tenant, made by the policy only. Without one no secret can be opened.
#[derive(Clone, Debug)]
pub struct Permit {
    tenant: TenantId,
    rules: Vec<(Vec<String>, Duration)>,
}

impl AccessPolicy {
    /// The policy of these rules.
    pub fn new(rules: Vec<AccessRule>) -> Self {
        Self { rules, two_people: Vec::new() }
    }

    /// The same, with methods that need a second person.
    #[must_use]
    pub fn with_two_people(self, methods: Vec<String>) -> Self {
        Self { two_people: methods, ..self }
    }

    /// The rules, in the order of the policy.
    pub fn rules(&self) -> &[AccessRule] {
        &self.rules
    }

    /// The methods that need a second person.
    pub fn two_people(&self) -> &[String] {
        &self.two_people
    }

    /// Whether a method needs a second person.
    pub fn needs_two_people(&self, method: &str) -> bool {
        self.two_people.iter().any(|it| it == method)
    }

    /// Whether the identity may call the method at all, for whichever tenant.
    pub fn may_call(&self, id: &SpiffeId, method: &str) -> bool {
        let for_all_only = PLATFORM_METHODS.contains(&method);
        self.naming(id, method).any(|rule| !for_all_only || rule.is_for_all())
    }

    /// Whether the identity may call the method for every tenant.
    pub fn may_call_for_all(&self, id: &SpiffeId, method: &str) -> bool {
        self.naming(id, method).any(AccessRule::is_for_all)
    }

    /// Whether the identity may call the method for a tenant, or if none is named, for every one.
    pub fn allows(&self, id: &SpiffeId, method: &str, tenant: Option<&TenantId>) -> bool {
        match tenant {
            Some(tenant) => self.permit(id, method, tenant).is_some(),
            None => self.may_call_for_all(id, method),
        }
    }

    fn naming(&self, id: &SpiffeId, method: &str) -> impl Iterator<Item = &AccessRule> {
        self.rules.iter().filter(move |rule| rule.names_identity(id) && rule.names_method(method))
    }

    /// The one tenant that the rules let the identity act for; nothing if there are more or none.
    pub fn sole_tenant(&self, id: &SpiffeId) -> Option<TenantId> {
        let rules = self.rules.iter().filter(|rule| rule.names_identity(id));
        let mut tenants = rules.flat_map(|rule| &rule.tenants);
        let first = tenants.next()?;
        tenants.all(|tenant| tenant == first).then(|| first.parse().ok())?
    }

    /// Leave for the identity to call the method for the tenant, if any rule gives it.
    pub fn permit(&self, id: &SpiffeId, method: &str, tenant: &TenantId) -> Option<Permit> {
        let rules: Vec<_> = self
            .naming(id, method)
            .filter(|rule| rule.names_tenant(tenant))
            .map(|rule| (rule.providers.clone(), rule.longest_lease_seconds))
            .collect();
        (!rules.is_empty()).then(|| Permit { tenant: tenant.clone(), rules })
    }
}

impl AccessRule {
    /// Whether the rule is for every tenant, also for those that are still to come.
    pub fn is_for_all(&self) -> bool {
        self.tenants.iter().any(|tenant| tenant == "*")
    }

    pub(crate) fn names_identity(&self, id: &SpiffeId) -> bool {
        self.identities.iter().any(|pattern| pattern.matches(id))
    }

    pub(crate) fn names_method(&self, method: &str) -> bool {
        self.methods.iter().any(|pattern| method_matches(pattern, method))
    }

    pub(crate) fn names_tenant(&self, tenant: &TenantId) -> bool {
        self.tenants.iter().any(|name| name == "*" || name == tenant.as_str())
    }

    pub(crate) fn names_provider(&self, provider: &ProviderId) -> bool {
        names_provider(&self.providers, provider)
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
            .filter(|(providers, _)| names_provider(providers, provider))
            .map(|(_, longest)| (*longest).min(LONGEST_TTL))
            .max()
    }
}

fn names_provider(names: &[String], provider: &ProviderId) -> bool {
    names.iter().any(|name| name == "*" || name == provider.as_str())
}

/// Whether `Service/Method` or `Service/*` names a method.
pub(crate) fn method_matches(pattern: &str, method: &str) -> bool {
    match pattern.strip_suffix("/*") {
        Some(service) => method.split_once('/').is_some_and(|(name, _)| name == service),
        None => pattern == method,
    }
}

pub(crate) fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

pub(crate) fn longest() -> Duration {
    LONGEST_TTL
}

pub(crate) fn seconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
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

    #[test]
    fn who_may_act_for_one_tenant_belongs_to_it() {
        let rule = |name: &str, tenants: &[&str]| AccessRule {
            role: String::new(),
            identities: vec![format!("spiffe://a.b/{name}").parse().unwrap()],
            methods: vec!["Audit/*".to_owned()],
            tenants: tenants.iter().map(|&tenant| tenant.to_owned()).collect(),
            providers: all(),
            longest_lease_seconds: LONGEST_TTL,
        };
        let rules = [("one", "acme"), ("one", "acme"), ("two", "acme"), ("two", "b"), ("all", "*")];
        let rules = rules.map(|(name, tenant)| rule(name, &[tenant]));
        let policy = AccessPolicy::new(rules.to_vec());
        let sole =
            |name: &str| policy.sole_tenant(&format!("spiffe://a.b/{name}").parse().unwrap());
        assert_eq!(sole("one"), Some("acme".parse().unwrap()));
        assert_eq!(["two", "all", "none"].map(sole), [None, None, None]);
    }

    fn policy() -> AccessPolicy {
        AccessPolicy::new(vec![
            AccessRule {
                role: String::new(),
                identities: vec!["spiffe://a.b/proxy".parse().unwrap()],
                methods: vec!["Leases/AcquireLease".into()],
                tenants: vec!["acme".into()],
                providers: vec!["openai".into()],
                longest_lease_seconds: Duration::from_secs(90),
            },
            AccessRule {
                role: String::new(),
                identities: vec!["spiffe://a.b/admin/*".parse().unwrap()],
                methods: vec!["Credentials/*".into()],
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
    fn what_concerns_the_deployment_needs_a_role_for_all_tenants() {
        let rule = |name: &str, tenant: &str| AccessRule {
            role: String::new(),
            identities: vec![format!("spiffe://a.b/{name}").parse().unwrap()],
            methods: vec!["Identities/*".to_owned()],
            tenants: vec![tenant.to_owned()],
            providers: all(),
            longest_lease_seconds: LONGEST_TTL,
        };
        let policy = AccessPolicy::new(vec![rule("tenant", "acme"), rule("platform", "*")]);
        let may = |name: &str| {
            policy.may_call(
                &format!("spiffe://a.b/{name}").parse().unwrap(),
                "Identities/BlockIdentity",
            )
        };
        assert_eq!((may("tenant"), may("platform")), (false, true));
    }
}
