use std::sync::Arc;

use domain::{Scope, VirtualKeyId};
use strongroom_proto::v1::{self, explain_route_request::Target};

use super::ask::{check_model, dialect, presented};
use crate::{
    caller::Caller,
    core::{Core, parse_tenant},
    directory::Tenant,
    lending::proto_source,
    refused::{About, Refused, Why},
    route::{Planned, Wanted, owner},
};

impl Core {
    /// Plans a call and tells how the plan came about.
    pub(crate) async fn explain_route(
        &self,
        caller: &Caller,
        request: v1::ExplainRouteRequest,
    ) -> Result<v1::ExplainRouteResponse, Refused> {
        let dialect = dialect(request.dialect());
        let open = Scope::default();
        match request.target {
            Some(Target::VirtualKey(target)) => {
                let (id, digest) = presented(&target.virtual_key_id, &target.key_sha256)?;
                let key = self.check_virtual_key(&id, &digest).await?;
                caller.concerns(about(&key.row.tenant, Some(id)));
                let tenant = self.tenant(caller, &key.row.tenant).await?;
                let v1::VirtualKeyTarget { model, provider, .. } = &target;
                check_model(model)?;
                let wanted = Wanted { model, provider, dialect, scope: &key.row.terms.scope };
                let explained = self.explain(&tenant, wanted).await?;
                Ok(v1::ExplainRouteResponse { networks: key.places().1, ..explained })
            }
            Some(Target::Tenant(target)) => {
                let id = parse_tenant(&target.tenant)?;
                caller.concerns(about(&id, None));
                let tenant = self.tenant(caller, &id).await?;
                let v1::TenantModel { model, provider, .. } = &target;
                check_model(model)?;
                let wanted = Wanted { model, provider, dialect, scope: &open };
                Ok(self.explain(&tenant, wanted).await?)
            }
            None => Err(Why::InvalidField("a route needs virtual_key or tenant".to_owned()).into()),
        }
    }

    /// What there is to say of one call.
    pub(crate) async fn explain(
        &self,
        tenant: &Arc<Tenant>,
        wanted: Wanted<'_>,
    ) -> Result<v1::ExplainRouteResponse, Why> {
        let planned = match self.plan(tenant, wanted, true).await {
            Ok(planned) => planned,
            // Such as a provider that nobody knows: part of the answer.
            Err(why @ (Why::NoSuchProvider(_) | Why::InvalidField(_))) => {
                return Ok(refusal(vec![], &why));
            }
            Err(why) => return Err(why),
        };
        let Planned { decision, platform } = planned;
        let mut steps: Vec<String> = decision.steps.iter().map(ToString::to_string).collect();
        if tenant.row.suspended {
            return Ok(refusal(steps, &Why::TenantSuspended));
        }
        let plan = match decision.outcome {
            Ok(plan) => plan,
            Err(none) => return Ok(refusal(steps, &self.no_route(none, wanted))),
        };
        let mut attempts = Vec::new();
        for attempt in plan.attempts() {
            let owner = owner(tenant, platform.as_ref(), attempt);
            let row = owner.credentials.get(attempt.index).map(|held| held.row.name().to_string());
            let credential = row.unwrap_or_default();
            match self.address(Arc::clone(owner), attempt, wanted.dialect) {
                Ok(decided) => attempts.push(v1::PlannedAttempt {
                    provider: attempt.provider.to_string(),
                    source: proto_source(attempt.source).into(),
                    model: attempt.model.clone(),
                    because: attempt.because.as_str().to_owned(),
                    origin: decided.origin.to_string(),
                    credential,
                }),
                Err(why) => steps.push(format!("{credential} has no address: {}", why.public())),
            }
        }
        Ok(v1::ExplainRouteResponse { steps, attempts, ..Default::default() })
    }
}

fn refusal(steps: Vec<String>, why: &Why) -> v1::ExplainRouteResponse {
    let mut steps = steps;
    steps.push(why.public());
    let refusal = why.reason().as_str_name().to_owned();
    v1::ExplainRouteResponse { steps, refusal, ..Default::default() }
}

fn about(tenant: &domain::TenantId, virtual_key: Option<VirtualKeyId>) -> About {
    About { tenant: Some(tenant.clone()), virtual_key, ..About::default() }
}
