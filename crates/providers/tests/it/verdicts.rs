use http::HeaderMap;
use providers::{Answer, CredentialKind as Kind, Proof, Settings, Verdict};

use crate::{catalogue, provider};

/// Kind of credential and how its secret begins, status, a header, body, verdict.
type Row = (Kind, &'static str, u16, &'static str, &'static str, Verdict);

const KEY: Kind = Kind::ApiKey;

#[track_caller]
fn check(slug: &str, rows: &[Row]) {
    for (kind, secret, status, header, body, expected) in rows {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header.split_once(": ") {
            headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let answer = Answer { status: *status, headers: &headers, body: body.as_bytes() };
        let found = provider(slug).verdict(*kind, secret.as_bytes(), answer);
        assert_eq!(found, *expected, "{slug} {kind} {status} {header} {body}");
    }
}

use Verdict::{
    Invalid, NoModelAccess, NoQuota, RegionOrPermission, Unreachable, Unverifiable, Valid,
    WrongKind,
};

const HTML: &str = "<!doctype html><title>Attention required</title>";

#[test]
fn openai() {
    check(
        "openai",
        &[
            (KEY, "sk-", 200, "", r#"{"object":"list","data":[]}"#, Valid),
            (KEY, "sk-", 200, "", HTML, Unverifiable),
            (KEY, "sk-", 401, "", r#"{"error":{"code":"invalid_api_key"}}"#, Invalid),
            (KEY, "sk-", 401, "", r#"{"error":{"code":"ip_not_authorized"}}"#, RegionOrPermission),
            (
                KEY,
                "sk-",
                401,
                "",
                r#"{"error":{"code":null,"message":"You must be a member of an organization to use the API"}}"#,
                RegionOrPermission,
            ),
            (KEY, "sk-", 403, "", r#"{"error":{"code":"missing_scope"}}"#, RegionOrPermission),
            (KEY, "sk-", 429, "", r#"{"error":{"type":"insufficient_quota"}}"#, NoQuota),
            (KEY, "sk-", 429, "", r#"{"error":{"code":"rate_limit_exceeded"}}"#, Valid),
            (KEY, "sk-", 429, "", HTML, Unverifiable),
            (Kind::AdminKey, "sk-admin-", 401, "", "{}", RegionOrPermission),
        ],
    );
}

#[test]
fn anthropic() {
    let cors = r#"{"type":"error","error":{"type":"authentication_error","message":"CORS requests are not allowed for this Organization"}}"#;
    check(
        "anthropic",
        &[
            (KEY, "", 200, "", r#"{"data":[],"has_more":true}"#, Valid),
            (
                KEY,
                "",
                401,
                "",
                r#"{"error":{"type":"authentication_error","message":"invalid x-api-key"}}"#,
                Invalid,
            ),
            (KEY, "", 401, "", cors, Unverifiable),
            (
                KEY,
                "",
                401,
                "",
                r#"{"error":{"type":"authentication_error","message":"This organization has been disabled."}}"#,
                RegionOrPermission,
            ),
            (KEY, "", 402, "", r#"{"error":{"type":"billing_error"}}"#, NoQuota),
            (KEY, "", 403, "", r#"{"error":{"type":"permission_error"}}"#, RegionOrPermission),
            (KEY, "", 404, "", r#"{"error":{"type":"not_found_error"}}"#, Invalid),
            (KEY, "", 404, "", HTML, Unverifiable),
            (KEY, "", 400, "", r#"{"error":{"type":"invalid_request_error"}}"#, NoQuota),
            (KEY, "", 429, "retry-after: 3", r#"{"error":{"type":"rate_limit_error"}}"#, Valid),
            (KEY, "", 429, "", r#"{"error":{"type":"rate_limit_error"}}"#, NoQuota),
            (KEY, "", 529, "", r#"{"error":{"type":"overloaded_error"}}"#, Unreachable),
        ],
    );
}

const API_KEY_INVALID: &str = r#"{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}"#;
const EXHAUSTED: &str = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}"#;

#[test]
fn google() {
    check(
        "google",
        &[
            (KEY, "AIza", 200, "", r#"{"models":[]}"#, Valid),
            (KEY, "AIza", 400, "", API_KEY_INVALID, Invalid),
            (KEY, "AIza", 400, "", r#"{"error":{"status":"INVALID_ARGUMENT"}}"#, Unverifiable),
            (KEY, "AQ.", 401, "", UNAUTHENTICATED, RegionOrPermission),
            (
                KEY,
                "AQ.",
                401,
                "",
                r#"{"error":{"status":"UNAUTHENTICATED","details":[{"reason":"ACCESS_TOKEN_TYPE_UNSUPPORTED"}]}}"#,
                Invalid,
            ),
            (KEY, "AQ.", 402, "", "{}", NoQuota),
            (
                KEY,
                "AQ.",
                403,
                "",
                r#"{"error":{"status":"PERMISSION_DENIED"}}"#,
                RegionOrPermission,
            ),
            (KEY, "AQ.", 429, "", EXHAUSTED, NoQuota),
        ],
    );
}

#[test]
fn vertex() {
    let account = Kind::GoogleServiceAccount;
    check(
        "vertex",
        &[
            (account, "{", 200, "", r#"{"totalTokens":1}"#, Valid),
            // Its key has made the token, so it is not the key that is refused.
            (account, "{", 401, "", UNAUTHENTICATED, RegionOrPermission),
            (
                account,
                "{",
                403,
                "",
                r#"{"error":{"status":"PERMISSION_DENIED","details":[{"reason":"SERVICE_DISABLED"}]}}"#,
                RegionOrPermission,
            ),
            (account, "{", 404, "", r#"{"error":{"status":"NOT_FOUND"}}"#, NoModelAccess),
            (account, "{", 429, "", EXHAUSTED, Valid),
            (KEY, "AIza", 400, "", API_KEY_INVALID, Invalid),
            (KEY, "AIza", 404, "", r#"{"error":{"status":"NOT_FOUND"}}"#, NoModelAccess),
            (KEY, "AIza", 401, "", UNAUTHENTICATED, RegionOrPermission),
            (Kind::AccessToken, "ya29.", 401, "", UNAUTHENTICATED, Invalid),
        ],
    );
}

const UNAUTHENTICATED: &str = r#"{"error":{"code":401,"status":"UNAUTHENTICATED"}}"#;

#[test]
fn bedrock() {
    let (aws, key) = (Kind::AwsAccessKey, Kind::BedrockApiKey);
    let identity = r#"<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult/></GetCallerIdentityResponse>"#;
    let token = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidClientTokenId</Code><Message>The security token included in the request is invalid.</Message></Error></ErrorResponse>";
    let signature =
        "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>";
    let late = "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>Signature expired: 20260102T030405Z is now earlier than 20260102T040405Z</Message></Error></ErrorResponse>";
    let early = "<ErrorResponse><Error><Code>InvalidSignatureException</Code><Message>Signature not yet current: 20260102T050405Z is still later than</Message></Error></ErrorResponse>";
    let expired = "<ErrorResponse><Error><Code>RequestExpired</Code></Error></ErrorResponse>";
    let denied = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
    check(
        "bedrock",
        &[
            (aws, "", 200, "", identity, Valid),
            (aws, "", 200, "", HTML, Unverifiable),
            (aws, "", 403, "", token, Invalid),
            (aws, "", 403, "", signature, Invalid),
            (aws, "", 403, "", late, Unverifiable),
            (aws, "", 403, "", early, Unverifiable),
            (aws, "", 400, "", expired, Unverifiable),
            (aws, "", 403, "", denied, RegionOrPermission),
            (aws, "", 403, "x-amzn-errortype: UnrecognizedClientException", "{}", Invalid),
            (key, "ABSK", 200, "", r#"{"data":[]}"#, Valid),
            (
                key,
                "ABSK",
                401,
                "",
                r#"{"error":{"code":"invalid_api_key","message":"Invalid bearer token"}}"#,
                Invalid,
            ),
            (
                key,
                "ABSK",
                403,
                "",
                r#"{"Message":"Authentication failed: Please make sure your API Key is valid."}"#,
                RegionOrPermission,
            ),
            (
                key,
                "ABSK",
                403,
                "x-amzn-errortype: AccessDeniedException",
                r#"{"message":"Invalid API Key format: Must start with pre-defined prefix"}"#,
                RegionOrPermission,
            ),
            (
                key,
                "ABSK",
                403,
                "x-amzn-errortype: AccessDeniedException",
                r#"{"message":"not authorized"}"#,
                RegionOrPermission,
            ),
            (key, "ABSK", 429, "x-amzn-errortype: ThrottlingException", "{}", Unverifiable),
            (Kind::AwsRole, "", 403, "", denied, RegionOrPermission),
            (Kind::AwsRole, "", 403, "x-amzn-errortype: ExpiredTokenException", "{}", Invalid),
        ],
    );
}

#[test]
fn azure() {
    let entra = Kind::EntraClient;
    check(
        "azure",
        &[
            (KEY, "", 200, "", r#"{"data":[]}"#, Valid),
            (
                KEY,
                "",
                401,
                "",
                r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}"#,
                Invalid,
            ),
            (KEY, "", 401, "", r#"{"error":{"code":"PermissionDenied"}}"#, RegionOrPermission),
            (KEY, "", 403, "", r#"{"error":{"code":"403"}}"#, RegionOrPermission),
            (KEY, "", 404, "", r#"{"error":{"code":"404"}}"#, Unverifiable),
            (KEY, "", 429, "", "{}", Unverifiable),
            (entra, "", 200, "", r#"{"data":[]}"#, Valid),
            (
                entra,
                "",
                401,
                "",
                r#"{"error":{"code":"PermissionDenied","message":"The principal lacks the required data action"}}"#,
                RegionOrPermission,
            ),
        ],
    );
}

#[test]
fn openrouter() {
    let key = r#"{"data":{"label":"x","is_management_key":false,"limit_remaining":null}}"#;
    let spent = r#"{"data":{"is_management_key":false,"limit_remaining":0}}"#;
    let manages = r#"{"data":{"is_management_key":true}}"#;
    check(
        "openrouter",
        &[
            (KEY, "", 200, "", key, Valid),
            (KEY, "", 200, "", spent, NoQuota),
            (KEY, "", 200, "", manages, WrongKind),
            (KEY, "", 401, "", r#"{"error":{"code":401}}"#, Invalid),
            (KEY, "", 402, "", r#"{"error":{"code":402}}"#, NoQuota),
            (KEY, "", 403, "", r#"{"error":{"code":403}}"#, RegionOrPermission),
            (KEY, "", 429, "", "{}", Unverifiable),
            (Kind::AdminKey, "", 200, "", manages, Valid),
            (Kind::AdminKey, "", 200, "", key, WrongKind),
        ],
    );
}

#[test]
fn xai() {
    check(
        "xai",
        &[
            (
                KEY,
                "",
                200,
                "",
                r#"{"team_blocked":false,"api_key_blocked":false,"api_key_disabled":false}"#,
                Valid,
            ),
            (
                KEY,
                "",
                200,
                "",
                r#"{"team_blocked":true,"api_key_disabled":false}"#,
                RegionOrPermission,
            ),
            (KEY, "", 200, "", r#"{"api_key_blocked":true}"#, Invalid),
            (KEY, "", 200, "", r#"{"api_key_disabled":true}"#, Invalid),
            (
                KEY,
                "",
                400,
                "",
                r#"{"code":"x","error":"Incorrect API key provided: xa***yz."}"#,
                Invalid,
            ),
            (KEY, "", 400, "", r#"{"code":"x","error":"Bad header"}"#, Unverifiable),
            (KEY, "", 401, "", "{}", Unverifiable),
            (KEY, "", 403, "", "{}", RegionOrPermission),
        ],
    );
}

#[test]
fn vercel() {
    check(
        "vercel",
        &[
            (KEY, "", 200, "", r#"{"balance":"95.50","total_used":"4.50"}"#, Valid),
            (KEY, "", 200, "", r#"{"balance":"0","total_used":"4.50"}"#, NoQuota),
            (KEY, "", 401, "", r#"{"error":{"type":"authentication_error"}}"#, Invalid),
            (KEY, "", 402, "", "{}", NoQuota),
            (KEY, "", 429, "", r#"{"error":{"type":"rate_limit_exceeded"}}"#, Unverifiable),
        ],
    );
}

#[test]
fn mistral() {
    check(
        "mistral",
        &[
            (KEY, "", 200, "", r#"{"data":[]}"#, Valid),
            (KEY, "", 401, "", r#"{"detail":"Unauthorized"}"#, Invalid),
            (KEY, "", 402, "", "{}", NoQuota),
            (KEY, "", 403, "", "{}", RegionOrPermission),
            (KEY, "", 429, "x-ratelimit-limit-req-minute: 0", "{}", NoQuota),
            (KEY, "", 429, "x-ratelimit-limit-req-minute: 60", "{}", Unverifiable),
        ],
    );
}

#[test]
fn deepseek() {
    check(
        "deepseek",
        &[
            (KEY, "", 200, "", r#"{"is_available":true,"balance_infos":[]}"#, Valid),
            (KEY, "", 200, "", r#"{"is_available":false}"#, NoQuota),
            (
                KEY,
                "",
                401,
                "",
                r#"{"error":{"message":"Authentication Fails, Your api key: ****abcd is invalid","type":"authentication_error"}}"#,
                Invalid,
            ),
            (KEY, "", 402, "", r#"{"error":{"message":"Insufficient Balance"}}"#, NoQuota),
            (KEY, "", 503, "", "{}", Unreachable),
        ],
    );
}

#[test]
fn perplexity() {
    check(
        "perplexity",
        &[
            (KEY, "", 200, "", r#"{"requests":[]}"#, Valid),
            (KEY, "", 401, "", r#"{"error":{"type":"invalid_api_key","code":401}}"#, Invalid),
            (KEY, "", 401, "", HTML, Unverifiable),
            (KEY, "", 429, "", "{}", Unverifiable),
        ],
    );
}

#[test]
fn cohere() {
    check(
        "cohere",
        &[
            (KEY, "", 200, "", r#"{"valid":true,"organization_id":"o"}"#, Valid),
            (KEY, "", 200, "", r#"{"valid":false}"#, Invalid),
            (KEY, "", 200, "", "{}", Unverifiable),
            (KEY, "", 401, "", r#"{"message":"invalid api token"}"#, Invalid),
            (KEY, "", 402, "", "{}", NoQuota),
            (KEY, "", 403, "", HTML, RegionOrPermission),
            (KEY, "", 498, "", "{}", RegionOrPermission),
            (KEY, "", 429, "", "{}", Unverifiable),
        ],
    );
}

#[test]
fn cloudflare() {
    let active = r#"{"success":true,"result":{"id":"i","status":"active"}}"#;
    let expired = r#"{"success":true,"result":{"status":"expired"}}"#;
    let account = r#"{"success":false,"errors":[{"code":7003,"message":"Could not route to /client/v4/accounts/x"}]}"#;
    let permission =
        r#"{"success":false,"errors":[{"code":10000,"message":"Authentication error"}]}"#;
    let unknown = r#"{"success":false,"errors":[{"code":1000,"message":"Invalid API Token"}]}"#;
    let mut rows = vec![(KEY, "cfat_x", 400, "", account, RegionOrPermission)];
    for secret in ["cfat_x", "cfut_x", "abc"] {
        rows.extend([
            (KEY, secret, 200, "", active, Valid),
            (KEY, secret, 200, "", expired, Invalid),
            (KEY, secret, 200, "", r#"{"success":true}"#, Unverifiable),
            (KEY, secret, 401, "", unknown, Invalid),
            (KEY, secret, 401, "", permission, RegionOrPermission),
            (KEY, secret, 403, "", "{}", RegionOrPermission),
        ]);
    }
    check("cloudflare", &rows);
}

#[test]
fn a_custom_endpoint_never_proves_that_it_looks_at_the_key() {
    check(
        "custom",
        &[
            (KEY, "", 200, "", r#"{"data":[]}"#, Unverifiable),
            (KEY, "", 401, "", r#"{"error":{"message":"no such key"}}"#, Invalid),
            (KEY, "", 401, "", r#"{"error":"Unauthorized"}"#, Invalid),
            (KEY, "", 401, "", r#"{"detail":"Unauthorized"}"#, Invalid),
            (KEY, "", 401, "", "{}", RegionOrPermission),
            (KEY, "", 404, "", "{}", Unverifiable),
            (KEY, "", 502, "", HTML, Unreachable),
        ],
    );
}

#[test]
fn what_nobody_knows_proves_nothing() {
    for known in catalogue().providers() {
        let slug = known.id().as_str();
        let kind = known.credential_forms()[0].kind;
        for status in [301, 302, 307, 404, 409, 418] {
            let found = said_of(slug, kind, status, "{}");
            assert!(matches!(found, Unverifiable | NoModelAccess), "{slug} {status} {found:?}");
        }
        for status in [500, 502, 503, 504, 529] {
            assert_eq!(said_of(slug, kind, status, "{}"), Unreachable, "{slug} {status}");
        }
    }
}

#[test]
fn what_stands_in_front_of_a_provider_condemns_no_key() {
    for known in catalogue().providers() {
        let slug = known.id().as_str();
        for form in known.credential_forms() {
            for status in [200, 400, 401, 403, 404, 429] {
                for body in [HTML, "", "{}", "Unauthorized"] {
                    let found = said_of(slug, form.kind, status, body);
                    assert!(!found.is_confirmed_bad(), "{slug} {} {status} {body}", form.kind);
                }
            }
        }
    }
}

fn said_of(slug: &str, kind: Kind, status: u16, body: &str) -> Verdict {
    let headers = HeaderMap::new();
    let answer = Answer { status, headers: &headers, body: body.as_bytes() };
    provider(slug).verdict(kind, b"", answer)
}

#[test]
fn a_key_is_never_tested_where_anyone_is_answered() {
    let settings: Settings =
        [("region", "eu-west-1"), ("project", "p"), ("location", "eu")].into_iter().collect();
    let public = [
        "https://openrouter.ai/api/v1/models",
        "https://ai-gateway.vercel.sh/v1/models",
        "https://api.perplexity.ai/v1/models",
    ];
    for slug in ["openrouter", "vercel", "perplexity"] {
        let test = provider(slug).key_test(KEY, b"x", &Settings::default(), None).unwrap().unwrap();
        assert!(!public.contains(&&*test.url), "{}", test.url);
        assert!(matches!(test.proof, Proof::Header { .. }));
    }
    let keyed: Settings = settings
        .iter()
        .filter(|(name, _)| *name == "region")
        .chain([("access_key_id", "AKIAEXAMPLEEXAMPLE00")])
        .collect();
    let test =
        provider("bedrock").key_test(Kind::AwsAccessKey, b"x", &keyed, None).unwrap().unwrap();
    assert_eq!(test.url, "https://sts.eu-west-1.amazonaws.com/");
    let signed = Proof::AwsSignature { service: "sts".into(), region: "eu-west-1".into() };
    assert_eq!(test.proof, signed);
}

#[test]
fn a_verdict_holds_nothing_of_an_answer_and_only_proof_disables() {
    // It is a plain word: there is no room in it for a body.
    assert_eq!(size_of::<Verdict>(), 1);
    for verdict in Verdict::ALL {
        assert_eq!(verdict.is_confirmed_bad(), matches!(verdict, Invalid | WrongKind));
        assert!(!verdict.as_str().is_empty() && verdict.to_string().len() > 20);
    }
}
