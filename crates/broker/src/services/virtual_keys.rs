use std::sync::Arc;

use audit::{Kind, Record, proto_time, timestamp};
use domain::{Scope, TenantId, VirtualKeyDigest, VirtualKeyId, VirtualKeyName};
use store::{Change, Page, VirtualKeyRow};
use strongroom_proto::v1::{self, virtual_key::State, virtual_keys_server::VirtualKeys};
use tonic::{Request, Response, Status};

use crate::{
    caller::Caller,
    core::{Core, accept, display_name, etag, next_page, page_size, parse},
    custody::Sealed as _,
    refused::{About, Refused, Why},
};

/// `strongroom.v1.VirtualKeys`.
#[derive(Clone, Debug)]
pub(crate) struct VirtualKeyService(pub(crate) Arc<Core>);

/// The most providers or models that a key's scope names.
const LONGEST_SCOPE: usize = 100;

#[tonic::async_trait]
impl VirtualKeys for VirtualKeyService {
    async fn create_virtual_key(
        &self,
        request: Request<v1::CreateVirtualKeyRequest>,
    ) -> Result<Response<v1::VirtualKey>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.create_virtual_key(&caller, request)).await
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
        self.0.answer(&caller, self.0.revoke_virtual_key(&caller, &request)).await
    }
}

impl Core {
    pub(crate) async fn create_virtual_key(
        &self,
        caller: &Caller,
        request: v1::CreateVirtualKeyRequest,
    ) -> Result<v1::VirtualKey, Refused> {
        let tenant = parent(&request.parent)?;
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
        let digest: [u8; 32] = request
            .key_sha256
            .as_ref()
            .try_into()
            .map_err(|_| Why::InvalidField("key_sha256 is 32 bytes".into()))?;
        let verifier = VirtualKeyDigest::from_bytes(digest).verifier(&self.pepper, &name.id);
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
        let wrong_time = || Why::InvalidField("expire_time must lie in the future".into());
        let expires_at = match &asked.expire_time {
            Some(time) => Some(timestamp(time).filter(|end| *end > now).ok_or_else(wrong_time)?),
            None => None,
        };
        let mut row = VirtualKeyRow {
            id: name.id.clone(),
            tenant_uid: tenant.row.uid,
            tenant: name.tenant.clone(),
            display_name: display_name(&asked.display_name)?,
            verifier,
            scope: self.scope(&asked)?,
            expires_at,
            revoked: false,
            revision: 1,
            created_at: now,
            updated_at: now,
            row_mac: [0; 36],
        };
        row.row_mac = row.mac_under(&*self.custody.kek(&tenant.keys).await?);
        let change = Change::CreateVirtualKey(row.clone());
        self.change(caller, &change, record(Kind::VirtualKeyCreated, &row)).await?;
        Ok(message(&row))
    }

    fn scope(&self, asked: &v1::VirtualKey) -> Result<Scope, Why> {
        if asked.providers.len() > LONGEST_SCOPE || asked.models.len() > LONGEST_SCOPE {
            return Err(Why::InvalidField("a scope names 100 providers and models at most".into()));
        }
        let provider = |name: &String| {
            let known = self.catalogue.named(name).map(|known| known.id().clone());
            known.ok_or_else(|| Why::InvalidField("providers names one that is not known".into()))
        };
        Ok(Scope {
            providers: asked.providers.iter().map(provider).collect::<Result<_, _>>()?,
            models: asked.models.iter().map(|model| parse(model)).collect::<Result<_, _>>()?,
        })
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
        let id = parent(&request.parent)?;
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

    async fn revoke_virtual_key(
        &self,
        caller: &Caller,
        request: &v1::RevokeVirtualKeyRequest,
    ) -> Result<v1::VirtualKey, Refused> {
        let name: VirtualKeyName = parse(&request.name)?;
        let about = about(&name);
        caller.concerns(about.clone());
        let work = async {
            self.catch_up().await?;
            let tenant = self.tenant(caller, &name.tenant).await?;
            let mut row = VirtualKeyRow::clone(&*self.virtual_key(caller, &name).await?);
            if !row.revoked {
                row.revoked = true;
                row.revision += 1;
                row.updated_at = self.clock.now();
                row.row_mac = row.mac_under(&*self.custody.kek(&tenant.keys).await?);
                let change = Change::UpdateVirtualKey(row.clone());
                self.change(caller, &change, record(Kind::VirtualKeyRevoked, &row)).await?;
            }
            Ok::<_, Why>(message(&row))
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }
}

fn parent(name: &str) -> Result<TenantId, Why> {
    TenantId::from_resource(name).map_err(|error| Why::InvalidField(error.to_string()))
}

fn about(name: &VirtualKeyName) -> About {
    let virtual_key: VirtualKeyId = name.id.clone();
    About { tenant: Some(name.tenant.clone()), virtual_key: Some(virtual_key), ..About::default() }
}

fn record(kind: Kind, row: &VirtualKeyRow) -> Record {
    Record {
        kind: kind.into(),
        tenant: row.tenant.to_string(),
        virtual_key: row.id.to_string(),
        revision: row.revision,
        ..Record::default()
    }
}

fn message(row: &VirtualKeyRow) -> v1::VirtualKey {
    let name = VirtualKeyName { tenant: row.tenant.clone(), id: row.id.clone() };
    v1::VirtualKey {
        name: name.to_string(),
        display_name: row.display_name.clone(),
        providers: row.scope.providers.iter().map(ToString::to_string).collect(),
        models: row.scope.models.iter().map(ToString::to_string).collect(),
        expire_time: row.expires_at.map(proto_time),
        state: if row.revoked { State::Revoked } else { State::Active }.into(),
        create_time: Some(proto_time(row.created_at)),
        update_time: Some(proto_time(row.updated_at)),
        etag: etag(row.revision),
    }
}
