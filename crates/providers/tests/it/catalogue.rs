//! What the catalogue says of each provider, compared with what the vendors' own packages do.

use domain::{Detection, Dialect, ProviderId};
use http::Method;
use providers::{CredentialKind, Framing, KeyHint, Mint, Operation, UsagePointers};

use crate::{catalogue, provider};

#[track_caller]
fn check_endpoint(slug: &str, dialect: Dialect, expected: Option<(&str, &str, &str)>) {
    let endpoint = provider(slug).endpoint(dialect);
    let found =
        endpoint.as_ref().map(|e| (&*e.base_url, e.header_name.as_str(), &*e.header_prefix));
    assert_eq!(found, expected, "{slug} {dialect:?}");
}

#[test]
fn each_dialect_has_the_address_and_header_of_its_vendor() {
    let bearer = ("authorization", "Bearer ");
    let openai = "https://api.openai.com/v1";
    check_endpoint("openai", Dialect::OpenAi, Some((openai, bearer.0, bearer.1)));
    let native = "https://api.openai.com";
    check_endpoint("openai", Dialect::Native, Some((native, bearer.0, bearer.1)));
    check_endpoint("openai", Dialect::Anthropic, None);
    let anthropic = "https://api.anthropic.com";
    check_endpoint("anthropic", Dialect::Anthropic, Some((anthropic, "x-api-key", "")));
    check_endpoint("anthropic", Dialect::Native, Some((anthropic, "x-api-key", "")));
    let compat = "https://api.anthropic.com/v1";
    check_endpoint("anthropic", Dialect::OpenAi, Some((compat, bearer.0, bearer.1)));
    check_endpoint("custom", Dialect::OpenAi, None);
}

#[test]
fn a_credential_that_needs_settings_goes_nowhere_without_them() {
    for slug in ["azure", "bedrock", "cloudflare", "vertex"] {
        for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Native] {
            check_endpoint(slug, dialect, None);
        }
    }
}

#[test]
fn a_custom_endpoint_is_where_its_credential_says() {
    let custom = provider("custom");
    assert!(custom.needs_base_url());
    let endpoint = custom.endpoint_at(Dialect::OpenAi, "https://llm.acme.example/v1/").unwrap();
    assert_eq!(endpoint.base_url, "https://llm.acme.example/v1");
    assert_eq!(endpoint.header_name.as_str(), "authorization");
    assert!(custom.endpoint_at(Dialect::Anthropic, "https://llm.acme.example").is_none());
}

#[test]
fn an_anthropic_call_without_a_version_gets_the_oldest() {
    let endpoint = provider("anthropic").endpoint(Dialect::Anthropic).unwrap();
    let extra: Vec<_> = endpoint.extra.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    assert_eq!(extra, [("anthropic-version", &b"2023-06-01"[..])]);
}

#[test]
fn another_address_moves_every_dialect_of_a_provider() {
    for url in ["http://127.0.0.1:9000", "http://127.0.0.1:9000/", "http://127.0.0.1:9000/v1"] {
        let moved = catalogue().with_base_url(&"anthropic".parse().unwrap(), url).unwrap();
        let provider = moved.provider(&"anthropic".parse().unwrap()).unwrap().clone();
        let base = |dialect| provider.endpoint(dialect).unwrap().base_url;
        assert_eq!(base(Dialect::Anthropic), "http://127.0.0.1:9000", "{url}");
        assert_eq!(base(Dialect::Native), "http://127.0.0.1:9000", "{url}");
        assert_eq!(base(Dialect::OpenAi), "http://127.0.0.1:9000/v1", "{url}");
    }
    assert!(catalogue().with_base_url(&"nobody".parse().unwrap(), "https://a").is_err());
    assert!(catalogue().with_base_url(&"openai".parse().unwrap(), "ftp://a").is_err());
    assert!(catalogue().with_base_url(&"openai".parse().unwrap(), "https://u@a").is_err());
}

#[track_caller]
fn check_model(model: &str, provider: Option<&str>) {
    let catalogue = catalogue();
    assert_eq!(catalogue.detect(model).map(ProviderId::as_str), provider, "{model}");
}

#[test]
fn models_are_known_by_their_names() {
    check_model("gpt-4o", Some("openai"));
    check_model("o3", Some("openai"));
    check_model("o4-mini", Some("openai"));
    check_model("chat-latest", Some("openai"));
    check_model("text-embedding-3-small", Some("openai"));
    check_model("ft:gpt-4o-mini:acme::abc", Some("openai"));
    check_model("claude-sonnet-4-5-20250929", Some("anthropic"));
    check_model("open-mistral-7b", Some("mistral"));
    check_model("meta-llama/llama-4", None);
    check_model("o", None);
    check_model("o3x", None);
    check_model("my-gpt-4", None);
    check_model("", None);
}

#[test]
fn every_listed_model_is_detected_as_its_providers() {
    for provider in catalogue().providers() {
        for model in provider.models() {
            let serves = match catalogue().recognize(model) {
                Detection::One { provider: found, .. } => found == *provider.id(),
                Detection::Several(all) => all.contains(provider.id()),
                Detection::Unknown => false,
            };
            assert!(serves, "{} {model}", provider.id());
        }
    }
}

#[test]
fn only_a_known_provider_is_taken_off_a_model() {
    let catalogue = catalogue();
    let split = |model| {
        let (provider, rest) = catalogue.split_model(model);
        (provider.map(|id| id.to_string()), rest)
    };
    let some = |slug: &str| Some(slug.to_owned());
    assert_eq!(split("openai/gpt-4o"), (some("openai"), "gpt-4o"));
    assert_eq!(split("claude/claude-opus-5"), (some("anthropic"), "claude-opus-5"));
    assert_eq!(split("custom/meta/llama"), (some("custom"), "meta/llama"));
    assert_eq!(split("meta-llama/llama-4"), (None, "meta-llama/llama-4"));
    assert_eq!(split("gpt-4o"), (None, "gpt-4o"));
    assert_eq!(split("OpenAI/gpt-4o"), (None, "OpenAI/gpt-4o"));
    assert_eq!(split("/gpt-4o"), (None, "/gpt-4o"));
}

#[track_caller]
fn check_native(slug: &str, method: &Method, path: &str, passes: bool) {
    let provider = provider(slug);
    let call = provider.native_call(method, path);
    assert_eq!(call.is_some(), passes, "{slug} {method} {path}");
}

#[test]
fn native_paths_reach_inference_and_nothing_else() {
    check_native("openai", &Method::POST, "/v1/chat/completions", true);
    check_native("openai", &Method::POST, "/v1/responses", true);
    check_native("openai", &Method::GET, "/v1/models/gpt-4o", true);
    check_native("anthropic", &Method::POST, "/v1/messages", true);
    check_native("anthropic", &Method::POST, "/v1/messages/count_tokens", true);
    for path in [
        "/v1/responses/resp_1",
        "/v1/files",
        "/v1/organization/users",
        "/v1/batches",
        "/v1/models/",
        "/v1/models/..",
        "/v1/models/%2e%2e",
        "/v1/models/a/b",
        "/v1/models/a%2fb",
        "/v1/models/a;b",
        "/v1/models/a\\b",
        "/v1//models",
        "/v1/models/gpt-4o/",
        "/v1/../v1/models",
        "/v1/organizations/api_keys",
        "/v1/oauth/token",
        "",
        "/",
    ] {
        check_native("openai", &Method::GET, path, false);
        check_native("openai", &Method::POST, path, false);
        check_native("anthropic", &Method::GET, path, false);
        check_native("anthropic", &Method::POST, path, false);
    }
    let openai = provider("openai");
    let call = openai.native_call(&Method::GET, "/v1/models/gpt-4o").unwrap();
    assert_eq!(call.model, Some("gpt-4o"));
    check_native("openai", &Method::DELETE, "/v1/models/gpt-4o", false);
    check_native("openai", &Method::GET, "/v1/chat/completions", false);
    check_native("anthropic", &Method::POST, "/v1/messages/batches", false);
}

#[test]
fn no_header_lets_a_caller_choose_credential_or_payer() {
    for provider in catalogue().providers() {
        for name in provider.forward_headers() {
            let name = name.as_str();
            assert!(
                !["auth", "key", "cookie", "organization", "project", "workspace", "host"]
                    .iter()
                    .any(|word| name.contains(word) && name != "idempotency-key"),
                "{} forwards {name}",
                provider.id()
            );
        }
        for name in provider.pass_back_headers() {
            assert!(!name.as_str().contains("organization"), "{} returns {name}", provider.id());
            assert_ne!(name.as_str(), "set-cookie");
        }
    }
}

#[track_caller]
fn check_hint(slug: &str, key: &str, expected: &str) {
    let provider = provider(slug);
    let hint = match provider.check_key(key.as_bytes()) {
        KeyHint::Plausible => "plausible",
        KeyHint::Unusual { .. } => "unusual",
        KeyHint::WrongKind { .. } => "wrong",
    };
    assert_eq!(hint, expected, "{slug} {key}");
}

#[test]
fn keys_of_the_wrong_kind_are_recognized() {
    check_hint("openai", "sk-proj-aaaaaaaaaaaaaaaaaaaaaaaa", "plausible");
    check_hint("openai", "sk-ant-api03-aaaaaaaaaaaaaaaaaaaaaaaa", "wrong");
    check_hint("openai", "sk-or-v1-aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "wrong");
    check_hint("openai", "sk-admin-aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "wrong");
    check_hint("openai", "something", "unusual");
    check_hint("openai", "sk-proj-aaaaaaaaaaaaaaaaaaaaaaaa\n", "unusual");
    check_hint("anthropic", "sk-ant-api03-aaaaaaaaaaaaaaaaaaaaaaaa", "plausible");
    check_hint("anthropic", "sk-ant-admin01-aaaaaaaaaaaaaaaaaaaaa", "wrong");
    check_hint("anthropic", "sk-proj-aaaaaaaaaaaaaaaaaaaaaaaa", "wrong");
    check_hint("custom", "anything goes", "plausible");
    check_hint("custom", "vk_aaaaaaaaaaaaaaaa_b", "wrong");
}

#[test]
fn nothing_that_a_caller_writes_into_a_native_path_leaves_its_segment() {
    let hostile = [
        "", ".", "..", "%2e%2e", "..%2f", "a?b", "a#b", "a;b", "a\\b", "a b", "é", "a%00",
        "a%252fb", "a//b", "@", "a/../b",
    ];
    for provider in catalogue().providers() {
        for path in provider.native_paths() {
            let parts = path.template.split(['{', '}']).skip(1).step_by(2);
            for part in parts {
                for bad in hostile {
                    let bad = path.template.replace(&format!("{{{part}}}"), bad);
                    let bad = fill_rest(&bad);
                    let call = provider.native_call(&path.method, &bad);
                    assert!(call.is_none(), "{} {bad}", provider.id());
                }
            }
        }
    }
}

fn fill_rest(template: &str) -> String {
    let names = ["model", "encoded_model", "model_path", "project", "location", "account_id"];
    names.iter().fold(template.to_owned(), |text, name| text.replace(&format!("{{{name}}}"), "m"))
}

#[test]
fn a_key_for_making_keys_is_right_where_one_is_asked_for() {
    for (slug, key) in [("openai", "sk-admin-"), ("xai", "xai-token-")] {
        let provider = provider(slug);
        let key = format!("{key}{}", "a".repeat(60));
        let admin = provider.credential_form(CredentialKind::AdminKey).unwrap();
        assert_eq!(admin.check(key.as_bytes()), KeyHint::Plausible);
        assert!(matches!(provider.check_key(key.as_bytes()), KeyHint::WrongKind { .. }));
    }
}

#[test]
fn every_usage_pointer_is_one() {
    for provider in catalogue().providers() {
        let operations = Operation::ALL.into_iter().filter_map(|one| provider.usage(one));
        for shape in operations.chain(provider.native_usage()) {
            let stream = shape.stream.iter();
            let stream = stream.flat_map(|one| one.opening.iter().chain([&one.figures]));
            let all = [&shape.answer].into_iter().chain(stream);
            for pointer in all.flat_map(UsagePointers::all) {
                assert!(pointer.starts_with('/') && !pointer.ends_with('/'), "{pointer}");
            }
        }
    }
    let opened = |slug: &str, operation| provider(slug).usage(operation).unwrap().clone();
    assert!(!opened("anthropic", Operation::Messages).input_includes_cache);
    assert!(!opened("xai", Operation::ChatCompletions).output_includes_reasoning);
    let asks = |slug| opened(slug, Operation::ChatCompletions).stream.unwrap().on_request;
    assert!(asks("openai") && asks("deepseek") && !asks("mistral") && !asks("perplexity"));
    let native = provider("bedrock").native_usage()[0].stream.clone().unwrap();
    assert_eq!(native.framing, Framing::AwsEventStream);
}

#[test]
fn tokens_are_minted_at_the_providers_own_addresses() {
    let mint = |slug: &str, kind, text: &str| {
        let settings = text.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect();
        provider(slug).minting(kind, &settings).unwrap()
    };
    let url = |slug: &str, kind, text: &str| mint(slug, kind, text).unwrap().url.unwrap();
    let id = "client_id=00000000-0000-0000-0000-000000000000";
    assert_eq!(
        url("vertex", CredentialKind::GoogleServiceAccount, "project=p location=eu"),
        "https://oauth2.googleapis.com/token"
    );
    let entra = format!("resource=r tenant_id=t.example {id}");
    assert_eq!(
        url("azure", CredentialKind::EntraClient, &entra),
        "https://login.microsoftonline.com/t.example/oauth2/v2.0/token"
    );
    let role = "region=eu-west-1 role_arn=arn:aws:iam::123456789012:role/r";
    assert_eq!(
        url("bedrock", CredentialKind::AwsRole, role),
        "https://sts.eu-west-1.amazonaws.com/"
    );
    let keys = "region=eu-west-1 access_key_id=AKIAEXAMPLEEXAMPLE00";
    let computed = mint("bedrock", CredentialKind::AwsAccessKey, keys).unwrap();
    assert_eq!(computed.how, Mint::BedrockShortTermKey);
    assert_eq!(computed.url.as_deref(), Some("https://sts.eu-west-1.amazonaws.com/"));
    assert_eq!(computed.longest_seconds, Some(43200));
    assert_eq!(mint("openai", CredentialKind::ApiKey, ""), None);
    let admin = mint("openai", CredentialKind::AdminKey, "project=proj_1 service_account=sa_1");
    assert_eq!(
        admin.unwrap().delete_url.as_deref(),
        Some("https://api.openai.com/v1/organization/projects/proj_1/api_keys/")
    );
}

#[test]
fn every_kind_that_is_minted_of_says_where_and_no_minting_is_of_a_kind_not_taken() {
    for provider in catalogue().providers() {
        for form in provider.credential_forms() {
            let known = provider.mints().iter().any(|mint| Some(mint.how) == form.mint);
            assert_eq!(known, form.mint.is_some(), "{} {}", provider.id(), form.kind);
        }
        for mint in provider.mints() {
            assert!(provider.credential_form(mint.from).is_ok(), "{}", provider.id());
        }
    }
}
