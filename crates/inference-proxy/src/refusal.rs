use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use domain::Dialect;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{body::ReceiveError, reply::Reply};

/// An answer that is an error, told in the words of whichever SDK asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// A stable word for programs: `model_not_found`.
    pub(crate) code: Cow<'static, str>,
    /// What is wrong, and what to do about it.
    pub(crate) message: Cow<'static, str>,
    /// The provider's own type of the error, where it named one.
    pub(crate) kind: Option<String>,
    /// Which member of the request it is about.
    pub(crate) param: Option<Cow<'static, str>>,
    pub(crate) retry_after: Option<Duration>,
    /// Whether official SDKs must not try again, whatever the status.
    pub(crate) is_final: bool,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code: Cow::Borrowed(code),
            message: message.into(),
            kind: None,
            param: None,
            retry_after: None,
            is_final: false,
        }
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// One answer for everything that is wrong with a key, so that nothing can be learned from it.
    pub(crate) fn key() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            "the virtual key is unknown, mistyped, expired or revoked: use a key that starts with \
             vk_, made for you by whoever runs this gateway; a provider's own key does not work here",
        )
    }

    /// The word in metrics: this gateway's own, never a provider's.
    pub(crate) fn word(&self) -> &'static str {
        match self.code {
            Cow::Borrowed(word) => word,
            Cow::Owned(_) => "other",
        }
    }

    #[must_use]
    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    #[must_use]
    pub(crate) fn about(mut self, param: &'static str) -> Self {
        self.param = Some(Cow::Borrowed(param));
        self
    }

    #[must_use]
    pub(crate) fn and_final(mut self) -> Self {
        self.is_final = true;
        self
    }

    /// The answer in the dialect's shape.
    pub(crate) fn respond(&self, dialect: Dialect, request_id: &str) -> Response<Reply> {
        let body = self.body(dialect, request_id).to_string();
        let mut response = Response::new(Reply::whole(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after {
            // Rounded up: a client that comes back a moment too early comes back twice.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.is_final {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }

    /// The same in a stream of events that has begun; whatever event was not over is over with it.
    pub(crate) fn event(&self, dialect: Dialect, request_id: &str) -> Bytes {
        let name = if dialect == Dialect::Anthropic { "event: error\n" } else { "" };
        Bytes::from(format!("\n\n{name}data: {}\n\n", self.body(dialect, request_id)))
    }

    fn openai_error(&self) -> Value {
        json!({
            "message": self.message,
            "type": self.kind.as_deref().unwrap_or_else(|| openai_type(self.status)),
            "param": self.param,
            "code": self.code,
        })
    }

    fn body(&self, dialect: Dialect, request_id: &str) -> Value {
        match dialect {
            Dialect::OpenAi => json!({ "error": self.openai_error() }),
            // Google's SDKs look into `error`; those of AWS and Cohere at the top.
            Dialect::Native => {
                let mut error = self.openai_error();
                if let Some(members) = error.as_object_mut() {
                    members.insert("status".to_owned(), google_status(self.status).into());
                }
                json!({ "message": self.message, "error": error })
            }
            Dialect::Anthropic => json!({
                "type": "error",
                "error": {
                    "type": self.kind.as_deref().unwrap_or_else(|| anthropic_type(self.status)),
                    "message": self.message,
                    "details": { "error_code": self.code },
                },
                "request_id": request_id,
            }),
        }
    }
}

/// The word of Google's APIs for an error of this status.
fn google_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        424 => "FAILED_PRECONDITION",
        402 | 429 => "RESOURCE_EXHAUSTED",
        502 | 503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

impl From<ReceiveError> for Refusal {
    fn from(error: ReceiveError) -> Self {
        let message = error.to_string();
        match error {
            ReceiveError::TooLarge(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
            }
            ReceiveError::TooSlow => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
            }
            ReceiveError::Full => Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
                .retry_after(Duration::from_secs(1)),
            ReceiveError::CutOff => Self::bad_request("request_cut_off", message),
            ReceiveError::Invalid(_) => Self::bad_request("invalid_request_body", message),
        }
    }
}

/// What OpenAI's API calls an error of this status.
fn openai_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        402 => "insufficient_quota",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// What Anthropic's API calls an error of this status.
fn anthropic_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        408 | 504 => "timeout_error",
        503 | 529 => "overloaded_error",
        424 | 500.. => "api_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "model_not_found", "no such model").about("model")
    }

    #[test]
    fn openai_clients_find_what_they_expect() {
        let body = refusal().body(Dialect::OpenAi, "r1");
        let expected = json!({"error": {"message": "no such model", "type": "invalid_request_error",
            "param": "model", "code": "model_not_found"}});
        assert_eq!(body, expected);
    }

    #[test]
    fn clients_of_other_apis_find_what_they_expect() {
        let body = refusal().body(Dialect::Native, "r1");
        assert_eq!(body["message"], "no such model");
        assert_eq!(body["error"]["message"], "no such model");
        assert_eq!(body["error"]["status"], "NOT_FOUND");
        assert_eq!(body["error"]["code"], "model_not_found");
    }

    #[test]
    fn anthropic_clients_find_what_they_expect() {
        let body = refusal().body(Dialect::Anthropic, "r1");
        let expected = json!({"type": "error", "request_id": "r1", "error": {
            "type": "not_found_error", "message": "no such model",
            "details": {"error_code": "model_not_found"}}});
        assert_eq!(body, expected);
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let refusal = refusal().retry_after(Duration::from_millis(millis));
            let response = refusal.respond(Dialect::OpenAi, "r1");
            assert_eq!(response.headers()["retry-after"], seconds, "{millis}");
        }
    }
}
