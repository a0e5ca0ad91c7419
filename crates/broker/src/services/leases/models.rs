use domain::{OnMissing, Scope, Source, TenantId};
use strongroom_proto::v1;

use super::ask::presented;
use crate::{
    caller::Caller,
    core::Core,
    directory::Tenant,
    lending::proto_source,
    refused::{About, Refused, Why},
};

impl Core {
    pub(super) async fn list_models(
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
        let managed = match tenant.row.on_missing {
            OnMissing::Managed => self.directory.tenant(&TenantId::platform()).await?,
            OnMissing::Refuse | OnMissing::Keyless => None,
        };
        let mut models = Vec::new();
        let sources = [(Some(&tenant), Source::Byok), (managed.as_ref(), Source::Managed)];
        for (owner, source) in sources {
            for held in owner.iter().flat_map(|owner| &owner.credentials) {
                self.add_models(&mut models, &held.row, source, &key.row.terms.scope);
            }
        }
        models.extend(keyless(&tenant, &key.row.terms.scope));
        models.sort_by(|a, b| a.model.cmp(&b.model));
        models.dedup_by(|a, b| a.model == b.model);
        let (endpoints, networks) = key.places();
        Ok(v1::ListModelsResponse { models, endpoints, networks })
    }

    fn add_models(
        &self,
        models: &mut Vec<v1::ReachableModel>,
        row: &store::CredentialRow,
        source: Source,
        scope: &Scope,
    ) {
        let own_models = !row.models.is_empty();
        if !row.enabled
            || !scope.allows_provider(&row.provider)
            || (own_models && source == Source::Managed)
        {
            return;
        }
        let known = self.catalogue.provider(&row.provider).map_or(&[][..], |known| known.models());
        let listed = if own_models { &*row.models } else { known };
        let source = if own_models { Source::Custom } else { source };
        // A key made for one model reaches it even if nobody here has heard of it.
        let named = scope
            .models
            .iter()
            .filter_map(|pattern| pattern.exact())
            .filter(|model| !own_models && self.catalogue.detect(model) == Some(&row.provider));
        let allowed = listed.iter().map(String::as_str).filter(|model| scope.allows_model(model));
        models.extend(named.chain(allowed).map(|model| v1::ReachableModel {
            model: model.to_owned(),
            provider: row.provider.to_string(),
            source: proto_source(source).into(),
        }));
    }
}

/// The models that a keyless tenant can ask for by name, served by others in their place.
fn keyless<'a>(
    tenant: &'a Tenant,
    scope: &'a Scope,
) -> impl Iterator<Item = v1::ReachableModel> + 'a {
    let rules = Some(&tenant.row.rules.keyless);
    let rules = rules.filter(|_| tenant.row.on_missing == OnMissing::Keyless);
    rules.into_iter().flatten().filter_map(|rule| {
        let model = rule.models.exact().filter(|model| scope.allows_model(model))?;
        scope.allows_provider(&rule.provider).then(|| v1::ReachableModel {
            model: model.to_owned(),
            provider: rule.provider.to_string(),
            source: proto_source(Source::Keyless).into(),
        })
    })
}
