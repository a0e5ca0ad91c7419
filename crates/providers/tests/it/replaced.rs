//! Another model in the place of a native path's own.

use http::Method;
use providers::{Ask, Call, Catalogue, CredentialKind as Kind, NoTarget, Settings};

#[track_caller]
fn path(provider: &str, kind: Kind, settings: &[(&str, &str)], path: &str, model: &str) -> String {
    let catalogue = Catalogue::builtin().unwrap();
    let settings: Settings = settings.iter().copied().collect();
    let call = Call::Native { method: &Method::POST, path };
    let ask = Ask { call, model, kind, settings: &settings, base_url: None, streams: false };
    match catalogue.named(provider).unwrap().target(&ask) {
        Ok(target) => target.base_path + &target.path,
        Err(NoTarget::ModelNotReplaceable { .. }) => "not replaceable".to_owned(),
        Err(other) => other.to_string(),
    }
}

#[test]
fn another_model_stands_in_the_place_of_the_paths_own() {
    let google = |from: &str, model: &str| path("google", Kind::ApiKey, &[], from, model);
    let from = "/v1beta/models/a:generateContent";
    assert_eq!(google(from, "b"), "/v1beta/models/b:generateContent");
    assert_eq!(google(from, ""), from);
    assert_eq!(google("/v1/models/models:countTokens", "x"), "/v1/models/x:countTokens");
    let region = &[("region", "eu-west-1")];
    let bedrock =
        |from: &str, model: &str| path("bedrock", Kind::BedrockApiKey, region, from, model);
    assert_eq!(bedrock("/model/a%3A0/converse", "b:1"), "/model/b%3A1/converse");
    let profile = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.b";
    let written =
        "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A123456789012%3Ainference-profile%2Feu.b/invoke";
    assert_eq!(bedrock("/model/a/invoke", profile), written);
    let account = &[("account_id", "0123456789abcdef0123456789abcdef")];
    let cloudflare =
        path("cloudflare", Kind::ApiKey, account, "/ai/run/@cf/meta/a", "@cf/mistral/b-7b");
    assert!(cloudflare.ends_with("/ai/run/@cf/mistral/b-7b"), "{cloudflare}");
}

#[test]
fn what_could_lead_elsewhere_stands_in_no_path() {
    let google = |from: &str, model: &str| path("google", Kind::ApiKey, &[], from, model);
    let from = "/v1beta/models/a:generateContent";
    for model in ["..", "../b", "a/b", "a:countTokens", "a?b", "a#b", "a b", "é", &"a".repeat(300)]
    {
        assert_eq!(google(from, model), "not replaceable", "{model}");
    }
    let items = "/v1beta/models/a:batchEmbedContents";
    assert_eq!(google(items, "b"), "not replaceable");
    assert_eq!(google(items, "a"), items);
}
