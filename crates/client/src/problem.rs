use std::{collections::HashMap, error::Error as _, fmt};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What the broker's error says to programs and to people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The status.
    pub code: Code,
    /// The stable reason, such as `NO_CREDENTIAL`; empty when there is none.
    pub reason: String,
    /// The broker's words.
    pub message: String,
    /// What the reason is about.
    pub metadata: HashMap<String, String>,
}

impl Problem {
    /// Reads a status and its `google.rpc.ErrorInfo`, if it has one. Where the broker has refused the
    /// connection for our certificate, the reason is `CERTIFICATE_REFUSED`, which no broker sends.
    pub fn from_status(status: &Status) -> Self {
        if let Some(why) = status.source().and_then(mtls::refused_by_peer) {
            return Self {
                code: status.code(),
                reason: CERTIFICATE_REFUSED.to_owned(),
                message: format!("the broker does not accept this identity's certificate: {why}"),
                metadata: HashMap::new(),
            };
        }
        let (reason, metadata) = match status.get_details_error_info() {
            Some(info) if info.domain == DOMAIN => (info.reason, info.metadata),
            _ => (String::new(), HashMap::new()),
        };
        Self { code: status.code(), reason, message: status.message().to_owned(), metadata }
    }

    /// Whether the broker was not reached or could not answer, so that nothing was decided.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
            || self.reason == CERTIFICATE_REFUSED
            || (self.code == Code::Unknown && self.reason.is_empty())
    }

    /// One line that says what to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        hint_for(&self.reason).or_else(|| {
            self.is_unreachable().then_some(
                "check that the broker runs at the configured address, and that the certificate of this \
                 identity has neither expired nor been revoked",
            )
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.message.is_empty() { "the call failed" } else { &self.message })?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

impl std::error::Error for Problem {}

/// The broker has ended the connection, in TLS, for what our certificate is.
pub(crate) const CERTIFICATE_REFUSED: &str = "CERTIFICATE_REFUSED";

fn hint_for(reason: &str) -> Option<&'static str> {
    Some(match reason {
        CERTIFICATE_REFUSED => {
            "give this identity a new certificate; if the old one is in order, the broker's log and its \
             strongroom_tls_handshakes_total say what is not"
        }
        "UNIDENTIFIED" => "present a certificate with a SPIFFE ID of the broker's trust domain",
        "VIRTUAL_KEY_REFUSED" => "create a new key with `strongroom keys create`",
        "PROVIDER_NOT_IN_SCOPE" => "use a key whose providers include this one",
        "MODEL_NOT_IN_SCOPE" => "use a key whose models include this one",
        "NO_SUCH_MODEL" => "name the provider too: `provider/model`",
        "NO_SUCH_PROVIDER" => "use a provider's slug, such as `openai` or `anthropic`",
        "NO_SUCH_TENANT" => "see `strongroom tenants list`",
        "NO_SUCH_CREDENTIAL" => "see `strongroom credentials list`",
        "NO_SUCH_VIRTUAL_KEY" => "see `strongroom keys list`",
        "NO_SUCH_LEASE" => "see `strongroom leases list`; leases that have ended are not in it",
        "NO_SUCH_SESSION" => "try again; a new session is opened",
        "NO_CREDENTIAL" => "store one with `strongroom credentials put`",
        "CREDENTIAL_IS_DISABLED" => "enable it with `strongroom credentials enable`",
        "CREDENTIALS_EXHAUSTED" => "see `strongroom route explain` for what rests, and until when",
        "MODEL_IS_AMBIGUOUS" => "write provider/model, or set the tenant's preferred provider",
        "BUDGET_EXHAUSTED" => "raise the budget, or wait until its window is over",
        "RATE_LIMIT_REACHED" => "wait a moment, or raise the virtual key's limits",
        "TENANT_IS_SUSPENDED" => "resume it with `strongroom tenants resume`",
        "IDENTITY_IS_BLOCKED" => "an administrator lifts it with `strongroom identities unblock`",
        "NO_SUCH_POLICY" => "take the hash from a `POLICY_LOADED` record",
        "NO_SUCH_IDENTITY" => "see `strongroom identities blocked`",
        "LOG_BEHIND_CHECKPOINT" | "LOG_FORKED" => {
            "nothing is lent: an operator must compare the log with its checkpoints"
        }
        "DIALECT_NOT_SERVED" => "call the provider in its own format",
        "LEASE_ENDED" => "acquire another lease",
        "NAME_TAKEN" => "choose another name",
        "ETAG_MISMATCH" => "it changed meanwhile; read it again and decide anew",
        "SECRET_EMPTY" | "SECRET_TOO_LONG" => "a secret has 1 to 16384 bytes",
        "SECRET_MALFORMED" => "check that the whole key was given, and that it is this provider's",
        "SECRET_REFUSED" => {
            "see whether it is the right key, or store it untested with `--no-test`"
        }
        "CREDENTIAL_NOT_EXCHANGED" => {
            "mend what the message names, then `strongroom credentials test`"
        }
        "TOKEN_SERVICE_UNAVAILABLE" => "nothing was lent; try again",
        "BOX_DOES_NOT_OPEN" => "try again; if it stays, client and broker differ in version",
        "INVALID_FIELD" => "correct the field that the message names",
        "NOT_IN_TREE" => "wait a moment for the next checkpoint, if the log is that long",
        "PRUNED" => "look in the export that covers it: `strongroom audit list --from DIR`",
        "NO_CHECKPOINT" => "wait a moment; the log's first checkpoint is not signed yet",
        "KMS_UNAVAILABLE" | "OVERLOADED" => "nothing was done; try again",
        // Whether a commit has happened, nobody can know whose answer to it was lost.
        "STORE_UNAVAILABLE" | "LOG_UNAVAILABLE" => {
            "nothing was lent; a change may have been made or not: look (`strongroom audit list` has it if \
             it was), and make it again if it was not"
        }
        "KMS_REFUSED" | "STORED_DATA_CORRUPT" | "INTERNAL" => "see the broker's log",
        "DEADLINE_PASSED" => "try again, with a longer `timeout` in the configuration",
        "UNKNOWN_METHOD" => "the broker is older than this program; update it",
        _ => return None,
    })
}

const DOMAIN: &str = "strongroom.dev";

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn reason_and_hint_come_from_the_error_info() {
        let details =
            ErrorDetails::with_error_info("NAME_TAKEN", DOMAIN, HashMap::<String, String>::new());
        let status = Status::with_error_details(Code::AlreadyExists, "it exists", details);
        let problem = Problem::from_status(&status);
        assert_eq!(problem.to_string(), "it exists (NAME_TAKEN)");
        assert_eq!(problem.hint(), Some("choose another name"));
        assert!(!problem.is_unreachable());
    }

    /// Whether a commit was made is not known when its answer did not come.
    #[test]
    fn nobody_is_told_that_nothing_was_done_who_cannot_know_it() {
        let hint = |reason| hint_for(reason).unwrap();
        for reason in ["LOG_UNAVAILABLE", "STORE_UNAVAILABLE"] {
            assert!(hint(reason).contains("may have been made or not"), "{reason}");
        }
        assert!(hint("OVERLOADED").starts_with("nothing was done"));
    }

    #[test]
    fn a_foreign_error_info_is_not_taken_for_ours() {
        let details =
            ErrorDetails::with_error_info("NAME_TAKEN", "other.dev", HashMap::<_, _>::new());
        let status = Status::with_error_details(Code::AlreadyExists, "it exists", details);
        assert_eq!(Problem::from_status(&status).reason, "");
    }

    #[test]
    fn a_broker_that_is_not_there_has_a_hint_too() {
        let problem = Problem::from_status(&Status::unavailable("tcp connect error"));
        assert!(problem.is_unreachable());
        // It may be that as well: a connection that is reset takes with it why.
        assert!(problem.hint().is_some_and(|hint| hint.contains("revoked")));
    }
}
