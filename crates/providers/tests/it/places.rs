//! Where calls go by what a credential says of it: a region, the formats of an own endpoint.

use domain::Dialect;
use providers::{Ask, Call, CredentialKind as Kind, NoTarget, Operation as Op, Settings};

use crate::{
    catalogue, provider,
    targets::{BEARER, KEY, check, check_native, proof, settings, shown, target},
};

#[test]
fn a_credential_that_names_a_region_goes_there() {
    let chat = |whose, url| check(whose, Op::ChatCompletions, "m", url, BEARER);
    chat(("openai", KEY, ""), "https://api.openai.com/v1/chat/completions");
    chat(("openai", KEY, "region=eu"), "https://eu.api.openai.com/v1/chat/completions");
    chat(("mistral", KEY, "region=us"), "https://api.us.mistral.ai/v1/chat/completions");
    check_native(
        ("openai", KEY, "region=jp"),
        "/v1/responses",
        "https://jp.api.openai.com/v1/responses",
    );
    for whose in [("openai", KEY, "region=mars"), ("mistral", KEY, "region=eu.evil.example/")] {
        let refused = target(whose, Call::Operation(Op::ChatCompletions), "m").unwrap_err();
        assert!(matches!(refused, NoTarget::InvalidSetting { .. }), "{refused}");
    }
    // Its test goes there, too, and what the deployment puts in a provider's place is its own.
    let eu = settings("region=eu");
    let test = provider("openai").key_test(KEY, b"sk-", &eu, None).unwrap().unwrap();
    assert_eq!(test.url, "https://eu.api.openai.com/v1/models");
    let moved =
        catalogue().with_base_url(&"openai".parse().unwrap(), "https://in.example").unwrap();
    let openai = moved.provider(&"openai".parse().unwrap()).unwrap();
    let test = openai.key_test(KEY, b"sk-", &eu, None).unwrap().unwrap();
    assert_eq!(test.url, "https://in.example/v1/models");
}

#[test]
fn an_endpoint_of_a_tenant_serves_the_formats_that_it_is_said_to() {
    let ask = |base_url, dialects: &str, kind, operation| {
        let settings = settings(dialects);
        let call = Call::Operation(operation);
        let base_url = Some(base_url);
        let ask = Ask { call, model: "m", kind, settings: &settings, base_url, streams: false };
        let target = catalogue().target("custom", &ask);
        target.map(|target| (shown(&target), proof(&target)))
    };
    let (with, without) = ("https://llm.example/v1", "https://llm.example");
    let both = "dialects=openai,anthropic";
    let messages = ("https://llm.example/v1/messages".to_owned(), "x-api-key: ".to_owned());
    for (base_url, dialects) in [(with, both), (without, both), (with, "dialects=anthropic")] {
        assert_eq!(ask(base_url, dialects, KEY, Op::Messages).unwrap(), messages, "{dialects}");
    }
    let chat = ("https://llm.example/v1/chat/completions".to_owned(), BEARER.to_owned());
    for dialects in ["", both, "dialects=openai"] {
        assert_eq!(ask(with, dialects, KEY, Op::ChatCompletions).unwrap(), chat, "{dialects}");
    }
    for (dialects, operation) in [
        ("", Op::Messages),
        ("dialects=openai", Op::CountTokens),
        ("dialects=anthropic", Op::ChatCompletions),
    ] {
        let refused = ask(with, dialects, KEY, operation).unwrap_err();
        assert!(matches!(refused, NoTarget::DialectNotServed { .. }), "{dialects}: {refused}");
    }
    let header = "dialects=anthropic header_name=x-team-key";
    let (_, sent) = ask(with, header, Kind::Header, Op::Messages).unwrap();
    assert_eq!(sent, "x-team-key: ");
    // For the choice of a credential as for the call.
    let custom = provider("custom");
    assert!(custom.serves(Dialect::Anthropic, KEY, &settings(both)));
    assert!(!custom.serves(Dialect::Anthropic, KEY, &Settings::default()));
    assert!(custom.serves(Dialect::OpenAi, KEY, &Settings::default()));
    assert!(!custom.serves(Dialect::OpenAi, KEY, &settings("dialects=anthropic")));
    assert!(provider("openai").serves(Dialect::OpenAi, KEY, &Settings::default()));
    assert!(!provider("openai").serves(Dialect::Anthropic, KEY, &Settings::default()));
}
