use std::path::Path;

use anyhow::Context as _;
use domain::{Secret, VirtualKey};
use strongroom_client::Broker;
use strongroom_proto::v1::{CreateTenantRequest, CreateVirtualKeyRequest, Credential, Tenant};

use crate::{fleet::Fleet, process::Server};

/// Brokers with one tenant, one credential and one virtual key.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) fleet: Fleet,
    pub(crate) key: String,
}

impl Deployment {
    /// Lays one out and starts it. `upstream` takes the provider's place.
    pub(crate) async fn start(
        folder: &Path,
        brokers: usize,
        postgres: Option<&str>,
        upstream: &str,
    ) -> anyhow::Result<Self> {
        let fleet = Fleet::start(folder, brokers, postgres, upstream).await?;
        let key = seed(&fleet.connect(0, "admin")?, "bench", SECRET).await?;
        Ok(Self { fleet, key })
    }

    /// Its first broker.
    pub(crate) fn broker(&self) -> anyhow::Result<&Server> {
        self.fleet.brokers.first().context("there is no broker")
    }
}

/// Makes a tenant with a credential, `openai`, and a virtual key, which is given back.
pub(crate) async fn seed(admin: &Broker, tenant: &str, secret: &str) -> anyhow::Result<String> {
    let request = CreateTenantRequest {
        tenant_id: tenant.to_owned(),
        tenant: Some(Tenant::default()),
        request_id: String::new(),
    };
    admin.tenants().create_tenant(request).await?;
    let secret = Secret::new(secret.as_bytes().to_vec());
    let spec = Credential { provider: "openai".to_owned(), ..Credential::default() };
    admin.create_credential(&tenant.parse()?, &"openai".parse()?, spec, &secret, "").await?;
    let key = VirtualKey::generate()?;
    admin
        .virtual_keys()
        .create_virtual_key(CreateVirtualKeyRequest {
            parent: format!("tenants/{tenant}"),
            virtual_key_id: key.id().to_string(),
            virtual_key: Some(strongroom_proto::v1::VirtualKey::default()),
            key_sha256: key.digest().as_bytes().to_vec().into(),
        })
        .await?;
    Ok(key.expose().to_owned())
}

/// The credential's secret, by which the provider knows whose calls they are.
pub(crate) const SECRET: &str = "sk-bench-0123456789abcdef";
