use std::time::Duration;

use anyhow::Context as _;
use audit::proto_time;
use domain::{Clock, CredentialName, SystemClock, TenantId, Uid, VirtualKey};
use strongroom_client::{Broker, ClientError, Problem};
use strongroom_proto::v1::{
    CreateTenantRequest, CreateVirtualKeyRequest, Credential, DeleteCredentialRequest,
    DisableCredentialRequest, EnableCredentialRequest, ListCredentialsRequest,
    ListVirtualKeysRequest, RevokeVirtualKeyRequest, Tenant, VirtualKey as VirtualKeyMessage,
    credential, virtual_key,
};

use crate::environment::{Found, KNOWN};

/// Sets the tenant of the quickstart up over the broker's own API, as an administrator would.
#[derive(Debug)]
pub(crate) struct Seed<'a> {
    admin: &'a Broker,
    tenant: TenantId,
}

/// Whose keys they are.
const TENANT: &str = "quickstart";

/// How long a virtual key is good for: it cannot be shown again, so each start makes a new one.
const KEY_LIFETIME: Duration = Duration::from_hours(24);

impl<'a> Seed<'a> {
    pub(crate) fn new(admin: &'a Broker) -> anyhow::Result<Self> {
        Ok(Self { admin, tenant: TENANT.parse()? })
    }

    /// Makes the tenant, unless an earlier start made it.
    pub(crate) async fn tenant(&self) -> anyhow::Result<()> {
        let request = CreateTenantRequest {
            tenant_id: self.tenant.to_string(),
            tenant: Some(Tenant { display_name: "Quickstart".to_owned(), ..Tenant::default() }),
            request_id: String::new(),
        };
        match self.admin.tenants().create_tenant(request).await {
            Err(status) if Problem::from_status(&status).reason != "NAME_TAKEN" => {
                Err(failed(status.into(), "making the tenant"))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Stores these keys, and sees to it that no other one is used in their place: keys of earlier
    /// stand-ins are deleted, and stored keys of real providers rest while a stand-in answers.
    pub(crate) async fn credentials(&self, found: &[Found], by: Answering) -> anyhow::Result<()> {
        let stored = self.stored().await?;
        let stored = |name: &str| stored.iter().find(|one| one.name == name);
        for known in KNOWN {
            let (real, stand_in) = (self.name(known.provider)?, self.name(known.stand_in)?);
            let key = found.iter().find(|found| found.of == known);
            match by {
                Answering::Providers => {
                    if stored(&stand_in.to_string()).is_some() {
                        self.delete(&stand_in).await?;
                    }
                    if let Some(found) = key {
                        self.keep(&real, found, stored(&real.to_string())).await?;
                    }
                }
                Answering::StandIn => {
                    if stored(&real.to_string()).is_some_and(is_enabled) {
                        self.disable(&real).await?;
                    }
                    if let Some(found) = key {
                        self.keep(&stand_in, found, stored(&stand_in.to_string())).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A new virtual key. Those of earlier starts are revoked.
    pub(crate) async fn virtual_key(&self) -> anyhow::Result<VirtualKey> {
        let (mut client, parent) = (self.admin.virtual_keys(), self.tenant.resource());
        let mut page_token = String::new();
        loop {
            let request =
                ListVirtualKeysRequest { parent: parent.clone(), page_size: 0, page_token };
            let page = client.list_virtual_keys(request).await.context("listing virtual keys")?;
            let page = page.into_inner();
            for key in page.virtual_keys {
                if key.display_name == KEY_NAME && key.state() == virtual_key::State::Active {
                    let request = RevokeVirtualKeyRequest { name: key.name };
                    client.revoke_virtual_key(request).await.context("revoking an earlier key")?;
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let key = VirtualKey::generate()?;
        let expire_time = Some(proto_time(SystemClock.now() + KEY_LIFETIME));
        let display_name = KEY_NAME.to_owned();
        let request = CreateVirtualKeyRequest {
            parent,
            virtual_key_id: key.id().to_string(),
            virtual_key: Some(VirtualKeyMessage {
                display_name,
                expire_time,
                ..Default::default()
            }),
            key_sha256: key.digest().as_bytes().to_vec().into(),
        };
        client.create_virtual_key(request).await.context("making a virtual key")?;
        Ok(key)
    }

    async fn stored(&self) -> anyhow::Result<Vec<Credential>> {
        let request = ListCredentialsRequest {
            parent: self.tenant.resource(),
            page_size: 1000,
            page_token: String::new(),
        };
        let listed = self.admin.credentials().list_credentials(request).await;
        Ok(listed.context("listing credentials")?.into_inner().credentials)
    }

    /// Stores a key under a name, where another one may be stored already.
    async fn keep(
        &self,
        name: &CredentialName,
        found: &Found,
        stored: Option<&Credential>,
    ) -> anyhow::Result<()> {
        let request_id = Uid::random()?.to_string();
        let kept = match stored {
            None => {
                let provider = found.of.provider.to_owned();
                let spec = Credential { provider, ..Credential::default() };
                let (parent, id) = (&name.tenant, &name.credential);
                self.admin.create_credential(parent, id, spec, &found.key, &request_id).await
            }
            // All that is known of the stored one. A key that ends like it and is too short to show
            // its end could be another one, so that is rotated as well.
            Some(stored)
                if stored.last_four.is_empty() || stored.last_four != found.key.last_four() =>
            {
                self.admin.rotate_credential(name, &found.key, None, &request_id).await
            }
            Some(stored) => Ok(stored.clone()),
        };
        let kept = kept.map_err(|error| failed(error, "storing a key"))?;
        if is_enabled(&kept) { Ok(()) } else { self.enable(name).await }
    }

    async fn enable(&self, name: &CredentialName) -> anyhow::Result<()> {
        let request = EnableCredentialRequest { name: name.to_string(), etag: String::new() };
        let enabled = self.admin.credentials().enable_credential(request).await;
        enabled.map(drop).context("enabling a stored key")
    }

    async fn disable(&self, name: &CredentialName) -> anyhow::Result<()> {
        crate::speech::say(format_args!(
            "  {name} is stored and rests: its key is not in the environment, and it must not \
             reach the stand-in."
        ));
        let request = DisableCredentialRequest { name: name.to_string(), etag: String::new() };
        let disabled = self.admin.credentials().disable_credential(request).await;
        disabled.map(drop).context("disabling a stored key")
    }

    async fn delete(&self, name: &CredentialName) -> anyhow::Result<()> {
        let request = DeleteCredentialRequest { name: name.to_string(), etag: String::new() };
        let deleted = self.admin.credentials().delete_credential(request).await;
        deleted.map(drop).context("deleting a stand-in's key")
    }

    fn name(&self, credential: &str) -> anyhow::Result<CredentialName> {
        Ok(CredentialName { tenant: self.tenant.clone(), credential: credential.parse()? })
    }
}

/// Who answers calls.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answering {
    /// The real ones.
    Providers,
    /// The loopback stand-in.
    StandIn,
}

/// By which keys of earlier starts are told from an administrator's.
const KEY_NAME: &str = "quickstart";

fn is_enabled(credential: &Credential) -> bool {
    credential.state() == credential::State::Enabled
}

fn failed(error: ClientError, doing: &'static str) -> anyhow::Error {
    if let ClientError::Call(status) = &error {
        return anyhow::Error::new(Problem::from_status(status)).context(doing);
    }
    anyhow::Error::new(error).context(doing)
}
