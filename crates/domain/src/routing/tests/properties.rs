//! Over worlds of credentials, policies and requests: no plan has a credential that the tenant's policy did
//! not name. What is made of plans when calls fail is the broker's, and has this property there.

use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use super::*;

#[derive(Clone, Debug)]
struct World {
    model: &'static str,
    named: Option<ProviderId>,
    by_path: bool,
    detected: Detection,
    scope: Scope,
    policy: RoutingPolicy,
    own: Vec<Candidate>,
    platform: Vec<Candidate>,
}

type Planner = fn(&RouteRequest<'_>, &RoutingPolicy, &[Candidate], &[Candidate]) -> Decision;

const PROVIDERS: [&str; 5] = ["openai", "anthropic", "openrouter", "cloudflare", "custom"];
const MODELS: [&str; 3] = ["gpt-4o", "meta/llama", ""];

fn provider() -> impl Strategy<Value = ProviderId> {
    select(&PROVIDERS[..]).prop_map(id)
}

fn readiness() -> impl Strategy<Value = Readiness> {
    let until = Timestamp::from_millis(1);
    prop_oneof![
        3 => Just(Readiness::Ready),
        1 => Just(Readiness::Probe),
        1 => Just(Readiness::Resting { until, why: Failure::NoQuota }),
    ]
}

/// Credentials with names of their own: `{prefix}0`, `{prefix}1`, ….
fn candidates(prefix: &'static str) -> impl Strategy<Value = Vec<Candidate>> {
    let one = (provider(), any::<bool>(), 0..3, any::<bool>(), readiness(), 0..16u8);
    proptest::collection::vec(one, 0..6).prop_map(move |all| {
        let made = all.into_iter().enumerate().map(|(at, one)| {
            let (provider, enabled, priority, has_models, readiness, dialect) = one;
            let models = if has_models { vec!["gpt-4o".to_owned()] } else { Vec::new() };
            Candidate {
                name: format!("{prefix}{at}").parse().unwrap(),
                provider,
                enabled,
                priority,
                models,
                serves_dialect: dialect % 8 > 0,
                readiness,
                alone: if dialect < 8 { readiness } else { Readiness::Ready },
            }
        });
        made.collect()
    })
}

fn name() -> impl Strategy<Value = CredentialId> {
    any::<Index>().prop_map(|at| format!("own{}", at.index(6)).parse().unwrap())
}

fn policy() -> impl Strategy<Value = RoutingPolicy> {
    let pattern = select(&["gpt-4o", "meta/*", "*"][..]).prop_map(|text| text.parse().unwrap());
    let keyless = (pattern.clone(), provider()).prop_map(|(models, provider)| KeylessRule {
        models,
        provider,
        model: "keyless-model".into(),
    });
    let on_missing = prop_oneof![
        Just(WhenMissing::Refuse),
        Just(WhenMissing::Managed),
        proptest::collection::vec(keyless, 0..3).prop_map(WhenMissing::Keyless),
    ];
    let custom =
        (pattern, name()).prop_map(|(models, credential)| CustomRule { models, credential });
    let to = prop_oneof![4 => name().prop_map(Fallback::Credential), 1 => Just(Fallback::Managed)];
    let fallback = (provider(), proptest::collection::vec(to, 0..4))
        .prop_map(|(provider, to)| FallbackRule { provider, to });
    let (customs, fallbacks) =
        (proptest::collection::vec(custom, 0..3), proptest::collection::vec(fallback, 0..4));
    (customs, proptest::option::of(provider()), on_missing, fallbacks).prop_map(
        |(custom, preferred, on_missing, fallbacks)| RoutingPolicy {
            custom,
            preferred,
            on_missing,
            fallbacks,
        },
    )
}

fn detection() -> impl Strategy<Value = Detection> {
    prop_oneof![
        Just(Detection::Unknown),
        (provider(), proptest::collection::vec(provider(), 0..2))
            .prop_map(|(provider, also)| Detection::One { provider, also }),
        Just(Detection::Several(vec![id("openrouter"), id("cloudflare")])),
    ]
}

fn world() -> impl Strategy<Value = World> {
    let scope = (proptest::collection::vec(provider(), 0..2), any::<bool>()).prop_map(
        |(providers, limited)| Scope {
            providers,
            models: if limited { vec!["gpt-4o".parse().unwrap()] } else { Vec::new() },
        },
    );
    let request =
        (select(&MODELS[..]), proptest::option::of(provider()), any::<bool>(), detection(), scope);
    (request, policy(), candidates("own"), candidates("platform")).prop_map(
        |(request, policy, own, platform)| {
            let (model, named, by_path, detected, scope) = request;
            let by_path = by_path && named.is_some();
            World { model, named, by_path, detected, scope, policy, own, platform }
        },
    )
}

/// Says, without looking at how planning is done, whether the tenant's policy names this attempt.
fn is_named(world: &World, attempt: &Attempt, is_first: bool) -> bool {
    let World { policy, own, platform, .. } = world;
    let list = if attempt.source.is_platforms() { platform } else { own };
    let Some(candidate) = list.get(attempt.index) else { return false };
    let sound = candidate.name == attempt.credential
        && candidate.provider == attempt.provider
        && candidate.enabled
        && candidate.serves_dialect
        && (candidate.readiness.is_usable()
            || (attempt.because == Because::LastResort && candidate.alone.is_usable()))
        && (world.scope.providers.is_empty() || world.scope.providers.contains(&attempt.provider));
    let rules = policy.fallbacks.iter().find(|rule| rule.provider == attempt.provider);
    let lists = |wanted: &Fallback| rules.is_some_and(|rule| rule.to.contains(wanted));
    let listed = lists(&Fallback::Credential(attempt.credential.clone()));
    let has_own = own.iter().any(|one| one.provider == attempt.provider);
    sound
        && match attempt.source {
            Source::Byok => attempt.provider.as_str() != CUSTOM && (is_first || listed),
            Source::Custom => attempt.provider.as_str() == CUSTOM && (is_first || listed),
            Source::Managed => {
                let missing = is_first && !has_own && policy.on_missing == WhenMissing::Managed;
                missing || lists(&Fallback::Managed)
            }
            Source::Keyless => match &policy.on_missing {
                WhenMissing::Keyless(rules) => rules.iter().any(|rule| {
                    rule.provider == attempt.provider
                        && (!world.by_path || world.named.as_ref() == Some(&rule.provider))
                        && rule.model == attempt.model
                        && rule.models.matches(world.model)
                }),
                WhenMissing::Refuse | WhenMissing::Managed => false,
            },
        }
}

fn holds(world: &World, planner: Planner) -> Result<(), TestCaseError> {
    let request = RouteRequest {
        written: world.model,
        model: world.model,
        named: world.named.as_ref(),
        by_path: world.by_path,
        detected: &world.detected,
        dialect: Dialect::OpenAi,
        scope: &world.scope,
    };
    let decide = || planner(&request, &world.policy, &world.own, &world.platform);
    let decision = decide();
    prop_assert_eq!(&decision, &decide(), "the same world gives the same decision");
    let Ok(plan) = decision.outcome else { return Ok(()) };
    let out: Vec<&Attempt> = plan.attempts().collect();
    for (at, attempt) in out.iter().enumerate() {
        prop_assert!(is_named(world, attempt, at == 0), "not named by the policy: {attempt:?}");
        let again = out
            .iter()
            .skip(at + 1)
            .any(|later| later.credential == attempt.credential && later.source == attempt.source);
        prop_assert!(!again, "there twice: {attempt:?}");
    }
    Ok(())
}

fn runner(cases: u32, rng: TestRng) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, rng)
}

#[test]
fn no_plan_has_a_credential_that_the_policy_did_not_name() {
    let mut runner = runner(4096, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    runner.run(&world(), |world| holds(&world, plan)).unwrap();
}

#[test]
fn the_property_catches_planners_that_help_themselves() {
    let wrong: [(&str, Planner); 3] = [
        ("managed when missing", |request, policy, own, platform| {
            let policy = RoutingPolicy { on_missing: WhenMissing::Managed, ..policy.clone() };
            plan(request, &policy, own, platform)
        }),
        ("managed when failed", |request, policy, own, platform| {
            let rule =
                |slug: &&str| FallbackRule { provider: id(slug), to: vec![Fallback::Managed] };
            let fallbacks = PROVIDERS.iter().map(rule).collect();
            plan(request, &RoutingPolicy { fallbacks, ..policy.clone() }, own, platform)
        }),
        ("every own credential", |request, policy, own, platform| {
            let to = own.iter().map(|one| Fallback::Credential(one.name.clone()));
            let to = to.collect::<Vec<_>>();
            let rule = |slug: &&str| FallbackRule { provider: id(slug), to: to.clone() };
            let fallbacks = PROVIDERS.iter().map(rule).collect();
            plan(request, &RoutingPolicy { fallbacks, ..policy.clone() }, own, platform)
        }),
    ];
    for (what, planner) in wrong {
        let mut runner = runner(4096, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
        let found = runner.run(&world(), |world| holds(&world, planner));
        let Err(TestError::Fail(reason, _)) = found else { panic!("not caught: {what}") };
        assert!(reason.message().contains("not named by the policy"), "{what}: {reason}");
    }
}
