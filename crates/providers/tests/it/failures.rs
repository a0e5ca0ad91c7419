use domain::Failure;
use http::HeaderMap;
use providers::Answer;

use crate::{catalogue, provider};

#[track_caller]
fn check(slug: &str, status: u16, header: &str, body: &str, expected: &str) {
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = header.split_once(": ") {
        headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    let answer = Answer { status, headers: &headers, body: body.as_bytes() };
    let found = match provider(slug).failure(answer) {
        None => "none".to_owned(),
        Some(Failure::RateLimited { retry_after: Some(wait) }) => {
            format!("rate_limited {} ms", wait.as_millis())
        }
        Some(failure) => failure.to_string(),
    };
    assert_eq!(found, expected, "{slug} {status} {body}");
}

#[test]
fn a_status_means_the_same_everywhere_unless_the_provider_differs() {
    for known in catalogue().providers() {
        let slug = known.id().as_str();
        check(slug, 200, "", "{}", "none");
        check(slug, 400, "", "{}", "callers_fault");
        check(slug, 401, "", "<html>no</html>", "credential_refused");
        check(slug, 402, "", "", "no_quota");
        check(slug, 403, "", "{}", "not_allowed");
        check(slug, 404, "", "[]", "callers_fault");
        check(slug, 422, "", "{", "callers_fault");
        check(slug, 429, "", "null", "rate_limited");
        check(slug, 429, "retry-after: 7", "", "rate_limited 7000 ms");
        check(slug, 429, "retry-after-ms: 250", "", "rate_limited 250 ms");
        check(slug, 429, "retry-after: soon", "", "rate_limited");
        check(slug, 500, "", "\u{0}", "provider_trouble");
        check(slug, 529, "", "{}", "provider_trouble");
    }
}

#[test]
fn words_of_the_providers_correct_the_status() {
    let quota = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    check("openai", 429, "", quota, "no_quota");
    let limit =
        r#"{"error":{"message":"Slow down","type":"requests","code":"rate_limit_exceeded"}}"#;
    check("openai", 429, "retry-after: 1", limit, "rate_limited 1000 ms");
    let key = r#"{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"@type":"x","reason":"API_KEY_INVALID"}]}}"#;
    check("google", 400, "", key, "credential_refused");
    check("google", 400, "", &format!("[{key}]"), "credential_refused");
    let wait = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"17s"}]}}"#;
    check("google", 429, "", wait, "rate_limited 17000 ms");
    let xai = r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***bc"}"#;
    check("xai", 400, "", xai, "credential_refused");
    check("xai", 400, "", r#"{"code":"x","error":"no such field"}"#, "callers_fault");
    check("mistral", 429, "x-ratelimit-limit-req-minute: 0", "{}", "no_quota");
    check("mistral", 429, "x-ratelimit-limit-req-minute: 60", "{}", "rate_limited");
    let refused = r#"{"message":"The security token included in the request is invalid."}"#;
    let kind = "x-amzn-errortype: UnrecognizedClientException:http://internal.amazon.com/";
    check("bedrock", 403, kind, refused, "credential_refused");
    check("bedrock", 403, "x-amzn-errortype: AccessDeniedException", "{}", "not_allowed");
    let bearer = r#"{"Message":"Authentication failed: Please make sure your API Key is valid."}"#;
    check("bedrock", 403, "", bearer, "credential_refused");
    check("bedrock", 429, "x-amzn-errortype: ThrottlingException", "{}", "rate_limited");
    check("bedrock", 429, "x-amzn-errortype: ModelNotReadyException", "{}", "provider_trouble");
    check("bedrock", 400, "x-amzn-errortype: ServiceQuotaExceededException", "{}", "no_quota");
    check("bedrock", 408, "x-amzn-errortype: ModelTimeoutException", "{}", "timed_out");
    check("bedrock", 424, "x-amzn-errortype: ModelErrorException", "{}", "provider_trouble");
    check("azure", 404, "", r#"{"error":{"code":"DeploymentNotFound"}}"#, "not_allowed");
    check("openrouter", 402, "retry-after: 3", r#"{"error":{"code":402}}"#, "rate_limited 3000 ms");
    let daily = r#"{"success":false,"errors":[{"code":3036,"message":"daily"}]}"#;
    check("cloudflare", 429, "", daily, "no_quota");
    let busy = r#"{"success":false,"errors":[{"code":3040,"message":"capacity"}]}"#;
    check("cloudflare", 429, "", busy, "rate_limited");
    let route =
        r#"{"success":false,"errors":[{"code":7003,"message":"Could not route to /accounts/x"}]}"#;
    check("cloudflare", 400, "", route, "not_allowed");
    check("cohere", 498, "", "{}", "callers_fault");
}

#[test]
fn garbage_is_understood_by_its_status_alone() {
    let whole = br#"[{"error":{"code":"x","details":[{"reason":1,"retryDelay":"1e999s"}],"type":null},"errors":[{}]}]"#;
    let headers = HeaderMap::new();
    for known in catalogue().providers() {
        for end in 0..whole.len() {
            let mut body = whole[..end].to_vec();
            body.extend([0xff, 0x00]);
            let answer = Answer { status: 500, headers: &headers, body: &body };
            assert_eq!(known.failure(answer), Some(Failure::ProviderTrouble));
        }
        let answer = Answer { status: 429, headers: &headers, body: whole };
        let limited = Failure::RateLimited { retry_after: None };
        assert_eq!(known.failure(answer), Some(limited));
    }
}
