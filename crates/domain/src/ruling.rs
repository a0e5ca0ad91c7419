use std::{collections::BTreeSet, fmt};

use crate::{AccessPolicy, AccessRule, PLATFORM_METHODS, ProviderId, SpiffeId, TenantId};

/// What may be asked of a policy.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who would call.
    pub identity: SpiffeId,
    /// What, as `Service/Method`.
    pub method: String,
    /// For which tenant; none for all of them.
    pub tenant: Option<TenantId>,
    /// With which provider's credentials, where that matters.
    pub provider: Option<ProviderId>,
}

/// What a policy says to one question, and by which rules.
#[derive(Clone, Debug)]
pub enum Ruling<'a> {
    /// These rules allow it.
    Allowed(Vec<&'a AccessRule>),
    /// No role that the identity holds names the method.
    NotHeld {
        /// What it holds.
        holds: Vec<&'a str>,
        /// What would allow it, as far as anybody holds it.
        would: Vec<&'a str>,
    },
    /// It holds a role that names the method, for other tenants.
    OtherTenants(Vec<&'a AccessRule>),
    /// It holds such a role for some tenants, and the method concerns the whole deployment.
    WholeDeployment(Vec<&'a AccessRule>),
    /// It holds such a role for the tenant, with other providers.
    OtherProviders(Vec<&'a AccessRule>),
}

impl AccessPolicy {
    /// Answers a question as the broker decides it.
    pub fn ruling(&self, question: &Question) -> Ruling<'_> {
        let Question { identity, method, tenant, provider } = question;
        let held: Vec<_> =
            self.rules().iter().filter(|rule| rule.names_identity(identity)).collect();
        let naming: Vec<_> =
            held.iter().copied().filter(|rule| rule.names_method(method)).collect();
        if naming.is_empty() {
            let would = self.rules().iter().filter(|rule| rule.names_method(method));
            return Ruling::NotHeld {
                holds: roles(&held),
                would: roles(&would.collect::<Vec<_>>()),
            };
        }
        let for_all_only = PLATFORM_METHODS.contains(&method.as_str());
        let for_tenant: Vec<_> = naming
            .iter()
            .copied()
            .filter(|rule| match tenant {
                Some(tenant) if !for_all_only => rule.names_tenant(tenant),
                Some(_) | None => rule.is_for_all(),
            })
            .collect();
        if for_tenant.is_empty() && for_all_only {
            return Ruling::WholeDeployment(naming);
        }
        if for_tenant.is_empty() {
            return Ruling::OtherTenants(naming);
        }
        let named = |rule: &&AccessRule| provider.as_ref().is_none_or(|it| rule.names_provider(it));
        let allowing: Vec<_> = for_tenant.iter().copied().filter(named).collect();
        if allowing.is_empty() {
            return Ruling::OtherProviders(for_tenant);
        }
        Ruling::Allowed(allowing)
    }

    /// Every rule that lets anybody call the method for the tenant, or for all tenants without one.
    pub fn who_may(&self, method: &str, tenant: Option<&TenantId>) -> Vec<&AccessRule> {
        let for_all_only = PLATFORM_METHODS.contains(&method);
        let names_tenant = |rule: &AccessRule| match tenant {
            Some(tenant) if !for_all_only => rule.names_tenant(tenant),
            Some(_) | None => rule.is_for_all(),
        };
        let rules = self.rules().iter();
        rules.filter(|rule| rule.names_method(method) && names_tenant(rule)).collect()
    }
}

impl Ruling<'_> {
    /// Whether the call is allowed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }

    /// The rules that it rests on.
    pub fn rules(&self) -> &[&AccessRule] {
        match self {
            Self::Allowed(rules)
            | Self::OtherTenants(rules)
            | Self::WholeDeployment(rules)
            | Self::OtherProviders(rules) => rules,
            Self::NotHeld { .. } => &[],
        }
    }
}

impl fmt::Display for Ruling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(rules) => {
                let by = rules.iter().map(|rule| {
                    let to: Vec<_> = rule.identities.iter().map(ToString::to_string).collect();
                    format!("`{}`, held by {} for {}", rule.role, to.join(", "), tenants(rule))
                });
                write!(
                    f,
                    "allowed by the role {}",
                    by.collect::<Vec<_>>().join("; and by the role ")
                )
            }
            Self::NotHeld { holds, would } => {
                let would = match would.as_slice() {
                    [] => "nobody holds a role that does".to_owned(),
                    would => format!("{} would", would.join(" or ")),
                };
                match holds.as_slice() {
                    [] => write!(f, "refused: it holds no role; {would}"),
                    holds => write!(f, "refused: {} does not allow it; {would}", holds.join(", ")),
                }
            }
            Self::OtherTenants(rules) => {
                let held =
                    rules.iter().map(|rule| format!("`{}` for {}", rule.role, tenants(rule)));
                write!(f, "refused: it holds {}", held.collect::<Vec<_>>().join(", "))
            }
            Self::WholeDeployment(rules) => {
                let held =
                    rules.iter().map(|rule| format!("`{}` for {}", rule.role, tenants(rule)));
                let held = held.collect::<Vec<_>>().join(", ");
                write!(f, "refused: it concerns the whole deployment, and it holds {held} only")
            }
            Self::OtherProviders(rules) => {
                let held = rules
                    .iter()
                    .map(|rule| format!("`{}` with {}", rule.role, rule.providers.join(", ")));
                write!(f, "refused: it holds {}", held.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

fn tenants(rule: &AccessRule) -> String {
    if rule.is_for_all() { "every tenant".to_owned() } else { rule.tenants.join(", ") }
}

/// Each once.
fn roles<'a>(rules: &[&'a AccessRule]) -> Vec<&'a str> {
    rules.iter().map(|rule| rule.role.as_str()).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rule(
        role: &str,
        who: &str,
        methods: &[&str],
        tenants: &[&str],
        provider: &str,
    ) -> AccessRule {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        AccessRule {
            role: role.to_owned(),
            identities: vec![who.parse().unwrap()],
            methods: owned(methods),
            tenants: owned(tenants),
            providers: vec![provider.to_owned()],
            longest_lease_seconds: Duration::from_mins(1),
        }
    }

    fn policy() -> AccessPolicy {
        AccessPolicy::new(vec![
            rule("proxy", "spiffe://a.b/proxy", &["Leases/AcquireLease"], &["*"], "*"),
            rule("lender", "spiffe://a.b/batch/*", &["Leases/AcquireLease"], &["acme"], "openai"),
            rule("owner", "spiffe://a.b/owner/*", &["Identities/*"], &["acme"], "*"),
        ])
    }

    fn question(who: &str, method: &str, tenant: &str, provider: &str) -> Question {
        Question {
            identity: format!("spiffe://a.b/{who}").parse().unwrap(),
            method: method.to_owned(),
            tenant: (!tenant.is_empty()).then(|| tenant.parse().unwrap()),
            provider: (!provider.is_empty()).then(|| provider.parse().unwrap()),
        }
    }

    #[test]
    fn the_words_say_what_decides() {
        #[track_caller]
        fn check(who: &str, method: &str, tenant: &str, provider: &str, expected: &str) {
            let policy = policy();
            let said = policy.ruling(&question(who, method, tenant, provider)).to_string();
            assert_eq!(said, expected);
        }
        let lend = "Leases/AcquireLease";
        check(
            "batch/x",
            lend,
            "acme",
            "openai",
            "allowed by the role `lender`, held by spiffe://a.b/batch/* for acme",
        );
        check("batch/x", lend, "globex", "", "refused: it holds `lender` for acme");
        check("batch/x", lend, "", "", "refused: it holds `lender` for acme");
        check("batch/x", lend, "acme", "anthropic", "refused: it holds `lender` with openai");
        check("eve", lend, "acme", "", "refused: it holds no role; lender or proxy would");
        check(
            "proxy",
            "Audit/ListRecords",
            "acme",
            "",
            "refused: proxy does not allow it; nobody holds a role that does",
        );
        check(
            "owner/x",
            "Identities/BlockIdentity",
            "acme",
            "",
            "refused: it concerns the whole deployment, and it holds `owner` for acme only",
        );
    }

    #[test]
    fn who_may_is_told_for_a_tenant_and_for_all() {
        let policy = policy();
        let who = |tenant: Option<&str>| {
            let tenant = tenant.map(|name| name.parse().unwrap());
            roles(&policy.who_may("Leases/AcquireLease", tenant.as_ref()))
        };
        assert_eq!(who(Some("acme")), ["lender", "proxy"]);
        assert_eq!(who(Some("globex")), ["proxy"]);
        assert_eq!(who(None), ["proxy"]);
    }

    proptest! {
        /// An explanation that differs from the decision is worse than none.
        #[test]
        fn what_is_explained_is_what_is_decided(
            who in "(proxy|batch/x|owner/x|eve)",
            method in "(Leases/AcquireLease|Identities/BlockIdentity|Audit/ListRecords)",
            tenant in "(acme|globex)",
            provider in "(openai|anthropic)",
        ) {
            let (policy, question) = (policy(), question(&who, &method, &tenant, &provider));
            let permit = policy.permit(&question.identity, &method, &tenant.parse().unwrap());
            let decided = policy.may_call(&question.identity, &method)
                && permit.is_some_and(|it| it.longest_lease(&provider.parse().unwrap()).is_some());
            prop_assert_eq!(policy.ruling(&question).is_allowed(), decided);
        }
    }
}
