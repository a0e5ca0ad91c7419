use std::{collections::BTreeMap, error::Error as _, io, path::PathBuf};

use audit::Finding;
use domain::PolicyFault;
use serde::Serialize;
use strongroom_client::{ClientError, Problem};
use thiserror::Error;
use tonic::Status;

/// Why a command did not do what it should. Each knows its exit code and what to do about it.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Broker(Problem),
    #[error("{0}")]
    Client(#[source] ClientError),
    #[error("there is no configuration")]
    NoConfig,
    #[error("`{path}` is not a configuration")]
    Config { path: PathBuf, source: Box<toml::de::Error> },
    #[error("`{path}` cannot be used")]
    File { path: PathBuf, source: io::Error },
    #[error("the deployment is not laid out")]
    Setup(#[source] setup::SetupError),
    #[error("{0}")]
    Usage(&'static str),
    #[error("the broker's answer is wrong: {0}")]
    BadAnswer(&'static str),
    #[error("{path}: {fault}")]
    Policy { path: PathBuf, fault: PolicyFault },
    #[error("`{0}` is no method; methods are Service/Method")]
    NoSuchMethod(String),
    #[error("the table of providers in this program is damaged")]
    BadProviders,
    #[error("{failed} of {expectations} expectations are not met")]
    Unexpected { failed: usize, expectations: usize },
    #[error("nothing was done: it was not confirmed")]
    NotConfirmed,
    #[error("nothing was done: {0}")]
    Over(&'static str),
    #[error("nothing was done: only {proposer} can do it, who has proposed it")]
    NotProposer { proposer: String },
    #[error("the receipt is entry {index}, and no signed checkpoint reaches that far yet")]
    NotSigned { index: u64 },
    #[error("the rotation of {name} was set back: {because}; the old key serves on")]
    SetBack { name: String, because: String },
    #[error("the test did not show that the credential works: {0}")]
    NotValid(String),
    #[error("{name} is erased from the database, and its shares are not destroyed yet")]
    SharesStand { name: String },
    #[error("{count} rows are not as they were written")]
    RowsChanged { count: usize },
    #[error("the rows of {tenants} tenants were not checked")]
    RowsUnchecked { tenants: usize },
    #[error("no record grants this lease")]
    NoSuchGrant,
    #[error("{what}")]
    NothingFound { what: String },
    #[error("the log is not what it claims to be: {0}")]
    Finding(Finding),
    #[error("{what}")]
    Unverified { what: String, index: Option<u64> },
    #[error("{what}")]
    Beyond { what: String },
    #[error("`{path}` is not an export that can be read: {why}")]
    Export { path: PathBuf, why: String },
    #[error("the witness cannot start")]
    Witness(#[source] ::witness::WitnessError),
    #[error("no key was made")]
    Key(#[source] audit::KeyError),
    #[error("logs and metrics cannot be set up")]
    Telemetry(#[source] telemetry::TelemetryError),
    #[error("the output cannot be written")]
    Output(#[source] io::Error),
    #[error("the secret cannot be read")]
    Input(#[source] io::Error),
    #[error("the operating system does not allow it")]
    Runtime(#[source] io::Error),
    #[error("the operating system has no random bytes")]
    NoRandomness,
}

/// A failure for programs.
#[derive(Debug, Serialize)]
pub(crate) struct FailureView {
    /// `refused`, `failed`, `usage`, `verification_failed`, `unreachable`,
    /// `nothing_found` or `pruned`.
    kind: &'static str,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind() {
            "usage" => 2,
            "verification_failed" => 3,
            "unreachable" => 4,
            "nothing_found" => 5,
            "pruned" => 6,
            _ => 1,
        }
    }

    /// What happened, with its causes.
    pub(crate) fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        message
    }

    #[expect(clippy::too_many_lines, reason = "a table: each failure is in it")]
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Broker(problem) => problem.hint(),
            Self::NoConfig => {
                Some("name one with --config, or make a deployment with `strongroom init`")
            }
            Self::Config { .. } => Some("see `strongroom.toml` as `strongroom init` writes it"),
            Self::Client(ClientError::Identity(_)) => {
                Some("correct the [tls] files in the configuration; a key has mode 0600")
            }
            Self::Client(ClientError::Address { .. }) => {
                Some("write `broker = \"host:port\"` in the configuration")
            }
            Self::Client(ClientError::Secret(_)) => Some("a secret has 1 to 16384 bytes"),
            Self::Setup(setup::SetupError::Exists(_)) => Some("choose a directory that is empty"),
            Self::Policy { .. } => Some("docs/access.md has the language"),
            Self::NoSuchMethod(_) => {
                Some("the services and their methods are in proto/strongroom/v1")
            }
            Self::Unexpected { .. } => Some("correct the policy, or what is expected of it"),
            Self::NotProposer { .. } => Some("to ask for it yourself, give the command itself"),
            Self::NotSigned { .. } => Some(
                "the broker signs one within seconds: if this stays, see the broker's log, and ask again with \
                 the same command",
            ),
            Self::NotConfirmed => Some("pass --yes to do it without being asked"),
            Self::SetBack { .. } => {
                Some("check the new key at the provider, then rotate again with one that works")
            }
            Self::SharesStand { .. } => Some(
                "the store of shares does not answer; the broker goes on by itself: ask again with the same \
                 command",
            ),
            Self::RowsChanged { .. } => Some(
                "somebody changed the database past the brokers, or a part of it was restored: \
                 docs/operations.md, \"Rows that were changed\"",
            ),
            Self::RowsUnchecked { .. } => Some(
                "the KMS does not give their keys: see `strongroom kms status`, and check again",
            ),
            Self::NoSuchGrant => Some("a lease's hash is in `strongroom leases list`"),
            Self::Finding(finding) if finding.is_misconduct() => {
                Some("the log is authentic and records what must not happen: examine that entry")
            }
            Self::Finding(_) => Some("keep the files: somebody changed or lost records"),
            Self::Unverified { .. } => {
                Some("check that the key is this log's, then distrust the files")
            }
            Self::Beyond { .. } => Some(
                "find out who else has the key; `strongroom credentials rotate` ends what they hold",
            ),
            Self::Export { .. } => {
                Some("docs/usage.md says which exports are read and how to make them")
            }
            Self::NothingFound { .. } => Some(
                "check the name, look further back with --since, or in an older export: --from",
            ),
            Self::Client(_)
            | Self::Over(_)
            | Self::NotValid(_)
            | Self::File { .. }
            | Self::Witness(_)
            | Self::Key(_)
            | Self::Telemetry(_)
            | Self::Setup(_)
            | Self::Usage(_)
            | Self::BadAnswer(_)
            | Self::Output(_)
            | Self::Input(_)
            | Self::Runtime(_)
            | Self::BadProviders
            | Self::NoRandomness => None,
        }
    }

    pub(crate) fn view(&self) -> FailureView {
        let problem = if let Self::Broker(problem) = self { Some(problem) } else { None };
        let metadata = problem.into_iter().flat_map(|problem| problem.metadata.clone());
        FailureView {
            kind: self.kind(),
            message: self.message(),
            reason: problem.map(|problem| problem.reason.clone()).unwrap_or_default(),
            hint: self.hint(),
            index: self.index(),
            metadata: metadata.collect(),
        }
    }

    /// The first record that is kept, if this one is not there any more.
    pub(crate) fn first_kept(&self) -> Option<u64> {
        let Self::Broker(problem) = self else { return None };
        let pruned = problem.reason == "PRUNED";
        problem.metadata.get("first_index").filter(|_| pruned)?.parse().ok()
    }

    /// Whether it is asked for what the newest signed checkpoint does not cover yet.
    pub(crate) fn is_unsigned(&self) -> bool {
        matches!(self, Self::Broker(it) if matches!(&*it.reason, "NOT_IN_TREE" | "NO_CHECKPOINT"))
    }

    /// Whether trying again may help: the broker went away, or was not reached.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.kind() == "unreachable"
    }

    /// Whoever read the output has gone; there is nobody to tell.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn index(&self) -> Option<u64> {
        if let Self::Unverified { index, .. } = self {
            return *index;
        }
        if let Self::Finding(finding) = self { finding.index() } else { None }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Broker(problem) if problem.is_unreachable() => "unreachable",
            Self::Broker(problem) if problem.reason == "PRUNED" => "pruned",
            Self::Broker(_) => "refused",
            Self::NothingFound { .. } | Self::NoSuchGrant => "nothing_found",
            Self::NoConfig
            | Self::Config { .. }
            | Self::Usage(_)
            | Self::NoSuchMethod(_)
            | Self::Export { .. } => "usage",
            Self::Finding(_)
            | Self::RowsChanged { .. }
            | Self::Unverified { .. }
            | Self::Beyond { .. } => "verification_failed",
            Self::Client(_)
            | Self::NotValid(_)
            | Self::File { .. }
            | Self::Witness(_)
            | Self::Key(_)
            | Self::Telemetry(_)
            | Self::Setup(_)
            | Self::BadAnswer(_)
            | Self::Policy { .. }
            | Self::Unexpected { .. }
            | Self::NotConfirmed
            | Self::Over(_)
            | Self::NotProposer { .. }
            | Self::NotSigned { .. }
            | Self::SetBack { .. }
            | Self::SharesStand { .. }
            | Self::RowsUnchecked { .. }
            | Self::Output(_)
            | Self::Input(_)
            | Self::Runtime(_)
            | Self::BadProviders
            | Self::NoRandomness => "failed",
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Broker(Problem::from_status(&status))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        if let ClientError::Call(status) = error {
            return (*status).into();
        }
        Self::Client(error)
    }
}

impl From<Finding> for Failure {
    fn from(finding: Finding) -> Self {
        Self::Finding(finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_not_there_has_its_own_exit_code() {
        assert_eq!(Failure::from(Status::unavailable("x")).exit_code(), 4);
        assert_eq!(Failure::from(Status::not_found("x")).exit_code(), 1);
        assert_eq!(Failure::NoConfig.exit_code(), 2);
        assert_eq!(Failure::RowsChanged { count: 1 }.exit_code(), 3);
        assert_eq!(Failure::from(Finding::Truncated { index: 3 }).exit_code(), 3);
    }

    #[test]
    fn causes_are_told_once() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let failure = Failure::File { path: "x".into(), source };
        assert_eq!(failure.message(), "`x` cannot be used: no such file");
    }
}
