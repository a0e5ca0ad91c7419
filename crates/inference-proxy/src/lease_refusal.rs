use std::time::Duration;

use http::StatusCode;
use strongroom_client::LeaseError;

use crate::{outgoing::SHORT_WAIT, refusal::Refusal};

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
        LeaseError::Refused { reason, metadata, retry_after, .. }
            if reason == "CREDENTIALS_EXHAUSTED" =>
        {
            resting(metadata.get("failure").map(String::as_str), retry_after)
        }
        LeaseError::Refused { reason, message, metadata, .. } => {
            let models = metadata.get("models").map(String::as_str).unwrap_or_default();
            refused(&reason, message, models)
        }
    }
}

fn refused(reason: &str, message: String, models: &str) -> Refusal {
    let told = with_models(message, models);
    match reason {
        "VIRTUAL_KEY_REFUSED" => Refusal::key(),
        "VIRTUAL_KEY_IS_BLOCKED" => {
            Refusal::new(StatusCode::FORBIDDEN, "key_blocked", told).and_final()
        }
        "MODEL_NOT_IN_SCOPE" => {
            Refusal::new(StatusCode::FORBIDDEN, "model_not_in_scope", told).about("model")
        }
        "PROVIDER_NOT_IN_SCOPE" => {
            Refusal::new(StatusCode::FORBIDDEN, "provider_not_in_scope", told)
        }
        "NO_SUCH_MODEL" => {
            Refusal::new(StatusCode::NOT_FOUND, "model_not_found", told).about("model")
        }
        "MODEL_IS_AMBIGUOUS" => Refusal::bad_request("model_ambiguous", told).about("model"),
        "NO_SUCH_PROVIDER" => Refusal::new(StatusCode::NOT_FOUND, "provider_not_found", told),
        "NO_CREDENTIAL" => {
            Refusal::new(StatusCode::FAILED_DEPENDENCY, "no_credential", told).and_final()
        }
        "CREDENTIAL_IS_DISABLED" => {
            Refusal::new(StatusCode::FAILED_DEPENDENCY, "credential_disabled", told).and_final()
        }
        "CREDENTIAL_NOT_EXCHANGED" => {
            Refusal::new(StatusCode::FAILED_DEPENDENCY, "credential_not_exchanged", told)
                .and_final()
        }
        "TOKEN_SERVICE_UNAVAILABLE" => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "token_service_unavailable", told)
                .retry_after(SHORT_WAIT)
        }
        "DIALECT_NOT_SERVED" => Refusal::bad_request("dialect_not_served", told),
        "TENANT_IS_SUSPENDED" => {
            Refusal::new(StatusCode::FORBIDDEN, "tenant_suspended", told).and_final()
        }
        "NOT_PERMITTED" | "UNIDENTIFIED" | "IDENTITY_IS_BLOCKED" => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "gateway_not_permitted",
            "the broker does not permit this gateway to lease: whoever runs it must look at its access rules and blocked identities",
        )
        .and_final(),
        "LOG_UNAVAILABLE" | "LOG_BEHIND_CHECKPOINT" | "LOG_FORKED" | "KMS_UNAVAILABLE" | "STORE_UNAVAILABLE" | "OVERLOADED"
        | "NO_SUCH_SESSION" | "DEADLINE_PASSED" => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable", told)
                .retry_after(SHORT_WAIT)
        }
        "INVALID_FIELD" => Refusal::bad_request("invalid_request", told),
        _ => broken(),
    }
}

/// No credential is worth a try before some time has passed; nothing was sent to anyone.
fn resting(failure: Option<&str>, retry_after: Option<Duration>) -> Refusal {
    let failure = failure.unwrap_or("unknown");
    let failure = if failure.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
        failure
    } else {
        "unknown"
    };
    let status = match failure {
        "rate_limited" => StatusCode::TOO_MANY_REQUESTS,
        "credential_refused" | "no_quota" | "not_allowed" => StatusCode::BAD_GATEWAY,
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

/// Names what would work.
fn with_models(message: String, models: &str) -> String {
    if models.is_empty() { message } else { format!("{message}; models that would work: {models}") }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[track_caller]
    fn check(reason: &str, status: u16, code: &str) {
        let refusal = refused(reason, "words".to_owned(), "gpt-4o,o3");
        assert_eq!((refusal.status.as_u16(), &*refusal.code), (status, code), "{reason}");
    }

    #[test]
    fn each_reason_has_a_status_that_sdks_understand() {
        check("VIRTUAL_KEY_REFUSED", 401, "invalid_api_key");
        check("VIRTUAL_KEY_IS_BLOCKED", 403, "key_blocked");
        check("MODEL_NOT_IN_SCOPE", 403, "model_not_in_scope");
        check("PROVIDER_NOT_IN_SCOPE", 403, "provider_not_in_scope");
        check("NO_SUCH_MODEL", 404, "model_not_found");
        check("NO_SUCH_PROVIDER", 404, "provider_not_found");
        check("NO_CREDENTIAL", 424, "no_credential");
        check("CREDENTIAL_IS_DISABLED", 424, "credential_disabled");
        check("CREDENTIAL_NOT_EXCHANGED", 424, "credential_not_exchanged");
        check("TOKEN_SERVICE_UNAVAILABLE", 503, "token_service_unavailable");
        check("DIALECT_NOT_SERVED", 400, "dialect_not_served");
        check("TENANT_IS_SUSPENDED", 403, "tenant_suspended");
        check("NOT_PERMITTED", 502, "gateway_not_permitted");
        check("IDENTITY_IS_BLOCKED", 502, "gateway_not_permitted");
        check("LOG_FORKED", 503, "broker_unavailable");
        check("KMS_UNAVAILABLE", 503, "broker_unavailable");
        check("MODEL_IS_AMBIGUOUS", 400, "model_ambiguous");
        check("SOMETHING_NEW", 502, "broker_failed");
    }

    #[test]
    fn credentials_that_rest_say_until_when() {
        for (failure, status) in
            [("rate_limited", 429), ("no_quota", 502), ("timed_out", 503), ("<script>", 503)]
        {
            let refusal = resting(Some(failure), Some(Duration::from_secs(9)));
            assert_eq!((refusal.status.as_u16(), &*refusal.code), (status, EXHAUSTED));
            assert_eq!(refusal.retry_after, Some(Duration::from_secs(9)));
            assert!(!refusal.message.contains('<'));
        }
    }

    #[test]
    fn an_unknown_model_is_answered_with_known_ones() {
        let error = LeaseError::Refused {
            code: tonic::Code::NotFound,
            reason: "NO_SUCH_MODEL".to_owned(),
            message: "there is no model `x`".to_owned(),
            metadata: HashMap::from([("models".to_owned(), "gpt-4o,o3".to_owned())]),
            retry_after: None,
        };
        let message = lease_refusal(error).message;
        assert_eq!(message, "there is no model `x`; models that would work: gpt-4o,o3");
    }
}
