use std::time::Duration;

use bytes::Bytes;
use domain::{Dialect, Secret};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
    uri::PathAndQuery,
};
use providers::Provider;
use zeroize::Zeroizing;

use crate::{Loan, body::Frames, refusal::Refusal};

/// Builds the request to a provider. Of what the caller sent only the body and a list of headers go
/// on; where it goes is the lease's address and a path from a fixed list.
pub(crate) fn outgoing(
    method: Method,
    url: Uri,
    inbound: &HeaderMap,
    provider: Option<&Provider>,
    dialect: Dialect,
    body: Frames,
) -> Request<Frames> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = url;
    let headers = request.headers_mut();
    headers.reserve(12);
    let forward = provider.map(Provider::forward_headers).unwrap_or_default();
    for name in FORWARD.iter().chain(forward) {
        for value in inbound.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    let extra = provider.map(|provider| provider.extra_headers(dialect)).unwrap_or_default();
    for (name, value) in extra {
        if !headers.contains_key(name) {
            headers.insert(name, value.clone());
        }
    }
    // What was read as JSON goes on as JSON, whatever the caller calls it: another decoding could
    // find another model in it.
    if request.method() == Method::POST {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("strongroom"));
    request
}

/// The lease's address with a path behind it and those parts of the query that are known.
pub(crate) fn url(base: &Uri, path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let prefix = base.path().trim_end_matches('/');
    let mut text = String::with_capacity(prefix.len() + path.len());
    text.push_str(prefix);
    text.push_str(path);
    let mut separator = '?';
    for part in query.unwrap_or_default().split('&').filter(|part| is_known_query(part)) {
        text.push(separator);
        text.push_str(part);
        separator = '&';
    }
    let mut parts = base.clone().into_parts();
    parts.path_and_query = PathAndQuery::from_maybe_shared(Bytes::from(text)).ok();
    Uri::from_parts(parts).map_err(|_| unusable("its address"))
}

/// The header that carries the secret, in one buffer that is wiped when the last user drops it.
pub(crate) fn secret_header(
    loan: &dyn Loan,
    secret: &Secret,
) -> Result<(HeaderName, HeaderValue), Refusal> {
    let prefix = loan.header_prefix().as_bytes();
    let mut text = Zeroizing::new(Vec::with_capacity(prefix.len() + secret.len()));
    text.extend_from_slice(prefix);
    text.extend_from_slice(secret.expose());
    let bytes = Bytes::from_owner(Wiped(text));
    let value = HeaderValue::from_maybe_shared(bytes).map_err(|_| unusable("the secret itself"))?;
    let mut value = value;
    // HTTP/2 then keeps it out of the compression table.
    value.set_sensitive(true);
    Ok((loan.header_name().clone(), value))
}

struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn unusable(what: &str) -> Refusal {
    let message = format!(
        "the credential stored for the provider cannot be used, because of {what}: ask whoever keeps \
         it to store it anew"
    );
    Refusal::new(StatusCode::FAILED_DEPENDENCY, "credential_unusable", message).and_final()
}

fn is_known_query(part: &str) -> bool {
    let Some((name, value)) = part.split_once('=') else { return false };
    matches!(name, "limit" | "after_id" | "before_id" | "beta")
        && (1..=128).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// How long a wait the caller is told when nothing better is known.
pub(crate) const SHORT_WAIT: Duration = Duration::from_secs(1);

const FORWARD: [HeaderName; 2] = [ACCEPT, IDEMPOTENCY_KEY];

/// Names a request to the provider. Two tenants on one credential must not name each other's.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, path: &str, query: Option<&str>, expected: &str) {
        assert_eq!(url(&base.parse().unwrap(), path, query).unwrap(), expected);
    }

    #[test]
    fn a_url_is_the_leases_address_and_a_path() {
        let base = "https://api.openai.com/v1";
        check(base, "/chat/completions", None, "https://api.openai.com/v1/chat/completions");
        check(
            "https://api.anthropic.com",
            "/v1/messages",
            None,
            "https://api.anthropic.com/v1/messages",
        );
        check("http://127.0.0.1:9/x/", "/y", None, "http://127.0.0.1:9/x/y");
    }

    #[test]
    fn of_a_query_only_known_and_plain_parts_go_on() {
        let query = "key=sk-1&limit=20&after_id=m_1&base_url=http://evil&limit=%0d&beta=true&x";
        check(
            "https://a",
            "/v1/models",
            Some(query),
            "https://a/v1/models?limit=20&after_id=m_1&beta=true",
        );
    }
}
