use std::time::Duration;

use bytes::Bytes;
use domain::Secret;
use http::{HeaderMap, Response, header::RETRY_AFTER};
use providers::Verdict;
use serde::Deserialize;
use serde_json::Value;

use crate::{ExchangeError, Order, Token, token::Asked};

/// The answer of a token endpoint of OAuth, RFC 6749 section 5.1.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: String,
    expires_in: Value,
}

/// Reads what a token endpoint of OAuth answered.
pub(crate) fn granted(
    answer: &Response<Bytes>,
    asked: Asked,
    order: &Order,
) -> Result<Token, ExchangeError> {
    if !answer.status().is_success() {
        return Err(oauth_refusal(answer));
    }
    let granted = serde_json::from_slice::<Granted>(answer.body());
    let granted = granted.map_err(|_| ExchangeError::Unreadable)?;
    let seconds = match &granted.expires_in {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let secret = sendable(granted.access_token)?;
    if !granted.token_type.eq_ignore_ascii_case("bearer") {
        return Err(ExchangeError::Unreadable);
    }
    let longest = order.minting.longest_seconds.unwrap_or(u64::MAX);
    let seconds = seconds.filter(|seconds| *seconds > 0).ok_or(ExchangeError::Unreadable)?;
    Ok(Token::new(secret, asked, Duration::from_secs(seconds.min(longest))))
}

/// A token that can stand in a header. No copy of it is made.
pub(crate) fn sendable(text: String) -> Result<Secret, ExchangeError> {
    let secret = Secret::new(text.into_bytes());
    let fits = (1..=LONGEST_TOKEN).contains(&secret.len());
    let wrong = |byte: &u8| !(0x21..=0x7e).contains(byte);
    if !fits || secret.expose().iter().any(wrong) {
        return Err(ExchangeError::Unreadable);
    }
    Ok(secret)
}

/// What a refusal of a token endpoint means, RFC 6749 section 5.2.
fn oauth_refusal(answer: &Response<Bytes>) -> ExchangeError {
    if let Some(passing) = passing(answer) {
        return passing;
    }
    let status = answer.status().as_u16();
    let told = serde_json::from_slice::<Value>(answer.body()).unwrap_or_default();
    let word = told.get("error").and_then(Value::as_str).unwrap_or_default();
    let says = told.get("error_description").and_then(Value::as_str).unwrap_or_default();
    let number = told.pointer("/error_codes/0").and_then(Value::as_u64);
    let verdict = match word {
        "temporarily_unavailable" | "server_error" => return ExchangeError::Trouble { status },
        // The assertion's times: it is this machine's clock that is wrong, and no credential is bad.
        "invalid_grant" if says.contains("timeframe") => return ExchangeError::Clock,
        "invalid_grant" | "invalid_client" => Verdict::Invalid,
        "unauthorized_client"
        | "invalid_scope"
        | "invalid_request"
        | "access_denied"
        | "invalid_resource" => Verdict::RegionOrPermission,
        _ => match status {
            401 | 403 | 404 => Verdict::RegionOrPermission,
            _ => Verdict::Unverifiable,
        },
    };
    let code = number.map_or_else(|| word.to_owned(), |number| format!("{word} {number}"));
    refused(verdict, &code, status)
}

/// Trouble that says nothing of the credential.
pub(crate) fn passing(answer: &Response<Bytes>) -> Option<ExchangeError> {
    match answer.status().as_u16() {
        429 => Some(ExchangeError::Limited { retry_after: retry_after(answer.headers()) }),
        408 => Some(ExchangeError::Trouble { status: 408 }),
        status @ 500.. => Some(ExchangeError::Trouble { status }),
        _ => None,
    }
}

/// A refusal with the provider's code as far as it is one, and otherwise the status.
pub(crate) fn refused(verdict: Verdict, code: &str, status: u16) -> ExchangeError {
    let is_code =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | ' ');
    let fits = (1..=64).contains(&code.len()) && code.chars().all(is_code);
    let code = if fits { code.to_owned() } else { format!("status {status}") };
    ExchangeError::Refused { verdict, code }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Tokens with many groups in them are long; a header is not longer.
const LONGEST_TOKEN: usize = 16 << 10;
