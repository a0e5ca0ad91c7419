use std::{sync::Arc, time::Duration};

use domain::{
    Attempt, Because, CredentialName, Dialect, Failure, NoRoute, Origin, PassedOver, ProviderId,
    Readiness, Scope, Source, Step, TenantId, Timestamp,
};
use providers::{Endpoint, NoTarget, Provider};
use store::CredentialRow;

use crate::{
    caller::Caller,
    core::Core,
    directory::{Held, Tenant},
    lending::{Ask, Target},
    refused::Why,
    session::OpenSession,
};

mod planning;

use planning::settings_of;
pub(crate) use planning::{Holdings, Planned};

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The model as the caller wrote it, perhaps with a `provider/` in front; or empty.
    pub(crate) model: &'a str,
    /// The provider that the caller names, or empty.
    pub(crate) provider: &'a str,
    pub(crate) dialect: Dialect,
    /// What the caller's virtual key may reach.
    pub(crate) scope: &'a Scope,
}

/// The decision: this credential, at this address.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) owner: Arc<Tenant>,
    at: usize,
    pub(crate) source: Source,
    pub(crate) endpoint: Endpoint,
    pub(crate) origin: Origin,
    /// The address in the place of the provider's own, if there is one.
    pub(crate) address: Option<String>,
    /// The model as the provider knows it.
    pub(crate) model: String,
    /// Why this credential.
    pub(crate) because: String,
    /// Whether the policy lists another for when it fails.
    pub(crate) has_fallback: bool,
    /// Whether it is to show that it works again.
    is_probe: bool,
    /// When the lease must end, so that the credential before this one is tried again.
    pub(crate) until: Option<Timestamp>,
}

/// An attempt at a call that a proxy reports as failed.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) credential: CredentialName,
    /// 0 when it was not said.
    pub(crate) version: u64,
    pub(crate) failure: Failure,
    pub(crate) begun: Timestamp,
}

impl Failed {
    /// Whether the attempt speaks against this version of this credential. What is not the key's matter
    /// speaks against all versions.
    pub(crate) fn is_of(&self, row: &CredentialRow, version: u64) -> bool {
        self.credential.credential == row.id
            && self.credential.tenant == row.tenant
            && ([0, version].contains(&self.version) || !self.failure.is_the_keys())
    }
}

impl Decided {
    /// The credential; always there, because `at` was its place when this was made.
    pub(crate) fn held(&self) -> Result<&Held, Why> {
        self.owner
            .credentials
            .get(self.at)
            .ok_or_else(|| Why::Internal("a route to no credential".into()))
    }
}

impl Core {
    /// Chooses a credential for a tenant's call, of which these attempts have failed.
    pub(crate) async fn decide(
        &self,
        tenant: &Arc<Tenant>,
        wanted: Wanted<'_>,
        failed: &[Failed],
    ) -> Result<Decided, Why> {
        // Of a call that has failed once, the plan is the one that it began with: the policy says what
        // comes next, not what happens to be well.
        let Planned { decision, platform } = self.plan(tenant, wanted, failed.is_empty()).await?;
        let plan = decision.outcome.map_err(|none| self.no_route(none, wanted))?;
        let owner = |attempt: &Attempt| owner(tenant, platform.as_ref(), attempt);
        let has_failed = |attempt: &&Attempt| {
            let held = owner(attempt).credentials.get(attempt.index);
            held.is_none_or(|held| has_failed(&held.row, failed))
        };
        let now = self.clock.now();
        let rests = |attempt: &&Attempt| {
            let held = owner(attempt).credentials.get(attempt.index);
            held.is_none_or(|it| !self.healths.readiness(&it.row, now).0.is_usable())
        };
        let left = plan.attempts().filter(|attempt| !has_failed(attempt));
        let mut left = left.filter(|attempt| failed.is_empty() || !rests(attempt));
        let rest_ends = |attempt: &Attempt| {
            let held = owner(attempt).credentials.get(attempt.index)?;
            self.resting(&held.row, now)
        };
        let chosen = left.next().ok_or_else(|| match plan.attempts().nth(1) {
            // Policy lists no other: what failed was a version, and the provider's own answer stands.
            None if !failed.is_empty() => Why::NoFallback,
            None | Some(_) => Why::CredentialsExhausted {
                failure: failed.last().map(|it| it.failure),
                retry_after: plan.attempts().filter_map(rest_ends).min().map(|it| it.since(now)),
            },
        })?;
        let has_fallback = left.next().is_some();
        let mut decided = self.address(Arc::clone(owner(chosen)), chosen, wanted.dialect)?;
        decided.has_fallback = has_fallback;
        if let Some(last) = failed.last() {
            decided.because = format!("{}.{}", Because::Fallback.as_str(), last.failure.as_str());
            let until = failed.iter().filter_map(|it| {
                let owner = if it.credential.tenant == tenant.row.id {
                    Some(tenant)
                } else {
                    platform.as_ref()
                };
                let held = owner?.credential(&it.credential.credential)?;
                self.resting(&held.row, now)
            });
            decided.until = until.min().or(Some(now + FALLBACK_LASTS));
        }
        if chosen.because == Because::Fallback {
            decided.until = resting_until(&decision.steps).or(decided.until);
        }
        Ok(decided)
    }

    /// Takes note of the attempts that failed: once for each request, however often it is decided.
    pub(crate) async fn note_report(
        &self,
        caller: &Caller,
        session: &OpenSession,
        ask: &Ask,
    ) -> Result<(), Why> {
        self.check_bars(caller, session)?;
        let tenant = match &ask.target {
            Target::VirtualKey { id, digest, .. } => {
                self.check_virtual_key(id, digest).await?.row.tenant.clone()
            }
            Target::Provider { tenant, .. } => tenant.clone(),
            // One that the caller names has no other in its place, at the most another version.
            Target::Credential(name) => {
                let tenant = self.tenant(caller, &name.tenant).await?;
                let last = ask.failed.last().filter(|failed| failed.credential == *name);
                if let Some((failed, held)) = last.zip(tenant.credential(&name.credential)) {
                    self.note_version(&tenant, held, failed).await;
                }
                return Ok(());
            }
        };
        let tenant = self.tenant(caller, &tenant).await?;
        self.note_failures(&tenant, &ask.failed).await
    }

    /// Takes note of how a tenant's calls have fared. A report about another tenant's credential is no
    /// report.
    pub(crate) async fn note_failures(
        &self,
        tenant: &Arc<Tenant>,
        failed: &[Failed],
    ) -> Result<(), Why> {
        let platform = TenantId::platform();
        for (at, report) in failed.iter().enumerate() {
            let Failed { credential, failure, begun, .. } = report;
            let owner = if credential.tenant == tenant.row.id {
                Some(Arc::clone(tenant))
            } else if credential.tenant == platform {
                self.directory.tenant(&platform).await?
            } else {
                None
            };
            let held = owner.as_ref().and_then(|owner| owner.credential(&credential.credential));
            let Some((owner, held)) = owner.as_ref().zip(held) else { continue };
            // Those before it were reported when they were the last.
            if at + 1 == failed.len() {
                self.note_version(owner, held, report).await;
            }
            // While it is rotated it does not rest: its other version may serve, and a sole credential
            // that rests is an outage.
            if held.row.live_rotation().is_none() && has_failed(&held.row, failed) {
                self.healths.failed(&held.row, *failure, *begun, self.clock.now()).await;
            }
        }
        Ok(())
    }

    /// Takes note of how a version has fared, for the rotation that it is a part of.
    pub(crate) async fn note_version(&self, owner: &Tenant, held: &Held, failed: &Failed) {
        let (row, version) = (&held.row, failed.version);
        let is_lent = row.lent_versions().any(|lent| lent == version);
        if is_lent && let Some(why) = self.canaries.failed(row, version, failed.failure) {
            self.set_back(owner, row, why).await;
        }
    }

    /// Claims a probe, if the decision is one: false when another came first.
    pub(crate) async fn claim(&self, decided: &Decided) -> Result<bool, Why> {
        let uid = decided.held()?.row.uid;
        Ok(!decided.is_probe || self.healths.claim(uid, self.clock.now()).await)
    }

    /// When a credential that rests may be asked again.
    fn resting(&self, row: &CredentialRow, now: Timestamp) -> Option<Timestamp> {
        match self.healths.readiness(row, now).0 {
            Readiness::Resting { until, .. } => Some(until),
            Readiness::Ready | Readiness::Probe => None,
        }
    }

    /// The refusal that no route comes to.
    pub(crate) fn no_route(&self, none: NoRoute, wanted: Wanted<'_>) -> Why {
        let models = || self.known_models(wanted.scope);
        match none {
            NoRoute::UnknownModel => {
                Why::NoSuchModel { model: wanted.model.to_owned(), models: models() }
            }
            NoRoute::NoCredential(provider) => Why::NoCredential(provider),
            NoRoute::NoCredentialOfAny(ref providers) => match providers.first() {
                Some(provider) => Why::NoCredential(provider.clone()),
                None => Why::InvalidField(none.to_string()),
            },
            NoRoute::AllDisabled(provider) => Why::CredentialDisabled(provider),
            NoRoute::DialectNotServed(provider) => {
                Why::DialectNotServed { provider, dialect: wanted.dialect.as_str() }
            }
            NoRoute::ProviderNotInScope(provider) => Why::ProviderNotInScope(provider),
            NoRoute::ModelNotInScope(_) => {
                Why::ModelNotInScope { model: wanted.model.to_owned(), models: models() }
            }
            NoRoute::Ambiguous(providers) => Why::ModelAmbiguous(providers),
            NoRoute::AllResting { until, why, .. } => Why::CredentialsExhausted {
                failure: Some(why),
                retry_after: Some(until.since(self.clock.now())),
            },
        }
    }

    /// Takes one credential that the caller names, or the provider's first.
    pub(crate) fn decide_named(
        &self,
        tenant: &Arc<Tenant>,
        name: &CredentialName,
        dialect: Dialect,
    ) -> Result<Decided, Why> {
        if name.tenant != tenant.row.id {
            return Err(Why::InvalidField("the credential is not of the tenant".into()));
        }
        let at = tenant.credentials.iter().position(|held| held.row.id == name.credential);
        let at = at.ok_or(Why::NoSuchCredential)?;
        let row = &tenant.credentials.get(at).ok_or(Why::NoSuchCredential)?.row;
        if !row.enabled {
            return Err(Why::CredentialDisabled(row.provider.clone()));
        }
        let source = if row.base_url.is_some() { Source::Custom } else { Source::Byok };
        let attempt = Attempt {
            source,
            index: at,
            credential: row.id.clone(),
            provider: row.provider.clone(),
            model: String::new(),
            because: Because::NamedByPath,
            is_probe: false,
        };
        self.address(Arc::clone(tenant), &attempt, dialect)
    }

    /// The models that a scope allows and that are known here by name, for people.
    pub(crate) fn known_models(&self, scope: &Scope) -> Vec<String> {
        let known = self.catalogue.providers().iter().flat_map(|provider| {
            provider
                .models()
                .iter()
                .filter(|model| scope.allows_provider(provider.id()) && scope.allows_model(model))
        });
        let exact = scope.models.iter().filter_map(|pattern| pattern.exact());
        let mut models: Vec<String> = exact.map(str::to_owned).chain(known.cloned()).collect();
        models.sort_unstable();
        models.dedup();
        models.truncate(20);
        models
    }

    fn provider_named(&self, name: &str) -> Result<ProviderId, Why> {
        let provider = self.catalogue.named(name);
        provider.map(|known| known.id().clone()).ok_or_else(|| {
            Why::NoSuchProvider(name.chars().filter(char::is_ascii_graphic).take(63).collect())
        })
    }

    /// Where an attempt would go.
    pub(crate) fn address(
        &self,
        owner: Arc<Tenant>,
        attempt: &Attempt,
        dialect: Dialect,
    ) -> Result<Decided, Why> {
        let held = owner.credentials.get(attempt.index).ok_or(Why::NoSuchCredential)?;
        let endpoint = self.endpoint(held, dialect, &attempt.model)?;
        let provider = &held.row.provider;
        let origin = Origin::of_url(&endpoint.base_url)
            .map_err(|error| Why::Internal(format!("the address of {provider}: {error}")))?;
        let moved_to = self.catalogue.provider(provider).and_then(Provider::moved_to);
        let address = held.row.base_url.as_deref().or(moved_to).map(str::to_owned);
        Ok(Decided {
            at: attempt.index,
            source: attempt.source,
            model: attempt.model.clone(),
            because: attempt.because.as_str().to_owned(),
            is_probe: attempt.is_probe,
            has_fallback: false,
            until: None,
            endpoint,
            origin,
            address,
            owner,
        })
    }

    /// Where calls with a credential go.
    fn endpoint(&self, held: &Held, dialect: Dialect, model: &str) -> Result<Endpoint, Why> {
        let row = &held.row;
        let unknown = || Why::NoSuchProvider(row.provider.to_string());
        let known = self.catalogue.provider(&row.provider).ok_or_else(unknown)?;
        let kind = row.kind.parse().map_err(|()| {
            Why::Corrupt(format!("the kind of {} is none that there is", row.name()))
        })?;
        let settings = settings_of(row);
        let place = known.place(dialect, kind, &settings, row.base_url.as_deref(), model);
        place.map_err(|none| {
            if matches!(none, NoTarget::DialectNotServed { .. }) {
                let provider = row.provider.clone();
                Why::DialectNotServed { provider, dialect: dialect.as_str() }
            } else {
                Why::InvalidField(none.to_string())
            }
        })
    }
}

/// Whether every version of a credential that is lent has failed.
fn has_failed(row: &CredentialRow, failed: &[Failed]) -> bool {
    row.lent_versions().all(|version| failed.iter().any(|it| it.is_of(row, version)))
}

/// Whose credential an attempt uses.
pub(crate) fn owner<'a>(
    tenant: &'a Arc<Tenant>,
    platform: Option<&'a Arc<Tenant>>,
    attempt: &Attempt,
) -> &'a Arc<Tenant> {
    platform.filter(|_| attempt.source.is_platforms()).unwrap_or(tenant)
}

/// How long a lease lasts that stands in for a credential that does not rest.
const FALLBACK_LASTS: Duration = Duration::from_secs(10);

/// When the first of those that rest may be asked again.
fn resting_until(steps: &[Step]) -> Option<Timestamp> {
    let until = |step: &Step| match step {
        Step::PassedOver { why: PassedOver::Resting { until, .. }, .. } => Some(*until),
        Step::PassedOver { .. }
        | Step::Provider { .. }
        | Step::Missing { .. }
        | Step::Taken { .. }
        | Step::Refused(_) => None,
    };
    steps.iter().filter_map(until).min()
}
