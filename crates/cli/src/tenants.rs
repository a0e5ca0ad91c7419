use clap::{Args, Subcommand, ValueEnum};
use domain::{ProviderId, TenantId};
use prost_types::FieldMask;
use serde_json::json;
use strongroom_proto::v1::{
    CreateTenantRequest, CustomRule, FallbackRule, GetTenantRequest, KeylessRule,
    ListTenantsRequest, ResumeTenantRequest, SuspendTenantRequest, Tenant, UpdateTenantRequest,
    tenant::OnMissing,
};

use crate::{
    context::Context,
    credentials::request_id,
    erasure::ShredTenant,
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
    /// Erases the tenant with all that it owns, so that no backup of the database brings it back. This cannot
    /// be undone.
    Shred(ShredTenant),
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
    fields: Fields,
    /// Empties a list of the routing policy.
    #[arg(long, value_name = "LIST")]
    clear: Vec<RuleList>,
}

#[derive(Args, Debug, Default)]
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
    /// With `--on-missing keyless`: the model in the place of others, as `gpt-4*=openai/gpt-4o-mini`.
    /// Repeatable; the list as it was is replaced.
    #[arg(long, value_name = "MODELS=PROVIDER/MODEL", value_parser = keyless)]
    keyless: Vec<KeylessRule>,
    /// What to try when a credential of a provider fails: credentials of the tenant, or `platform/*`,
    /// as `openai=second,platform/*`. Repeatable; the list as it was is replaced.
    #[arg(long, value_name = "PROVIDER=CREDENTIAL,…", value_parser = fallback)]
    fallback: Vec<FallbackRule>,
    /// Models that a `custom` endpoint serves, as `llama-*=my-endpoint`. Repeatable; the list as it was
    /// is replaced.
    #[arg(long, value_name = "MODELS=CREDENTIAL", value_parser = custom)]
    custom: Vec<CustomRule>,
}

/// A list of the routing policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum RuleList {
    Keyless,
    Fallbacks,
    Custom,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnMissingArg {
    /// Refuse the call.
    Refuse,
    /// Use a managed credential of the platform.
    Managed,
    /// Put another model in the place of the one asked for, as `--keyless` says.
    Keyless,
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
            Self::Shred(shred) => return shred.run(context).await,
            Self::Get { tenant } => {
                tenants.get_tenant(GetTenantRequest { name: tenant.0.resource() }).await?
            }
            Self::Update(update) => tenants.update_tenant(update.request()?).await?,
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
            Some(OnMissingArg::Keyless) => OnMissing::Keyless,
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
            keyless: self.keyless,
            fallbacks: self.fallback,
            custom: self.custom,
            ..Tenant::default()
        }
    }
}

impl Update {
    fn request(self) -> Result<UpdateTenantRequest, Failure> {
        let fields = &self.fields;
        let clears = |list| self.clear.contains(&list);
        let lists = [
            ("keyless", !fields.keyless.is_empty(), clears(RuleList::Keyless)),
            ("fallbacks", !fields.fallback.is_empty(), clears(RuleList::Fallbacks)),
            ("custom", !fields.custom.is_empty(), clears(RuleList::Custom)),
        ];
        if lists.iter().any(|(_, set, clear)| *set && *clear) {
            return Err(Failure::Usage("a list is given anew or cleared, not both"));
        }
        let words = [
            ("display_name", fields.display_name.is_some()),
            ("preferred_provider", fields.preferred_provider.is_some()),
            ("on_missing", fields.on_missing.is_some()),
        ];
        let lists = lists.into_iter().map(|(path, set, clear)| (path, set || clear));
        let paths = words.into_iter().chain(lists).filter(|(_, changes)| *changes);
        let paths: Vec<_> = paths.map(|(path, _)| path.to_owned()).collect();
        if paths.is_empty() {
            return Err(Failure::Usage(
                "say what to change; see `strongroom tenants update --help`",
            ));
        }
        let etag = self.etag.unwrap_or_default();
        Ok(UpdateTenantRequest {
            update_mask: Some(FieldMask { paths }),
            tenant: Some(self.fields.tenant(self.tenant.0.resource(), etag)),
        })
    }
}

fn keyless(text: &str) -> Result<KeylessRule, String> {
    let rule = text.split_once('=').and_then(|(models, to)| Some((models, to.split_once('/')?)));
    let (models, (provider, model)) = rule.ok_or("a rule is MODELS=PROVIDER/MODEL")?;
    let (models, provider, model) = (models.to_owned(), provider.to_owned(), model.to_owned());
    Ok(KeylessRule { models, provider, model })
}

fn fallback(text: &str) -> Result<FallbackRule, String> {
    let (provider, to) = text.split_once('=').ok_or("a rule is PROVIDER=CREDENTIAL,…")?;
    Ok(FallbackRule {
        provider: provider.to_owned(),
        to: to.split(',').map(str::to_owned).collect(),
    })
}

fn custom(text: &str) -> Result<CustomRule, String> {
    let (models, credential) = text.split_once('=').ok_or("a rule is MODELS=CREDENTIAL")?;
    Ok(CustomRule { models: models.to_owned(), credential: credential.to_owned() })
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
        ("keyless", tenant.keyless.join("  ")),
        ("falls back", tenant.fallbacks.join("  ")),
        ("custom", tenant.custom.join("  ")),
        ("suspended", if tenant.suspended { "yes" } else { "no" }.to_owned()),
        ("created", tenant.create_time.clone()),
        ("updated", tenant.update_time.clone()),
        ("etag", tenant.etag.clone()),
    ])
}
