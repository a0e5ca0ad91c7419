use domain::Dialect;
use http::Method;
use providers::{
    Ask, Call, CredentialKind as Kind, NoTarget, Operation as Op, Proof, Rewrite, Settings, Target,
};

use crate::{catalogue, provider};

pub(crate) fn settings(text: &str) -> Settings {
    text.split_whitespace().map(|pair| pair.split_once('=').unwrap()).collect()
}

/// What goes where: `provider kind settings`, the call, the model.
pub(crate) fn target(
    whose: (&str, Kind, &str),
    call: Call<'_>,
    model: &str,
) -> Result<Target, NoTarget> {
    let (slug, kind, text) = whose;
    let settings = settings(text);
    let ask = Ask { call, model, kind, settings: &settings, base_url: None, streams: false };
    catalogue().target(slug, &ask)
}

pub(crate) fn shown(target: &Target) -> String {
    let query = target.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{}{}{query}", target.origin, target.base_path, target.path)
}

pub(crate) fn proof(target: &Target) -> String {
    match &target.proof {
        Proof::Header { name, prefix } => format!("{name}: {prefix}"),
        Proof::AwsSignature { service, region } => format!("{service} in {region}"),
        Proof::Nothing => "nothing".to_owned(),
    }
}

pub(crate) const BEARER: &str = "authorization: Bearer ";

#[track_caller]
pub(crate) fn check(whose: (&str, Kind, &str), op: Op, model: &str, url: &str, header: &str) {
    let target = target(whose, Call::Operation(op), model).unwrap();
    assert_eq!((&*shown(&target), &*proof(&target)), (url, header));
}

pub(crate) const KEY: Kind = Kind::ApiKey;
const PLACE: &str = "project=p-1 location=europe-west4";
const ACCOUNT: &str = "account_id=0123456789abcdef0123456789abcdef";

#[test]
fn chat_in_openais_format_goes_where_each_provider_has_it() {
    let chat = |whose, model, url, header| check(whose, Op::ChatCompletions, model, url, header);
    for (slug, url) in [
        ("openai", "https://api.openai.com/v1/chat/completions"),
        ("anthropic", "https://api.anthropic.com/v1/chat/completions"),
        ("google", "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions"),
        ("openrouter", "https://openrouter.ai/api/v1/chat/completions"),
        ("xai", "https://api.x.ai/v1/chat/completions"),
        ("vercel", "https://ai-gateway.vercel.sh/v1/chat/completions"),
        ("mistral", "https://api.mistral.ai/v1/chat/completions"),
        ("deepseek", "https://api.deepseek.com/chat/completions"),
        ("perplexity", "https://api.perplexity.ai/chat/completions"),
        ("cohere", "https://api.cohere.ai/compatibility/v1/chat/completions"),
    ] {
        chat((slug, KEY, ""), "m", url, BEARER);
    }
    let bedrock = "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1/chat/completions";
    chat(
        ("bedrock", Kind::BedrockApiKey, "region=eu-west-1"),
        "openai.gpt-oss-20b",
        bedrock,
        BEARER,
    );
    let upper = "https://my-res.openai.azure.com/openai/v1/chat/completions";
    chat(("azure", KEY, "resource=My-Res"), "my-gpt", upper, "api-key: ");
    let azure = "https://my-res.openai.azure.com/openai/v1/chat/completions";
    chat(("azure", KEY, "resource=my-res"), "my-gpt", azure, "api-key: ");
    let vertex = "https://europe-west4-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west4/endpoints/openapi/chat/completions";
    chat(("vertex", Kind::GoogleServiceAccount, PLACE), "gemini-2.5-flash", vertex, BEARER);
    let cloudflare = "https://api.cloudflare.com/client/v4/accounts/0123456789abcdef0123456789abcdef/ai/v1/chat/completions";
    chat(("cloudflare", KEY, ACCOUNT), "@cf/meta/llama", cloudflare, BEARER);
}

#[test]
fn other_operations_have_the_paths_of_each_provider() {
    let perplexity = ("perplexity", KEY, "");
    check(perplexity, Op::Responses, "m", "https://api.perplexity.ai/v1/responses", BEARER);
    check(perplexity, Op::Embeddings, "m", "https://api.perplexity.ai/v1/embeddings", BEARER);
    check(perplexity, Op::Models, "", "https://api.perplexity.ai/v1/models", BEARER);
    let vertex = ("vertex", Kind::AccessToken, "project=p location=global");
    let url = "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/openai/v1/responses";
    check(vertex, Op::Responses, "gpt-oss", url, BEARER);
    let url = "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1/responses";
    check(("bedrock", Kind::BedrockApiKey, "region=us-east-1"), Op::Responses, "m", url, BEARER);
}

#[test]
fn messages_in_anthropics_format_go_where_each_provider_has_them() {
    let messages = |whose, url, header| check(whose, Op::Messages, "claude-x", url, header);
    messages(("anthropic", KEY, ""), "https://api.anthropic.com/v1/messages", "x-api-key: ");
    messages(("deepseek", KEY, ""), "https://api.deepseek.com/anthropic/v1/messages", BEARER);
    messages(("openrouter", KEY, ""), "https://openrouter.ai/api/v1/messages", BEARER);
    messages(("xai", KEY, ""), "https://api.x.ai/v1/messages", BEARER);
    messages(("vercel", KEY, ""), "https://ai-gateway.vercel.sh/v1/messages", BEARER);
    let url = "https://my-res.services.ai.azure.com/anthropic/v1/messages";
    messages(("azure", KEY, "resource=my-res"), url, "x-api-key: ");
    let id = "00000000-0000-0000-0000-000000000000";
    let entra = format!("resource=my-res tenant_id={id} client_id={id}");
    messages(("azure", Kind::EntraClient, &*entra), url, BEARER);
    let keys = "region=eu-west-1 access_key_id=AKIDEXAMPLEEXAMPLE00";
    let keys = keys.replace("AKID", "AKIA");
    let url = "https://bedrock-runtime.eu-west-1.amazonaws.com/anthropic/v1/messages";
    messages(("bedrock", Kind::AwsAccessKey, &*keys), url, BEARER);
}

#[test]
fn claude_on_vertex_has_its_model_in_the_path() {
    let settings = settings(PLACE);
    let ask = |streams, operation, model| Ask {
        call: Call::Operation(operation),
        model,
        kind: Kind::GoogleServiceAccount,
        settings: &settings,
        base_url: None,
        streams,
    };
    let base =
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west4";
    let vertex = provider("vertex");
    for (streams, operation, model, path) in [
        (false, Op::Messages, "claude-3-haiku@20240307", "claude-3-haiku@20240307:rawPredict"),
        (true, Op::Messages, "claude-opus-5", "claude-opus-5:streamRawPredict"),
        (false, Op::CountTokens, "claude-opus-5", "count-tokens:rawPredict"),
        (false, Op::Messages, "publishers/anthropic/models/claude-5", "claude-5:rawPredict"),
        (false, Op::Messages, "../x?y", "..%2Fx%3Fy:rawPredict"),
    ] {
        let target = vertex.target(&ask(streams, operation, model)).unwrap();
        assert_eq!(shown(&target), format!("{base}/publishers/anthropic/models/{path}"));
        let version =
            Rewrite::Add { member: "anthropic_version".into(), value: "vertex-2023-10-16".into() };
        let mut expected = vec![version];
        if operation == Op::Messages {
            expected.push(Rewrite::Drop("model".into()));
        }
        assert_eq!(target.rewrites, expected);
    }
    let none = vertex.target(&ask(false, Op::Messages, "")).unwrap_err();
    assert!(matches!(none, NoTarget::MissingModel { .. }), "{none}");
}

#[test]
fn a_model_is_written_as_its_provider_wants_it() {
    let model = |slug, kind, text, model| {
        target((slug, kind, text), Call::Operation(Op::ChatCompletions), model).unwrap().model
    };
    let account = Kind::GoogleServiceAccount;
    assert_eq!(model("vertex", account, PLACE, "gemini-2.5-flash"), "google/gemini-2.5-flash");
    assert_eq!(model("vertex", account, PLACE, "meta/llama-maas"), "meta/llama-maas");
    assert_eq!(
        model("vertex", account, PLACE, "publishers/google/models/gemini-2.5-flash"),
        "google/gemini-2.5-flash"
    );
    assert_eq!(model("google", KEY, "", "models/gemini-2.5-flash"), "gemini-2.5-flash");
    assert_eq!(model("openai", KEY, "", "gpt-4o"), "gpt-4o");
    assert_eq!(model("azure", KEY, "resource=r deployment=mine", "gpt-4o"), "mine");
    assert_eq!(model("azure", KEY, "resource=r", "gpt-4o"), "gpt-4o");
}

#[test]
fn azures_older_paths_have_deployment_and_version() {
    let classic = "resource=r api_version=2024-10-21";
    let url = "https://r.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    check(("azure", KEY, classic), Op::ChatCompletions, "gpt-4o", url, "api-key: ");
    let fixed = "resource=r api_version=2024-10-21 deployment=mine";
    let url =
        "https://r.openai.azure.com/openai/deployments/mine/embeddings?api-version=2024-10-21";
    check(("azure", KEY, fixed), Op::Embeddings, "gpt-4o", url, "api-key: ");
    // What has no older path goes where it always does, without the version.
    let now = "https://r.openai.azure.com/openai/v1";
    for (settings, operation, path) in [
        (classic, Op::Responses, "/responses"),
        (fixed, Op::Responses, "/responses"),
        (classic, Op::Models, "/models"),
    ] {
        let url = format!("{now}{path}");
        check(("azure", KEY, settings), operation, "gpt-4o", &url, "api-key: ");
    }
    let missing = target(("azure", KEY, classic), Call::Operation(Op::Embeddings), "").unwrap_err();
    assert_eq!(
        missing.to_string(),
        "name a model: azure needs one for this call; a model there is the name of a deployment"
    );
}

#[track_caller]
pub(crate) fn check_native(whose: (&str, Kind, &str), path: &str, url: &str) {
    let call = Call::Native { method: &Method::POST, path };
    let target = target(whose, call, "").unwrap();
    assert_eq!(shown(&target), url);
}

#[test]
fn native_calls_go_where_the_credential_says_whatever_their_path_says() {
    let google = "https://generativelanguage.googleapis.com";
    for path in [
        "/v1/models/gemini-2.5-flash:generateContent",
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        "/v1beta/models/text-embedding-004:embedContent",
    ] {
        check_native(("google", KEY, ""), path, &format!("{google}{path}"));
    }
    let account = ("vertex", Kind::GoogleServiceAccount, PLACE);
    let base =
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west4";
    let tail = "/publishers/google/models/gemini-2.5-flash:generateContent";
    for path in [
        format!("/v1{tail}"),
        format!("/v1/projects/p-1/locations/europe-west4{tail}"),
        format!("/v1/projects/someone-else/locations/us-central1{tail}"),
    ] {
        check_native(account, &path, &format!("{base}{tail}"));
    }
    let express = format!("https://aiplatform.googleapis.com/v1{tail}");
    check_native(("vertex", KEY, ""), &format!("/v1{tail}"), &express);
    let other = "/client/v4/accounts/ffffffffffffffffffffffffffffffff/ai/run/@cf/meta/llama-3";
    let own = "https://api.cloudflare.com/client/v4/accounts/0123456789abcdef0123456789abcdef/ai/run/@cf/meta/llama-3";
    check_native(("cloudflare", KEY, ACCOUNT), other, own);
    check_native(("cloudflare", KEY, ACCOUNT), "/ai/run/@cf/meta/llama-3", own);
    check_native(("cohere", KEY, ""), "/v2/chat", "https://api.cohere.com/v2/chat");
}

#[test]
fn a_model_of_bedrock_is_one_segment_of_the_path() {
    let whose = ("bedrock", Kind::BedrockApiKey, "region=eu-west-1");
    let host = "https://bedrock-runtime.eu-west-1.amazonaws.com";
    for (written, sent) in [
        ("eu.amazon.nova-lite-v1:0", "eu.amazon.nova-lite-v1%3A0"),
        ("eu.amazon.nova-lite-v1%3A0", "eu.amazon.nova-lite-v1%3A0"),
        (
            "arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Ainference-profile%2Feu.x",
            "arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Ainference-profile%2Feu.x",
        ),
    ] {
        for verb in ["converse", "converse-stream", "invoke", "invoke-with-response-stream"] {
            let url = format!("{host}/model/{sent}/{verb}");
            check_native(whose, &format!("/model/{written}/{verb}"), &url);
        }
    }
    let bedrock = provider("bedrock");
    let path = "/model/arn%3Aaws%3Abedrock%2Fx/converse";
    let call = bedrock.native_call(&Method::POST, path).unwrap();
    assert_eq!(call.model_name().as_deref(), Some("arn:aws:bedrock/x"));
    for path in [
        "/model/a%2e%2e/converse",
        "/model/%2F/converse",
        "/model/../converse",
        "/model/a/b/converse",
        "/model/a/delete",
    ] {
        assert!(bedrock.native_call(&Method::POST, path).is_none(), "{path}");
    }
}

#[test]
fn mistrals_strict_schema_is_met_and_usage_is_asked_for_where_it_must_be() {
    let settings = Settings::default();
    let ask = Ask {
        call: Call::Operation(Op::ChatCompletions),
        model: "m",
        kind: KEY,
        settings: &settings,
        base_url: None,
        streams: true,
    };
    let rewrites = |slug: &str| catalogue().target(slug, &ask).unwrap().rewrites;
    let mistral = rewrites("mistral");
    assert!(mistral.contains(&Rewrite::Drop("stream_options".into())));
    assert!(mistral.contains(&Rewrite::Rename { from: "seed".into(), to: "random_seed".into() }));
    assert!(!mistral.contains(&Rewrite::AskForUsage));
    assert_eq!(rewrites("openai"), [Rewrite::AskForUsage]);
    assert_eq!(rewrites("perplexity"), []);
    let plain = catalogue().target("openai", &Ask { streams: false, ..ask }).unwrap();
    assert_eq!(plain.rewrites, []);
}

#[test]
fn who_pays_is_said_by_the_credential() {
    let whose = ("openai", KEY, "organization=org-1 project=proj_1");
    let target = target(whose, Call::Operation(Op::ChatCompletions), "m").unwrap();
    let headers: Vec<_> =
        target.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
    assert_eq!(headers, [("openai-organization", "org-1"), ("openai-project", "proj_1")]);
}

#[test]
fn a_custom_endpoint_has_its_own_address_and_header() {
    let settings = settings("header_name=x-api-key");
    let call = Call::Operation(Op::ChatCompletions);
    let ask = Ask {
        call,
        model: "m",
        kind: Kind::Header,
        settings: &settings,
        base_url: Some("https://llm.acme.example/v1/"),
        streams: false,
    };
    let target = catalogue().target("custom", &ask).unwrap();
    assert_eq!(shown(&target), "https://llm.acme.example/v1/chat/completions");
    assert_eq!(target.origin.as_str(), "https://llm.acme.example");
    assert_eq!(proof(&target), "x-api-key: ");
    let nothing = Ask { kind: Kind::None, settings: &Settings::default(), ..ask.clone() };
    assert_eq!(catalogue().target("custom", &nothing).unwrap().proof, Proof::Nothing);
    let none = catalogue().target("custom", &Ask { base_url: None, ..ask.clone() }).unwrap_err();
    assert!(matches!(none, NoTarget::MissingAddress { .. }), "{none}");
    let bad = Ask { base_url: Some("https://user@host"), ..ask };
    let bad = catalogue().target("custom", &bad).unwrap_err();
    assert!(matches!(bad, NoTarget::InvalidAddress { .. }), "{bad}");
}

#[track_caller]
fn check_refused(whose: (&str, Kind, &str), op: Op, starts: &str) {
    let error = target(whose, Call::Operation(op), "m").unwrap_err().to_string();
    assert!(error.starts_with(starts), "{error}");
}

#[test]
fn what_is_missing_or_wrong_is_said_with_what_to_change() {
    let chat = Op::ChatCompletions;
    check_refused(
        ("nobody", KEY, ""),
        chat,
        "no provider is called `nobody`; there are anthropic, azure,",
    );
    check_refused(
        ("bedrock", Kind::BedrockApiKey, ""),
        chat,
        "the credential for bedrock lacks the setting `region`: the AWS region",
    );
    check_refused(
        ("vertex", Kind::GoogleServiceAccount, "project=p"),
        chat,
        "the credential for vertex lacks the setting `location`",
    );
    check_refused(
        ("azure", KEY, ""),
        chat,
        "the credential for azure lacks the setting `resource`",
    );
    check_refused(
        ("cloudflare", KEY, ""),
        chat,
        "the credential for cloudflare lacks the setting `account_id`",
    );
    check_refused(
        ("bedrock", KEY, "region=eu-west-1"),
        chat,
        "bedrock takes no credential of kind api_key; it takes bedrock_api_key, aws_access_key, aws_role",
    );
    check_refused(
        ("openai", Kind::AwsAccessKey, ""),
        chat,
        "openai takes no credential of kind aws_access_key",
    );
    check_refused(
        ("openai", KEY, "resource=x"),
        chat,
        "a credential of kind api_key for openai has no setting `resource`; it may have organization, project, region",
    );
    check_refused(
        ("openai", KEY, ""),
        Op::Messages,
        "openai does not serve the format `anthropic`; it serves native, openai",
    );
    check_refused(
        ("anthropic", KEY, ""),
        Op::Embeddings,
        "anthropic does not serve embeddings in this format; it serves chat completions",
    );
}

#[test]
fn a_setting_cannot_move_a_call_to_another_host_or_path() {
    let chat = Op::ChatCompletions;
    for (slug, kind, text) in [
        ("bedrock", Kind::BedrockApiKey, "region=evil.example/"),
        ("bedrock", Kind::BedrockApiKey, "region=eu-west-1.evil.example"),
        ("azure", KEY, "resource=a.evil.example"),
        ("azure", KEY, "resource=a/b"),
        ("vertex", Kind::AccessToken, "project=p location=evil.example"),
        ("vertex", Kind::AccessToken, "project=a/b location=eu"),
        ("cloudflare", KEY, "account_id=../../x"),
        ("custom", Kind::Header, "header_name=host"),
        ("bedrock", Kind::AwsAccessKey, "region=eu-west-1 access_key_id=ASIAEXAMPLEEXAMPLE00"),
    ] {
        check_refused((slug, kind, text), chat, "the setting `");
    }
}

#[test]
fn every_template_is_filled_for_every_kind_of_credential() {
    let values = "region=eu-west-1 project=proj_1 location=eu resource=r account_id=0123456789abcdef0123456789abcdef \
         access_key_id=AKIAEXAMPLEEXAMPLE00 role_arn=arn:aws:iam::123456789012:role/r header_name=x-api-key \
         tenant_id=t client_id=00000000-0000-0000-0000-000000000000 service_account=user-1 team_id=t-1";
    let all = settings(values);
    for provider in catalogue().providers() {
        for form in provider.credential_forms() {
            let given = form.requires.iter().map(|name| (name.clone(), all.get(name).unwrap()));
            let settings: Settings = given.collect();
            let own = provider.needs_base_url().then_some("https://llm.acme.example");
            for operation in Op::ALL {
                let ask = Ask {
                    call: Call::Operation(operation),
                    model: "m",
                    kind: form.kind,
                    settings: &settings,
                    base_url: own,
                    streams: true,
                };
                let served = provider.operations(operation.dialect()).any(|one| one == operation)
                    && provider.serves(operation.dialect(), form.kind, &settings);
                let target = provider.target(&ask);
                assert_eq!(target.is_ok(), served, "{} {operation:?}: {target:?}", provider.id());
                let Ok(target) = target else { continue };
                assert!(!shown(&target).contains(['{', '}']), "{}", shown(&target));
                assert!(target.origin.as_str().starts_with("https://"));
            }
            let test = provider.key_test(form.kind, b"secret", &settings, own).unwrap();
            if let Some(test) = test {
                assert!(!test.url.contains(['{', '}', ' ']) && test.url.starts_with("https://"));
            }
        }
        assert!(provider.dialects().any(|dialect| dialect == Dialect::OpenAi), "{}", provider.id());
    }
}

#[test]
fn a_deployment_may_put_another_address_in_the_place_of_a_providers() {
    let whose = settings("region=eu-west-1");
    let ask = Ask {
        call: Call::Operation(Op::Messages),
        model: "m",
        kind: Kind::BedrockApiKey,
        settings: &whose,
        base_url: None,
        streams: false,
    };
    let moved =
        catalogue().with_base_url(&"bedrock".parse().unwrap(), "http://127.0.0.1:80/x").unwrap();
    let target = moved.target("bedrock", &ask).unwrap();
    assert_eq!(shown(&target), "http://127.0.0.1/x/anthropic/v1/messages");
    let test = moved.find("aws").unwrap().key_test(Kind::BedrockApiKey, b"", &whose, None).unwrap();
    assert_eq!(test.unwrap().url, "http://127.0.0.1:80/x/v1/models");
}
