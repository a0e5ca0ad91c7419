use std::sync::Arc;

use domain::{
    Candidate, Dialect, NoRoute, OnMissing, Origin, ProviderId, Readiness, RouteRequest,
    RoutingPolicy, Scope, Source, TenantId, plan,
};
use providers::Endpoint;

use crate::{
    core::Core,
    directory::{Held, Tenant},
    refused::Why,
};

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
    /// The model as the provider knows it.
    pub(crate) model: String,
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
    /// Chooses a credential for a tenant's call.
    pub(crate) async fn decide(
        &self,
        tenant: &Arc<Tenant>,
        wanted: Wanted<'_>,
    ) -> Result<Decided, Why> {
        let (in_front, bare) = self.catalogue.split_model(wanted.model);
        let named = match (wanted.provider, in_front) {
            ("", in_front) => in_front,
            (name, in_front) => {
                let by_path = self.provider_named(name)?;
                if in_front.is_some_and(|in_front| in_front != by_path) {
                    let what = "the model names another provider than the path does";
                    return Err(Why::InvalidField(what.into()));
                }
                Some(by_path)
            }
        };
        let detected = self.catalogue.recognize(wanted.model);
        let request = RouteRequest {
            written: wanted.model,
            model: bare,
            named: named.as_ref(),
            by_path: !wanted.provider.is_empty(),
            detected: &detected,
            dialect: wanted.dialect,
            scope: wanted.scope,
        };
        let policy = RoutingPolicy {
            preferred: tenant.row.preferred_provider.clone(),
            on_missing: tenant.row.on_missing.into(),
            ..RoutingPolicy::default()
        };
        let platform = self.platform(tenant.row.on_missing).await?;
        let own = self.candidates(tenant, wanted.dialect);
        let managed = platform.as_ref().map(|tenant| self.candidates(tenant, wanted.dialect));
        let decision = plan(&request, &policy, &own, &managed.unwrap_or_default());
        let chosen = decision.outcome.map_err(|none| self.no_route(none, wanted))?.first;
        let owner = match platform {
            Some(platform) if chosen.source.is_platforms() => platform,
            _ => Arc::clone(tenant),
        };
        self.address(owner, chosen.index, chosen.source, &chosen.model, wanted.dialect)
    }

    fn no_route(&self, none: NoRoute, wanted: Wanted<'_>) -> Why {
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
            NoRoute::Ambiguous(_) | NoRoute::AllResting { .. } => {
                Why::InvalidField(none.to_string())
            }
        }
    }

    /// Takes one credential that the caller names, or the provider's first.
    pub(crate) fn decide_named(
        &self,
        tenant: &Arc<Tenant>,
        name: &domain::CredentialName,
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
        self.address(Arc::clone(tenant), at, source, "", dialect)
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

    /// The platform's credentials, when the tenant's policy may need them.
    async fn platform(&self, on_missing: OnMissing) -> Result<Option<Arc<Tenant>>, Why> {
        match on_missing {
            OnMissing::Managed => self.directory.tenant(&TenantId::platform()).await,
            OnMissing::Refuse => Ok(None),
        }
    }

    fn address(
        &self,
        owner: Arc<Tenant>,
        at: usize,
        source: Source,
        model: &str,
        dialect: Dialect,
    ) -> Result<Decided, Why> {
        let held = owner.credentials.get(at).ok_or(Why::NoSuchCredential)?;
        let provider = &held.row.provider;
        if self.catalogue.provider(provider).is_none() {
            return Err(Why::NoSuchProvider(provider.to_string()));
        }
        let endpoint = self.endpoint(held, dialect).ok_or_else(|| Why::DialectNotServed {
            provider: provider.clone(),
            dialect: dialect.as_str(),
        })?;
        let origin = Origin::of_url(&endpoint.base_url)
            .map_err(|error| Why::Internal(format!("the address of {provider}: {error}")))?;
        Ok(Decided { at, source, endpoint, origin, model: model.to_owned(), owner })
    }

    /// Where calls with a credential go, if its provider serves the dialect.
    fn endpoint(&self, held: &Held, dialect: Dialect) -> Option<Endpoint> {
        let known = self.catalogue.provider(&held.row.provider)?;
        match &held.row.base_url {
            Some(base_url) => known.endpoint_at(dialect, base_url),
            None => known.endpoint(dialect),
        }
    }

    fn candidates(&self, tenant: &Tenant, dialect: Dialect) -> Vec<Candidate> {
        let candidate = |held: &Held| Candidate {
            name: held.row.id.clone(),
            provider: held.row.provider.clone(),
            enabled: held.row.enabled,
            priority: held.row.priority,
            models: held.row.models.clone(),
            serves_dialect: self.endpoint(held, dialect).is_some(),
            readiness: Readiness::Ready,
        };
        tenant.credentials.iter().map(candidate).collect()
    }
}
