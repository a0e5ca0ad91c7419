use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, request::Parts};
use serde_json::Value;

use super::{
    refusal::Wrong,
    table::{Facts, Format, Route},
};

/// What a call that is in order asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) format: Format,
    pub(super) model: String,
    pub(super) models: &'static [&'static str],
    pub(super) query: String,
    pub(super) body: Value,
}

/// Finds out what a call asks for, or what is wrong with it; in this order: path, proof, the rest.
pub(super) fn check(
    facts: &'static Facts,
    head: &Parts,
    body: &[u8],
) -> Result<Asked, (Option<Format>, Wrong)> {
    let path = head.uri.path();
    let mut fits = facts.routes.iter().filter(|route| route.method == head.method.as_str());
    let found = fits.find_map(|route| Some((route, model_in(route.path, path)?)));
    let (route, named) = found.ok_or_else(|| (None, Wrong::Path(path.to_owned())))?;
    let refuse = |wrong| (Some(route.format), wrong);

    proof(facts.key, route, &head.headers).map_err(refuse)?;
    let query = head.uri.query().unwrap_or_default();
    if !route.query.contains(&query) {
        return Err(refuse(Wrong::Query(query.to_owned())));
    }
    version(route, &head.headers).map_err(refuse)?;
    let body = members(route, body).map_err(refuse)?;
    let in_body = body.get("model").and_then(Value::as_str).unwrap_or_default();
    let model = named.unwrap_or_else(|| in_body.to_owned());
    let names_a_model = !matches!(route.format, Format::Models | Format::Account);
    if names_a_model && !route.models.contains(&&*model) {
        return Err(refuse(Wrong::Model(model)));
    }
    let query = query.to_owned();
    Ok(Asked { format: route.format, model, models: route.models, query, body })
}

/// The model that a path names, if the path fits; `Some(None)` when it fits and names none.
#[expect(clippy::option_option, reason = "whether it fits, and what it names")]
fn model_in(template: &str, path: &str) -> Option<Option<String>> {
    let Some((before, after)) = template.split_once("{model}") else {
        return (template == path).then_some(None);
    };
    let model = path.strip_prefix(before)?.strip_suffix(after)?;
    // Cloudflare's models have slashes that stay as they are; of all others they are escaped.
    let one = !model.is_empty() && (model.starts_with("@cf/") || !model.contains('/'));
    one.then(|| Some(model.replace("%3A", ":").replace("%2F", "/").replace("%40", "@")))
}

/// The key must be there in one of the ways that the route takes. Any other proof beside it is
/// somebody else's, so it counts as a wrong one.
fn proof(key: &str, route: &Route, headers: &HeaderMap) -> Result<(), Wrong> {
    let mut found = false;
    for name in PROOFS {
        for value in headers.get_all(*name) {
            let ways = route.proof.iter().filter(|(header, _)| header == name);
            let given = value.to_str().unwrap_or_default();
            let right = |(_, prefix): &(&str, &str)| {
                given.strip_prefix(prefix).is_some_and(|given| given == key || is_made(key, given))
            };
            if !ways.into_iter().any(right) {
                return Err(Wrong::Proof { header: name, given: given.to_owned() });
            }
            found = true;
        }
    }
    let missing = || Wrong::Proof { header: "none", given: String::new() };
    if found { Ok(()) } else { Err(missing()) }
}

/// Whether it is a key that was computed of an access key, in the place of a key of Bedrock that lives
/// long: a signed request in base64.
fn is_made(key: &str, given: &str) -> bool {
    let made = given.strip_prefix("bedrock-api-key-").filter(|_| key.starts_with("ABSK"));
    let made = made.and_then(|text| BASE64_STANDARD.decode(text).ok());
    let text = made.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    text.starts_with("bedrock.amazonaws.com/?Action=CallWithBearerToken&")
        && ["X-Amz-Credential=", "X-Amz-Expires=3600", "X-Amz-Signature="]
            .iter()
            .all(|part| text.contains(part))
}

fn version(route: &Route, headers: &HeaderMap) -> Result<(), Wrong> {
    let Some((name, values)) = route.needs else { return Ok(()) };
    let given = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wrong = || Wrong::Header { name, given: given.to_owned() };
    if values.contains(&given) { Ok(()) } else { Err(wrong()) }
}

fn members(route: &Route, body: &[u8]) -> Result<Value, Wrong> {
    if route.method == "GET" || route.format == Format::Account {
        return Ok(Value::Null);
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(members) = body.as_object() else { return Err(Wrong::Body("no JSON object")) };
    let needs: &[&str] = match route.format {
        Format::Chat | Format::Cohere => &["model", "messages"],
        Format::Embeddings | Format::Responses => &["model", "input"],
        Format::Messages => &["model", "max_tokens", "messages"],
        // The version stands in the body and the model in the path, on clouds.
        Format::Invoke | Format::InvokeStream => &["anthropic_version", "max_tokens", "messages"],
        Format::VertexMessages | Format::VertexMessagesStream => {
            &["anthropic_version", "max_tokens", "messages"]
        }
        Format::Converse | Format::ConverseStream => &["messages"],
        Format::Gemini | Format::GeminiStream => &["contents"],
        Format::WorkersAi | Format::Models | Format::Account => &[],
    };
    if let Some(missing) = needs.iter().find(|name| !members.contains_key(**name)) {
        return Err(Wrong::Missing(missing));
    }
    let model_apart = needs.contains(&"anthropic_version");
    let refused = |name: &&String| {
        let unknown = !route.members.is_empty() && !route.members.contains(&name.as_str());
        unknown || (model_apart && *name == "model")
    };
    match members.keys().find(refused) {
        Some(name) => Err(Wrong::Unknown(name.clone())),
        None => Ok(body),
    }
}

/// All headers that prove something to some provider.
const PROOFS: &[&str] = &[
    "api-key",
    "authorization",
    "cf-aig-authorization",
    "cookie",
    "ocp-apim-subscription-key",
    "proxy-authorization",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-email",
    "x-auth-key",
    "x-goog-api-key",
];
