use std::time::Duration;

use clap::{Args, Subcommand};
use domain::{Clock as _, ModelPattern, ProviderId, SystemClock, VirtualKey, VirtualKeyName};
use serde_json::json;
use strongroom_client::Broker;
use strongroom_proto::v1::{
    self, CreateVirtualKeyRequest, GetVirtualKeyRequest, ListVirtualKeysRequest,
    RevokeVirtualKeyRequest,
};

use crate::{
    context::Context,
    expiry,
    failure::Failure,
    names::{KeyArg, TenantArg},
    output::{list, table},
    views::KeyView,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Makes a virtual key and prints it, once. Only its digest is sent to the broker.
    Create(Create),
    /// Lists a tenant's virtual keys.
    List {
        /// The tenant, such as `acme`.
        tenant: TenantArg,
    },
    /// Shows one virtual key, which is not the key itself.
    Get {
        /// The key's name, such as `acme/{id}`.
        key: KeyArg,
    },
    /// Ends a virtual key and every lease made with it, for good.
    Revoke {
        /// The key's name, such as `acme/{id}`.
        key: KeyArg,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The tenant, such as `acme`.
    tenant: TenantArg,
    /// A name for people.
    #[arg(long)]
    display_name: Option<String>,
    /// After how long the key is refused: `30d`, `12h`. Absent: never.
    #[arg(long, value_parser = expiry::parse)]
    expires: Option<Duration>,
    /// The models it may use, with commas between: names, or beginnings that end in `*`. Absent: all.
    #[arg(long, value_delimiter = ',')]
    models: Vec<ModelPattern>,
    /// The providers it may reach, with commas between. Absent: all.
    #[arg(long, value_delimiter = ',')]
    providers: Vec<ProviderId>,
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let broker = context.broker()?;
        let key = match self {
            Self::Create(create) => return create.run(context, &broker).await,
            Self::List { tenant } => return list_all(context, &broker, &tenant).await,
            Self::Get { key } => {
                let request = GetVirtualKeyRequest { name: key.0.to_string() };
                broker.virtual_keys().get_virtual_key(request).await?
            }
            Self::Revoke { key } => {
                let request = RevokeVirtualKeyRequest { name: key.0.to_string() };
                broker.virtual_keys().revoke_virtual_key(request).await?
            }
        };
        context.output.show(&KeyView::from(key.into_inner()), human)
    }
}

impl Create {
    async fn run(self, context: &Context, broker: &Broker) -> Result<(), Failure> {
        let key = VirtualKey::generate().map_err(|_| Failure::NoRandomness)?;
        let tenant = self.tenant.0;
        let expire_time = self.expires.map(|after| audit::proto_time(SystemClock.now() + after));
        let request = CreateVirtualKeyRequest {
            parent: tenant.resource(),
            virtual_key_id: key.id().to_string(),
            virtual_key: Some(v1::VirtualKey {
                name: VirtualKeyName { tenant, id: key.id().clone() }.to_string(),
                display_name: self.display_name.unwrap_or_default(),
                providers: self.providers.iter().map(ToString::to_string).collect(),
                models: self.models.iter().map(ToString::to_string).collect(),
                expire_time,
                ..v1::VirtualKey::default()
            }),
            key_sha256: key.digest().as_bytes().to_vec().into(),
        };
        let made = broker.virtual_keys().create_virtual_key(request).await?;
        let view = KeyView::from(made.into_inner());
        context.output.note(human(&view).trim_end());
        context.output.note("The key follows. It is shown this once; keep it like a password.");
        // The one place that prints a key: whoever made it must be able to hand it on.
        let result = json!({ "key": key.expose(), "virtual_key": view });
        context.output.show(&result, |_| key.expose().to_owned())
    }
}

async fn list_all(context: &Context, broker: &Broker, tenant: &TenantArg) -> Result<(), Failure> {
    let mut client = broker.virtual_keys();
    let mut keys: Vec<KeyView> = Vec::new();
    let mut page_token = String::new();
    loop {
        let parent = tenant.0.resource();
        let request = ListVirtualKeysRequest { parent, page_size: 1000, page_token };
        let page = client.list_virtual_keys(request).await?.into_inner();
        keys.extend(page.virtual_keys.into_iter().map(KeyView::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    context.output.show(&json!({ "virtual_keys": keys }), |_| {
        let row = |key: &KeyView| {
            [
                key.name.clone(),
                key.display_name.clone(),
                key.state.to_owned(),
                key.providers.join(","),
                key.models.join(","),
                key.expire_time.clone(),
            ]
        };
        let header = ["NAME", "DISPLAY NAME", "STATE", "PROVIDERS", "MODELS", "EXPIRES"];
        table(header, keys.iter().map(row).collect())
    })
}

fn human(key: &KeyView) -> String {
    list([
        ("name", key.name.clone()),
        ("display name", key.display_name.clone()),
        ("state", key.state.to_owned()),
        ("providers", key.providers.join(", ")),
        ("models", key.models.join(", ")),
        ("expires", key.expire_time.clone()),
        ("created", key.create_time.clone()),
        ("etag", key.etag.clone()),
    ])
}
