use std::{fs, path::Path, sync::Arc};

use anyhow::Context as _;
use domain::{Secret, SystemClock, VirtualKey};
use setup::Layout;
use strongroom_client::{Broker, ClientConfig};
use strongroom_proto::v1::{CreateTenantRequest, CreateVirtualKeyRequest, Credential, Tenant};
use toml::{Table, Value};

use crate::process::Server;

/// A broker with a tenant, a credential and a virtual key, in a process of its own.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) broker: Server,
    pub(crate) key: String,
    pub(crate) layout: Layout,
}

impl Deployment {
    /// Lays one out and starts it. `upstream` takes the provider's place.
    pub(crate) async fn start(
        folder: &Path,
        postgres: Option<&str>,
        upstream: &str,
    ) -> anyhow::Result<Self> {
        let layout = Layout::development(folder, Arc::new(SystemClock))?;
        let mut config: Table = fs::read_to_string(&layout.broker_config)?.parse()?;
        config.insert("listen".to_owned(), "127.0.0.1:0".into());
        config.insert(
            "providers".to_owned(),
            toml::from_str::<Value>(&format!("openai = {{ origin = \"http://{upstream}\" }}"))?,
        );
        if let Some(url) = postgres {
            let url_file = folder.join("keys/postgres.url");
            fs::write(&url_file, url)?;
            fs::set_permissions(&url_file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            config.insert(
                "store".to_owned(),
                toml::from_str::<Value>(
                    "backend = \"postgres\"\nurl_file = \"keys/postgres.url\"",
                )?,
            );
        }
        fs::write(&layout.broker_config, config.to_string())?;
        let path = layout.broker_config.to_str().context("the folder's name is not text")?;
        let broker = Server::served(&["broker", path]).await?;
        let admin = connect(folder, "admin", &broker.address)?;
        let key = seed(&admin).await?;
        Ok(Self { broker, key, layout })
    }

    /// A proxy in front of it.
    pub(crate) async fn proxy(&self) -> anyhow::Result<Server> {
        let mut config: Table = fs::read_to_string(&self.layout.proxy_config)?.parse()?;
        config.insert("listen".to_owned(), "127.0.0.1:0".into());
        config.insert("egress".to_owned(), toml::from_str::<Value>("allow = [\"127.0.0.1/32\"]")?);
        if let Some(peer) = config.get_mut("broker").and_then(Value::as_table_mut) {
            peer.insert("broker".to_owned(), self.broker.address.clone().into());
        }
        fs::write(&self.layout.proxy_config, config.to_string())?;
        let path = self.layout.proxy_config.to_str().context("the folder's name is not text")?;
        Server::served(&["proxy", path]).await
    }
}

/// A connection with an identity of a deployment in this folder.
pub(crate) fn connect(folder: &Path, name: &str, address: &str) -> anyhow::Result<Broker> {
    let pki = folder.join("pki");
    let pki = pki.display();
    let config: ClientConfig = toml::from_str(&format!(
        r#"
        broker = "{address}"
        trust_domains = ["strongroom.local"]
        broker_id = "spiffe://strongroom.local/broker"
        timeout = "30s"
        tls = {{ certificate = "{pki}/{name}.pem", key = "{pki}/{name}.key", ca = "{pki}/ca.pem" }}
        "#
    ))?;
    Ok(Broker::connect(&config, Arc::new(SystemClock))?)
}

async fn seed(admin: &Broker) -> anyhow::Result<String> {
    // Another start may have left it in a database that is not ours alone.
    drop(
        admin
            .tenants()
            .create_tenant(CreateTenantRequest {
                tenant_id: TENANT.to_owned(),
                tenant: Some(Tenant::default()),
                request_id: String::new(),
            })
            .await,
    );
    let secret = Secret::new(b"sk-bench-0123456789abcdef".to_vec());
    let spec = Credential { provider: "openai".to_owned(), ..Credential::default() };
    drop(admin.create_credential(&TENANT.parse()?, &"openai".parse()?, spec, &secret, "").await);
    let key = VirtualKey::generate()?;
    admin
        .virtual_keys()
        .create_virtual_key(CreateVirtualKeyRequest {
            parent: format!("tenants/{TENANT}"),
            virtual_key_id: key.id().to_string(),
            virtual_key: Some(strongroom_proto::v1::VirtualKey::default()),
            key_sha256: key.digest().as_bytes().to_vec().into(),
        })
        .await?;
    Ok(key.expose().to_owned())
}

const TENANT: &str = "bench";
