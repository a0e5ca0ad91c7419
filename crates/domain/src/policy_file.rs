use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use crate::{
    AccessPolicy, AccessRule, ProviderId, SpiffePattern, TWO_PERSON_METHODS, TenantId,
    access::{all, longest, method_matches, seconds},
};

/// The access policy as people write it: roles, each said once, and who holds them for which tenants.
/// What no role allows is refused. `docs/access.md` describes it.
#[derive(Clone, Debug, Default)]
pub struct PolicyFile {
    ask: Option<String>,
    roles: BTreeMap<String, RoleText>,
    policy: AccessPolicy,
}

/// A role as it is said.
#[derive(Clone, Debug)]
pub struct RoleText {
    /// What it is for.
    pub says: String,
    /// `Service/Method`, or `Service/*`.
    pub methods: Vec<String>,
}

/// Why a text is no access policy.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub struct PolicyFault {
    /// Where, from 1; none for what is missing from the whole.
    pub line: Option<usize>,
    /// What is wrong there.
    pub what: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    /// Who grants roles, in words: refusals end with it.
    ask: Option<Spanned<String>>,
    /// What nobody does alone: `Service/Method`.
    #[serde(default)]
    two_people: Vec<Spanned<String>>,
    roles: BTreeMap<String, Spanned<Role>>,
    #[serde(default)]
    grants: Vec<Grant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Role {
    /// What the role is for, for whoever reads the policy.
    says: String,
    /// `Service/Method`, or `Service/*`.
    may: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    role: Spanned<String>,
    to: Spanned<Vec<SpiffePattern>>,
    /// Tenants by name, or `*`: the whole platform.
    tenants: Spanned<Vec<String>>,
    providers: Option<Spanned<Vec<String>>>,
    #[serde(default = "longest", deserialize_with = "seconds")]
    longest_lease_seconds: Duration,
}

/// The longest of the texts that people are told.
const LONGEST_WORDS: usize = 200;

impl PolicyFile {
    /// Reads a policy. Each of the contract's `methods` must be in some role: what nobody is to call
    /// stands in a role that nobody holds.
    pub fn parse(text: &str, methods: &[String]) -> Result<Self, PolicyFault> {
        let read: Text = toml::from_str(text).map_err(|error| PolicyFault {
            line: error.span().map(|span| line(text, span.start)),
            what: error.message().to_owned(),
        })?;
        let at = |offset: usize, what: String| PolicyFault { line: Some(line(text, offset)), what };
        if let Some(ask) = read.ask.as_ref().filter(|ask| !is_told(ask.get_ref())) {
            return Err(at(ask.span().start, "`ask` is one line of 200 characters at most".into()));
        }
        for (name, role) in &read.roles {
            role.get_ref()
                .check(name, methods)
                .map_err(|(offset, what)| at(offset.unwrap_or(role.span().start), what))?;
        }
        for method in &read.two_people {
            check_two_people(method.get_ref()).map_err(|what| at(method.span().start, what))?;
        }
        for grant in &read.grants {
            grant.check(&read.roles).map_err(|(offset, what)| at(offset, what))?;
        }
        let is_in_a_role = |method: &&String| {
            let roles = read.roles.values().flat_map(|role| &role.get_ref().may);
            roles.into_iter().any(|pattern| method_matches(pattern.get_ref(), method))
        };
        if let Some(method) = methods.iter().find(|method| !is_in_a_role(method)) {
            let what = format!(
                "no role names {method}: add it to one, or to a role that nobody holds if nobody is \
                 to call it"
            );
            return Err(PolicyFault { line: None, what });
        }
        let Text { ask, two_people, roles, grants } = read;
        let named = roles.into_iter().map(|(name, role)| (name, role.into_inner().text()));
        let roles: BTreeMap<_, _> = named.collect();
        let granted = grants.into_iter().map(|grant| grant.rule(&roles)).collect();
        let policy = AccessPolicy::new(granted);
        if let Some(method) = two_people.first().filter(|_| !policy.rules().iter().any(approves)) {
            let what = "`two_people`: no grant for all tenants has a role that may `Approvals/Approve`, so \
                        nobody could be the second";
            return Err(at(method.span().start, what.to_owned()));
        }
        let two_people = two_people.into_iter().map(Spanned::into_inner).collect();
        let policy = policy.with_two_people(two_people);
        Ok(Self { ask: ask.map(Spanned::into_inner), roles, policy })
    }

    /// What it says: one rule for each grant, in the order of the file.
    pub fn policy(&self) -> &AccessPolicy {
        &self.policy
    }

    /// The roles by name, held or not.
    pub fn roles(&self) -> impl ExactSizeIterator<Item = (&str, &RoleText)> {
        self.roles.iter().map(|(name, role)| (name.as_str(), role))
    }

    /// The roles that name a method, whoever holds them.
    pub fn roles_naming(&self, method: &str) -> Vec<String> {
        let names = |role: &RoleText| role.methods.iter().any(|it| method_matches(it, method));
        let roles = self.roles.iter().filter(|(_, role)| names(role));
        roles.map(|(name, _)| name.clone()).collect()
    }

    /// Who grants roles, if the policy says.
    pub fn ask(&self) -> Option<&str> {
        self.ask.as_deref()
    }
}

impl Role {
    fn check(&self, name: &str, methods: &[String]) -> Result<(), (Option<usize>, String)> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
            return Err((
                None,
                format!("`{name}`: a role's name has a-z, 0-9 and `-`, 40 at most"),
            ));
        }
        if !is_told(&self.says) {
            let what = format!("`says` of the role `{name}` is one line that says what it is for");
            return Err((None, what));
        }
        let known = |it: &&Spanned<String>| methods.iter().any(|m| method_matches(it.get_ref(), m));
        match self.may.iter().find(|pattern| !known(pattern)) {
            Some(unknown) => Err((
                Some(unknown.span().start),
                format!("`{}` is no method; methods are Service/Method", unknown.get_ref()),
            )),
            None => Ok(()),
        }
    }

    fn text(self) -> RoleText {
        let methods = self.may.into_iter().map(Spanned::into_inner).collect();
        RoleText { says: self.says, methods }
    }
}

impl Grant {
    fn check(&self, roles: &BTreeMap<String, Spanned<Role>>) -> Result<(), (usize, String)> {
        let role = self.role.get_ref();
        if !roles.contains_key(role) {
            return Err((self.role.span().start, format!("there is no role `{role}`")));
        }
        if self.to.get_ref().is_empty() {
            let what = "`to` names nobody: leave the grant out instead".to_owned();
            return Err((self.to.span().start, what));
        }
        check_names::<TenantId>("tenants", &self.tenants)?;
        self.providers.as_ref().map_or(Ok(()), |it| check_names::<ProviderId>("providers", it))
    }

    fn rule(self, roles: &BTreeMap<String, RoleText>) -> AccessRule {
        let role = self.role.into_inner();
        AccessRule {
            identities: self.to.into_inner(),
            methods: roles.get(&role).map(|it| it.methods.clone()).unwrap_or_default(),
            tenants: self.tenants.into_inner(),
            providers: self.providers.map_or_else(all, Spanned::into_inner),
            longest_lease_seconds: self.longest_lease_seconds,
            role,
        }
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Either names, or `*` alone.
fn check_names<T: std::str::FromStr>(
    key: &str,
    names: &Spanned<Vec<String>>,
) -> Result<(), (usize, String)> {
    let listed = names.get_ref();
    let fault = match listed.iter().find(|name| name.parse::<T>().is_err()) {
        None if listed.is_empty() => format!("`{key}` is empty: name some, or `*` for all"),
        Some(star) if star == "*" && listed.len() == 1 => return Ok(()),
        Some(star) if star == "*" => format!("`{key}` has `*` beside others: `*` is all of them"),
        Some(name) => format!("`{key}`: `{name}` is no name"),
        None => return Ok(()),
    };
    Err((names.span().start, fault))
}

fn check_two_people(method: &str) -> Result<(), String> {
    if TWO_PERSON_METHODS.contains(&method) {
        return Ok(());
    }
    let methods = TWO_PERSON_METHODS.join(", ");
    Err(format!("`two_people`: `{method}` cannot ask for a second person; these can: {methods}"))
}

fn approves(rule: &AccessRule) -> bool {
    rule.is_for_all() && rule.names_method("Approvals/Approve")
}

fn is_told(words: &str) -> bool {
    !words.trim().is_empty() && words.len() <= LONGEST_WORDS && !words.chars().any(char::is_control)
}

fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ADMIT_POLICY;

    const GOOD: &str = r#"
ask = "the platform team"

[roles.proxy]
says = "Lends."
may = ["Leases/AcquireLease"]

[roles.nobody]
says = "Closed."
may = ["Audit/*"]

[[grants]]
role = "proxy"
to = ["spiffe://a.b/proxy"]
tenants = ["*"]
longest_lease_seconds = 90
"#;

    fn parse(text: &str) -> Result<PolicyFile, PolicyFault> {
        let methods = ["Leases/AcquireLease", "Audit/ListRecords"].map(str::to_owned);
        PolicyFile::parse(text, &methods)
    }

    #[test]
    fn roles_and_grants_become_rules() {
        let policy = parse(GOOD).unwrap();
        let [rule] = policy.policy().rules() else { panic!("{policy:?}") };
        assert_eq!(
            (&*rule.role, &*rule.methods),
            ("proxy", &["Leases/AcquireLease".to_owned()][..])
        );
        assert_eq!(rule.longest_lease_seconds, Duration::from_secs(90));
        assert_eq!(policy.ask(), Some("the platform team"));
        assert_eq!(policy.roles_naming("Audit/ListRecords"), ["nobody"]);
    }

    #[test]
    fn what_needs_two_people_needs_somebody_who_approves() {
        let methods =
            ["Leases/AcquireLease", "Audit/ListRecords", "Approvals/Approve", ADMIT_POLICY];
        let methods = methods.map(str::to_owned);
        let text = format!("two_people = [\"{ADMIT_POLICY}\"]\n{GOOD}")
            .replace("\"Audit/*\"", "\"Audit/*\", \"Approvals/*\"");
        let fault = PolicyFile::parse(&text, &methods).unwrap_err();
        assert_eq!(fault.line, Some(1), "{fault}");
        assert!(fault.what.contains("nobody could be the second"), "{fault}");

        let held =
            format!("{text}[[grants]]\nrole = \"nobody\"\nto = [\"spiffe://a.b/x\"]\ntenants = ");
        assert!(PolicyFile::parse(&format!("{held}[\"acme\"]"), &methods).is_err());
        let policy = PolicyFile::parse(&format!("{held}[\"*\"]"), &methods).unwrap();
        assert!(policy.policy().needs_two_people(ADMIT_POLICY));
        assert!(!policy.policy().needs_two_people("Audit/ListRecords"));

        let other = format!("{held}[\"*\"]").replacen(ADMIT_POLICY, "Leases/AcquireLease", 1);
        let fault = PolicyFile::parse(&other, &methods).unwrap_err();
        assert!(fault.what.contains("cannot ask for a second person"), "{fault}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        #[track_caller]
        fn check(from: &str, to: &str, expected: Option<usize>, word: &str) {
            let fault = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert_eq!(fault.line, expected, "{fault}");
            assert!(fault.to_string().contains(word), "{fault}");
        }
        check("Leases/AcquireLease", "Leases/Aquire", Some(6), "`Leases/Aquire` is no method");
        check("may = [\"Audit/*\"]", "may = []", None, "no role names Audit/ListRecords");
        check("role = \"proxy\"", "role = \"prxy\"", Some(13), "no role `prxy`");
        check("[\"spiffe://a.b/proxy\"]", "[]", Some(14), "names nobody");
        check("spiffe://a.b/proxy", "http://a.b/proxy", Some(14), "");
        check("tenants = [\"*\"]", "tenants = []", Some(15), "empty");
        check("tenants = [\"*\"]", "tenants = [\"*\", \"acme\"]", Some(15), "beside others");
        check("tenants = [\"*\"]", "tenants = [\"Not A Name\"]", Some(15), "is no name");
        check("= 90", "= 301", Some(16), "1 to 300");
        check("says = \"Closed.\"", "says = \"\"", Some(8), "`says`");
        check("says = \"Closed.\"", "said = \"x\"", Some(9), "unknown field");
        check("[roles.nobody]", "[roles.\"No body\"]", Some(8), "a role's name");
        check("ask = \"the platform team\"", "ask = \"\\u001b[2J\"", Some(2), "`ask`");
        check("[[grants]]", "[[grants", Some(12), "");
    }
}
