use domain::{Failure, ProviderId, Secret};
use http::{HeaderMap, StatusCode};
use providers::retry_after;
use serde_json::Value;

use crate::{leak::Leak, redact::redact, refusal::Refusal};

/// What a provider's error answer becomes: the same status, type and code in the caller's shape, with
/// nothing in it that may be part of a credential.
///
/// A provider that refuses the stored credential answers 401 or 403, which SDKs tell their users as
/// "your key is wrong"; some say it with other words. The caller's own key is fine, so that becomes 424
/// (failed dependency), which no official SDK repeats.
pub(crate) fn upstream_error(
    provider: &ProviderId,
    (status, failure): (StatusCode, Option<Failure>),
    headers: &HeaderMap,
    body: &[u8],
    secret: &Secret,
    leak: &Leak,
) -> Refusal {
    let told = Told::read(body);
    let clean = |text: &str| redact(text, secret, leak);
    let said = told.message.as_deref().map(clean).unwrap_or_default();
    let is_refused = failure == Some(Failure::CredentialRefused);
    if is_refused || status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        let message = format!(
            "{provider} refused the credential stored for it (status {}), not your virtual key: ask \
             whoever keeps the credential to check or rotate it. {provider} said: {}",
            status.as_u16(),
            or_nothing(&said),
        );
        let code = "upstream_credential_refused";
        return Refusal::new(StatusCode::FAILED_DEPENDENCY, code, message).and_final();
    }
    let message = if said.is_empty() {
        format!("{provider} answered with status {} and no explanation", status.as_u16())
    } else {
        said
    };
    let mut refusal = Refusal::new(status, "upstream_error", message);
    if let Some(code) = told.code {
        refusal.code = clean(&code).into();
    }
    refusal.kind = told.kind.as_deref().map(clean);
    refusal.param = told.param.map(|param| clean(&param).into());
    refusal.retry_after = retry_after(headers);
    refusal
}

/// A provider that sends callers elsewhere: the secret does not follow.
pub(crate) fn redirected(provider: &ProviderId, status: StatusCode) -> Refusal {
    let message = format!(
        "{provider} answered with a redirect (status {}), which is not followed with a credential: \
         the address stored for it must be corrected",
        status.as_u16(),
    );
    Refusal::new(StatusCode::BAD_GATEWAY, "upstream_redirect_refused", message).and_final()
}

/// What an error body says, whichever shape it has.
#[derive(Debug, Default)]
struct Told {
    message: Option<String>,
    kind: Option<String>,
    code: Option<String>,
    param: Option<String>,
}

impl Told {
    fn read(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        // OpenAI and Anthropic have a member `error`; others put everything flat.
        let error = value.get("error").filter(|error| error.is_object()).unwrap_or(&value);
        let text = |name: &str| error.get(name).and_then(Value::as_str).map(short);
        let flat = value.get("error").and_then(Value::as_str).map(short);
        let code = error.get("code").and_then(|code| match code {
            Value::String(code) => Some(short(code)),
            Value::Number(code) => Some(code.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        });
        let details = error.pointer("/details/error_code").and_then(Value::as_str).map(short);
        Self {
            message: text("message").or(flat),
            kind: text("type").filter(|kind| kind != "error"),
            code: code.or(details).or_else(|| text("type")),
            param: text("param"),
        }
    }
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "nothing more" } else { text }
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

const LONGEST_TEXT: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::RETRY_AFTER;

    use super::*;

    fn map(status: u16, body: &str) -> Refusal {
        map_as(status, None, body)
    }

    fn map_as(status: u16, failure: Option<Failure>, body: &str) -> Refusal {
        let secret = Secret::new(b"sk-proj-SeCrEtPaRt0123456789WXYZ".to_vec());
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        let provider = "openai".parse().unwrap();
        let (body, leak) = (body.as_bytes(), Leak::new(&secret));
        upstream_error(&provider, (status, failure), &headers, body, &secret, &leak)
    }

    #[test]
    fn a_refused_credential_does_not_look_like_a_wrong_key() {
        let body = r#"{"error":{"message":"Incorrect API key provided: sk-proj-****WXYZ","type":"invalid_request_error","code":"invalid_api_key"}}"#;
        for status in [401, 403] {
            let refusal = map(status, body);
            assert_eq!(refusal.status, StatusCode::FAILED_DEPENDENCY);
            assert_eq!(refusal.code, "upstream_credential_refused");
            assert!(refusal.is_final);
            assert!(refusal.message.contains("[redacted]"), "{}", refusal.message);
            assert!(!refusal.message.contains("WXYZ"));
        }
    }

    #[test]
    fn a_credential_that_is_refused_in_other_words_is_refused_all_the_same() {
        let body = r#"{"error":{"code":400,"message":"API key not valid"}}"#;
        assert_eq!(map(400, body).status.as_u16(), 400);
        let refusal = map_as(400, Some(Failure::CredentialRefused), body);
        assert_eq!(refusal.code, "upstream_credential_refused");
    }

    #[test]
    fn everything_else_keeps_status_type_code_and_wait() {
        let refusal = map(
            429,
            r#"{"error":{"message":"Slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#,
        );
        assert_eq!(refusal.status.as_u16(), 429);
        assert_eq!(
            (&*refusal.code, refusal.kind.as_deref()),
            ("rate_limit_exceeded", Some("requests"))
        );
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(refusal.message, "Slow down");
        let refusal = map(
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        );
        assert_eq!(
            (&*refusal.code, refusal.kind.as_deref()),
            ("overloaded_error", Some("overloaded_error"))
        );
    }

    #[test]
    fn other_shapes_are_understood_and_nonsense_is_not_passed_on() {
        assert_eq!(map(400, r#"{"message":"flat"}"#).message, "flat");
        assert_eq!(map(400, r#"{"error":"flat"}"#).message, "flat");
        assert_eq!(map(404, r#"{"code":404,"message":"no"}"#).code, "404");
        for body in ["", "<html>sk-proj-SeCrEtPaRt0123456789WXYZ</html>", "[1]", "{"] {
            assert_eq!(
                map(500, body).message,
                "openai answered with status 500 and no explanation"
            );
        }
    }
}
