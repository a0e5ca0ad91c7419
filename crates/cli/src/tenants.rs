use clap::{Args, Subcommand, ValueEnum};
use domain::{ProviderId, TenantId};
use prost_types::FieldMask;
use serde_json::json;
use strongroom_proto::v1::{
    CreateTenantRequest, GetTenantRequest, ListTenantsRequest, ResumeTenantRequest,
    SuspendTenantRequest, Tenant, UpdateTenantRequest, tenant::OnMissing,
};

use crate::{
    context::Context,
    credentials::request_id,
    failure::Failure,
    names::TenantArg,
    output::{list, table},
    views::TenantView,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Creates a tenant.
    Create(Create),
    /// Lists the tenants that this identity may read.
    List,
    /// Shows one tenant.
    Get {
        /// The tenant, such as `acme`.
        tenant: TenantArg,
    },
    /// Changes what is named, and nothing else.
    Update(Update),
    /// Ends every lease for the tenant and of its credentials, and lends nothing until it is resumed.
    Suspend {
        /// The tenant, such as `acme`.
        tenant: TenantArg,
    },
    /// Lends for the tenant again.
    Resume {
        /// The tenant, such as `acme`.
        tenant: TenantArg,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The tenant, such as `acme`.
    tenant: TenantId,
    #[command(flatten)]
    fields: Fields,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    /// The tenant, such as `acme`.
    tenant: TenantArg,
    /// Change it only if it is still as it was when this was read.
    #[arg(long)]
    etag: Option<String>,
    #[command(flatten)]
    fields: SomeFields,
}

#[derive(Args, Debug)]
struct Fields {
    /// A name for people.
    #[arg(long)]
    display_name: Option<String>,
    /// Used when neither the request nor the model's name decides.
    #[arg(long)]
    preferred_provider: Option<ProviderId>,
    /// What happens when the tenant has no credential for a route.
    #[arg(long)]
    on_missing: Option<OnMissingArg>,
}

/// As `Fields`; at least one is needed.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct SomeFields {
    /// A name for people.
    #[arg(long)]
    display_name: Option<String>,
    /// Used when neither the request nor the model's name decides.
    #[arg(long)]
    preferred_provider: Option<ProviderId>,
    /// What happens when the tenant has no credential for a route.
    #[arg(long)]
    on_missing: Option<OnMissingArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnMissingArg {
    /// Refuse the call.
    Refuse,
    /// Use a managed credential of the platform.
    Managed,
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut tenants = context.broker()?.tenants();
        let tenant = match self {
            Self::Create(create) => {
                let request = CreateTenantRequest {
                    tenant_id: create.tenant.to_string(),
                    tenant: Some(create.fields.tenant(String::new(), String::new())),
                    request_id: request_id()?,
                };
                tenants.create_tenant(request).await?
            }
            Self::List => return list_all(context).await,
            Self::Get { tenant } => {
                tenants.get_tenant(GetTenantRequest { name: tenant.0.resource() }).await?
            }
            Self::Update(update) => tenants.update_tenant(update.request()).await?,
            Self::Suspend { tenant } => {
                tenants.suspend_tenant(SuspendTenantRequest { name: tenant.0.resource() }).await?
            }
            Self::Resume { tenant } => {
                tenants.resume_tenant(ResumeTenantRequest { name: tenant.0.resource() }).await?
            }
        };
        context.output.show(&TenantView::from(tenant.into_inner()), human)
    }
}

impl Fields {
    fn tenant(self, name: String, etag: String) -> Tenant {
        let on_missing = match self.on_missing {
            None => OnMissing::Unspecified,
            Some(OnMissingArg::Refuse) => OnMissing::Refuse,
            Some(OnMissingArg::Managed) => OnMissing::Managed,
        };
        Tenant {
            name,
            etag,
            display_name: self.display_name.unwrap_or_default(),
            preferred_provider: self
                .preferred_provider
                .map(|provider| provider.to_string())
                .unwrap_or_default(),
            on_missing: on_missing.into(),
            ..Tenant::default()
        }
    }
}

impl Update {
    fn request(self) -> UpdateTenantRequest {
        let SomeFields { display_name, preferred_provider, on_missing } = self.fields;
        let paths = [
            ("display_name", display_name.is_some()),
            ("preferred_provider", preferred_provider.is_some()),
            ("on_missing", on_missing.is_some()),
        ];
        let paths = paths.into_iter().filter(|(_, set)| *set).map(|(path, _)| path.to_owned());
        let fields = Fields { display_name, preferred_provider, on_missing };
        let etag = self.etag.unwrap_or_default();
        UpdateTenantRequest {
            update_mask: Some(FieldMask { paths: paths.collect() }),
            tenant: Some(fields.tenant(self.tenant.0.resource(), etag)),
        }
    }
}

async fn list_all(context: &Context) -> Result<(), Failure> {
    let mut client = context.broker()?.tenants();
    let mut tenants: Vec<TenantView> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTenantsRequest { page_size: 1000, page_token };
        let page = client.list_tenants(request).await?.into_inner();
        tenants.extend(page.tenants.into_iter().map(TenantView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    context.output.show(&json!({ "tenants": tenants }), |_| {
        let row = |tenant: &TenantView| {
            [
                tenant.name.clone(),
                tenant.display_name.clone(),
                tenant.preferred_provider.clone(),
                tenant.on_missing.to_owned(),
            ]
        };
        table(["NAME", "DISPLAY NAME", "PREFERS", "ON MISSING"], tenants.iter().map(row).collect())
    })
}

fn human(tenant: &TenantView) -> String {
    list([
        ("name", tenant.name.clone()),
        ("display name", tenant.display_name.clone()),
        ("prefers", tenant.preferred_provider.clone()),
        ("on missing", tenant.on_missing.to_owned()),
        ("suspended", if tenant.suspended { "yes" } else { "no" }.to_owned()),
        ("created", tenant.create_time.clone()),
        ("updated", tenant.update_time.clone()),
        ("etag", tenant.etag.clone()),
    ])
}
