use super::*;
use crate::{Failure, Timestamp};

mod properties;

fn id(slug: &str) -> ProviderId {
    slug.parse().unwrap()
}

fn own(name: &str, provider: &str, priority: i32) -> Candidate {
    Candidate {
        name: name.parse().unwrap(),
        provider: id(provider),
        enabled: true,
        priority,
        models: Vec::new(),
        serves_dialect: true,
        readiness: Readiness::Ready,
        alone: Readiness::Ready,
    }
}

fn endpoint(name: &str, priority: i32, models: &[&str]) -> Candidate {
    let models = models.iter().map(|model| (*model).to_owned()).collect();
    Candidate { models, ..own(name, "custom", priority) }
}

fn disabled(candidate: Candidate) -> Candidate {
    Candidate { enabled: false, ..candidate }
}

fn resting(candidate: Candidate) -> Candidate {
    let readiness =
        Readiness::Resting { until: Timestamp::from_millis(9000), why: Failure::NoQuota };
    Candidate { readiness, alone: readiness, ..candidate }
}

/// A call and the tenant it is for; tests change what they are about.
#[derive(Clone, Default)]
struct Case {
    written: &'static str,
    named: Option<&'static str>,
    by_path: bool,
    detected: Detection,
    scope: Scope,
    policy: RoutingPolicy,
    own: Vec<Candidate>,
    platform: Vec<Candidate>,
}

impl Case {
    fn decide(&self) -> Decision {
        let named = self.named.map(id);
        let prefix = named.as_ref().filter(|_| !self.by_path).map(|named| format!("{named}/"));
        let model = prefix.and_then(|prefix| self.written.strip_prefix(&*prefix));
        let request = RouteRequest {
            written: self.written,
            model: model.unwrap_or(self.written),
            named: named.as_ref(),
            by_path: self.by_path,
            detected: &self.detected,
            dialect: Dialect::OpenAi,
            scope: &self.scope,
        };
        plan(&request, &self.policy, &self.own, &self.platform)
    }

    /// Compares the attempts, each as `source name model because`, or the refusal.
    #[track_caller]
    fn check(&self, expected: &[&str]) {
        let found = match self.decide().outcome {
            Ok(plan) => plan.attempts().map(text).collect(),
            Err(none) => vec![format!("{none:?}")],
        };
        assert_eq!(found, expected);
    }
}

fn text(attempt: &Attempt) -> String {
    let Attempt { source, credential, model, because, .. } = attempt;
    format!("{source} {credential} {model} {}", because.as_str())
}

fn one(provider: &str) -> Detection {
    Detection::One { provider: id(provider), also: Vec::new() }
}

fn fallback(provider: &str, to: Vec<Fallback>) -> Vec<FallbackRule> {
    vec![FallbackRule { provider: id(provider), to }]
}

fn listed(name: &str) -> Fallback {
    Fallback::Credential(name.parse().unwrap())
}

fn gpt() -> Case {
    Case { written: "gpt-4o", detected: one("openai"), ..Case::default() }
}

#[test]
fn a_custom_endpoint_for_the_model_wins_over_everything() {
    let own = vec![own("o", "openai", 1), endpoint("c", 500, &["gpt-4o"])];
    let case = Case { own, ..gpt() };
    case.check(&["custom c gpt-4o custom_endpoint"]);
    let named = Case { written: "openai/gpt-4o", named: Some("openai"), ..case.clone() };
    named.check(&["custom c gpt-4o custom_endpoint"]);
    // A call in OpenAI's own format goes to OpenAI.
    Case { named: Some("openai"), by_path: true, ..case.clone() }
        .check(&["byok o gpt-4o named_by_path"]);
    Case { written: "gpt-5", ..case }.check(&["byok o gpt-5 detected"]);
}

#[test]
fn a_rule_of_the_policy_gives_models_to_an_endpoint() {
    let rule = |models: &str, credential: &str| CustomRule {
        models: models.parse().unwrap(),
        credential: credential.parse().unwrap(),
    };
    let policy = RoutingPolicy {
        custom: vec![rule("gpt-4*", "b"), rule("gpt-*", "a")],
        ..RoutingPolicy::default()
    };
    let own = vec![endpoint("a", 1, &[]), endpoint("b", 2, &[])];
    let case = Case { policy, own, ..gpt() };
    case.check(&["custom b gpt-4o custom_endpoint"]);
    Case { written: "gpt-5", ..case.clone() }.check(&["custom a gpt-5 custom_endpoint"]);
    Case { written: "claude-5", ..case }.check(&[r#"NoCredential(ProviderId("openai"))"#]);
}

#[test]
fn what_is_meant_for_an_endpoint_that_rests_goes_nowhere_else() {
    let own = vec![own("o", "openai", 1), resting(endpoint("c", 1, &["gpt-4o"]))];
    let outcome = Case { own, ..gpt() }.decide().outcome;
    assert!(matches!(outcome, Err(NoRoute::AllResting { .. })), "{outcome:?}");
}

#[test]
fn the_named_provider_wins_over_the_detected_one() {
    let own = vec![own("o", "openai", 1), own("a", "anthropic", 1)];
    let case = Case { written: "anthropic/gpt-4o", named: Some("anthropic"), own, ..gpt() };
    case.check(&["byok a gpt-4o named_in_model"]);
    Case { own: vec![], ..case }.check(&[r#"NoCredential(ProviderId("anthropic"))"#]);
}

#[test]
fn of_a_providers_credentials_the_first_healthy_one_is_taken_alone() {
    let all = [own("a", "openai", 9), own("b", "openai", 2), own("c", "openai", 2)];
    let [a, b, c] = all.clone();
    Case { own: all.to_vec(), ..gpt() }.check(&["byok b gpt-4o detected"]);
    Case { own: vec![a.clone(), resting(b.clone()), c.clone()], ..gpt() }
        .check(&["byok c gpt-4o detected"]);
    let outcome = Case { own: vec![resting(a), resting(b), disabled(c)], ..gpt() }.decide().outcome;
    assert!(matches!(outcome, Err(NoRoute::AllResting { .. })), "{outcome:?}");
}

#[test]
fn the_only_credential_is_asked_again_unless_the_provider_said_what_it_will_say() {
    let tired = |name: &str, priority| Candidate {
        alone: Readiness::Ready,
        ..resting(own(name, "openai", priority))
    };
    let dead = resting(own("dead", "openai", 0));
    let case = Case { own: vec![dead.clone(), tired("b", 2), tired("a", 1)], ..gpt() };
    case.check(&["byok a gpt-4o last_resort"]);
    // Where the policy lists another, that one is what to wait for.
    let to = vec![Fallback::Credential("dead".parse().unwrap())];
    let policy = RoutingPolicy { fallbacks: fallback("openai", to), ..RoutingPolicy::default() };
    let outcome = Case { policy, ..case }.decide().outcome;
    assert!(matches!(outcome, Err(NoRoute::AllResting { .. })), "{outcome:?}");
    let outcome = Case { own: vec![dead], ..gpt() }.decide().outcome;
    assert!(matches!(outcome, Err(NoRoute::AllResting { .. })), "{outcome:?}");
}

#[test]
fn a_bare_name_that_others_serve_too_is_theirs_only_without_its_owners_credential() {
    let also = vec![id("vertex")];
    let detected = Detection::One { provider: id("anthropic"), also };
    let case = Case { written: "claude-opus-5", detected, ..Case::default() };
    let (a, v) = (own("a", "anthropic", 9), own("v", "vertex", 1));
    let both = Case { own: vec![a.clone(), v.clone()], ..case.clone() };
    both.check(&["byok a claude-opus-5 detected"]);
    Case { own: vec![v.clone()], ..case.clone() }.check(&["byok v claude-opus-5 only_one_held"]);
    Case { own: vec![disabled(a), v], ..case.clone() }
        .check(&[r#"AllDisabled(ProviderId("anthropic"))"#]);
    case.check(&[r#"NoCredential(ProviderId("anthropic"))"#]);
}

fn llama() -> Case {
    let detected = Detection::Several(vec![id("openrouter"), id("vercel")]);
    Case { written: "meta/llama", detected, ..Case::default() }
}

#[test]
fn a_gateways_model_goes_to_the_gateway_that_the_tenant_has() {
    let (r, v) = (own("r", "openrouter", 9), own("v", "vercel", 1));
    Case { own: vec![v.clone()], ..llama() }.check(&["byok v meta/llama only_one_held"]);
    let both = Case { own: vec![r.clone(), v.clone()], ..llama() };
    let ambiguous = r#"Ambiguous([ProviderId("openrouter"), ProviderId("vercel")])"#;
    both.check(&[ambiguous]);
    let policy = RoutingPolicy { preferred: Some(id("vercel")), ..RoutingPolicy::default() };
    Case { policy, ..both }.check(&["byok v meta/llama preferred"]);
    let none = r#"NoCredentialOfAny([ProviderId("openrouter"), ProviderId("vercel")])"#;
    llama().check(&[none]);
    Case { own: vec![disabled(r.clone())], ..llama() }
        .check(&[r#"AllDisabled(ProviderId("openrouter"))"#]);
    let policy = RoutingPolicy { on_missing: WhenMissing::Managed, ..RoutingPolicy::default() };
    Case { platform: vec![v], policy, ..llama() }.check(&["managed v meta/llama managed"]);
}

#[test]
fn a_provider_in_front_of_a_model_is_a_gateways_vendor_only_where_the_tenant_prefers_the_gateway() {
    let case = Case { written: "openai/gpt-4o", named: Some("openai"), ..llama() };
    let case = Case { own: vec![own("r", "openrouter", 1)], ..case };
    case.check(&[r#"NoCredential(ProviderId("openai"))"#]);
    let policy = RoutingPolicy { preferred: Some(id("openrouter")), ..RoutingPolicy::default() };
    let prefers = Case { policy, ..case };
    prefers.check(&["byok r openai/gpt-4o preferred"]);
    let own = vec![own("r", "openrouter", 1), own("o", "openai", 1)];
    Case { own, ..prefers }.check(&["byok o gpt-4o named_in_model"]);
}

#[test]
fn an_unknown_model_goes_by_preference_then_by_the_fixed_order() {
    let case = Case { written: "m", ..Case::default() };
    let both = vec![own("o", "openai", 1), own("a", "anthropic", 1)];
    let both = Case { own: both, ..case.clone() };
    both.check(&["byok a m fixed_order"]);
    let policy = RoutingPolicy { preferred: Some(id("openai")), ..RoutingPolicy::default() };
    Case { policy, ..both }.check(&["byok o m preferred"]);
    Case { own: vec![own("x", "mistral", 1)], ..case }.check(&["UnknownModel"]);
}

#[test]
fn a_managed_credential_is_used_only_when_policy_says_so() {
    let platform = vec![own("p", "openai", 5), own("q", "openai", 1), own("r", "mistral", 0)];
    let case = Case { platform, ..gpt() };
    case.check(&[r#"NoCredential(ProviderId("openai"))"#]);
    let policy = RoutingPolicy { on_missing: WhenMissing::Managed, ..RoutingPolicy::default() };
    let managed = Case { policy, ..case };
    managed.check(&["managed q gpt-4o managed"]);
}

#[test]
fn a_disabled_credential_is_not_replaced_by_a_managed_one() {
    // A tenant that has switched its own credential off has not asked for another's.
    let policy = RoutingPolicy { on_missing: WhenMissing::Managed, ..RoutingPolicy::default() };
    let managed = Case { policy, platform: vec![own("q", "openai", 1)], ..gpt() };
    Case { own: vec![disabled(own("o", "openai", 1))], ..managed }
        .check(&[r#"AllDisabled(ProviderId("openai"))"#]);
}

#[test]
fn without_a_credential_another_model_may_stand_in_the_place_of_this_one() {
    let rule = |models: &str, model: &str| KeylessRule {
        models: models.parse().unwrap(),
        provider: id("cloudflare"),
        model: model.to_owned(),
    };
    let on_missing =
        WhenMissing::Keyless(vec![rule("gpt-*", "@cf/llama"), rule("*", "@cf/mistral")]);
    let policy = RoutingPolicy { on_missing, ..RoutingPolicy::default() };
    let platform = vec![own("w", "cloudflare", 1), own("p", "openai", 1)];
    let case = Case { policy, platform, ..gpt() };
    case.check(&["keyless w @cf/llama keyless"]);
    Case { written: "nobody-knows", detected: Detection::Unknown, ..case.clone() }
        .check(&["keyless w @cf/mistral keyless"]);
    Case { written: "openai/gpt-4o", named: Some("openai"), ..case.clone() }
        .check(&["keyless w @cf/llama keyless"]);
    Case { own: vec![own("o", "openai", 1)], ..case.clone() }.check(&["byok o gpt-4o detected"]);
    Case { named: Some("openai"), by_path: true, ..case.clone() }
        .check(&[r#"NoCredential(ProviderId("openai"))"#]);
    let scope = Scope { providers: vec![id("openai")], ..Scope::default() };
    Case { scope, ..case }.check(&[r#"ProviderNotInScope(ProviderId("cloudflare"))"#]);
}

#[test]
fn what_is_tried_after_a_failure_is_what_the_policy_lists() {
    let to = vec![
        listed("nobody"),
        listed("m"),
        listed("c"),
        listed("off"),
        listed("b"),
        listed("a"),
        Fallback::Managed,
    ];
    let policy = RoutingPolicy { fallbacks: fallback("openai", to), ..RoutingPolicy::default() };
    let own = vec![
        own("a", "openai", 1),
        own("b", "openai", 2),
        own("unlisted", "openai", 3),
        own("m", "mistral", 1),
        resting(own("c", "openai", 4)),
        disabled(own("off", "openai", 5)),
    ];
    let platform = vec![own_platform("p", 2), own_platform("q", 1)];
    let case = Case { policy, own, platform, ..gpt() };
    case.check(&[
        "byok a gpt-4o detected",
        "byok b gpt-4o fallback",
        "managed q gpt-4o fallback",
        "managed p gpt-4o fallback",
    ]);
    let other = RoutingPolicy {
        fallbacks: fallback("mistral", vec![Fallback::Managed]),
        ..RoutingPolicy::default()
    };
    Case { policy: other, ..case }.check(&["byok a gpt-4o detected"]);
}

fn own_platform(name: &str, priority: i32) -> Candidate {
    own(name, "openai", priority)
}

#[test]
fn credentials_that_rest_have_failed_so_what_is_listed_for_that_comes_first() {
    let policy = RoutingPolicy {
        fallbacks: fallback("openai", vec![Fallback::Managed]),
        ..RoutingPolicy::default()
    };
    let own = vec![resting(own("a", "openai", 1))];
    let case = Case { own, platform: vec![own_platform("p", 1)], policy, ..gpt() };
    case.check(&["managed p gpt-4o fallback"]);
}

#[test]
fn a_key_reaches_what_its_scope_says() {
    let case = Case { own: vec![own("o", "openai", 1)], ..gpt() };
    let providers = vec![id("anthropic")];
    Case { scope: Scope { providers, ..Scope::default() }, ..case.clone() }
        .check(&[r#"ProviderNotInScope(ProviderId("openai"))"#]);
    let scope = |model: &str| Scope { models: vec![model.parse().unwrap()], ..Scope::default() };
    Case { scope: scope("gpt-5"), ..case.clone() }.check(&[r#"ModelNotInScope("gpt-4o")"#]);
    Case { scope: scope("openai/gpt-4o"), ..case.clone() }.check(&["byok o gpt-4o detected"]);
    Case { scope: scope("gpt-4*"), ..case }.check(&["byok o gpt-4o detected"]);
}

#[test]
fn a_dialect_that_the_provider_does_not_serve_is_told() {
    let own = Candidate { serves_dialect: false, ..own("o", "openai", 1) };
    Case { own: vec![own], ..gpt() }.check(&[r#"DialectNotServed(ProviderId("openai"))"#]);
}

#[test]
fn every_credential_that_was_looked_at_is_explained() {
    let own = vec![
        disabled(own("off", "openai", 1)),
        own("o", "openai", 2),
        own("next", "openai", 3),
        resting(own("tired", "openai", 4)),
    ];
    let steps = Case { own, ..gpt() }.decide().steps;
    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "openai serves the call: the model's name is one of its models'",
            "not byok credential off: it is disabled",
            "not byok credential next: another comes before it, and no fallback rule lists it",
            "not byok credential tired: it rests after no_quota until 9000 ms",
            "byok credential o: the model's name is one of its models'",
        ]
    );
    let steps = gpt().decide().steps;
    let last = steps.last().unwrap().to_string();
    assert!(
        last.starts_with("refused: the tenant has no credential for openai: store one"),
        "{last}"
    );
}
