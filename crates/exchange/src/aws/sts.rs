use std::time::Duration;

use bytes::Bytes;
use domain::Secret;
use http::Response;
use providers::Verdict;

use super::sign::{Signable, signed_headers};
use crate::{
    AwsKeys, ExchangeError, Minter, Order,
    answer::{passing, refused},
    encode::form,
    minter::FORM,
};

/// A role to take.
pub(super) struct Role<'a> {
    pub(super) arn: &'a str,
    pub(super) external_id: Option<&'a str>,
    pub(super) signs: Signs,
}

/// Whose keys sign, and so whose fault it is when AWS does not accept them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Signs {
    Broker,
    Customer,
}

/// `AssumeRole`, narrowed to calling models. Gives the role's keys and how long they live.
pub(super) async fn assume(
    minter: &Minter,
    order: &Order,
    own: &AwsKeys,
    role: &Role<'_>,
    url: &str,
) -> Result<(AwsKeys, Duration), ExchangeError> {
    let seconds = order.lifetime().as_secs().max(SHORTEST);
    let duration = seconds.to_string();
    let mut pairs = vec![
        ("Action", "AssumeRole"),
        ("Version", "2011-06-15"),
        ("RoleArn", role.arn),
        ("RoleSessionName", SESSION_NAME),
        ("DurationSeconds", &*duration),
        ("Policy", POLICY),
    ];
    pairs.extend(role.external_id.map(|id| ("ExternalId", id)));
    let body = form(&pairs);
    let at = minter.clock().now();
    let request = Signable {
        url,
        headers: &[("content-type", FORM)],
        body: body.as_bytes(),
        region: order.setting("region")?,
        service: "sts",
        at,
        presigned_for: None,
    };
    let headers = signed_headers(&request, own)?;
    let answer = minter.post_form(url, body, &headers).await?;
    if !answer.status().is_success() {
        return Err(refusal(&answer, role.signs));
    }
    let text = std::str::from_utf8(answer.body()).map_err(|_| ExchangeError::Unreadable)?;
    let take = |tag| between(text, tag).ok_or(ExchangeError::Unreadable);
    let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
    let keys = AwsKeys {
        access_key_id: take("AccessKeyId")?.to_owned(),
        secret_access_key: secret(take("SecretAccessKey")?),
        session_token: Some(secret(take("SessionToken")?)),
    };
    // AWS says when they end; if this machine's clock is behind, they are not thought to live longer.
    let ends = take("Expiration")?.parse::<jiff::Timestamp>();
    let ends = ends.map_err(|_| ExchangeError::Unreadable)?.as_millisecond();
    let left = u64::try_from(ends.saturating_sub(at.as_millis())).unwrap_or(0);
    let lifetime = Duration::from_secs(seconds.min(left.div_ceil(1000)));
    if lifetime.is_zero() { Err(ExchangeError::Unreadable) } else { Ok((keys, lifetime)) }
}

/// AWS answers in XML, of which nothing but a few plain values is of interest.
fn between<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("<{tag}>"))?;
    let (inside, _) = after.split_once("</")?;
    Some(inside.trim()).filter(|inside| !inside.is_empty())
}

/// Whether it is the times of a signature that are refused, with the words that are used for a wrong
/// secret too. AWS takes a signature that is at most a quarter of an hour off.
pub(crate) fn blames_the_clock(answer: &Response<Bytes>) -> bool {
    let text = String::from_utf8_lossy(answer.body());
    let says = between(&text, "Message").unwrap_or_default();
    match between(&text, "Code").unwrap_or_default() {
        "RequestExpired" => true,
        "SignatureDoesNotMatch" | "InvalidSignatureException" => {
            says.starts_with("Signature expired") || says.starts_with("Signature not yet current")
        }
        _ => false,
    }
}

fn refusal(answer: &Response<Bytes>, signs: Signs) -> ExchangeError {
    let status = answer.status().as_u16();
    if blames_the_clock(answer) {
        return ExchangeError::Clock;
    }
    let text = String::from_utf8_lossy(answer.body());
    let code = between(&text, "Code").unwrap_or_default();
    let verdict = match code {
        "Throttling" | "ThrottlingException" | "RequestLimitExceeded" => {
            return ExchangeError::Limited { retry_after: None };
        }
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "ExpiredToken"
        | "ExpiredTokenException" => Verdict::Invalid,
        // The role is not there, or does not trust whoever asks, or not with this external id.
        "AccessDenied" | "AccessDeniedException" | "RegionDisabledException" => {
            Verdict::RegionOrPermission
        }
        _ => {
            if let Some(passing) = passing(answer) {
                return passing;
            }
            if status == 403 { Verdict::RegionOrPermission } else { Verdict::Unverifiable }
        }
    };
    if verdict == Verdict::Invalid && signs == Signs::Broker {
        // One of the codes above, so it can be repeated.
        return ExchangeError::OwnIdentity { code: code.to_owned() };
    }
    refused(verdict, code, status)
}

/// What remains of the role's own permissions: calling models, and doing so with a key of this kind.
const POLICY: &str = concat!(
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["#,
    r#""bedrock:InvokeModel","bedrock:InvokeModelWithResponseStream","bedrock:CallWithBearerToken""#,
    r#"],"Resource":"*"}]}"#
);
const SESSION_NAME: &str = "strongroom";
/// STS takes no shorter life.
const SHORTEST: u64 = 900;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, code: &str, signs: Signs, expected: &str) {
        says(status, code, "", signs, expected);
    }

    #[track_caller]
    fn says(status: u16, code: &str, message: &str, signs: Signs, expected: &str) {
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender\
             </Type><Code>{code}</Code><Message>{message} wJalr</Message></Error></ErrorResponse>"
        );
        let answer = Response::builder().status(status).body(Bytes::from(body)).unwrap();
        let error = refusal(&answer, signs);
        let found = if matches!(error, ExchangeError::OwnIdentity { .. }) {
            "own identity"
        } else if matches!(error, ExchangeError::Clock) {
            "clock"
        } else {
            error.verdict().as_str()
        };
        assert_eq!(found, expected, "{code}");
        assert!(!error.to_string().contains("wJalr"));
    }

    #[test]
    fn a_refusal_is_laid_at_the_right_door() {
        check(403, "AccessDenied", Signs::Broker, "region_or_permission");
        check(403, "SignatureDoesNotMatch", Signs::Broker, "own identity");
        check(403, "SignatureDoesNotMatch", Signs::Customer, "invalid");
        check(403, "InvalidClientTokenId", Signs::Broker, "own identity");
        check(403, "InvalidClientTokenId", Signs::Customer, "invalid");
        check(403, "ExpiredToken", Signs::Broker, "own identity");
        check(403, "RegionDisabledException", Signs::Customer, "region_or_permission");
        check(400, "ValidationError", Signs::Customer, "unverifiable");
        check(400, "Throttling", Signs::Customer, "unreachable");
        check(503, "ServiceUnavailable", Signs::Customer, "unreachable");
        check(403, "", Signs::Customer, "region_or_permission");
    }

    #[test]
    fn a_clock_that_is_wrong_condemns_no_key() {
        for signs in [Signs::Broker, Signs::Customer] {
            for code in ["SignatureDoesNotMatch", "InvalidSignatureException"] {
                let late =
                    "Signature expired: 20260102T030405Z is now earlier than 20260102T040405Z";
                let early = "Signature not yet current: 20260102T030405Z is still later than";
                says(403, code, late, signs, "clock");
                says(403, code, early, signs, "clock");
            }
            check(400, "RequestExpired", signs, "clock");
        }
        let wrong =
            "The request signature we calculated does not match the signature you provided.";
        says(403, "SignatureDoesNotMatch", wrong, Signs::Customer, "invalid");
    }

    #[test]
    fn the_policy_is_json_that_allows_calling_models_and_nothing_else() {
        let policy: serde_json::Value = serde_json::from_str(POLICY).unwrap();
        let actions = policy.pointer("/Statement/0/Action").unwrap().as_array().unwrap();
        assert_eq!(actions.len(), 3);
        // AWS takes 2048 characters at the most.
        assert!(POLICY.len() < 2048);
    }
}
