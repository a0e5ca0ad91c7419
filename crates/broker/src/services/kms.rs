use std::{collections::BTreeMap, sync::Arc};

use audit::{Kind, Record, proto_time};
use domain::{RequestId, RootName, TenantId};
use envelope::{Kms as _, WrappedKey};
use prost::Message;
use store::{Change, KeyPurpose, KeyRow, KeyWork, StoreError, TenantKey};
use strongroom_proto::v1::{self, key_work, kms_server::Kms};
use tonic::{Request, Response, Status};

use crate::{
    caller::Caller,
    core::{Core, accept, parse_optional, parse_tenant},
    custody::OwnRow as _,
    refused::{About, Refused, Why},
    rekeying::{Task, of_key},
};

/// `strongroom.v1.Kms`.
#[derive(Clone, Debug)]
pub(crate) struct KmsService(pub(crate) Arc<Core>);

/// Keys read at a time, and tenants told of at the most.
const PAGE: u32 = 1000;

#[tonic::async_trait]
impl Kms for KmsService {
    async fn get_status(
        &self,
        request: Request<v1::GetKmsStatusRequest>,
    ) -> Result<Response<v1::KmsStatus>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.kms_status(&caller, &request.tenant)).await
    }

    async fn rotate_kek(
        &self,
        request: Request<v1::RotateKekRequest>,
    ) -> Result<Response<v1::RotateKekResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, Box::pin(self.0.rotate_kek(&caller, &request))).await
    }

    async fn rewrap_keys(
        &self,
        request: Request<v1::RewrapKeysRequest>,
    ) -> Result<Response<v1::RewrapKeysResponse>, Status> {
        let (caller, request) = accept(request)?;
        let work = async {
            self.0.access.permit_all(&caller)?;
            let root = parse_optional::<RootName>(&request.root)?;
            if root
                .as_ref()
                .is_some_and(|root| !self.0.custody.roots().names().any(|it| it == root))
            {
                let what = "root names one of [[kms_roots]], or is empty for the deployment's own";
                return Err(Refused::from(Why::InvalidField(what.into())));
            }
            let record = Record {
                kind: Kind::KeyRewrapBegun.into(),
                root: request.root.clone(),
                ..Record::default()
            };
            let request_id = parse_optional::<RequestId>(&request.request_id)?;
            let task = Task::Rewrap(root);
            let begun = self.0.begin((&caller, &request), &task, request_id, record).await;
            Ok(v1::RewrapKeysResponse { log_index: begun? })
        };
        self.0.answer(&caller, Box::pin(work)).await
    }
}

impl Core {
    pub(crate) async fn kms_status(
        &self,
        caller: &Caller,
        tenant: &str,
    ) -> Result<v1::KmsStatus, Refused> {
        // First: of work that is done, everything is counted.
        let work = self.key_work().await?;
        let mut status = v1::KmsStatus {
            resealed: self.rekeyed.resealed(),
            rewrapped: self.rekeyed.rewrapped(),
            last_error: self.rekeyed.last_error(),
            work: work.iter().filter_map(work_message).collect(),
            ..v1::KmsStatus::default()
        };
        if tenant.is_empty() {
            self.access.permit_all(caller)?;
            status.roots = self.roots().await?;
            for newest in self.store.keys_in_rotation(PAGE).await? {
                status.tenants.push(self.tenant_kek(&newest.tenant, newest.key.tenant_uid).await?);
            }
            return Ok(status);
        }
        let id = parse_tenant(tenant)?;
        let about = About::from(&id);
        caller.concerns(about.clone());
        let found = async {
            let tenant = self.tenant(caller, &id).await?;
            self.tenant_kek(&id, tenant.row.uid).await
        };
        status.tenants.push(found.await.map_err(|why| Refused::about(why, &about))?);
        // What hinders may tell of others' keys.
        status.last_error.clear();
        Ok(status)
    }

    /// Each root, and how many keys are under it.
    async fn roots(&self) -> Result<Vec<v1::RootKey>, Why> {
        let roots = self.custody.roots();
        let mut told = BTreeMap::new();
        for name in [None].into_iter().chain(roots.names().map(Some)) {
            let status = roots.status_of(name).await?;
            told.insert(
                name.cloned(),
                v1::RootKey {
                    name: name.map(ToString::to_string).unwrap_or_default(),
                    current_key: status.key_ref,
                    healthy: status.healthy,
                    ..v1::RootKey::default()
                },
            );
        }
        let mut after = None;
        loop {
            let keys = self.store.wrapped_keys(after, PAGE).await?;
            for of in &keys {
                let wrapped = WrappedKey::from_bytes(of.key.wrapped.clone());
                let (root, under) = (roots.root_of(&wrapped), roots.wrapped_by(&wrapped));
                match told.get_mut(&root) {
                    Some(root) if under.as_ref() == Some(&root.current_key) => root.keys += 1,
                    Some(root) => root.outdated_keys += 1,
                    None => {}
                }
            }
            after = keys.last().map(|of| (of.key.uid, of.key.version));
            if keys.len() < PAGE as usize {
                return Ok(told.into_values().collect());
            }
        }
    }

    async fn tenant_kek(&self, id: &TenantId, uid: domain::Uid) -> Result<v1::TenantKek, Why> {
        let references = self.store.key_references(id, uid).await?;
        let references: BTreeMap<u32, u64> = references.into_iter().collect();
        let keys = self.store.keys(uid, KeyPurpose::Kek).await?;
        let version = |key: &KeyRow| v1::KekVersion {
            version: key.version,
            create_time: Some(proto_time(key.created_at)),
            root_key: {
                let wrapped = WrappedKey::from_bytes(key.wrapped.clone());
                self.custody.roots().wrapped_by(&wrapped).unwrap_or_default()
            },
            references: references.get(&key.version).copied().unwrap_or_default(),
        };
        Ok(v1::TenantKek {
            tenant: id.resource(),
            kek_id: keys.first().map(|key| key.uid.as_bytes().to_vec()).unwrap_or_default().into(),
            versions: keys.iter().map(version).collect(),
        })
    }

    pub(crate) async fn rotate_kek(
        &self,
        caller: &Caller,
        request: &v1::RotateKekRequest,
    ) -> Result<v1::RotateKekResponse, Refused> {
        let request_id = parse_optional::<RequestId>(&request.request_id)?;
        if request.tenant.is_empty() {
            self.access.permit_all(caller)?;
            let record = Record { kind: Kind::KekRotationBegun.into(), ..Record::default() };
            let call = (caller, request);
            let log_index = self.begin(call, &Task::RotateAll, request_id, record).await?;
            return Ok(v1::RotateKekResponse { tenant: None, log_index });
        }
        let id = parse_tenant(&request.tenant)?;
        let about = About::from(&id);
        caller.concerns(about.clone());
        let rotated = self.rotate_one((caller, request), &id, request_id).await;
        rotated.map_err(|why| Refused::about(why, &about))
    }

    async fn rotate_one(
        &self,
        (caller, request): (&Caller, &v1::RotateKekRequest),
        id: &TenantId,
        request_id: Option<RequestId>,
    ) -> Result<v1::RotateKekResponse, Why> {
        self.catch_up().await?;
        let tenant = self.tenant(caller, id).await?;
        let uid = tenant.row.uid;
        let newest = tenant.keys.first().cloned();
        let newest = newest.ok_or_else(|| Why::Corrupt("a tenant without a key".into()))?;
        let mut log_index = 0;
        // The same request again: its answer may have been lost.
        if request_id.is_none() || newest.request_id != request_id {
            let leave = self.second_person(caller, request, Some(id)).await?;
            let of = TenantKey { tenant: id.clone(), key: newest };
            let key = self.custody.next_key(&of, request_id, self.store.now().await?).await?;
            let record = of_key(Kind::KekRotated, &of, &key);
            let change = Change::AddKey(key);
            log_index = match self.carry_out(caller, leave, Some(&change), record).await {
                Ok(entry) => entry.index,
                Err(Why::Store(StoreError::Exists(_))) => return Err(Why::EtagMismatch),
                Err(why) => return Err(why),
            };
        }
        Ok(v1::RotateKekResponse { tenant: Some(self.tenant_kek(id, uid).await?), log_index })
    }

    /// Puts down what is to be done; 0 if this request has done so before.
    pub(crate) async fn begin(
        &self,
        (caller, request): (&Caller, &impl Message),
        task: &Task,
        request_id: Option<RequestId>,
        record: Record,
    ) -> Result<u64, Why> {
        let (name, known) = (task.name(), self.key_work().await?);
        let known = known.into_iter().find(|work| work.name == name);
        if request_id.is_some() && known.is_some_and(|work| work.request_id == request_id) {
            return Ok(0);
        }
        let leave = self.second_person(caller, request, None).await?;
        let begun_at = self.store.now().await?;
        let work = KeyWork { name, request_id, begun_at, done: false, row_mac: [0; 32] };
        let change = Change::BeginKeyWork(work.sealed(&self.row_key));
        Ok(self.carry_out(caller, leave, Some(&change), record).await?.index)
    }
}

fn work_message(work: &KeyWork) -> Option<v1::KeyWork> {
    let (kind, root) = match Task::of(work)? {
        Task::RotateAll => (key_work::Kind::RotateAll, String::new()),
        Task::Rewrap(root) => {
            (key_work::Kind::Rewrap, root.map(|root| root.to_string()).unwrap_or_default())
        }
    };
    Some(v1::KeyWork {
        kind: kind.into(),
        root,
        begin_time: Some(proto_time(work.begun_at)),
        done: work.done,
    })
}
