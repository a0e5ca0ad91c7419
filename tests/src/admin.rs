use std::time::Duration;

use domain::{CredentialId, CredentialName, Secret, TenantId, Uid, VirtualKey};
use strongroom_client::ClientError;
use strongroom_proto::v1;
use testkit::StandIn;
use tokio::time::{Instant, interval};

use crate::Deployment;

/// A credential to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewCredential<'a> {
    /// Whose it is: the last segment of the tenant's name.
    pub tenant: &'a str,
    /// What it is to be called.
    pub id: &'a str,
    /// The provider's slug.
    pub provider: &'a str,
    /// The secret.
    pub secret: &'a str,
}

impl Deployment {
    /// Makes a tenant.
    pub async fn create_tenant(&self, id: &str) -> v1::Tenant {
        let request = v1::CreateTenantRequest {
            tenant_id: id.to_owned(),
            tenant: Some(v1::Tenant::default()),
            request_id: String::new(),
        };
        self.admin().tenants().create_tenant(request).await.unwrap().into_inner()
    }

    /// Stores a credential.
    pub async fn store(&self, new: NewCredential<'_>) -> Result<v1::Credential, ClientError> {
        let tenant: TenantId = new.tenant.parse().unwrap();
        let id: CredentialId = new.id.parse().unwrap();
        let spec =
            v1::Credential { provider: new.provider.to_owned(), ..v1::Credential::default() };
        let secret = Secret::new(new.secret.as_bytes().to_vec());
        self.admin().create_credential(&tenant, &id, spec, &secret, &request_id()).await
    }

    /// Stores the one credential that a stand-in takes, under its slug.
    pub async fn store_for(&self, tenant: &str, stand_in: &StandIn) -> v1::Credential {
        let settings = stand_in.settings().iter().map(|(name, value)| v1::Setting {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        });
        let spec = v1::Credential {
            provider: stand_in.slug().to_owned(),
            kind: stand_in.credential_kind().to_owned(),
            settings: settings.collect(),
            ..v1::Credential::default()
        };
        let (tenant, id) = (tenant.parse().unwrap(), stand_in.slug().parse().unwrap());
        let secret = Secret::new(stand_in.key().as_bytes().to_vec());
        self.admin().create_credential(&tenant, &id, spec, &secret, &request_id()).await.unwrap()
    }

    /// Puts another secret in a credential's place.
    pub async fn rotate(&self, name: &str, secret: &str) -> v1::Credential {
        let name: CredentialName = name.parse().unwrap();
        let secret = Secret::new(secret.as_bytes().to_vec());
        self.admin().rotate_credential(&name, &secret, None, &request_id()).await.unwrap()
    }

    /// Begins to put another secret in a credential's place, with this share of the leases.
    pub async fn start_rotation(
        &self,
        name: &str,
        secret: &str,
        plan: v1::RotationPlan,
    ) -> v1::Credential {
        let name: CredentialName = name.parse().unwrap();
        let secret = Secret::new(secret.as_bytes().to_vec());
        self.admin().start_rotation(&name, &secret, plan, None, &request_id(), false).await.unwrap()
    }

    /// Takes a rotation on by hand.
    pub async fn promote(&self, name: &str) -> v1::Credential {
        let request = v1::PromoteRotationRequest { name: name.to_owned(), etag: String::new() };
        self.admin().credentials().promote_rotation(request).await.unwrap().into_inner()
    }

    /// A credential as it stands.
    pub async fn credential(&self, name: &str) -> v1::Credential {
        let request = v1::GetCredentialRequest { name: name.to_owned() };
        self.admin().credentials().get_credential(request).await.unwrap().into_inner()
    }

    /// Stops a credential from being lent.
    pub async fn disable(&self, name: &str) -> v1::Credential {
        let request = v1::DisableCredentialRequest { name: name.to_owned(), etag: String::new() };
        self.admin().credentials().disable_credential(request).await.unwrap().into_inner()
    }

    /// Makes a virtual key, limited to these models if any are named: the key and its name.
    pub async fn create_key(&self, tenant: &str, models: &[&str]) -> (String, String) {
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        self.create_key_as(tenant, v1::VirtualKey { models, ..v1::VirtualKey::default() }).await
    }

    /// Makes a virtual key with these terms.
    pub async fn create_key_as(&self, tenant: &str, terms: v1::VirtualKey) -> (String, String) {
        let key = VirtualKey::generate().unwrap();
        let request = v1::CreateVirtualKeyRequest {
            parent: format!("tenants/{tenant}"),
            virtual_key_id: key.id().to_string(),
            virtual_key: Some(terms),
            key_sha256: key.digest().as_bytes().to_vec().into(),
        };
        let made = self.admin().virtual_keys().create_virtual_key(request).await.unwrap();
        (key.expose().to_owned(), made.into_inner().name)
    }

    /// Makes a budget of a tenant, of so many micro-USD in all; gives its name.
    pub async fn create_budget(&self, tenant: &str, micro_usd: u64) -> String {
        let length = v1::period::Length::Total.into();
        let budget = v1::Budget {
            period: Some(v1::Period { length, ..v1::Period::default() }),
            limits: vec![v1::Limit { unit: v1::Unit::MicroUsd.into(), cap: micro_usd }],
            ..v1::Budget::default()
        };
        let request = v1::CreateBudgetRequest {
            parent: format!("tenants/{tenant}"),
            budget_id: "all".to_owned(),
            budget: Some(budget),
            request_id: request_id(),
        };
        self.admin().budgets().create_budget(request).await.unwrap().into_inner().name
    }

    /// How the one limit of a budget stands.
    pub async fn account(&self, budget: &str) -> v1::Account {
        let request = v1::GetBudgetRequest { name: budget.to_owned() };
        let budget = self.admin().budgets().get_budget(request).await.unwrap().into_inner();
        budget.accounts.into_iter().next().unwrap()
    }

    /// Waits until the one limit of a budget stands like this.
    pub async fn account_when(
        &self,
        budget: &str,
        holds: impl Fn(&v1::Account) -> bool,
    ) -> v1::Account {
        let mut looks = interval(Duration::from_millis(50));
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            looks.tick().await;
            let account = self.account(budget).await;
            if holds(&account) {
                return account;
            }
            assert!(Instant::now() < deadline, "{account:?}");
        }
    }

    /// Settles what nobody knows of a tenant's allowances: all of them together came to this.
    pub async fn reconcile(&self, tenant: &str, micro_usd: u64) {
        let parent = format!("tenants/{tenant}");
        let request = v1::ListUnknownAllowancesRequest {
            parent: parent.clone(),
            ..v1::ListUnknownAllowancesRequest::default()
        };
        let unknown = self.admin().budgets().list_unknown_allowances(request).await.unwrap();
        let costs = [micro_usd].into_iter().chain(std::iter::repeat(0));
        let found = unknown.into_inner().allowances.into_iter().zip(costs);
        let found = found.map(|(allowance, micro_usd)| v1::Found {
            allowance_id: allowance.allowance_id,
            spent: Some(v1::Spent { micro_usd, ..v1::Spent::default() }),
            ..v1::Found::default()
        });
        let request = v1::ReconcileAllowancesRequest { parent, found: found.collect() };
        let answer = self.admin().budgets().reconcile_allowances(request).await.unwrap();
        assert_eq!(answer.into_inner().not_accepted, []);
    }

    /// Gives a virtual key a new value and ends the old one at once; gives the value.
    pub async fn rotate_key(&self, key: &str, name: &str) -> String {
        let (id, _) = VirtualKey::inspect(key).unwrap();
        let new = VirtualKey::renew(id).unwrap();
        let request = v1::RotateVirtualKeyRequest {
            name: name.to_owned(),
            key_sha256: new.digest().as_bytes().to_vec().into(),
            overlap: Duration::ZERO.try_into().ok(),
            etag: String::new(),
        };
        self.admin().virtual_keys().rotate_virtual_key(request).await.unwrap();
        new.expose().to_owned()
    }

    /// Blocks a virtual key.
    pub async fn block_key(&self, name: &str) -> v1::VirtualKey {
        let request = v1::BlockVirtualKeyRequest { name: name.to_owned() };
        self.admin().virtual_keys().block_virtual_key(request).await.unwrap().into_inner()
    }

    /// Accepts a blocked virtual key again.
    pub async fn unblock_key(&self, name: &str) -> v1::VirtualKey {
        let request = v1::UnblockVirtualKeyRequest { name: name.to_owned() };
        self.admin().virtual_keys().unblock_virtual_key(request).await.unwrap().into_inner()
    }

    /// Revokes a virtual key.
    pub async fn revoke_key(&self, name: &str) -> v1::VirtualKey {
        let request = v1::RevokeVirtualKeyRequest { name: name.to_owned() };
        self.admin().virtual_keys().revoke_virtual_key(request).await.unwrap().into_inner()
    }
}

fn request_id() -> String {
    Uid::random().unwrap().to_string()
}
