//! Over policies, credentials, calls and all kinds of failures: what the broker decides on is always a
//! credential that the tenant's policy named, whatever a proxy says has failed.

use std::{sync::Arc, time::Duration};

use domain::{
    CredentialId, CredentialName, CustomRule, Dialect, Failure, Fallback, FallbackRule,
    KeylessRule, OnMissing, ProviderId, RoutingRules, Scope, Source, TenantId, Timestamp, Uid,
};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use store::{CredentialRow, TenantRow};
use tokio::runtime::Runtime;

use super::{Failed, Fixture};
use crate::{
    core::Core,
    directory::{Held, Tenant},
    route::{Decided, Wanted},
};

/// A tenant's policy and credentials, the platform's, a call, and how its attempts fare.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) preferred: Option<ProviderId>,
    pub(super) on_missing: OnMissing,
    pub(super) rules: RoutingRules,
    pub(super) own: Vec<CredentialRow>,
    pub(super) platform: Vec<CredentialRow>,
    pub(super) scope: Scope,
    model: &'static str,
    provider: &'static str,
    /// What is said to have failed before the call has begun: what has, what has not, and what is
    /// another tenant's.
    told: Vec<(CredentialName, u64, Failure)>,
    fares: Vec<Fare>,
}

/// How an attempt fares: what goes wrong, and whether the broker takes note of it for others.
type Fare = (Failure, bool);

/// What a broker that is wrong about the policy would go by.
pub(super) type Policy = fn(&mut TenantRow, &[CredentialRow]);

/// None of them needs settings, so that each can be addressed.
pub(super) const PROVIDERS: [&str; 5] = ["openai", "anthropic", "openrouter", "mistral", "custom"];
const MODELS: [&str; 7] =
    ["gpt-4o", "claude-sonnet-5", "openai/gpt-4o", "openrouter/x", "meta/llama", "unheard-of", ""];
const TENANT: &str = "acme";

fn provider() -> impl Strategy<Value = ProviderId> {
    select(&PROVIDERS[..]).prop_map(|slug| slug.parse().unwrap())
}

/// Credentials with names of their own: `own0`, `own1`, ….
fn credentials(
    tenant: TenantId,
    prefix: &'static str,
) -> impl Strategy<Value = Vec<CredentialRow>> {
    let one = (provider(), 0..4u8, 0..3);
    proptest::collection::vec(one, 0..6).prop_map(move |all| {
        let made = all.into_iter().enumerate().map(|(at, (provider, enabled, priority))| {
            let enabled = enabled > 0;
            let row = credential(&tenant, &format!("{prefix}{at}"), provider.as_str());
            CredentialRow { enabled, priority, ..row }
        });
        made.collect()
    })
}

/// A credential as it may be stored. An endpoint serves `gpt-4o`.
pub(super) fn credential(tenant: &TenantId, name: &str, provider: &str) -> CredentialRow {
    let is_custom = provider == "custom";
    CredentialRow {
        uid: Uid::random().unwrap(),
        tenant_uid: Uid::from_bytes([0; 16]),
        tenant: tenant.clone(),
        id: name.parse().unwrap(),
        provider: provider.parse().unwrap(),
        kind: "api_key".to_owned(),
        settings: Vec::new(),
        enabled: true,
        priority: 100,
        base_url: is_custom.then(|| "https://models.example".to_owned()),
        models: if is_custom { vec!["gpt-4o".to_owned()] } else { Vec::new() },
        last_four: String::new(),
        current_version: 1,
        rotation: None,
        revision: 1,
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
        row_mac: [0; 36],
    }
}

fn own_name() -> impl Strategy<Value = CredentialId> {
    any::<Index>().prop_map(|at| format!("own{}", at.index(6)).parse().unwrap())
}

fn rules() -> impl Strategy<Value = RoutingRules> {
    let pattern = select(&["gpt-4o", "meta/*", "*"][..]).prop_map(|text| text.parse().unwrap());
    let keyless = (pattern.clone(), provider()).prop_map(|(models, provider)| KeylessRule {
        models,
        provider,
        model: "keyless-model".to_owned(),
    });
    let custom =
        (pattern, own_name()).prop_map(|(models, credential)| CustomRule { models, credential });
    let to =
        prop_oneof![4 => own_name().prop_map(Fallback::Credential), 1 => Just(Fallback::Managed)];
    let fallback = (provider(), proptest::collection::vec(to, 0..4))
        .prop_map(|(provider, to)| FallbackRule { provider, to });
    let lists = (
        proptest::collection::vec(custom, 0..3),
        proptest::collection::vec(keyless, 0..3),
        proptest::collection::vec(fallback, 0..4),
    );
    lists.prop_map(|(custom, keyless, fallbacks)| RoutingRules { custom, keyless, fallbacks })
}

fn failure() -> impl Strategy<Value = Failure> {
    let retry_after = proptest::option::of((0..100u64).prop_map(Duration::from_secs));
    prop_oneof![
        Just(Failure::CredentialRefused),
        Just(Failure::NoQuota),
        Just(Failure::NotAllowed),
        retry_after.prop_map(|retry_after| Failure::RateLimited { retry_after }),
        Just(Failure::ProviderTrouble),
        Just(Failure::TimedOut),
        Just(Failure::Unreachable),
        Just(Failure::CallersFault),
        Just(Failure::SecretInAnswer),
    ]
}

fn world() -> impl Strategy<Value = World> {
    let on_missing = select(&[OnMissing::Refuse, OnMissing::Managed, OnMissing::Keyless][..]);
    let policy = (proptest::option::of(provider()), on_missing, rules());
    let acme: TenantId = TENANT.parse().unwrap();
    let sets = (credentials(acme, "own"), credentials(TenantId::platform(), "managed"));
    let scope = (proptest::collection::vec(provider(), 0..2), any::<bool>()).prop_map(
        |(providers, limited)| Scope {
            providers,
            models: if limited { vec!["gpt-4o".parse().unwrap()] } else { Vec::new() },
        },
    );
    let by_path = select(&["", "", "openai", "anthropic", "custom"][..]);
    let call = (select(&MODELS[..]), by_path, scope);
    let whose = select(
        &[
            "tenants/acme/credentials/own",
            "tenants/platform/credentials/managed",
            "tenants/globex/credentials/own",
        ][..],
    );
    let told = (whose, 0..6, 0..3u64, failure()).prop_map(|(whose, at, version, failure)| {
        (format!("{whose}{at}").parse().unwrap(), version, failure)
    });
    let told = proptest::collection::vec(told, 0..3);
    let fares = proptest::collection::vec((failure(), any::<bool>()), 0..9);
    (policy, sets, call, told, fares).prop_map(|(policy, sets, call, told, fares)| World {
        preferred: policy.0,
        on_missing: policy.1,
        rules: policy.2,
        own: sets.0,
        platform: sets.1,
        model: call.0,
        provider: call.1,
        scope: call.2,
        told,
        fares,
    })
}

impl World {
    /// A call of a tenant with nothing yet.
    pub(super) fn empty() -> Self {
        Self {
            preferred: None,
            on_missing: OnMissing::Refuse,
            rules: RoutingRules::default(),
            own: Vec::new(),
            platform: Vec::new(),
            scope: Scope::default(),
            model: "gpt-4o",
            provider: "",
            told: Vec::new(),
            fares: Vec::new(),
        }
    }

    /// The tenant and, by name, the platform, as a broker knows them that goes by this policy.
    pub(super) fn known_to(&self, core: &Core, policy: Policy) -> Arc<Tenant> {
        core.directory.knows(self.tenant(TenantId::platform(), &self.platform));
        let mut tenant = self.tenant(TENANT.parse().unwrap(), &self.own);
        policy(&mut tenant.row, &self.own);
        Arc::new(tenant)
    }

    fn tenant(&self, id: TenantId, rows: &[CredentialRow]) -> Tenant {
        let is_platform = id == TenantId::platform();
        let rules = if is_platform { RoutingRules::default() } else { self.rules.clone() };
        let row = TenantRow {
            uid: Uid::from_bytes([0; 16]),
            id,
            display_name: String::new(),
            preferred_provider: self.preferred.clone(),
            on_missing: if is_platform { OnMissing::Refuse } else { self.on_missing },
            rules,
            suspended: false,
            revision: 1,
            request_id: None,
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
            row_mac: [0; 36],
        };
        let credentials = rows.iter().cloned().map(Held::from).collect();
        Tenant { row, keys: Vec::new(), credentials, budgets: Vec::new() }
    }

    /// Says, without looking at how it is decided, whether the policy names this credential for a call
    /// that has, or has not, gone out before.
    fn names(&self, decided: &Decided, is_first: bool) -> bool {
        let Ok(held) = decided.held() else { return false };
        let row = &held.row;
        let list = if decided.source.is_platforms() { &self.platform } else { &self.own };
        let in_scope =
            self.scope.providers.is_empty() || self.scope.providers.contains(&row.provider);
        if !list.contains(row) || !row.enabled || !in_scope {
            return false;
        }
        let lists = |wanted: &Fallback| {
            let rule = self.rules.fallbacks.iter().find(|rule| rule.provider == row.provider);
            rule.is_some_and(|rule| rule.to.contains(wanted))
        };
        let listed = || is_first || lists(&Fallback::Credential(row.id.clone()));
        let has_own = self.own.iter().any(|one| one.provider == row.provider);
        match decided.source {
            Source::Byok => row.base_url.is_none() && listed(),
            Source::Custom => row.base_url.is_some() && listed(),
            Source::Managed => {
                let missing = is_first && !has_own && self.on_missing == OnMissing::Managed;
                missing || lists(&Fallback::Managed)
            }
            Source::Keyless => {
                let bare = self.model.split_once('/').map_or(self.model, |(_, bare)| bare);
                self.on_missing == OnMissing::Keyless
                    && self.rules.keyless.iter().any(|rule| {
                        rule.provider == row.provider
                            && rule.model == decided.model
                            && (rule.models.matches(self.model) || rule.models.matches(bare))
                    })
            }
        }
    }

    /// A call, as a proxy has it decided again after each attempt that fails.
    async fn holds(&self, fixture: &Fixture, policy: Policy) -> Result<(), TestCaseError> {
        let core = &fixture.core;
        let tenant = self.known_to(core, policy);
        let Self { model, provider, scope, .. } = self;
        let wanted = Wanted { model, provider, dialect: Dialect::OpenAi, scope };
        let report = |(credential, version, failure): &(CredentialName, u64, Failure)| Failed {
            credential: credential.clone(),
            version: *version,
            failure: *failure,
            begun: fixture.clock_now(),
        };
        let mut failed: Vec<Failed> = self.told.iter().map(report).collect();
        for (lent, (failure, is_noted)) in self.fares.iter().enumerate() {
            let Ok(decided) = core.decide(&tenant, wanted, &failed).await else { return Ok(()) };
            let row = &decided.held().unwrap().row;
            prop_assert!(self.names(&decided, lent == 0), "not named by the policy: {decided:?}");
            let again = failed.iter().any(|it| it.is_of(row, 1));
            prop_assert!(!again, "goes out again: {decided:?}");
            failed.push(report(&(row.name(), 0, *failure)));
            if *is_noted {
                core.note_failures(&tenant, &failed).await.unwrap();
            }
        }
        Ok(())
    }
}

/// Runs a property over many worlds.
pub(super) fn over_all_worlds(
    holds: &impl AsyncFn(&World, &Fixture) -> Result<(), TestCaseError>,
) -> Result<(), String> {
    let runtime = Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::new());
    let config = Config { cases: 2048, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let held = runner.run(&world(), |world| runtime.block_on(holds(&world, &fixture)));
    held.map_err(|error| match error {
        TestError::Fail(reason, _) => reason.message().to_owned(),
        TestError::Abort(reason) => panic!("{reason}"),
    })
}

#[test]
fn no_call_is_lent_a_credential_that_its_policy_did_not_name() {
    over_all_worlds(&async |world, fixture| world.holds(fixture, |_, _| {}).await).unwrap();
}

#[test]
fn the_property_catches_brokers_that_help_themselves() {
    fn listing(row: &mut TenantRow, to: &[Fallback]) {
        let rule = |slug: &&str| FallbackRule { provider: slug.parse().unwrap(), to: to.to_vec() };
        row.rules.fallbacks = PROVIDERS.iter().map(rule).collect();
    }
    let wrong: [(&str, Policy); 3] = [
        ("managed when missing", |row, _| row.on_missing = OnMissing::Managed),
        ("managed when failed", |row, _| listing(row, &[Fallback::Managed])),
        ("every own credential", |row, own| {
            let all = own.iter().map(|one| Fallback::Credential(one.id.clone()));
            listing(row, &all.collect::<Vec<_>>());
        }),
    ];
    for (what, policy) in wrong {
        let found = over_all_worlds(&async |world, fixture| world.holds(fixture, policy).await);
        let found = found.unwrap_err();
        assert!(found.contains("not named by the policy"), "{what}: {found}");
    }
}
