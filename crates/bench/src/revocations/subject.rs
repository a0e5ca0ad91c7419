use std::sync::Arc;

use domain::{CredentialName, Secret};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use strongroom_client::Broker;
use strongroom_proto::v1::{
    DisableCredentialRequest, RevokeVirtualKeyRequest, SuspendTenantRequest,
};

use crate::deployment::seed;

/// What is revoked: a tenant with one credential and one virtual key, so that the secret which
/// arrives upstream says whose call it was.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) how: How,
    pub(crate) secret: String,
    pub(crate) key: String,
    tenant: String,
}

/// The ways to stop it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(crate) enum How {
    /// Its virtual key is revoked.
    VirtualKey,
    /// Its credential is disabled.
    Credential,
    /// Its credential is rotated: the old secret must not be used again.
    Version,
    /// Its tenant is suspended.
    Tenant,
    /// Not at all: this one is there to be seen in use when the others no longer are.
    Spared,
}

impl How {
    pub(crate) const REAL: [Self; 4] =
        [Self::VirtualKey, Self::Credential, Self::Version, Self::Tenant];
}

impl Subject {
    /// Makes so many, some at once, to be stopped in all ways in turn, and behind them a spared one.
    pub(crate) async fn make(admin: &Broker, count: usize) -> anyhow::Result<Arc<[Self]>> {
        let made = How::REAL.iter().cycle().take(count).chain([&How::Spared]);
        let made = made.enumerate().map(async |(number, how)| {
            let (tenant, secret) = (format!("t-{number}"), format!("sk-measured-{number:012}"));
            let key = seed(admin, &tenant, &secret).await?;
            anyhow::Ok(Self { how: *how, secret, key, tenant })
        });
        let made = stream::iter(made).buffered(AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(made.into())
    }

    /// Stops it.
    pub(crate) async fn revoke(&self, admin: &Broker) -> anyhow::Result<()> {
        let tenant = format!("tenants/{}", self.tenant);
        let credential = format!("{tenant}/credentials/openai");
        match self.how {
            How::VirtualKey => {
                let (id, _) = domain::VirtualKey::inspect(&self.key)?;
                let request =
                    RevokeVirtualKeyRequest { name: format!("{tenant}/virtualKeys/{id}") };
                admin.virtual_keys().revoke_virtual_key(request).await?;
            }
            How::Credential => {
                let request = DisableCredentialRequest { name: credential, etag: String::new() };
                admin.credentials().disable_credential(request).await?;
            }
            How::Version => {
                let name: CredentialName = credential.parse()?;
                let secret = Secret::new(format!("{}-rotated", self.secret).into_bytes());
                admin.rotate_credential(&name, &secret, None, "").await?;
            }
            How::Spared => {}
            How::Tenant => {
                let request = SuspendTenantRequest { name: tenant };
                admin.tenants().suspend_tenant(request).await?;
            }
        }
        Ok(())
    }
}

const AT_ONCE: usize = 16;
