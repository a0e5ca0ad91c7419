mod fields;
mod rotation;

use clap::{Args, Subcommand};
use domain::{VirtualKey, VirtualKeyName};
use prost_types::FieldMask;
use serde_json::json;
use strongroom_client::Broker;
use strongroom_proto::v1::{
    self, BlockVirtualKeyRequest, CreateVirtualKeyRequest, GetVirtualKeyRequest,
    ListVirtualKeysRequest, RetireVirtualKeyValuesRequest, RevokeVirtualKeyRequest,
    UnblockVirtualKeyRequest, UpdateVirtualKeyRequest,
};

use self::{
    fields::{Field, Fields},
    rotation::Rotate,
};
use crate::{
    context::Context,
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
    /// Changes what is named, and nothing else. It counts with the next call.
    Update(Update),
    /// Makes a new value for a key and prints it, once. The old one is accepted for a while.
    Rotate(Rotate),
    /// Ends the values from before rotations now.
    Retire {
        /// The key's name, such as `acme/{id}`.
        key: KeyArg,
    },
    /// Refuses a virtual key until it is unblocked, and ends every lease made with it.
    Block {
        /// The key's name, such as `acme/{id}`.
        key: KeyArg,
    },
    /// Accepts a blocked virtual key again.
    Unblock {
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
    #[command(flatten)]
    fields: Fields,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    /// The key's name, such as `acme/{id}`.
    key: KeyArg,
    /// Change it only if it is still as it was when this was read.
    #[arg(long)]
    etag: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// Takes what is set away. Repeatable.
    #[arg(long, value_name = "FIELD")]
    clear: Vec<Field>,
}

impl Verb {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let broker = context.broker()?;
        let mut keys = broker.virtual_keys();
        let name = |key: KeyArg| key.0.to_string();
        let key = match self {
            Self::Create(create) => return create.run(context, &broker).await,
            Self::Rotate(rotate) => return rotate.run(context, &broker).await,
            Self::List { tenant } => return list_all(context, &broker, &tenant).await,
            Self::Get { key } => {
                keys.get_virtual_key(GetVirtualKeyRequest { name: name(key) }).await?
            }
            Self::Update(update) => keys.update_virtual_key(update.request()?).await?,
            Self::Retire { key } => {
                let request = RetireVirtualKeyValuesRequest { name: name(key) };
                keys.retire_virtual_key_values(request).await?
            }
            Self::Block { key } => {
                keys.block_virtual_key(BlockVirtualKeyRequest { name: name(key) }).await?
            }
            Self::Unblock { key } => {
                keys.unblock_virtual_key(UnblockVirtualKeyRequest { name: name(key) }).await?
            }
            Self::Revoke { key } => {
                keys.revoke_virtual_key(RevokeVirtualKeyRequest { name: name(key) }).await?
            }
        };
        context.output.show(&KeyView::from(key.into_inner()), human)
    }
}

impl Create {
    async fn run(self, context: &Context, broker: &Broker) -> Result<(), Failure> {
        let key = VirtualKey::generate().map_err(|_| Failure::NoRandomness)?;
        let tenant = self.tenant.0;
        let name = VirtualKeyName { tenant: tenant.clone(), id: key.id().clone() };
        let (virtual_key, _) = self.fields.take(&name);
        let request = CreateVirtualKeyRequest {
            parent: tenant.resource(),
            virtual_key_id: key.id().to_string(),
            virtual_key: Some(virtual_key),
            key_sha256: key.digest().as_bytes().to_vec().into(),
        };
        let made = broker.virtual_keys().create_virtual_key(request).await?;
        show_once(context, &key, made.into_inner())
    }
}

impl Update {
    fn request(self) -> Result<UpdateVirtualKeyRequest, Failure> {
        let (mut virtual_key, mut paths) = self.fields.take(&self.key.0);
        virtual_key.etag = self.etag.unwrap_or_default();
        for field in self.clear {
            if paths.contains(&field.path()) {
                return Err(Failure::Usage("a field is either given or cleared"));
            }
            paths.push(field.path());
        }
        if paths.is_empty() {
            return Err(Failure::Usage("name what to change; `--help` lists it"));
        }
        let paths = paths.into_iter().map(str::to_owned).collect();
        let (virtual_key, update_mask) = (Some(virtual_key), Some(FieldMask { paths }));
        Ok(UpdateVirtualKeyRequest { virtual_key, update_mask })
    }
}

/// The one place that prints a key: whoever made it must be able to hand it on.
fn show_once(context: &Context, key: &VirtualKey, made: v1::VirtualKey) -> Result<(), Failure> {
    let view = KeyView::from(made);
    context.output.note(human(&view).trim_end());
    context.output.note("The key follows. It is shown this once; keep it like a password.");
    let result = json!({ "key": key.expose(), "virtual_key": view });
    context.output.show(&result, |_| key.expose().to_owned())
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
                key.owner.clone(),
                key.group.clone(),
                key.providers.join(","),
                key.models.join(","),
                key.expire_time.clone(),
            ]
        };
        let header =
            ["NAME", "DISPLAY NAME", "STATE", "OWNER", "GROUP", "PROVIDERS", "MODELS", "EXPIRES"];
        table(header, keys.iter().map(row).collect())
    })
}

fn human(key: &KeyView) -> String {
    let label = |(name, text): (&String, &String)| format!("{name}={text}");
    let limit = |most: u64| if most == 0 { String::new() } else { most.to_string() };
    list([
        ("name", key.name.clone()),
        ("display name", key.display_name.clone()),
        ("state", key.state.to_owned()),
        ("owner", key.owner.clone()),
        ("group", key.group.clone()),
        ("labels", key.labels.iter().map(label).collect::<Vec<_>>().join(", ")),
        ("providers", key.providers.join(", ")),
        ("models", key.models.join(", ")),
        ("endpoints", key.endpoints.join(", ")),
        ("networks", key.networks.join(", ")),
        ("requests a minute", limit(key.requests_per_minute)),
        ("tokens a minute", limit(key.tokens_per_minute)),
        ("calls at once", limit(key.concurrent)),
        ("expires", key.expire_time.clone()),
        ("old values until", key.previous_expire_times.join(", ")),
        ("created", key.create_time.clone()),
        ("etag", key.etag.clone()),
    ])
}
