use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::sign::{Signable, signed};
use crate::{
    AwsKeys, ExchangeError, Token, answer::sendable, encode::percent_encode, token::Asked,
};

/// A short-term key of Bedrock: a presigned request in base64, computed without a call. Whoever holds
/// it can read the access key's id and the session token in it, and never the secret.
pub(super) fn key(
    keys: &AwsKeys,
    region: &str,
    asked: Asked,
    lifetime: Duration,
) -> Result<Token, ExchangeError> {
    let request = Signable {
        url: &format!("https://{PLACE}"),
        headers: &[],
        body: b"",
        region,
        service: "bedrock",
        at: asked.at,
        presigned_for: Some(lifetime),
    };
    let (_, mut params) = signed(&request, keys)?.into_parts();
    // The signature covers the parameters whatever their order; this one is what everybody makes.
    params.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name));
    let mut text = PLACE.to_owned();
    for (name, value) in &params {
        text.extend(["&", name, "="]);
        percent_encode(&mut text, value);
    }
    text.push_str("&Version=1");
    let key = format!("bedrock-api-key-{}", BASE64_STANDARD.encode(text));
    Ok(Token::new(sendable(key)?, asked, lifetime))
}

const PLACE: &str = "bedrock.amazonaws.com/?Action=CallWithBearerToken";
const ORDER: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
];

#[cfg(test)]
mod tests {
    use domain::{Secret, Timestamp};

    use super::*;

    #[track_caller]
    fn check(id: &str, session: Option<&str>, region: &str, seconds: u64, expected: &str) {
        let keys = AwsKeys {
            access_key_id: id.to_owned(),
            secret_access_key: Secret::new(b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec()),
            session_token: session.map(|token| Secret::new(token.as_bytes().to_vec())),
        };
        // 2026-01-02T03:04:05Z
        let at = Timestamp::from_millis(1_767_323_045_000);
        let asked = Asked { at, elapsed: Duration::ZERO };
        let token = key(&keys, region, asked, Duration::from_secs(seconds)).unwrap();
        assert_eq!(std::str::from_utf8(token.secret().expose()).unwrap(), expected);
        assert_eq!(token.expires_at(), at + Duration::from_secs(seconds));
    }

    #[test]
    fn keys_are_those_of_the_published_vectors() {
        check("AKIDEXAMPLE", None, "us-east-1", 43200, VECTOR_1);
        check("ASIAEXAMPLE", Some("SESSION/TOKEN+EXAMPLE=="), "eu-west-1", 900, VECTOR_2);
    }

    const VECTOR_1: &str = "\
        bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29tLz9BY3Rpb249Q2FsbFdpdGhCZWFyZXJUb2tl\
        biZYLUFtei1BbGdvcml0aG09QVdTNC1ITUFDLVNIQTI1NiZYLUFtei1DcmVkZW50aWFsPUFLSURFWEFN\
        UExFJTJGMjAyNjAxMDIlMkZ1cy1lYXN0LTElMkZiZWRyb2NrJTJGYXdzNF9yZXF1ZXN0JlgtQW16LURh\
        dGU9MjAyNjAxMDJUMDMwNDA1WiZYLUFtei1FeHBpcmVzPTQzMjAwJlgtQW16LVNpZ25lZEhlYWRlcnM9\
        aG9zdCZYLUFtei1TaWduYXR1cmU9YTdlNjBkMDA4YmIyYjNlNTNjNTdmNGIyNTY2ZTlkNWI1ZmM1OWI2\
        YjU2YTRhNTUyYzZhYTBkMGZlZTc5YjU3ZCZWZXJzaW9uPTE=";
    const VECTOR_2: &str = "\
        bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29tLz9BY3Rpb249Q2FsbFdpdGhCZWFyZXJUb2tl\
        biZYLUFtei1BbGdvcml0aG09QVdTNC1ITUFDLVNIQTI1NiZYLUFtei1DcmVkZW50aWFsPUFTSUFFWEFN\
        UExFJTJGMjAyNjAxMDIlMkZldS13ZXN0LTElMkZiZWRyb2NrJTJGYXdzNF9yZXF1ZXN0JlgtQW16LURh\
        dGU9MjAyNjAxMDJUMDMwNDA1WiZYLUFtei1FeHBpcmVzPTkwMCZYLUFtei1TaWduZWRIZWFkZXJzPWhv\
        c3QmWC1BbXotU2VjdXJpdHktVG9rZW49U0VTU0lPTiUyRlRPS0VOJTJCRVhBTVBMRSUzRCUzRCZYLUFt\
        ei1TaWduYXR1cmU9YzI1ZDgyNmRhZGM3YjBmNDBmYzVkYTBjYjJkOTNkOGY1M2E0OTdjMDJjNTgwMzdk\
        YThkNTljYzkzYzc1NWUyZSZWZXJzaW9uPTE=";
}
