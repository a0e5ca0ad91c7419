use std::{collections::BTreeMap, sync::Arc};

use domain::{Dialect, Scope};
use strongroom_proto::v1;

use super::ask::presented;
use crate::{
    caller::Caller,
    core::Core,
    directory::Tenant,
    lending::proto_source,
    refused::{About, Refused, Why},
    route::{Holdings, Wanted, owner},
};

impl Core {
    pub(crate) async fn list_models(
        &self,
        caller: &Caller,
        request: &v1::ListModelsRequest,
    ) -> Result<v1::ListModelsResponse, Refused> {
        let (id, digest) = presented(&request.virtual_key_id, &request.key_sha256)?;
        let key = self.check_virtual_key(&id, &digest).await?;
        let (tenant, virtual_key) = (Some(key.row.tenant.clone()), Some(id));
        caller.concerns(About { tenant, virtual_key, ..About::default() });
        let tenant = self.tenant(caller, &key.row.tenant).await?;
        if tenant.row.suspended {
            return Err(Why::TenantSuspended.into());
        }
        let models = self.reachable(&tenant, &key.row.terms.scope).await?;
        let (endpoints, networks) = key.places();
        Ok(v1::ListModelsResponse { models, endpoints, networks })
    }

    /// The models that calls can name, as routing decides of each: by the names that are known here, and
    /// with the provider in front where the bare name goes elsewhere or nowhere.
    pub(crate) async fn reachable(
        &self,
        tenant: &Arc<Tenant>,
        scope: &Scope,
    ) -> Result<Vec<v1::ReachableModel>, Why> {
        let mut holdings = Vec::new();
        for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
            // What rests for a while is still the tenant's: a list does not flicker.
            holdings.push((dialect, self.holdings(tenant, dialect, false).await?));
        }
        let served = |model: &str| {
            let mut dialects = holdings.iter();
            dialects.find_map(|(dialect, holds)| self.serves(tenant, holds, *dialect, model, scope))
        };
        let mut models = BTreeMap::new();
        for name in self.names(tenant, scope) {
            if let Some(found) = served(name) {
                models.insert(name.to_owned(), found);
            }
        }
        for provider in holdings.first().map(|(_, holds)| holds.providers()).unwrap_or_default() {
            let known = self.catalogue.provider(provider);
            for model in known.map(providers::Provider::models).unwrap_or_default() {
                let by_name = |found: &v1::ReachableModel| found.provider == provider.as_str();
                if models.get(model).is_some_and(by_name) {
                    continue;
                }
                let name = format!("{provider}/{model}");
                if let Some(found) = served(&name).filter(by_name) {
                    models.insert(name, found);
                }
            }
        }
        Ok(models.into_values().collect())
    }

    /// The names of models that are known here, whoever serves them.
    fn names<'a>(&'a self, tenant: &'a Tenant, scope: &'a Scope) -> impl Iterator<Item = &'a str> {
        let rules = &tenant.row.rules;
        let custom = rules.custom.iter().filter_map(|rule| rule.models.exact());
        let keyless = rules.keyless.iter().filter_map(|rule| rule.models.exact());
        let named = scope.models.iter().filter_map(|pattern| pattern.exact());
        let own = tenant.credentials.iter().flat_map(|held| &held.row.models);
        let known = self.catalogue.providers().iter().flat_map(providers::Provider::models);
        custom.chain(keyless).chain(named).chain(own.chain(known).map(String::as_str))
    }

    /// Who would serve a model first.
    fn serves(
        &self,
        tenant: &Arc<Tenant>,
        holdings: &Holdings,
        dialect: Dialect,
        model: &str,
        scope: &Scope,
    ) -> Option<v1::ReachableModel> {
        let wanted = Wanted { model, provider: "", dialect, scope };
        let plan = self.plan_with(holdings, wanted).ok()?.outcome.ok()?;
        let first = &plan.first;
        let owner = owner(tenant, holdings.platform.as_ref(), first);
        self.address(Arc::clone(owner), first, dialect).ok()?;
        Some(v1::ReachableModel {
            model: model.to_owned(),
            provider: first.provider.to_string(),
            source: proto_source(first.source).into(),
        })
    }
}
