use std::time::Duration;

use bytes::Bytes;
use domain::{Dialect, Secret};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT},
};
use providers::{Provider, Target};
use zeroize::Zeroizing;

use crate::{Loan, body::Frames, refusal::Refusal};

/// Builds the request to a provider. Of what the caller sent only the body and a list of headers go
/// on; where it goes is what the catalogue makes of the lease.
pub(crate) fn outgoing(
    method: Method,
    url: Uri,
    inbound: &HeaderMap,
    provider: &Provider,
    target: &Target,
    body: Frames,
) -> Request<Frames> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = url;
    let headers = request.headers_mut();
    headers.reserve(12);
    for name in FORWARD.iter().chain(provider.forward_headers()) {
        for value in inbound.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    for (name, value) in &target.defaults {
        if !headers.contains_key(name) {
            headers.insert(name, value.clone());
        }
    }
    // Who pays is the credential's to say, whatever the caller sent.
    for (name, value) in &target.headers {
        headers.insert(name, value.clone());
    }
    // What was read as JSON goes on as JSON, whatever the caller calls it: another decoding could
    // find another model in it.
    if request.method() == Method::POST {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("strongroom"));
    // What is compressed cannot be searched for the secret, and is not handed on.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    request
}

/// The target's address with those parts of the caller's query that are known.
pub(crate) fn url(
    target: &Target,
    provider: &Provider,
    is_native: bool,
    query: Option<&str>,
) -> Result<Uri, Refusal> {
    let mut text = format!("{}{}{}", target.origin, target.base_path, target.path);
    let mut separator = '?';
    let own = target.query.as_deref().unwrap_or_default();
    let callers = query.unwrap_or_default().split('&').filter(|part| {
        let name = part.split('=').next().unwrap_or_default();
        let is_taken = own.split('&').any(|part| part.split('=').next() == Some(name));
        let is_known = if is_native {
            PAGES.contains(&name) || provider.forward_query().iter().any(|known| known == name)
        } else {
            name == BETA && provider.speaks() == Dialect::Anthropic
        };
        is_known && !is_taken && is_plain(part)
    });
    for part in Some(own).filter(|own| !own.is_empty()).into_iter().chain(callers) {
        text.push(separator);
        text.push_str(part);
        separator = '&';
    }
    Uri::from_maybe_shared(Bytes::from(text)).map_err(|_| unusable("its address"))
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

/// A credential that cannot be used as it is stored.
pub(crate) fn unusable(what: &str) -> Refusal {
    let message = format!(
        "the credential stored for the provider cannot be used, because of {what}: ask whoever keeps \
         it to store it anew"
    );
    Refusal::new(StatusCode::FAILED_DEPENDENCY, "credential_unusable", message).and_final()
}

/// Whether a part of a query has a value that means nothing but itself.
fn is_plain(part: &str) -> bool {
    let Some((_, value)) = part.split_once('=') else { return false };
    (1..=128).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// What Anthropic's SDK writes behind the paths of its newest features.
const BETA: &str = "beta";

/// Parts of queries of lists, which are much the same everywhere.
const PAGES: [&str; 4] = ["limit", "after_id", "before_id", BETA];

/// How long a wait the caller is told when nothing better is known.
pub(crate) const SHORT_WAIT: Duration = Duration::from_secs(1);

const FORWARD: [HeaderName; 2] = [ACCEPT, IDEMPOTENCY_KEY];

/// Names a request to the provider. Two tenants on one credential must not name each other's.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[cfg(test)]
mod tests {
    use providers::{Ask, Call, Catalogue, CredentialKind, Operation, Settings};

    use super::*;

    #[track_caller]
    fn check(provider: &str, call: Call<'_>, query: &str, expected: &str) {
        let catalogue = Catalogue::builtin().unwrap();
        let provider = catalogue.named(provider).unwrap();
        let settings = Settings::from_iter([("resource", "r"), ("api_version", "2024-10-21")]);
        let settings =
            if provider.id().as_str() == "azure" { settings } else { Settings::default() };
        let ask = Ask {
            call,
            model: "m",
            kind: CredentialKind::ApiKey,
            settings: &settings,
            base_url: Some("https://a"),
            streams: false,
        };
        let target = provider.target(&ask).unwrap();
        let is_native = matches!(call, Call::Native { .. });
        assert_eq!(url(&target, provider, is_native, Some(query)).unwrap(), expected);
    }

    #[test]
    fn of_a_query_only_known_and_plain_parts_go_on() {
        let query = "key=sk-1&limit=20&after_id=m_1&base_url=http://evil&limit=%0d&beta=true&x";
        let list = Call::Native { method: &Method::GET, path: "/v1/models" };
        let expected = "https://a/v1/models?limit=20&after_id=m_1&beta=true";
        check("anthropic", list, query, expected);
        let messages = Call::Operation(Operation::Messages);
        check("anthropic", messages, query, "https://a/v1/messages?beta=true");
        check("deepseek", messages, query, "https://a/anthropic/v1/messages");
        let path = "/v1beta/models/m:streamGenerateContent";
        let stream = Call::Native { method: &Method::POST, path };
        let expected = format!("https://a{path}?alt=sse");
        check("google", stream, "alt=sse&key=vk_1&alt=%20", &expected);
    }

    #[test]
    fn a_caller_cannot_change_the_query_that_a_credential_says() {
        let chat = Call::Operation(Operation::ChatCompletions);
        let expected = "https://a/openai/deployments/m/chat/completions?api-version=2024-10-21";
        check("azure", chat, "api-version=2099-01-01", expected);
    }
}
