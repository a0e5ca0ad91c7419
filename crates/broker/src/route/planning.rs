use std::{collections::BTreeSet, sync::Arc};

use domain::{
    Candidate, Decision, Dialect, ProviderId, Readiness, RouteRequest, RoutingPolicy, TenantId,
    plan,
};
use providers::{Provider, Settings};
use store::CredentialRow;

use super::Wanted;
use crate::{
    core::Core,
    directory::{Held, Tenant},
    refused::Why,
};

/// A plan, and whose lists of credentials its attempts are of.
pub(crate) struct Planned {
    pub(crate) decision: Decision,
    pub(crate) platform: Option<Arc<Tenant>>,
}

/// What calls of a tenant are planned with.
pub(crate) struct Holdings {
    policy: RoutingPolicy,
    own: Vec<Candidate>,
    managed: Vec<Candidate>,
    pub(crate) platform: Option<Arc<Tenant>>,
}

impl Holdings {
    /// The providers that there are credentials for, whoever's.
    pub(crate) fn providers(&self) -> BTreeSet<&ProviderId> {
        self.own.iter().chain(&self.managed).map(|candidate| &candidate.provider).collect()
    }
}

impl Core {
    /// Says where a tenant's call may go and why, with or without regard to what rests, and holds
    /// nothing.
    pub(crate) async fn plan(
        &self,
        tenant: &Arc<Tenant>,
        wanted: Wanted<'_>,
        by_health: bool,
    ) -> Result<Planned, Why> {
        let holdings = self.holdings(tenant, wanted.dialect, by_health).await?;
        let decision = self.plan_with(&holdings, wanted)?;
        Ok(Planned { decision, platform: holdings.platform })
    }

    /// A tenant's policy, and the credentials that calls in this dialect may go out with.
    pub(crate) async fn holdings(
        &self,
        tenant: &Arc<Tenant>,
        dialect: Dialect,
        by_health: bool,
    ) -> Result<Holdings, Why> {
        let row = &tenant.row;
        let policy = RoutingPolicy::of(row.preferred_provider.clone(), row.on_missing, &row.rules);
        let platform = if policy.names_the_platform() {
            self.directory.tenant(&TenantId::platform()).await?
        } else {
            None
        };
        let candidates = |owner: &Arc<Tenant>| {
            let mut candidates = self.candidates(owner, dialect);
            if !by_health {
                for candidate in &mut candidates {
                    candidate.readiness = Readiness::Ready;
                    candidate.alone = Readiness::Ready;
                }
            }
            candidates
        };
        let managed = platform.as_ref().map(candidates).unwrap_or_default();
        Ok(Holdings { policy, own: candidates(tenant), managed, platform })
    }

    /// Plans one call with what a tenant holds.
    pub(crate) fn plan_with(
        &self,
        holdings: &Holdings,
        wanted: Wanted<'_>,
    ) -> Result<Decision, Why> {
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
        Ok(plan(&request, &holdings.policy, &holdings.own, &holdings.managed))
    }

    fn candidates(&self, tenant: &Tenant, dialect: Dialect) -> Vec<Candidate> {
        let now = self.clock.now();
        // The credential's own address is made for the one that is chosen.
        let served = |held: &Held| {
            let known = self.catalogue.provider(&held.row.provider);
            let kind = held.row.kind.parse();
            let serves = |known: &Provider| {
                kind.is_ok_and(|kind| known.serves(dialect, kind, &settings_of(&held.row)))
            };
            known.is_none_or(serves)
        };
        let candidate = |held: &Held| {
            let (readiness, alone) = self.healths.readiness(&held.row, now);
            Candidate {
                name: held.row.id.clone(),
                provider: held.row.provider.clone(),
                enabled: held.row.enabled,
                priority: held.row.priority,
                models: held.row.models.clone(),
                serves_dialect: served(held),
                readiness,
                alone,
            }
        };
        tenant.credentials.iter().map(candidate).collect()
    }
}

/// What a credential says beside its secret.
pub(super) fn settings_of(row: &CredentialRow) -> Settings {
    row.settings.iter().map(|(name, value)| (&**name, &**value)).collect()
}
