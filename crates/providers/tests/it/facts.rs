//! The catalogue against the facts that it is built from: `data/facts.json` says of each provider what the
//! vendors' own packages and pages said in November 2026, one provider a line, and is written by nobody who
//! writes the catalogue. Where the two differ on purpose, it stands here with the reason.

use http::Method;
use providers::{Ask, Call, CredentialKind as Kind, Operation as Op, Proof, Settings, Target};
use serde_json::Value;

use crate::{catalogue, provider};

fn facts() -> Vec<Value> {
    serde_json::from_str(include_str!("../data/facts.json")).unwrap()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let all = value.pointer(pointer).and_then(Value::as_array);
    all.into_iter().flatten().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn members<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let all = value.pointer(pointer).and_then(Value::as_object);
    all.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// The usual credential of a provider.
fn usual(slug: &str) -> (Kind, &'static str) {
    match slug {
        "azure" => (Kind::ApiKey, "resource=res"),
        "bedrock" => (Kind::BedrockApiKey, "region=eu-west-1"),
        "cloudflare" => (Kind::ApiKey, "account_id=00112233445566778899aabbccddeeff"),
        "custom" => (Kind::ApiKey, "dialects=openai,anthropic"),
        "vertex" => (Kind::GoogleServiceAccount, "project=p-1 location=europe-west4"),
        _ => (Kind::ApiKey, ""),
    }
}

fn settings(text: &str) -> Settings {
    text.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect()
}

/// An address of the facts with that credential's settings in it.
fn filled(template: &str) -> String {
    [
        ("{account_id}", "00112233445566778899aabbccddeeff"),
        ("{base_url}", OWN),
        ("{deployment}", "m1"),
        ("{endpoint}", "https://res.openai.azure.com"),
        ("{host}", "europe-west4-aiplatform.googleapis.com"),
        ("{location}", "europe-west4"),
        ("{model}", "m1"),
        ("{modelId}", "m1"),
        ("{project}", "p-1"),
        ("{region}", "eu-west-1"),
        ("{resource}", "res"),
        ("YYYY-MM-DD[-preview]", "2024-10-21"),
        ("=…", "=2024-10-21"),
    ]
    .iter()
    .fold(template.to_owned(), |text, (from, to)| text.replace(from, to))
}

const OWN: &str = "https://llm.example";

fn target(slug: &str, more: &str, call: Call<'_>, streams: bool) -> Result<Target, String> {
    let (kind, usual) = usual(slug);
    let settings = settings(&format!("{usual} {more}"));
    let base_url = (slug == "custom").then_some(OWN);
    let model = if matches!(call, Call::Native { .. }) { "" } else { "m1" };
    let ask = Ask { call, model, kind, settings: &settings, base_url, streams };
    catalogue().target(slug, &ask).map_err(|error| error.to_string())
}

fn shown(target: &Target) -> String {
    let query = target.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{}{}{query}", target.origin, target.base_path, target.path)
}

/// What is called by one of the facts' words for a path, and whether as a stream.
fn operation(surface: &str, word: &str) -> Option<(Op, bool)> {
    Some(match (surface, word) {
        ("anthropic", "messages") => (Op::Messages, false),
        ("anthropic", "messages_stream") => (Op::Messages, true),
        ("anthropic", "count_tokens") => (Op::CountTokens, false),
        ("openai" | "openai_classic", "chat") => (Op::ChatCompletions, false),
        ("openai" | "openai_classic", "embeddings") => (Op::Embeddings, false),
        ("openai", "models") => (Op::Models, false),
        ("openai" | "openai_responses", "responses") => (Op::Responses, false),
        _ => return None,
    })
}

/// What the facts know of and the catalogue leaves out.
const NOT_SERVED: [(&str, &str, &str); 5] = [
    // The list is of the vendor's own API and in no format that others share.
    ("anthropic", "anthropic", "models"),
    ("bedrock", "anthropic", "models"),
    // Other names of models, on a host of its own.
    ("bedrock", "openai_mantle", ""),
    // Fill in the middle, which is neither vendor's format; Mistral's is a call of its own API.
    ("deepseek", "openai", "fim"),
    ("vertex", "mistral", ""),
];

/// The header in which the secret goes in calls of this surface, with what stands in front.
fn header(facts: &Value, surface: &str) -> (String, String) {
    let own = format!("{}_send", if surface == "anthropic" { "anthropic" } else { "openai" });
    let credentials = facts["credentials"].as_array().unwrap();
    let credential = credentials.get(usual_at(text(facts, "/slug"))).unwrap();
    if text(facts, &format!("/surfaces/{surface}/auth")).starts_with("Authorization: Bearer") {
        return ("authorization".to_owned(), "Bearer ".to_owned());
    }
    let speaks = surface.starts_with("openai") || surface == "anthropic";
    let sends = credential.get(&own).filter(|_| speaks).unwrap_or(&credential["send"]);
    let format = text(sends, "/0/format");
    let prefix = format.split('{').next().unwrap_or_default();
    (text(sends, "/0/header").to_owned(), prefix.to_owned())
}

/// Where the facts have the usual credential.
fn usual_at(slug: &str) -> usize {
    if slug == "bedrock" { 2 } else { 0 }
}

/// Compares the addresses and headers of calls.
fn of_calls(facts: &Value) -> Vec<String> {
    let slug = text(facts, "/slug");
    let mut apart = Vec::new();
    for (surface, of_surface) in members(facts, "/surfaces") {
        let base = filled(text(of_surface, "/base"));
        for (word, path) in members(of_surface, "/paths") {
            let left_out = |one: &&(&str, &str, &str)| {
                one.0 == slug && one.1 == surface && (one.2.is_empty() || one.2 == word)
            };
            if NOT_SERVED.iter().any(|one| left_out(&one)) {
                continue;
            }
            for version in ["v1", "v1beta"] {
                let path = path.as_str().unwrap().replace("{v1|v1beta}", version);
                let url = format!("{base}{}", filled(&path));
                let found = match operation(surface, word) {
                    Some((operation, streams)) => {
                        let dated = surface == "openai_classic";
                        let more = if dated { "api_version=2024-10-21" } else { "" };
                        target(slug, more, Call::Operation(operation), streams)
                    }
                    None => native(slug, word, &url),
                };
                // A query that chooses the form of a stream is the caller's.
                let url = url.strip_suffix("?alt=sse").unwrap_or(&url);
                match found {
                    Ok(found) => {
                        if shown(&found) != url {
                            apart.push(format!("{slug} {surface} {word}: {}", shown(&found)));
                        }
                        let sent = match &found.proof {
                            Proof::Header { name, prefix } => (name.to_string(), prefix.clone()),
                            Proof::AwsSignature { .. } | Proof::Nothing => {
                                (String::new(), String::new())
                            }
                        };
                        if slug != "custom" && sent != header(facts, surface) {
                            apart.push(format!("{slug} {surface} {word}: {sent:?}"));
                        }
                    }
                    Err(error) => apart.push(format!("{slug} {surface} {word}: {error}")),
                }
            }
        }
    }
    apart
}

fn native(slug: &str, word: &str, url: &str) -> Result<Target, String> {
    let method = if word == "models" { Method::GET } else { Method::POST };
    let after = url.split_once("://").unwrap().1;
    let path = &after[after.find('/').unwrap()..];
    let path = path.split('?').next().unwrap();
    target(slug, "", Call::Native { method: &method, path }, false)
}

/// The kinds of credentials that are taken, by the facts' words, and which field is the secret.
fn kind(slug: &str, word: &str) -> Option<(Kind, &'static str)> {
    Some(match (slug, word) {
        (_, "api_key") if slug == "bedrock" => return None,
        (_, "api_key" | "api_key_express") => (Kind::ApiKey, "api_key"),
        ("cloudflare", "api_token") => (Kind::ApiKey, "api_token"),
        ("openai", "admin_key_minting") => (Kind::AdminKey, "admin_api_key"),
        ("openrouter" | "xai", "management_key") => (Kind::AdminKey, "management_key"),
        ("vertex", "service_account_json") => (Kind::GoogleServiceAccount, "json"),
        ("vertex", "access_token") => (Kind::AccessToken, "access_token"),
        ("bedrock", "bedrock_api_key") => (Kind::BedrockApiKey, "api_key"),
        ("bedrock", "aws_access_key") => (Kind::AwsAccessKey, "secret_access_key"),
        ("bedrock", "assume_role") => (Kind::AwsRole, "external_id"),
        ("azure", "entra_client_credentials") => (Kind::EntraClient, "client_secret"),
        ("custom", "header") => (Kind::Header, "value"),
        ("custom", "none") => (Kind::None, ""),
        // Identities of workloads are of the customer's machines, not of a broker's; an operator's own
        // account is a credential of the platform.
        _ => return None,
    })
}

/// Where a pattern is another one: what is stored must last, and a longer key is no other kind of key.
const OTHER_PATTERNS: [(&str, &str); 5] = [
    ("azure", "tenant_id"),
    ("bedrock", "access_key_id"),
    ("bedrock", "api_key"),
    ("bedrock", "external_id"),
    ("bedrock", "role_arn"),
];

/// Compares the kinds of credentials and the forms of secrets and settings.
fn of_credentials(facts: &Value, file: &toml::Value) -> Vec<String> {
    let slug = text(facts, "/slug");
    let mut apart = Vec::new();
    let forms = file.get("credentials").and_then(toml::Value::as_array).unwrap();
    for credential in facts["credentials"].as_array().unwrap() {
        let Some((kind, secret)) = kind(slug, text(credential, "/kind")) else { continue };
        let form = forms.iter().find(|form| form["kind"].as_str() == Some(kind.as_str()));
        let Some(form) = form else {
            apart.push(format!("{slug} takes no {kind}"));
            continue;
        };
        for (field, pattern) in members(credential, "/patterns") {
            let ours = if field == secret { Some(form) } else { file["settings"].get(field) };
            let ours = ours.and_then(|ours| ours.get("pattern")).and_then(toml::Value::as_str);
            let theirs = pattern.as_str().unwrap().replace("\\d", "[0-9]");
            let other = OTHER_PATTERNS.contains(&(slug, field));
            if ours.is_none() || (ours != Some(&*theirs)) != other {
                apart.push(format!("{slug} {field}: {ours:?}"));
            }
        }
        let wrong = file
            .get("key")
            .and_then(|key| key.get("wrong"))
            .and_then(toml::Value::as_array)
            .unwrap();
        for prefix in texts(credential, "/reject_prefixes") {
            let ours = |one: &toml::Value| {
                one["prefix"].as_str().is_some_and(|ours| prefix.starts_with(ours))
            };
            if !wrong.iter().any(ours) {
                apart.push(format!("{slug}: {prefix} is no wrong key"));
            }
        }
    }
    apart
}

/// Compares the requests that test a key.
fn of_key_tests(facts: &Value) -> Vec<String> {
    let slug = text(facts, "/slug");
    let test = &facts["key_test"];
    // Each as kind, settings, how the secret begins, and what is asked for.
    let asked: Vec<(Kind, &str, &str, String)> = match slug {
        "bedrock" => {
            let url = |at: usize| format!("/variants/{at}");
            let ask = |at| {
                let (method, place) = (url(at) + "/method", url(at) + "/url");
                format!("{} {}", text(test, &method), filled(text(test, &place)))
            };
            let user = "region=eu-west-1 access_key_id=AKIAEXAMPLEEXAMPLE00";
            let key = "region=eu-west-1";
            vec![(Kind::AwsAccessKey, user, "", ask(0)), (Kind::BedrockApiKey, key, "", ask(2))]
        }
        "cloudflare" => {
            let (account, user) = text(test, "/url").split_once(" (cfat_) or ").unwrap();
            let ask = |url: &str| format!("GET {}", filled(url));
            let (kind, settings) = usual(slug);
            let user = user.split(' ').next().unwrap();
            vec![
                (kind, settings, "cfat_", ask(account)),
                (kind, settings, "cfut_", ask(user)),
                (kind, settings, "", ask(user)),
            ]
        }
        "vertex" => {
            // The facts say: minting proves the key, then the tokens of a word are counted.
            assert!(
                text(test, "/url").contains("then POST {gemini base}/models/{model}:countTokens")
            );
            let base = filled(text(facts, "/surfaces/gemini/base"));
            let (kind, settings) = usual(slug);
            vec![(kind, settings, "", format!("POST {base}/models/gemini-2.5-flash:countTokens"))]
        }
        _ => {
            let (kind, settings) = usual(slug);
            let url = filled(text(test, "/url"));
            vec![(kind, settings, "", format!("{} {url}", text(test, "/method")))]
        }
    };
    let differs = |(kind, named, secret, expected): (Kind, &str, &str, String)| {
        let base_url = (slug == "custom").then_some(OWN);
        let test = provider(slug).key_test(kind, secret.as_bytes(), &settings(named), base_url);
        let test = test.unwrap().unwrap();
        let found = format!("{} {}", test.method, test.url);
        (found != expected).then(|| format!("{slug} {kind}: {found}, not {expected}"))
    };
    asked.into_iter().filter_map(differs).collect()
}

/// What is neither taken from callers nor given to them: with the first they would choose who pays or be
/// somebody else, the others name the account that pays.
const WITHHELD: [&str; 6] = [
    "anthropic-organization-id",
    "anthropic-user-profile-id",
    "anthropic-workspace-id",
    "cf-aig-authorization",
    "openai-organization",
    "openai-project",
];

/// Compares the headers that go on and come back, and a provider's names.
fn of_headers(facts: &Value) -> Vec<String> {
    let slug = text(facts, "/slug");
    let ours = provider(slug);
    let forward: Vec<_> = ours.forward_headers().iter().map(http::HeaderName::as_str).collect();
    let back: Vec<_> = ours.pass_back_headers().iter().map(http::HeaderName::as_str).collect();
    let mut apart = Vec::new();
    for (pointer, ours) in
        [("/headers/forward", &forward), ("/headers/pass_back", &back), ("/rate_limit", &back)]
    {
        for name in texts(facts, pointer) {
            let name = name.split(' ').next().unwrap();
            if ours.contains(&name) == WITHHELD.contains(&name) {
                apart.push(format!("{slug} {pointer}: {name}"));
            }
        }
    }
    let known = |alias: &String| catalogue().named(alias).is_some_and(|one| one.id() == ours.id());
    let strange = texts(facts, "/aliases").into_iter().filter(|alias| !known(alias));
    apart.extend(strange.map(|alias| format!("{slug} is not called {alias}")));
    apart
}

/// Compares the addresses for credentials that name a region.
fn of_regions(facts: &Value) -> Vec<String> {
    let slug = text(facts, "/slug");
    let models = texts(facts, "/surfaces/openai/regional_bases").into_iter().filter_map(|base| {
        let host = base.split("://").nth(1).unwrap();
        let label = |word: &&str| word.len() == 2;
        let region = host.split(['.', '/']).find(|word| label(word) && *word != "ai").unwrap();
        let call = Call::Operation(Op::ChatCompletions);
        let found = target(slug, &format!("region={region}"), call, false);
        let found = found.map_or_else(|error| error, |found| shown(&found));
        (found != format!("{base}/chat/completions")).then(|| format!("{slug} {region}: {found}"))
    });
    models.collect()
}

fn all(facts: &Value) -> Vec<String> {
    let slug = text(facts, "/slug");
    let path = format!("{}/data/{slug}.toml", env!("CARGO_MANIFEST_DIR"));
    let file: toml::Value = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut apart = of_calls(facts);
    apart.extend(of_credentials(facts, &file));
    apart.extend(of_key_tests(facts));
    apart.extend(of_headers(facts));
    apart.extend(of_regions(facts));
    apart
}

#[test]
fn the_catalogue_says_what_the_facts_say() {
    let facts = facts();
    assert_eq!(facts.len(), catalogue().providers().len());
    let apart: Vec<String> = facts.iter().flat_map(all).collect();
    assert!(apart.is_empty(), "{apart:#?}");
}

#[test]
fn every_kind_of_fact_that_is_changed_is_found() {
    let facts = facts();
    for (slug, pointer, value) in [
        ("openai", "/surfaces/openai/base", "https://api.openai.example/v1"),
        ("vertex", "/surfaces/anthropic/paths/messages_stream", "/models/{model}:rawPredict"),
        ("bedrock", "/surfaces/converse/paths/invoke", "/model/{modelId}/call"),
        ("google", "/credentials/0/send/0/header", "authorization"),
        ("anthropic", "/credentials/0/send/0/header", "api-key"),
        ("mistral", "/credentials/0/patterns/api_key", "^m-[a-z]+$"),
        ("anthropic", "/credentials/0/reject_prefixes/0", "gsk_"),
        ("cohere", "/key_test/method", "GET"),
        ("cloudflare", "/key_test/url", "https://a (cfat_) or https://b (cfut_)"),
        ("openai", "/headers/forward/0", "openai-gamma"),
        ("xai", "/rate_limit/0", "x-other"),
        ("bedrock", "/aliases/0", "gcp"),
        ("openai", "/surfaces/openai/regional_bases/1", "https://eu.openai.com/v1"),
    ] {
        let mut changed = facts.iter().find(|one| text(one, "/slug") == slug).unwrap().clone();
        assert_eq!(all(&changed), Vec::<String>::new(), "{slug}");
        *changed.pointer_mut(pointer).unwrap() = Value::from(value);
        assert!(!all(&changed).is_empty(), "{slug} {pointer}");
    }
}
