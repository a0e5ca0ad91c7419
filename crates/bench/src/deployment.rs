use std::{path::Path, time::Duration};

use anyhow::Context as _;
use domain::{CredentialId, Secret, TenantId, VirtualKey};
use strongroom_client::{Broker, ClientError};
use strongroom_proto::v1::{CreateTenantRequest, CreateVirtualKeyRequest, Credential, Tenant};
use tokio::time::sleep;
use tonic::Code;

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

/// Makes a tenant with a credential, `openai`, and a virtual key, which is given back. On a machine that
/// is busy with other things as well, the database of brokers that have just started may keep them waiting.
pub(crate) async fn seed(admin: &Broker, tenant: &str, secret: &str) -> anyhow::Result<String> {
    let names = (tenant.parse()?, "openai".parse()?);
    let key = VirtualKey::generate()?;
    let mut tries = 1;
    loop {
        match register(admin, &names, secret, &key).await {
            Err(ClientError::Call(status))
                if status.code() == Code::Unavailable && tries < TRIES =>
            {
                tries += 1;
                sleep(PAUSE).await;
            }
            registered => return Ok(registered.map(|()| key.expose().to_owned())?),
        }
    }
}

/// Safe to repeat.
async fn register(
    admin: &Broker,
    (tenant, credential): &(TenantId, CredentialId),
    secret: &str,
    key: &VirtualKey,
) -> Result<(), ClientError> {
    let request = CreateTenantRequest {
        tenant_id: tenant.to_string(),
        tenant: Some(Tenant::default()),
        request_id: "seed".to_owned(),
    };
    admin.tenants().create_tenant(request).await?;
    let secret = Secret::new(secret.as_bytes().to_vec());
    let spec = Credential { provider: "openai".to_owned(), ..Credential::default() };
    admin.create_credential(tenant, credential, spec, &secret, "seed").await?;
    let request = CreateVirtualKeyRequest {
        parent: format!("tenants/{tenant}"),
        virtual_key_id: key.id().to_string(),
        virtual_key: Some(strongroom_proto::v1::VirtualKey::default()),
        key_sha256: key.digest().as_bytes().to_vec().into(),
    };
    admin.virtual_keys().create_virtual_key(request).await?;
    Ok(())
}

const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// The credential's secret, by which the provider knows whose calls they are.
pub(crate) const SECRET: &str = "sk-bench-0123456789abcdef";
