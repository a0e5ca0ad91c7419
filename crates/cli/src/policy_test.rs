use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::Args;
use domain::{PolicyFault, ProviderId, Question, SpiffeId, TenantId};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::{failure::Failure, files, output::Output, policy};

/// What a policy is expected to say.
#[derive(Args, Debug)]
pub(crate) struct Test {
    /// The expectations; they name the policy. `deploy/policy-test.toml` shows the form.
    file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectations {
    /// The policy's file, relative to this one's folder.
    policy: PathBuf,
    expect: Vec<Spanned<Expectation>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    who: SpiffeId,
    method: String,
    /// Absent: for all tenants.
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    provider: Option<String>,
    allowed: bool,
    /// Whether another person must approve the very request. Absent: either.
    two_people: Option<bool>,
}

#[derive(Serialize)]
struct Tested {
    expectations: usize,
    failed: Vec<Failed>,
}

/// An expectation that the policy does not meet.
#[derive(Serialize)]
struct Failed {
    line: usize,
    who: String,
    method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    expected_allowed: bool,
    because: String,
}

impl Test {
    pub(crate) fn run(self, output: Output) -> Result<(), Failure> {
        let text = files::read_text(&self.file)?;
        let said: Expectations = toml::from_str(&text).map_err(|error| {
            let line = error.span().map(|span| line(&text, span.start));
            self.fault(line, error.message())
        })?;
        let folder = self.file.parent().unwrap_or(Path::new(""));
        let policy = policy::read(&folder.join(&said.policy))?;
        let policy = policy.policy();
        let methods = strongroom_proto::methods();
        let (expectations, mut failed) = (said.expect.len(), Vec::new());
        for expectation in said.expect {
            let line = line(&text, expectation.span().start);
            let expectation = expectation.into_inner();
            let question = expectation.question(&methods);
            let question = question.map_err(|what| self.fault(Some(line), &what))?;
            let ruling = policy.ruling(&question);
            if ruling.is_allowed() != expectation.allowed {
                failed.push(expectation.failed(line, ruling.to_string()));
            } else if let Some(expected) = expectation.two_people
                && expected != policy.needs_two_people(&question.method)
            {
                let said = if expected { "one person is enough" } else { "it needs two people" };
                failed.push(expectation.failed(line, said.to_owned()));
            }
        }
        let tested = Tested { expectations, failed };
        output.show(&tested, human)?;
        match tested.failed.len() {
            0 => Ok(()),
            failed => Err(Failure::Unexpected { failed, expectations }),
        }
    }

    fn fault(&self, line: Option<usize>, what: &str) -> Failure {
        let fault = PolicyFault { line, what: what.to_owned() };
        Failure::Policy { path: self.file.clone(), fault }
    }
}

impl Expectation {
    fn question(&self, methods: &[String]) -> Result<Question, String> {
        let method = self.method.clone();
        if !methods.contains(&method) {
            return Err(format!("`{method}` is no method; methods are Service/Method"));
        }
        let invalid = |name: &str, error: &dyn fmt::Display| format!("`{name}`: {error}");
        let tenant = self
            .tenant
            .as_deref()
            .map(|name| name.parse::<TenantId>().map_err(|error| invalid(name, &error)));
        let provider = self
            .provider
            .as_deref()
            .map(|name| name.parse::<ProviderId>().map_err(|error| invalid(name, &error)));
        let (tenant, provider) = (tenant.transpose()?, provider.transpose()?);
        Ok(Question { identity: self.who.clone(), method, tenant, provider })
    }

    fn failed(self, line: usize, because: String) -> Failed {
        let Self { who, method, tenant, allowed, .. } = self;
        Failed { line, who: who.to_string(), method, tenant, expected_allowed: allowed, because }
    }
}

fn human(tested: &Tested) -> String {
    if tested.failed.is_empty() {
        return format!("{} expectations are met", tested.expectations);
    }
    let told = tested.failed.iter().map(|it| {
        let whom = it.tenant.as_ref().map_or("all tenants".to_owned(), |name| format!("`{name}`"));
        let expected = if it.expected_allowed { "allowed" } else { "refused" };
        format!(
            "line {}: {} {} for {whom}\n  expected: {expected}\n  policy:   {}\n",
            it.line, it.who, it.method, it.because
        )
    });
    told.collect()
}

fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
