use std::sync::Arc;

use audit::{Kind, Record};
use domain::{VirtualKeyDigest, VirtualKeyId, VirtualKeyName};
use store::{Change, Page, VirtualKeyRow};
use strongroom_proto::v1::{self, virtual_keys_server::VirtualKeys};
use tonic::{Request, Response, Status};

use self::terms::{message, rates};
use crate::{
    caller::Caller,
    core::{Core, accept, display_name, next_page, page_size, parse, parse_optional, parse_tenant},
    custody::Sealed as _,
    refused::{About, Refused, Why},
};

/// `strongroom.v1.VirtualKeys`.
#[derive(Clone, Debug)]
pub(crate) struct VirtualKeyService(pub(crate) Arc<Core>);

mod changing;
mod terms;

#[tonic::async_trait]
impl VirtualKeys for VirtualKeyService {
    async fn create_virtual_key(
        &self,
        request: Request<v1::CreateVirtualKeyRequest>,
    ) -> Result<Response<v1::VirtualKey>, Status> {
        let (caller, request) = accept(request)?;
        let work = Box::pin(self.0.create_virtual_key(&caller, request));
        self.0.answer(&caller, work).await
    }

    async fn get_virtual_key(
        &self,
        request: Request<v1::GetVirtualKeyRequest>,
    ) -> Result<Response<v1::VirtualKey>, Status> {
        let (caller, request) = accept(request)?;
        let work = async {
            let name: VirtualKeyName = parse(&request.name)?;
            let about = about(&name);
            caller.concerns(about.clone());
            let row = self.0.virtual_key(&caller, &name).await;
            row.map(|row| message(&row)).map_err(|why| Refused::about(why, &about))
        };
        self.0.answer(&caller, work).await
    }

    async fn list_virtual_keys(
        &self,
        request: Request<v1::ListVirtualKeysRequest>,
    ) -> Result<Response<v1::ListVirtualKeysResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.list_virtual_keys(&caller, &request)).await
    }

    async fn revoke_virtual_key(
        &self,
        request: Request<v1::RevokeVirtualKeyRequest>,
    ) -> Result<Response<v1::VirtualKey>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.revoke_virtual_key(&caller, &request.name)).await
    }

    async fn update_virtual_key(
        &self,
        request: Request<v1::UpdateVirtualKeyRequest>,
    ) -> Result<Response<v1::VirtualKey>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.update_virtual_key(&caller, &request)).await
    }

    async fn rotate_virtual_key(
        &self,
        request: Request<v1::RotateVirtualKeyRequest>,
    ) -> Result<Response<v1::VirtualKey>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.rotate_virtual_key(&caller, &request)).await
    }

    async fn retire_virtual_key_values(
        &self,
        request: Request<v1::RetireVirtualKeyValuesRequest>,
    ) -> Result<Response<v1::VirtualKey>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.retire_virtual_key_values(&caller, &request.name)).await
    }

    async fn block_virtual_key(
        &self,
        request: Request<v1::BlockVirtualKeyRequest>,
    ) -> Result<Response<v1::VirtualKey>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.block_virtual_key(&caller, &request.name, true)).await
    }

    async fn unblock_virtual_key(
        &self,
        request: Request<v1::UnblockVirtualKeyRequest>,
    ) -> Result<Response<v1::VirtualKey>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.block_virtual_key(&caller, &request.name, false)).await
    }
}

impl Core {
    pub(crate) async fn create_virtual_key(
        &self,
        caller: &Caller,
        request: v1::CreateVirtualKeyRequest,
    ) -> Result<v1::VirtualKey, Refused> {
        let tenant = parse_tenant(&request.parent)?;
        let name = VirtualKeyName { tenant, id: parse(&request.virtual_key_id)? };
        let about = about(&name);
        caller.concerns(about.clone());
        self.create_key(caller, &name, request).await.map_err(|why| Refused::about(why, &about))
    }

    async fn create_key(
        &self,
        caller: &Caller,
        name: &VirtualKeyName,
        request: v1::CreateVirtualKeyRequest,
    ) -> Result<v1::VirtualKey, Why> {
        self.catch_up().await?;
        let tenant = self.tenant(caller, &name.tenant).await?;
        let verifier = self.verifier(&name.id, &request.key_sha256)?;
        if let Some(existing) = self.directory.virtual_key(&name.id).await? {
            // The same key again: the answer to its first registration may have been lost.
            let same = existing.tenant == name.tenant && existing.verifier == verifier;
            return if same {
                Ok(message(&existing))
            } else {
                Err(Why::NameTaken(name.to_string()))
            };
        }
        let asked = request.virtual_key.unwrap_or_default();
        let now = self.clock.now();
        let mut row = VirtualKeyRow {
            id: name.id.clone(),
            tenant_uid: tenant.row.uid,
            tenant: name.tenant.clone(),
            display_name: display_name(&asked.display_name)?,
            verifier,
            previous: Vec::new(),
            terms: self.key_terms(&asked)?,
            group: parse_optional(&asked.group)?,
            rates: rates(&asked)?,
            blocked: false,
            revoked: false,
            revision: 1,
            created_at: now,
            updated_at: now,
            row_mac: [0; 36],
        };
        row.row_mac = row.mac_under(&*self.custody.kek(&tenant.keys).await?);
        let change = Change::CreateVirtualKey(row.clone());
        let kind = Kind::VirtualKeyCreated.into();
        self.change(&change, caller.stamp(Record { kind, ..record(&row) })).await?;
        Ok(message(&row))
    }

    /// What is kept of a key with this digest.
    fn verifier(&self, id: &VirtualKeyId, sha256: &[u8]) -> Result<[u8; 32], Why> {
        let wrong = |_| Why::InvalidField("key_sha256 is 32 bytes".into());
        let digest: [u8; 32] = sha256.try_into().map_err(wrong)?;
        Ok(VirtualKeyDigest::from_bytes(digest).verifier(&self.pepper, id))
    }

    async fn virtual_key(
        &self,
        caller: &Caller,
        name: &VirtualKeyName,
    ) -> Result<Arc<VirtualKeyRow>, Why> {
        self.tenant(caller, &name.tenant).await?;
        let row = self.directory.virtual_key(&name.id).await?;
        row.filter(|row| row.tenant == name.tenant).ok_or(Why::NoSuchVirtualKey)
    }

    async fn list_virtual_keys(
        &self,
        caller: &Caller,
        request: &v1::ListVirtualKeysRequest,
    ) -> Result<v1::ListVirtualKeysResponse, Refused> {
        let id = parse_tenant(&request.parent)?;
        let about = About { tenant: Some(id.clone()), ..About::default() };
        caller.concerns(about.clone());
        let tenant = self.tenant(caller, &id).await.map_err(|why| Refused::about(why, &about))?;
        let limit = page_size(request.page_size)?;
        let rows = self.store.virtual_keys(&id, Page { after: &request.page_token, limit }).await?;
        for row in &rows {
            self.custody.verify(tenant.holder(), row).await?;
        }
        Ok(v1::ListVirtualKeysResponse {
            next_page_token: next_page(&rows, limit, |row| row.id.to_string()),
            virtual_keys: rows.iter().map(message).collect(),
        })
    }
}

fn about(name: &VirtualKeyName) -> About {
    let virtual_key: VirtualKeyId = name.id.clone();
    About { tenant: Some(name.tenant.clone()), virtual_key: Some(virtual_key), ..About::default() }
}

/// A record of what was done to a key, but for what it was.
fn record(row: &VirtualKeyRow) -> Record {
    Record {
        tenant: row.tenant.to_string(),
        virtual_key: row.id.to_string(),
        revision: row.revision,
        ..Record::default()
    }
}
