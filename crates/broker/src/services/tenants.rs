use std::sync::Arc;

use audit::{Kind, Record, proto_time};
use domain::{
    CustomRule, FallbackRule, KeylessRule, ModelPattern, OnMissing, RequestId, RoutingRules,
    TenantId, Uid,
};
use store::{Change, KeyPurpose, Page, TenantRow};
use strongroom_proto::v1::{self, tenant, tenants_server::Tenants};
use tonic::{Request, Response, Status};

use crate::{
    caller::Caller,
    core::{
        Core, accept, check_etag, display_name, etag, page_size, parse, parse_optional,
        parse_tenant,
    },
    custody::{Custody, Sealed as _, tenant_created},
    directory::Tenant,
    refused::{About, Refused, Why},
};

/// `strongroom.v1.Tenants`.
#[derive(Clone, Debug)]
pub(crate) struct TenantService(pub(crate) Arc<Core>);

/// The most rules in one list.
const MOST_RULES: usize = 100;

/// Tenants read at a time.
const STEP: u32 = 256;

#[tonic::async_trait]
impl Tenants for TenantService {
    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Result<Response<v1::Tenant>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.create_tenant(&caller, request)).await
    }

    async fn get_tenant(
        &self,
        request: Request<v1::GetTenantRequest>,
    ) -> Result<Response<v1::Tenant>, Status> {
        let (caller, request) = accept(request)?;
        let work = async {
            let id = parse_tenant(&request.name)?;
            let about = About { tenant: Some(id.clone()), ..About::default() };
            caller.concerns(about.clone());
            let tenant = self.0.tenant(&caller, &id).await;
            tenant.map(|tenant| message(&tenant.row)).map_err(|why| Refused::about(why, &about))
        };
        self.0.answer(&caller, work).await
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.list_tenants(&caller, &request)).await
    }

    async fn update_tenant(
        &self,
        request: Request<v1::UpdateTenantRequest>,
    ) -> Result<Response<v1::Tenant>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.update_tenant(&caller, request)).await
    }

    async fn suspend_tenant(
        &self,
        request: Request<v1::SuspendTenantRequest>,
    ) -> Result<Response<v1::Tenant>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.suspend(&caller, &request.name, true)).await
    }

    async fn resume_tenant(
        &self,
        request: Request<v1::ResumeTenantRequest>,
    ) -> Result<Response<v1::Tenant>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.suspend(&caller, &request.name, false)).await
    }

    async fn shred_tenant(
        &self,
        request: Request<v1::ShredTenantRequest>,
    ) -> Result<Response<v1::Erasure>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.shred_tenant(&caller, &request)).await
    }
}

impl Core {
    pub(crate) async fn create_tenant(
        &self,
        caller: &Caller,
        request: v1::CreateTenantRequest,
    ) -> Result<v1::Tenant, Refused> {
        let id: TenantId = parse(&request.tenant_id)?;
        let about = About { tenant: Some(id.clone()), ..About::default() };
        caller.concerns(about.clone());
        let refused = |why: Why| Refused::about(why, &about);
        self.access.permit(caller, &id).map_err(refused)?;
        self.catch_up().await.map_err(refused)?;
        let request_id = parse_optional::<RequestId>(&request.request_id).map_err(refused)?;
        if self.directory.is_erased(&id) {
            return Err(refused(Why::NameTaken(id.resource())));
        }
        if let Some(existing) = self.directory.tenant(&id).await.map_err(refused)? {
            // The same request again: its answer may have been lost.
            return if request_id.is_some() && existing.row.request_id == request_id {
                Ok(message(&existing.row))
            } else {
                Err(refused(Why::NameTaken(id.resource())))
            };
        }
        let asked = request.tenant.unwrap_or_default();
        let now = self.clock.now();
        let mut row = TenantRow {
            uid: Uid::random().map_err(Why::from)?,
            display_name: display_name(&asked.display_name).map_err(refused)?,
            preferred_provider: self.preferred(&asked.preferred_provider).map_err(refused)?,
            on_missing: on_missing(asked.on_missing()),
            rules: self.rules(&asked).map_err(refused)?,
            suspended: false,
            revision: 1,
            request_id,
            created_at: now,
            updated_at: now,
            row_mac: [0; 36],
            id,
        };
        self.add_tenant(caller, &mut row).await.map_err(refused)?;
        Ok(message(&row))
    }

    /// Adds a tenant with its first key.
    async fn add_tenant(&self, caller: &Caller, row: &mut TenantRow) -> Result<(), Why> {
        let new_key = self.custody.new_key((&row.id, row.uid), KeyPurpose::Kek, row.created_at);
        let (key, key_row) = new_key.await?;
        let record = tenant_created(row, &key_row);
        row.row_mac = row.mac_under(&Custody::kek_of(key, &key_row));
        let change = Change::CreateTenant(row.clone(), vec![key_row]);
        self.change(&change, caller.stamp(record)).await.map(drop)
    }

    async fn list_tenants(
        &self,
        caller: &Caller,
        request: &v1::ListTenantsRequest,
    ) -> Result<v1::ListTenantsResponse, Refused> {
        let limit = page_size(request.page_size)?;
        let (mut after, mut visible) = (request.page_token.clone(), Vec::new());
        // One more than asked for tells whether there is more; what the caller may not see is passed
        // over and is in no page token either.
        while visible.len() <= limit as usize {
            let rows = self.store.tenants(Page { after: &after, limit: STEP }).await?;
            let Some(last) = rows.last() else { break };
            after = last.id.to_string();
            let full = rows.len() >= STEP as usize;
            let allowed = |row: &TenantRow| self.access.permit(caller, &row.id).is_ok();
            visible.extend(rows.into_iter().filter(allowed));
            if !full {
                break;
            }
        }
        let more = visible.len() > limit as usize;
        visible.truncate(limit as usize);
        let next = visible.last().filter(|_| more).map(|row| row.id.to_string());
        Ok(v1::ListTenantsResponse {
            tenants: visible.iter().map(message).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    pub(crate) async fn update_tenant(
        &self,
        caller: &Caller,
        request: v1::UpdateTenantRequest,
    ) -> Result<v1::Tenant, Refused> {
        let asked = request.tenant.unwrap_or_default();
        let id = parse_tenant(&asked.name)?;
        let about = About { tenant: Some(id.clone()), ..About::default() };
        caller.concerns(about.clone());
        let refused = |why: Why| Refused::about(why, &about);
        self.catch_up().await.map_err(refused)?;
        let tenant = self.tenant(caller, &id).await.map_err(refused)?;
        check_etag(&asked.etag, tenant.row.revision).map_err(refused)?;
        let mut row = tenant.row.clone();
        for path in request.update_mask.unwrap_or_default().paths {
            match &*path {
                "display_name" => {
                    row.display_name = display_name(&asked.display_name).map_err(refused)?;
                }
                "preferred_provider" => {
                    row.preferred_provider =
                        self.preferred(&asked.preferred_provider).map_err(refused)?;
                }
                "on_missing" => row.on_missing = on_missing(asked.on_missing()),
                "keyless" => row.rules.keyless = self.rules(&asked).map_err(refused)?.keyless,
                "fallbacks" => row.rules.fallbacks = self.rules(&asked).map_err(refused)?.fallbacks,
                "custom" => row.rules.custom = self.rules(&asked).map_err(refused)?.custom,
                _ => {
                    let what = "update_mask may name display_name, preferred_provider, on_missing, \
                                keyless, fallbacks, custom";
                    return Err(refused(Why::InvalidField(what.into())));
                }
            }
        }
        let row = self.replace(caller, Kind::TenantUpdated, &tenant, row).await;
        Ok(message(&row.map_err(refused)?))
    }

    /// Suspends or resumes a tenant. What is so already stays as it is.
    async fn suspend(
        &self,
        caller: &Caller,
        name: &str,
        suspended: bool,
    ) -> Result<v1::Tenant, Refused> {
        let id = parse_tenant(name)?;
        let about = About { tenant: Some(id.clone()), ..About::default() };
        caller.concerns(about.clone());
        let refused = |why: Why| Refused::about(why, &about);
        self.catch_up().await.map_err(refused)?;
        let tenant = self.tenant(caller, &id).await.map_err(refused)?;
        if tenant.row.suspended == suspended {
            return Ok(message(&tenant.row));
        }
        let kind = if suspended { Kind::TenantSuspended } else { Kind::TenantResumed };
        let row = TenantRow { suspended, ..tenant.row.clone() };
        let row = self.replace(caller, kind, &tenant, row).await;
        Ok(message(&row.map_err(refused)?))
    }

    /// Writes a tenant's new state.
    async fn replace(
        &self,
        caller: &Caller,
        kind: Kind,
        tenant: &Tenant,
        mut row: TenantRow,
    ) -> Result<TenantRow, Why> {
        row.revision += 1;
        row.updated_at = self.clock.now();
        row.row_mac = row.mac_under(&*self.custody.kek(&tenant.keys).await?);
        let record = Record {
            kind: kind.into(),
            tenant: row.id.to_string(),
            revision: row.revision,
            ..Record::default()
        };
        self.change(&Change::UpdateTenant(row.clone()), caller.stamp(record)).await?;
        Ok(row)
    }

    /// The lists of a routing policy, each rule checked. A credential that a rule names may be stored
    /// later.
    fn rules(&self, asked: &v1::Tenant) -> Result<RoutingRules, Why> {
        let known = |name: &str| {
            let known = self.catalogue.find(name).map(|known| known.id().clone());
            known.map_err(|error| Why::InvalidField(error.to_string()))
        };
        let most = [asked.custom.len(), asked.keyless.len(), asked.fallbacks.len()];
        if most.into_iter().any(|rules| rules > MOST_RULES)
            || asked.fallbacks.iter().any(|rule| rule.to.len() > MOST_RULES)
        {
            return Err(Why::InvalidField("a policy has lists of 100 rules at most".into()));
        }
        let custom = asked.custom.iter().map(|rule| {
            Ok(CustomRule { models: parse(&rule.models)?, credential: parse(&rule.credential)? })
        });
        let keyless = asked.keyless.iter().map(|rule| {
            let model: ModelPattern = parse(&rule.model)?;
            let exact = model.exact().ok_or_else(|| {
                Why::InvalidField("a keyless rule puts one model in the place of others".into())
            })?;
            let (models, provider) = (parse(&rule.models)?, known(&rule.provider)?);
            Ok::<_, Why>(KeylessRule { models, provider, model: exact.to_owned() })
        });
        let fallbacks = asked.fallbacks.iter().map(|rule| {
            let to = rule.to.iter().map(|one| parse(one)).collect::<Result<_, Why>>()?;
            Ok::<_, Why>(FallbackRule { provider: known(&rule.provider)?, to })
        });
        Ok(RoutingRules {
            custom: custom.collect::<Result<_, Why>>()?,
            keyless: keyless.collect::<Result<_, Why>>()?,
            fallbacks: fallbacks.collect::<Result<_, Why>>()?,
        })
    }

    fn preferred(&self, name: &str) -> Result<Option<domain::ProviderId>, Why> {
        if name.is_empty() {
            return Ok(None);
        }
        let known = self.catalogue.named(name);
        let unknown = || Why::InvalidField("preferred_provider is not a provider".into());
        known.map(|known| Some(known.id().clone())).ok_or_else(unknown)
    }
}

fn on_missing(asked: tenant::OnMissing) -> OnMissing {
    match asked {
        tenant::OnMissing::Managed => OnMissing::Managed,
        tenant::OnMissing::Keyless => OnMissing::Keyless,
        tenant::OnMissing::Unspecified | tenant::OnMissing::Refuse => OnMissing::Refuse,
    }
}

fn message(row: &TenantRow) -> v1::Tenant {
    let on_missing = match row.on_missing {
        OnMissing::Refuse => tenant::OnMissing::Refuse,
        OnMissing::Managed => tenant::OnMissing::Managed,
        OnMissing::Keyless => tenant::OnMissing::Keyless,
    };
    let RoutingRules { custom, keyless, fallbacks } = &row.rules;
    v1::Tenant {
        name: row.id.resource(),
        display_name: row.display_name.clone(),
        preferred_provider: row
            .preferred_provider
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        on_missing: on_missing.into(),
        create_time: Some(proto_time(row.created_at)),
        update_time: Some(proto_time(row.updated_at)),
        etag: etag(row.revision),
        suspended: row.suspended,
        keyless: keyless
            .iter()
            .map(|rule| v1::KeylessRule {
                models: rule.models.to_string(),
                provider: rule.provider.to_string(),
                model: rule.model.clone(),
            })
            .collect(),
        fallbacks: fallbacks
            .iter()
            .map(|rule| v1::FallbackRule {
                provider: rule.provider.to_string(),
                to: rule.to.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        custom: custom
            .iter()
            .map(|rule| v1::CustomRule {
                models: rule.models.to_string(),
                credential: rule.credential.to_string(),
            })
            .collect(),
    }
}
