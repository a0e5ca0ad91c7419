use std::{collections::HashMap, path::PathBuf, time::Duration};

use domain::{Failure, Unit};
use strongroom_proto::v1;
use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{Problem, convert};

/// Why the broker could not be used.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The broker's address is not `host:port`. Correct the configuration.
    #[error("`{address}` is not the address of a broker")]
    Address {
        /// What was configured.
        address: String,
        /// What is wrong with it.
        #[source]
        source: tonic::transport::Error,
    },
    /// The TLS files cannot be used. Correct them.
    #[error("the identity files cannot be used")]
    Identity(#[source] mtls::LoadError),
    /// The file of the log's key cannot be used. Correct `log_key`.
    #[error("the log's key `{path}` cannot be used")]
    LogKeyFile {
        /// What was configured.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// The broker's log has another key than `log_key` names: it is not the log that this process
    /// was told to expect. Nothing of the broker's answer was used.
    #[error("the broker's log is not the one that log_key names")]
    OtherLog,
    /// The broker answered with an error, or could not be reached. See [`Problem`].
    #[error("the broker did not do it")]
    Call(#[source] Box<Status>),
    /// The broker's answer breaks the contract. Nothing of it was used.
    #[error("the broker's answer is wrong: {0}")]
    BadAnswer(&'static str),
    /// The secret is empty or too long. Nothing was sent.
    #[error("the secret cannot be sealed")]
    Secret(#[source] sealing::SealError),
    /// The operating system's random source failed. Nothing was sent.
    #[error("the operating system has no random bytes")]
    NoRandomness,
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Call(Box::new(status))
    }
}

/// Why there is no lease.
#[derive(Clone, Debug, Error)]
pub enum LeaseError {
    /// The broker said no. Asking again within a second gives the same answer without a call.
    #[error("the lease is refused: {message}")]
    Refused {
        /// The status.
        code: Code,
        /// The stable reason, such as `VIRTUAL_KEY_REFUSED`; empty when the broker named none.
        reason: String,
        /// The broker's words, without secrets.
        message: String,
        /// What the reason is about.
        metadata: HashMap<String, String>,
        /// When the broker says that another try is worth it, if it says so.
        retry_after: Option<Duration>,
    },
    /// The broker cannot be asked, or cannot lend now. Nothing is known of the key.
    #[error("no lease can be had at the moment")]
    Unavailable {
        /// When it is worth another try.
        retry_after: Duration,
    },
    /// What the broker sent is not a lease that may be used.
    #[error("the broker's lease is malformed")]
    BadLease,
}

impl LeaseError {
    /// The provider has said that the credential is used too often, and when to come back. The same as
    /// the broker would say of it.
    pub(crate) fn limited(left: Duration) -> Self {
        let failure = Failure::RateLimited { retry_after: Some(left) };
        Self::Refused {
            code: Code::FailedPrecondition,
            reason: "CREDENTIALS_EXHAUSTED".to_owned(),
            message: "the provider asked for a pause that is not over".to_owned(),
            metadata: HashMap::from([("failure".to_owned(), failure.as_str().to_owned())]),
            retry_after: Some(left),
        }
    }

    /// Whether a budget or a rate limit has no room.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if LIMITS.contains(&&**reason))
    }

    /// Which limit it is that has no room, and how it stands; none when it is no limit's.
    pub(crate) fn limit(&self) -> Option<v1::LimitView> {
        let Self::Refused { reason, metadata, retry_after, .. } = self else { return None };
        let of = |name: &str| metadata.get(name).map(String::as_str).unwrap_or_default();
        let unit = Unit::ALL.into_iter().find(|unit| unit.as_str() == of("unit"))?;
        self.is_limit().then_some(v1::LimitView {
            unit: convert::wire_unit(unit).into(),
            cap: of("cap").parse().ok()?,
            left: of("left").parse().ok()?,
            renews_after: retry_after.and_then(|after| after.try_into().ok()),
            budget: of("budget").to_owned(),
            is_rate: reason == RATE_LIMIT_REACHED,
        })
    }

    /// The same, told so much later.
    pub(crate) fn after(mut self, later: Duration) -> Self {
        if let Self::Refused { retry_after: Some(after), .. } = &mut self {
            *after = after.saturating_sub(later);
        }
        self
    }

    /// Whether it is a decision about the key that holds for a moment.
    pub(crate) fn is_decision(&self) -> bool {
        let Self::Refused { code, reason, .. } = self else { return false };
        reason != "NO_SUCH_SESSION"
            && matches!(
                code,
                Code::Unauthenticated
                    | Code::PermissionDenied
                    | Code::NotFound
                    | Code::FailedPrecondition
                    | Code::InvalidArgument
            )
    }
}

impl From<&Status> for LeaseError {
    fn from(status: &Status) -> Self {
        let passes = matches!(
            status.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Cancelled
                | Code::Aborted
                | Code::Unknown
        );
        let is_limit = status.code() == Code::ResourceExhausted
            && LIMITS.contains(&&*Problem::from_status(status).reason);
        let hinted = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let Problem { code, reason, message, metadata } = Problem::from_status(status);
        // That one is well, and its words say who is not.
        if passes && !is_limit && reason != "TOKEN_SERVICE_UNAVAILABLE" {
            return Self::Unavailable { retry_after: hinted.unwrap_or(RETRY_AFTER) };
        }
        Self::Refused { code, reason, message, metadata, retry_after: hinted }
    }
}

impl From<ClientError> for LeaseError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Call(status) => Self::from(&*status),
            ClientError::BadAnswer(what) => {
                tracing::error!(what, "the broker broke the contract");
                Self::BadLease
            }
            ClientError::OtherLog => {
                tracing::error!("the broker's log is not the one that log_key names");
                Self::Unavailable { retry_after: RETRY_AFTER }
            }
            ClientError::Address { .. }
            | ClientError::Identity(_)
            | ClientError::LogKeyFile { .. }
            | ClientError::Secret(_)
            | ClientError::NoRandomness => Self::Unavailable { retry_after: RETRY_AFTER },
        }
    }
}

/// Why a held lease did not give its secret.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum UnsealError {
    /// It has ended or was revoked. Ask the cache for another.
    #[error("the lease has ended")]
    Ended,
    /// A word of it is not what the broker sealed. Do not use any of it.
    #[error("the lease does not open")]
    Broken,
}

/// Reasons of a limit that was set for the key: a decision, where an overloaded broker's is none.
const LIMITS: [&str; 2] = ["BUDGET_EXHAUSTED", RATE_LIMIT_REACHED];
const RATE_LIMIT_REACHED: &str = "RATE_LIMIT_REACHED";

pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str) -> Status {
        let metadata = HashMap::from([("provider".to_owned(), "openai".to_owned())]);
        let details = ErrorDetails::with_error_info(reason, "strongroom.dev", metadata);
        Status::with_error_details(code, "words", details)
    }

    #[test]
    fn a_refusal_keeps_reason_and_metadata() {
        let error = LeaseError::from(&status(Code::FailedPrecondition, "NO_CREDENTIAL"));
        assert!(error.is_decision());
        let LeaseError::Refused { code, reason, message, metadata, .. } = error else {
            panic!("not a refusal");
        };
        assert_eq!(
            (code, &*reason, &*message),
            (Code::FailedPrecondition, "NO_CREDENTIAL", "words")
        );
        assert_eq!(metadata["provider"], "openai");
    }

    #[test]
    fn an_outage_is_never_a_decision() {
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Unknown, Code::Cancelled] {
            let error = LeaseError::from(&status(code, "STORE_UNAVAILABLE"));
            assert!(matches!(error, LeaseError::Unavailable { .. }), "{code:?}");
            assert!(!error.is_decision(), "{code:?}");
        }
        assert!(!LeaseError::from(&status(Code::Internal, "INTERNAL")).is_decision());
        assert!(
            !LeaseError::from(&status(Code::FailedPrecondition, "NO_SUCH_SESSION")).is_decision()
        );
    }

    #[test]
    fn a_token_service_that_is_down_is_told_and_no_decision() {
        let error = LeaseError::from(&status(Code::Unavailable, "TOKEN_SERVICE_UNAVAILABLE"));
        assert!(!error.is_decision());
        assert!(matches!(error, LeaseError::Refused { message, .. } if message == "words"));
    }

    #[test]
    fn a_limit_that_is_reached_is_a_no_and_an_overloaded_broker_is_not() {
        let reached = LeaseError::from(&status(Code::ResourceExhausted, "BUDGET_EXHAUSTED"));
        assert!(reached.is_limit() && !reached.is_decision());
        let busy = LeaseError::from(&status(Code::ResourceExhausted, "OVERLOADED"));
        assert!(matches!(busy, LeaseError::Unavailable { .. }));
    }

    #[test]
    fn the_brokers_hint_says_when_to_retry() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        let status = Status::with_error_details(Code::Unavailable, "words", details);
        let LeaseError::Unavailable { retry_after } = LeaseError::from(&status) else {
            panic!("not unavailable");
        };
        assert_eq!(retry_after, Duration::from_secs(7));

        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(9)));
        let status = Status::with_error_details(Code::FailedPrecondition, "words", details);
        let LeaseError::Refused { retry_after, .. } = LeaseError::from(&status) else {
            panic!("not a refusal");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(9)));
    }
}
