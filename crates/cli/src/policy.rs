use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use audit::PolicyDocument;
use clap::{Args, Subcommand};
use domain::{AccessPolicy, AccessRule, PolicyFault, PolicyFile, ProviderId, Question, SpiffeId};
use providers::Catalogue;
use serde::Serialize;
use strongroom_proto::v1::{AdmitPolicyRequest, GetPolicyRequest};

use crate::{
    approvals,
    context::Context,
    failure::Failure,
    files,
    names::TenantArg,
    output::{self, Output},
    policy_test::Test,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Says whether a file is a policy that a broker can use, without a broker.
    Check(Check),
    /// Says whether somebody may call a method, and what decides it; without `--as`, who may.
    Explain(Explain),
    /// Has a policy admitted, where the one in force asks two people for that: then brokers use it once
    /// it is in their file.
    Admit(Check),
    /// Holds a policy against what it is expected to say, without a broker.
    Test(Test),
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The policy.
    file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// What is called, as `Service/Method`.
    method: String,
    /// Who calls. Without it: everybody who may.
    #[arg(long = "as", value_name = "SPIFFE_ID")]
    identity: Option<SpiffeId>,
    /// The policy. Without it: the one by which the broker decides now.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// For which tenant. Without it: for all of them.
    #[arg(long)]
    tenant: Option<TenantArg>,
    /// With which provider's credentials.
    #[arg(long)]
    provider: Option<ProviderId>,
}

/// A policy that can be used.
#[derive(Serialize)]
struct Checked {
    /// What the log calls it once it is in force.
    sha256: String,
    roles: usize,
    grants: usize,
    /// What nobody does alone.
    two_people: Vec<String>,
    /// What a broker takes and is hardly meant.
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Explained {
    allowed: bool,
    /// Whether another person must approve the very request.
    two_people: bool,
    because: String,
    rules: Vec<RuleView>,
}

#[derive(Serialize)]
struct WhoMay {
    method: String,
    two_people: bool,
    rules: Vec<RuleView>,
}

/// A rule that an answer rests on.
#[derive(Serialize)]
struct RuleView {
    role: String,
    identities: Vec<String>,
    tenants: Vec<String>,
    providers: Vec<String>,
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Check(check) => check.run(context.output),
            Self::Explain(explain) => explain.run(context).await,
            Self::Admit(check) => check.admit(context).await,
            Self::Test(test) => test.run(context.output),
        }
    }
}

impl Check {
    fn run(self, output: Output) -> Result<(), Failure> {
        let policy = read(&self.file)?;
        let document = PolicyDocument::of(policy.policy());
        let document = document.map_err(|error| fault(&self.file, error.to_string()))?;
        let checked = Checked {
            sha256: hex::encode(document.sha256()),
            roles: policy.roles().len(),
            grants: policy.policy().rules().len(),
            two_people: policy.policy().two_people().to_vec(),
            warnings: unknown_providers(policy.policy())?,
        };
        for warning in &checked.warnings {
            output.note(&format!("warning: {warning}"));
        }
        output.show(&checked, |it| {
            let two_people = match it.two_people.as_slice() {
                [] => "nothing".to_owned(),
                methods => methods.join(", "),
            };
            format!(
                "a policy of {} roles and {} grants, two people for {two_people}; the log will name it {}",
                it.roles, it.grants, it.sha256
            )
        })
    }

    async fn admit(self, context: &Context) -> Result<(), Failure> {
        // What is wrong with it is better told before anybody is asked.
        read(&self.file)?;
        let request = AdmitPolicyRequest { policy: files::read_text(&self.file)? };
        let done = approvals::admit(&context.broker()?, request).await?;
        context.output.show(&done, |done| done.text.clone())
    }
}

impl Explain {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        if !strongroom_proto::methods().contains(&self.method) {
            return Err(Failure::NoSuchMethod(self.method));
        }
        let policy = match &self.file {
            Some(path) => read(path)?.policy().clone(),
            None => in_force(context).await?,
        };
        let tenant = self.tenant.map(|tenant| tenant.0);
        let Some(identity) = self.identity else {
            let rules = policy.who_may(&self.method, tenant.as_ref());
            let two_people = policy.needs_two_people(&self.method);
            let who = WhoMay { method: self.method, two_people, rules: views(&rules) };
            return context.output.show(&who, table);
        };
        let two_people = policy.needs_two_people(&self.method);
        let question = Question { identity, method: self.method, tenant, provider: self.provider };
        let ruling = policy.ruling(&question);
        let explained = Explained {
            allowed: ruling.is_allowed(),
            two_people: ruling.is_allowed() && two_people,
            because: ruling.to_string(),
            rules: views(ruling.rules()),
        };
        context.output.show(&explained, |it| {
            let second = if it.two_people { SECOND } else { "" };
            format!("{}{second}", it.because)
        })
    }
}

impl From<&AccessRule> for RuleView {
    fn from(rule: &AccessRule) -> Self {
        Self {
            role: rule.role.clone(),
            identities: rule.identities.iter().map(ToString::to_string).collect(),
            tenants: rule.tenants.clone(),
            providers: rule.providers.clone(),
        }
    }
}

/// A provider that this program does not know: a newer broker may.
fn unknown_providers(policy: &AccessPolicy) -> Result<Vec<String>, Failure> {
    let catalogue = Catalogue::builtin().map_err(|_| Failure::BadProviders)?;
    let known: Vec<_> = catalogue.providers().iter().map(|it| it.id().as_str()).collect();
    let named = policy.rules().iter().flat_map(|rule| &rule.providers);
    let named: BTreeSet<&str> = named.map(String::as_str).collect();
    let unknown = named.into_iter().filter(|name| *name != "*" && !known.contains(name));
    let warn = |name: &str| {
        let near = known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
        let near = near.map(|near| format!("; is `{near}` meant?")).unwrap_or_default();
        format!("`providers`: `{name}` is no provider that is known here{near}")
    };
    Ok(unknown.map(warn).collect())
}

/// Who is a person, no policy says.
const SECOND: &str = "; a second person must approve, and only people can ask for it: who is one, `people` in \
                      [log] of the broker's configuration says";

/// Reads a policy file as a broker does.
pub(crate) fn read(path: &Path) -> Result<PolicyFile, Failure> {
    let text = files::read_text(path)?;
    PolicyFile::parse(&text, &strongroom_proto::methods())
        .map_err(|fault| Failure::Policy { path: path.to_owned(), fault })
}

async fn in_force(context: &Context) -> Result<AccessPolicy, Failure> {
    let request = GetPolicyRequest::default();
    let answer = context.broker()?.audit().get_policy(request).await?.into_inner();
    let document = PolicyDocument::parse(answer.document.to_vec())
        .map_err(|_| Failure::BadAnswer("the access rules are malformed"))?;
    Ok(document.policy().clone())
}

fn fault(path: &Path, what: String) -> Failure {
    Failure::Policy { path: path.to_owned(), fault: PolicyFault { line: None, what } }
}

fn views(rules: &[&AccessRule]) -> Vec<RuleView> {
    rules.iter().map(|&rule| rule.into()).collect()
}

fn table(who: &WhoMay) -> String {
    if who.rules.is_empty() {
        return format!("nobody may call {}", who.method);
    }
    let row = |rule: &RuleView| {
        let joined = |names: &[String]| names.join(", ");
        [
            rule.role.clone(),
            joined(&rule.identities),
            joined(&rule.tenants),
            joined(&rule.providers),
        ]
    };
    let rows = who.rules.iter().map(row).collect();
    let table = output::table(["ROLE", "HELD BY", "TENANTS", "PROVIDERS"], rows);
    if who.two_people { format!("{table}{}\n", SECOND.trim_start_matches("; ")) } else { table }
}
