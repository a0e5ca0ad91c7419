//! The models that a virtual key is told that it reaches, and what it is told about the way of a call: both
//! are what routing decides.

use domain::{Dialect, OnMissing, Scope, TenantId, VirtualKey};
use proptest::{prelude::*, test_runner::TestCaseError};
use strongroom_proto::v1::{self, Source};

use super::{
    Fixture, caller,
    policies::{Policy, World, credential, over_all_worlds},
};
use crate::{core::Core, route::Wanted};

async fn explained(
    core: &Core,
    world: &World,
    model: &str,
    dialect: Dialect,
) -> v1::ExplainRouteResponse {
    let tenant = world.known_to(core, |_, _| {});
    let wanted = Wanted { model, provider: "", dialect, scope: &world.scope };
    core.explain(&tenant, wanted).await.unwrap()
}

/// Whether each model of the list that a broker makes by this policy goes where it says.
async fn goes_there(world: &World, core: &Core, policy: Policy) -> Result<(), TestCaseError> {
    let listing = world.known_to(core, policy);
    for listed in core.reachable(&listing, &world.scope).await.unwrap() {
        let mut first = None;
        for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
            if first.is_none() {
                let explained = explained(core, world, &listed.model, dialect).await;
                first = explained.attempts.into_iter().next();
            }
        }
        let found = first.map(|first| (first.provider.clone(), first.source()));
        let told = (listed.provider.clone(), listed.source());
        prop_assert_eq!(found, Some(told), "goes elsewhere: {}", listed.model);
    }
    Ok(())
}

#[test]
fn every_model_that_is_listed_goes_where_the_list_says() {
    over_all_worlds(&async |world, fixture| goes_there(world, &fixture.core, |_, _| {}).await)
        .unwrap();
}

#[test]
fn the_property_catches_a_list_that_is_not_routings() {
    let wrong: [Policy; 2] =
        [|row, _| row.on_missing = OnMissing::Managed, |row, _| row.rules.custom.clear()];
    for policy in wrong {
        let found =
            over_all_worlds(&async |world, fixture| goes_there(world, &fixture.core, policy).await);
        assert!(found.unwrap_err().contains("goes elsewhere"));
    }
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

/// The list as `model provider source`, as far as it is about these models.
async fn told(fixture: &Fixture, world: &World, models: &[&str]) -> Vec<String> {
    let tenant = world.known_to(&fixture.core, |_, _| {});
    let listed = fixture.core.reachable(&tenant, &world.scope).await.unwrap();
    let about = listed.iter().filter(|one| models.contains(&&*one.model));
    about
        .map(|one| format!("{} {} {}", one.model, one.provider, one.source().as_str_name()))
        .collect()
}

#[tokio::test]
async fn a_model_is_listed_with_who_would_serve_it() {
    let fixture = Fixture::new().await;
    let mut world = World::empty();
    let about = ["gpt-4o", "openai/gpt-4o"];
    assert!(told(&fixture, &world, &about).await.is_empty());
    world.own = vec![credential(&acme(), "a", "openai")];
    assert_eq!(told(&fixture, &world, &about).await, ["gpt-4o openai BYOK"]);
    // The tenant's own endpoint comes before it, whatever the credentials are called.
    world.own.push(credential(&acme(), "z", "custom"));
    assert_eq!(told(&fixture, &world, &about).await, ["gpt-4o custom CUSTOM"]);

    // A managed one stands in for none, and for none that is disabled.
    world.own.clear();
    world.platform = vec![credential(&TenantId::platform(), "o", "openai")];
    assert!(told(&fixture, &world, &about).await.is_empty());
    world.on_missing = OnMissing::Managed;
    assert_eq!(told(&fixture, &world, &about).await, ["gpt-4o openai MANAGED"]);
    world.own = vec![credential(&acme(), "a", "openai")];
    world.own[0].enabled = false;
    assert!(told(&fixture, &world, &about).await.is_empty());
}

#[tokio::test]
async fn a_name_that_two_gateways_have_is_listed_with_the_gateway_in_front() {
    let fixture = Fixture::new().await;
    let mut world = World::empty();
    let model = "alibaba/qwen-3-14b";
    let about = [model, "vercel/alibaba/qwen-3-14b"];
    world.own = vec![credential(&acme(), "v", "vercel")];
    assert_eq!(told(&fixture, &world, &about).await, [format!("{model} vercel BYOK")]);
    world.own.push(credential(&acme(), "o", "openrouter"));
    let expected = format!("vercel/{model} vercel BYOK");
    assert_eq!(told(&fixture, &world, &about).await, [expected]);
}

#[tokio::test]
async fn every_form_of_a_scope_lists_what_it_reaches() {
    let fixture = Fixture::new().await;
    let mut world = World::empty();
    world.own = vec![credential(&acme(), "a", "openai"), credential(&acme(), "b", "anthropic")];
    let about = ["gpt-4o", "openai/gpt-4o", "gpt-new", "claude-sonnet-5"];
    for (providers, models, expected) in [
        (&[][..], &[][..], &["claude-sonnet-5 anthropic BYOK", "gpt-4o openai BYOK"][..]),
        (&["openai"], &[], &["gpt-4o openai BYOK"]),
        (&[], &["gpt-4o"], &["gpt-4o openai BYOK"]),
        (&[], &["gpt-new"], &["gpt-new openai BYOK"]),
        (&[], &["gpt-*"], &["gpt-4o openai BYOK"]),
        (&[], &["openai/gpt-4o"], &["gpt-4o openai BYOK", "openai/gpt-4o openai BYOK"]),
        (&[], &["openai/*"], &["gpt-4o openai BYOK"]),
        (&["anthropic"], &["openai/*"], &[]),
    ] {
        world.scope = Scope {
            providers: providers.iter().map(|one: &&str| one.parse().unwrap()).collect(),
            models: models.iter().map(|one: &&str| one.parse().unwrap()).collect(),
        };
        assert_eq!(told(&fixture, &world, &about).await, expected, "{providers:?} {models:?}");
    }
}

#[tokio::test]
async fn a_virtual_key_is_told_its_models_and_the_way_of_its_calls() {
    let fixture = Fixture::new().await;
    let key = VirtualKey::generate().unwrap();
    let terms = v1::VirtualKey { models: vec!["openai/*".to_owned()], ..v1::VirtualKey::default() };
    let request = v1::CreateVirtualKeyRequest {
        parent: "tenants/acme".to_owned(),
        virtual_key_id: key.id().to_string(),
        virtual_key: Some(terms),
        key_sha256: key.digest().as_bytes().to_vec().into(),
    };
    let core = &fixture.core;
    core.create_virtual_key(&caller("VirtualKeys/CreateVirtualKey"), request).await.unwrap();
    let (id, digest) = (key.id().to_string(), key.digest().as_bytes().to_vec());
    let asked =
        v1::ListModelsRequest { virtual_key_id: id.clone(), key_sha256: digest.clone().into() };
    let listed = core.list_models(&caller("Leases/ListModels"), &asked).await.unwrap().models;
    assert!(listed.iter().any(|one| one.model == "gpt-4o"), "{listed:?}");
    let ours = |one: &v1::ReachableModel| one.provider == "openai" && one.source() == Source::Byok;
    assert!(listed.iter().all(ours), "{listed:?}");

    let explain = async |model: &str| {
        let target = v1::VirtualKeyTarget {
            virtual_key_id: id.clone(),
            key_sha256: digest.clone().into(),
            model: model.to_owned(),
            ..v1::VirtualKeyTarget::default()
        };
        let request = v1::ExplainRouteRequest {
            target: Some(v1::explain_route_request::Target::VirtualKey(target)),
            ..v1::ExplainRouteRequest::default()
        };
        core.explain_route(&caller("Leases/ExplainRoute"), request).await.unwrap()
    };
    let way = explain("gpt-4o").await;
    let [attempt] = &*way.attempts else { panic!("{way:?}") };
    assert_eq!(attempt.credential, "tenants/acme/credentials/openai");
    assert_eq!((&*attempt.origin, &*attempt.because), ("https://api.openai.com", "detected"));
    assert_eq!((attempt.source(), &*attempt.model, &*way.refusal), (Source::Byok, "gpt-4o", ""));
    assert!(!way.steps.is_empty());
    // A refusal has its reason, and no attempt.
    let way = explain("claude-sonnet-5").await;
    assert_eq!((way.attempts.len(), &*way.refusal), (0, "NO_CREDENTIAL"), "{way:?}");
}
