use std::{collections::HashMap, time::Duration};

use http::StatusCode;
use strongroom_client::LeaseError;
use strongroom_proto::v1::record::Reason;

use crate::{limit_refusal::limit_refusal, outgoing::SHORT_WAIT, refusal::Refusal};

/// What the broker's refusal means to an application.
pub(crate) fn lease_refusal(error: LeaseError) -> Refusal {
    match error {
        LeaseError::Unavailable { retry_after } => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "broker_unavailable",
            "no credential can be lent at the moment; nothing was sent to the provider, try again",
        )
        .retry_after(retry_after),
        LeaseError::BadLease => broken(),
        LeaseError::Refused { reason, message, metadata, retry_after, .. } => {
            let said = Said { message, metadata, retry_after };
            let known = Reason::from_str_name(&reason).and_then(|reason| said.refusal(reason));
            known.unwrap_or_else(|| said.unknown(&reason))
        }
    }
}

/// What the broker said beside the reason.
struct Said {
    message: String,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

impl Said {
    /// The answer for a reason; none for those that are no lease's. Each one of the contract stands
    /// here, so that a new one does not compile before somebody has thought of it.
    #[expect(clippy::too_many_lines, reason = "a table: one entry for each reason")]
    fn refusal(&self, reason: Reason) -> Option<Refusal> {
        Some(match reason {
            Reason::VirtualKeyRefused => Refusal::key(),
            Reason::VirtualKeyIsBlocked => self.forbidden("key_blocked").and_final(),
            Reason::VirtualKeyIsRevoked => self.forbidden("key_revoked").and_final(),
            Reason::ModelNotInScope => self.forbidden("model_not_in_scope").about("model"),
            Reason::ProviderNotInScope => self.forbidden("provider_not_in_scope"),
            Reason::TenantIsSuspended => self.forbidden("tenant_suspended").and_final(),
            Reason::NoSuchModel => {
                Refusal::new(StatusCode::NOT_FOUND, "model_not_found", self.told()).about("model")
            }
            Reason::NoSuchProvider => {
                Refusal::new(StatusCode::NOT_FOUND, "provider_not_found", self.told())
            }
            Reason::ModelIsAmbiguous => {
                Refusal::bad_request("model_ambiguous", self.told()).about("model")
            }
            Reason::DialectNotServed => Refusal::bad_request("dialect_not_served", self.told()),
            Reason::InvalidField => Refusal::bad_request("invalid_request", self.told()),
            // The tenant's administrators can mend these, and waiting does not.
            Reason::NoSuchTenant => tenants_matter("no_tenant", self.told()),
            Reason::NoCredential | Reason::NoSuchCredential => {
                tenants_matter("no_credential", self.told())
            }
            Reason::CredentialIsDisabled => tenants_matter("credential_disabled", self.told()),
            Reason::CredentialNotExchanged => {
                tenants_matter("credential_not_exchanged", self.told())
            }
            Reason::KmsRefused => tenants_matter("kms_refused", KMS_REFUSES.to_owned()),
            Reason::Erased => tenants_matter("credential_erased", self.erased()),
            Reason::StoredDataCorrupt => operators_matter("stored_data_corrupt", self.corrupt()),
            Reason::NotPermitted | Reason::Unidentified | Reason::IdentityIsBlocked => {
                operators_matter("gateway_not_permitted", NOT_PERMITTED.to_owned())
            }
            Reason::UnknownMethod | Reason::DeadlineMissing | Reason::PublicKeyMalformed => {
                operators_matter("gateway_not_understood", NOT_UNDERSTOOD.to_owned())
            }
            Reason::Internal => Refusal::new(StatusCode::BAD_GATEWAY, "broker_failed", INTERNAL),
            Reason::TokenServiceUnavailable => self.unavailable("token_service_unavailable"),
            Reason::LogUnavailable
            | Reason::LogBehindCheckpoint
            | Reason::LogForked
            | Reason::KmsUnavailable
            | Reason::StoreUnavailable
            | Reason::Overloaded
            | Reason::NoSuchSession
            | Reason::NoSuchLease
            | Reason::LeaseEnded
            | Reason::DeadlinePassed => self.unavailable("broker_unavailable"),
            Reason::CredentialsExhausted | Reason::NoFallback => {
                resting(self.of("failure"), self.retry_after)
            }
            Reason::BudgetExhausted | Reason::RateLimitReached => {
                limit_refusal(reason.as_str_name(), &self.metadata, self.retry_after)
            }
            Reason::Unspecified
            | Reason::NoSuchVirtualKey
            | Reason::NameTaken
            | Reason::EtagMismatch
            | Reason::SecretEmpty
            | Reason::SecretTooLong
            | Reason::SecretMalformed
            | Reason::SecretRefused
            | Reason::BoxDoesNotOpen
            | Reason::NotInTree
            | Reason::NoCheckpoint
            | Reason::Pruned
            | Reason::HandshakeFailed
            | Reason::NoSuchIdentity
            | Reason::NoSuchPolicy
            | Reason::PolicyNotAdmitted
            | Reason::RotationIsRunning
            | Reason::NoSuchRotation
            | Reason::TooManyKeyValues
            | Reason::NoSuchBudget
            | Reason::NoSuchAllowance
            | Reason::SettlementContradicts
            | Reason::AllowanceIsOpen
            | Reason::ApprovalNeeded
            | Reason::NoSuchApproval
            | Reason::ApprovalIsOver
            | Reason::ApprovalLapsed
            | Reason::SamePerson
            | Reason::NotAPerson
            | Reason::NotErasable
            | Reason::RowChanged
            | Reason::RowRolledBack
            | Reason::RowMissing
            | Reason::RowNotOnRecord => return None,
        })
    }

    /// A reason that no lease is refused for, or none of the contract.
    fn unknown(&self, reason: &str) -> Refusal {
        tracing::error!(
            reason,
            credential = self.of("credential"),
            message = %self.message,
            "the broker refused a lease for a reason that this gateway does not know"
        );
        broken()
    }

    fn of(&self, name: &str) -> &str {
        self.metadata.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The broker's words, with what would work.
    fn told(&self) -> String {
        match self.of("models") {
            "" => self.message.clone(),
            models => format!("{}; models that would work: {models}", self.message),
        }
    }

    fn forbidden(&self, code: &'static str) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, code, self.told())
    }

    fn unavailable(&self, code: &'static str) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, self.told()).retry_after(SHORT_WAIT)
    }

    fn erased(&self) -> String {
        format!(
            "{} was erased and can never be used again; nothing was sent to a provider. Whoever \
             administers the tenant must store another; whoever runs Strongroom must look why this \
             one is still in its database",
            self.credential()
        )
    }

    fn corrupt(&self) -> String {
        format!(
            "{} cannot be used, because what is stored is not what was written; nothing was sent to a \
             provider. Whoever runs Strongroom must look at the broker's log",
            self.credential()
        )
    }

    fn credential(&self) -> String {
        match self.of("credential") {
            "" => "the credential of this call".to_owned(),
            name => format!("the credential {name}"),
        }
    }
}

/// Only the tenant's administrators can mend it.
fn tenants_matter(code: &'static str, message: String) -> Refusal {
    Refusal::new(StatusCode::FAILED_DEPENDENCY, code, message).and_final()
}

/// Only somebody who runs this deployment can mend it.
fn operators_matter(code: &'static str, message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, code, message).and_final()
}

const KMS_REFUSES: &str = "the key management that the tenant's keys are under refuses to open them; nothing was sent to a \
     provider. Whoever administers that key must allow Strongroom's broker to use it: the tenant, if \
     it brought its own root key, and otherwise whoever runs Strongroom";
const NOT_PERMITTED: &str = "the broker does not permit this gateway to lease: whoever runs it must look at its access rules \
     and blocked identities";
const NOT_UNDERSTOOD: &str =
    "the broker does not understand this gateway: whoever runs them must bring both to one version";
const INTERNAL: &str = "the broker has failed, and nothing was sent to a provider; whoever runs it finds more in its log";

/// No credential is worth a try before some time has passed; nothing was sent to anyone.
fn resting(failure: &str, retry_after: Option<Duration>) -> Refusal {
    let failure = if failure.is_empty() { "unknown" } else { failure };
    let failure = if failure.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
        failure
    } else {
        "unknown"
    };
    let status = match failure {
        "rate_limited" => StatusCode::TOO_MANY_REQUESTS,
        "credential_refused" | "no_quota" | "not_allowed" | "unusable" => StatusCode::BAD_GATEWAY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let message = format!(
        "every credential that the tenant's policy names for this call rests after failures (the last: \
         {failure}); nothing was sent to a provider"
    );
    let refusal = Refusal::new(status, EXHAUSTED, message);
    let refusal = refusal.retry_after(retry_after.unwrap_or(SHORT_WAIT));
    // Only a person can mend it.
    if status == StatusCode::BAD_GATEWAY { refusal.and_final() } else { refusal }
}

/// The code of an answer when all credentials that policy names have failed.
pub(crate) const EXHAUSTED: &str = "credentials_exhausted";

/// For an answer of the broker's that says what it must not.
pub(crate) fn broken() -> Refusal {
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        "broker_failed",
        "the broker's answer cannot be used; whoever runs this gateway finds more in its log",
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    fn refused(reason: &str, metadata: &[(&str, &str)]) -> Refusal {
        let pair = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        lease_refusal(LeaseError::Refused {
            code: tonic::Code::FailedPrecondition,
            reason: reason.to_owned(),
            message: "words".to_owned(),
            metadata: metadata.iter().map(pair).collect(),
            retry_after: None,
        })
    }

    /// Every reason of the contract.
    fn reasons() -> impl Iterator<Item = Reason> {
        (0..10_000).filter_map(|number| Reason::try_from(number).ok())
    }

    #[track_caller]
    fn check(reason: &str, status: u16, code: &str) {
        let refusal = refused(reason, &[("models", "gpt-4o,o3")]);
        assert_eq!((refusal.status.as_u16(), &*refusal.code), (status, code), "{reason}");
    }

    #[test]
    fn each_reason_has_a_status_that_sdks_understand() {
        for (reason, status, code) in [
            ("VIRTUAL_KEY_REFUSED", 401, "invalid_api_key"),
            ("VIRTUAL_KEY_IS_BLOCKED", 403, "key_blocked"),
            ("MODEL_NOT_IN_SCOPE", 403, "model_not_in_scope"),
            ("PROVIDER_NOT_IN_SCOPE", 403, "provider_not_in_scope"),
            ("NO_SUCH_MODEL", 404, "model_not_found"),
            ("NO_SUCH_PROVIDER", 404, "provider_not_found"),
            ("NO_SUCH_TENANT", 424, "no_tenant"),
            ("NO_CREDENTIAL", 424, "no_credential"),
            ("CREDENTIAL_IS_DISABLED", 424, "credential_disabled"),
            ("CREDENTIAL_NOT_EXCHANGED", 424, "credential_not_exchanged"),
            ("KMS_REFUSED", 424, "kms_refused"),
            ("ERASED", 424, "credential_erased"),
            ("STORED_DATA_CORRUPT", 502, "stored_data_corrupt"),
            ("TOKEN_SERVICE_UNAVAILABLE", 503, "token_service_unavailable"),
            ("DIALECT_NOT_SERVED", 400, "dialect_not_served"),
            ("TENANT_IS_SUSPENDED", 403, "tenant_suspended"),
            ("NOT_PERMITTED", 502, "gateway_not_permitted"),
            ("IDENTITY_IS_BLOCKED", 502, "gateway_not_permitted"),
            ("UNKNOWN_METHOD", 502, "gateway_not_understood"),
            ("INTERNAL", 502, "broker_failed"),
            ("LOG_FORKED", 503, "broker_unavailable"),
            ("KMS_UNAVAILABLE", 503, "broker_unavailable"),
            ("MODEL_IS_AMBIGUOUS", 400, "model_ambiguous"),
            ("SOMETHING_NEW", 502, "broker_failed"),
        ] {
            check(reason, status, code);
        }
    }

    #[test]
    fn every_reason_of_the_contract_is_answered_or_told_in_the_log() {
        let (mut answered, mut silent) = (0, Vec::new());
        for reason in reasons() {
            let name = reason.as_str_name();
            let logged = told_of(|| {
                let refusal = refused(name, &[("credential", "tenants/acme/credentials/a")]);
                let advice = (refusal.is_final, refusal.retry_after.is_some());
                assert_ne!(advice, (true, true), "{name}: try again or not");
                answered += u32::from(refusal != broken());
            });
            let is_broken = refused(name, &[]) == broken();
            if is_broken != (logged.contains(name) && logged.contains("credentials/a")) {
                silent.push(name);
            }
        }
        assert!(answered >= 35, "{answered}");
        assert!(silent.is_empty(), "neither answered nor logged: {silent:?}");
        assert!(told_of(|| drop(refused("SOMETHING_NEW", &[]))).contains("SOMETHING_NEW"));
    }

    #[test]
    fn what_cannot_be_opened_says_which_and_whose_matter_it_is() {
        let named = [("credential", "tenants/acme/credentials/a")];
        for (reason, who) in [
            ("ERASED", "administers the tenant"),
            ("STORED_DATA_CORRUPT", "runs Strongroom"),
            ("KMS_REFUSED", "administers that key"),
        ] {
            let refusal = refused(reason, &named);
            assert!(refusal.message.contains(who) && refusal.is_final, "{refusal:?}");
            let is_named = refusal.message.contains("tenants/acme/credentials/a");
            assert_eq!(is_named, reason != "KMS_REFUSED", "{refusal:?}");
        }
    }

    /// The error lines that a piece of work writes to the log.
    fn told_of(work: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let made = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::ERROR)
            .with_writer(move || made.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn credentials_that_rest_say_until_when() {
        for (failure, status) in
            [("rate_limited", 429), ("no_quota", 502), ("timed_out", 503), ("<script>", 503)]
        {
            let refusal = resting(failure, Some(Duration::from_secs(9)));
            assert_eq!((refusal.status.as_u16(), &*refusal.code), (status, EXHAUSTED));
            assert_eq!(refusal.retry_after, Some(Duration::from_secs(9)));
            assert!(!refusal.message.contains('<'));
        }
    }

    #[test]
    fn an_unknown_model_is_answered_with_known_ones() {
        let message = refused("NO_SUCH_MODEL", &[("models", "gpt-4o,o3")]).message;
        assert_eq!(message, "words; models that would work: gpt-4o,o3");
    }
}
