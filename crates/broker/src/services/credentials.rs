use std::sync::Arc;

use audit::{Kind, Record, proto_time};
use domain::{CredentialName, RequestId, Secret};
use envelope::LONGEST_SECRET;
use sealing::{BoxContext, BoxId, SessionId};
use store::{Change, CredentialRow, VersionRow};
use strongroom_proto::v1::{self, credential::State, credentials_server::Credentials};
use tonic::{Request, Response, Status};

use crate::{
    caller::Caller,
    core::{Core, accept, check_etag, etag, page_size, parse, parse_optional, parse_tenant},
    custody::Sealed as _,
    directory::Tenant,
    lending::settings,
    refused::{About, Refused, Why},
};

mod new_row;
mod rotation;
mod testing;

/// `strongroom.v1.Credentials`.
#[derive(Clone, Debug)]
pub(crate) struct CredentialService(pub(crate) Arc<Core>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Credentials for CredentialService {
    async fn create_credential(
        &self,
        request: Request<v1::CreateCredentialRequest>,
    ) -> Answer<v1::Credential> {
        let (caller, request) = accept(request)?;
        let work = Box::pin(self.0.create_credential(&caller, request));
        self.0.answer(&caller, work).await
    }

    async fn get_credential(
        &self,
        request: Request<v1::GetCredentialRequest>,
    ) -> Answer<v1::Credential> {
        let (caller, request) = accept(request)?;
        let work = async {
            let name: CredentialName = parse(&request.name)?;
            let about = about(&name);
            caller.concerns(about.clone());
            self.0.get(&caller, &name).await.map_err(|why| Refused::about(why, &about))
        };
        self.0.answer(&caller, work).await
    }

    async fn list_credentials(
        &self,
        request: Request<v1::ListCredentialsRequest>,
    ) -> Answer<v1::ListCredentialsResponse> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.list_credentials(&caller, &request)).await
    }

    async fn rotate_credential(
        &self,
        request: Request<v1::RotateCredentialRequest>,
    ) -> Answer<v1::Credential> {
        let (caller, request) = accept(request)?;
        let work = Box::pin(self.0.rotate_credential(&caller, request));
        self.0.answer(&caller, work).await
    }

    async fn start_rotation(
        &self,
        request: Request<v1::StartRotationRequest>,
    ) -> Answer<v1::Credential> {
        let (caller, request) = accept(request)?;
        let work = Box::pin(self.0.start_rotation(&caller, request));
        self.0.answer(&caller, work).await
    }

    async fn promote_rotation(
        &self,
        request: Request<v1::PromoteRotationRequest>,
    ) -> Answer<v1::Credential> {
        let (caller, request) = accept(request)?;
        let work = self.0.promote_rotation(&caller, &request.name, &request.etag);
        self.0.answer(&caller, work).await
    }

    async fn cancel_rotation(
        &self,
        request: Request<v1::CancelRotationRequest>,
    ) -> Answer<v1::Credential> {
        let (caller, request) = accept(request)?;
        let work = self.0.cancel_rotation(&caller, &request.name, &request.etag);
        self.0.answer(&caller, work).await
    }

    async fn test_credential(
        &self,
        request: Request<v1::TestCredentialRequest>,
    ) -> Answer<v1::Credential> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.test_credential(&caller, &request)).await
    }

    async fn disable_credential(
        &self,
        request: Request<v1::DisableCredentialRequest>,
    ) -> Answer<v1::Credential> {
        let (caller, request) = accept(request)?;
        let work = self.0.switch(&caller, &request.name, &request.etag, false);
        self.0.answer(&caller, work).await
    }

    async fn enable_credential(
        &self,
        request: Request<v1::EnableCredentialRequest>,
    ) -> Answer<v1::Credential> {
        let (caller, request) = accept(request)?;
        let work = self.0.switch(&caller, &request.name, &request.etag, true);
        self.0.answer(&caller, work).await
    }

    async fn shred_credential(
        &self,
        request: Request<v1::ShredCredentialRequest>,
    ) -> Result<Response<v1::Erasure>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.shred_credential(&caller, &request)).await
    }

    async fn delete_credential(
        &self,
        request: Request<v1::DeleteCredentialRequest>,
    ) -> Answer<v1::DeleteCredentialResponse> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.delete_credential(&caller, &request)).await
    }
}

impl Core {
    pub(crate) async fn create_credential(
        &self,
        caller: &Caller,
        request: v1::CreateCredentialRequest,
    ) -> Result<v1::Credential, Refused> {
        let tenant = parse_tenant(&request.parent)?;
        let name = CredentialName { tenant, credential: parse(&request.credential_id)? };
        let about = about(&name);
        caller.concerns(about.clone());
        self.create(caller, name, request).await.map_err(|why| Refused::about(why, &about))
    }

    async fn create(
        &self,
        caller: &Caller,
        name: CredentialName,
        request: v1::CreateCredentialRequest,
    ) -> Result<v1::Credential, Why> {
        let permit = self.access.permit(caller, &name.tenant)?;
        self.catch_up().await?;
        let tenant = self.tenant(caller, &name.tenant).await?;
        let request_id = parse_optional::<RequestId>(&request.request_id)?;
        if let Some(existing) = tenant.credential(&name.credential) {
            // The same request again: its answer may have been lost.
            let made_by = self.store.version(existing.row.uid, 1).await?;
            let same = made_by.is_some_and(|version| version.request_id == request_id);
            return if same && request_id.is_some() {
                self.with_test(&tenant, &existing.row).await
            } else {
                Err(Why::NameTaken(name.to_string()))
            };
        }
        let asked = request.credential.unwrap_or_default();
        let mut row = self.new_row(&tenant, (caller, &permit), &name, &asked)?;
        // Sealed for the provider as the caller called it, which may be by another of its names.
        let arrived = self.open_box(caller, &name, &asked.provider, request.secret)?;
        let looked = self.look_at(&row, &arrived.secret, request.test).await?;
        let secret = &arrived.secret;
        row.last_four = secret.last_four();
        let kek = self.custody.kek(&tenant.keys).await?;
        self.custody.new_share(row.uid).await?;
        let version = VersionRow {
            credential_uid: row.uid,
            version: 1,
            envelope: self.custody.seal(&kek, &row, 1, secret).await?,
            request_id,
            created_at: row.created_at,
        };
        row.row_mac = row.mac_under(&kek);
        let change = Change::CreateCredential(row.clone(), version);
        self.change(&change, caller.stamp(record(Kind::CredentialCreated, &row))).await?;
        self.sessions.use_up(arrived.session, arrived.box_id);
        self.stored(caller, &tenant, (&row, 1), looked).await
    }

    fn open_box(
        &self,
        caller: &Caller,
        name: &CredentialName,
        provider: &str,
        sealed: Option<v1::SealedBox>,
    ) -> Result<Arrived, Why> {
        let sealed = sealed.ok_or(Why::SecretEmpty)?;
        let session = self.sessions.of(caller, &sealed.session_id)?;
        let box_id = sealed.box_id.as_ref().try_into().map_err(|_| Why::BoxDoesNotOpen)?;
        let box_id = BoxId::from_bytes(box_id);
        if self.sessions.is_used(session.session.id(), box_id) {
            return Err(Why::BoxDoesNotOpen);
        }
        let context = BoxContext {
            box_id,
            credential: &name.to_string(),
            provider,
            identity: caller.identity.as_str(),
        };
        let opened = session.session.open_box(&context, &sealed.ciphertext);
        let secret = opened.map_err(|_| Why::BoxDoesNotOpen)?;
        if secret.is_empty() {
            return Err(Why::SecretEmpty);
        }
        if secret.len() > LONGEST_SECRET {
            return Err(Why::SecretTooLong);
        }
        Ok(Arrived { secret, session: session.session.id(), box_id })
    }

    /// A credential that the caller may act on, and its tenant.
    pub(crate) async fn found(
        &self,
        caller: &Caller,
        name: &CredentialName,
    ) -> Result<(Arc<Tenant>, CredentialRow), Why> {
        let tenant = self.tenant(caller, &name.tenant).await?;
        let row = tenant.credential(&name.credential).map(|held| held.row.clone());
        row.map(|row| (tenant, row)).ok_or(Why::NoSuchCredential)
    }

    pub(crate) async fn list_credentials(
        &self,
        caller: &Caller,
        request: &v1::ListCredentialsRequest,
    ) -> Result<v1::ListCredentialsResponse, Refused> {
        let id = parse_tenant(&request.parent)?;
        let about = About { tenant: Some(id.clone()), ..About::default() };
        caller.concerns(about.clone());
        let tenant = self.tenant(caller, &id).await.map_err(|why| Refused::about(why, &about))?;
        let limit = page_size(request.page_size)? as usize;
        let after = &request.page_token;
        let mut rows = tenant
            .credentials
            .iter()
            .map(|held| &held.row)
            .filter(|row| row.id.as_str() > after.as_str());
        let page: Vec<_> = rows.by_ref().take(limit).collect();
        let more = rows.next().is_some();
        let next = page.last().filter(|_| more).map(|row| row.id.to_string());
        let tests = self.tests(&tenant).await.map_err(|why| Refused::about(why, &about))?;
        let shown = |row: &CredentialRow| testing::with(self.shown(row), tests.get(&row.uid));
        Ok(v1::ListCredentialsResponse {
            credentials: page.into_iter().map(shown).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    pub(crate) async fn switch(
        &self,
        caller: &Caller,
        name: &str,
        asked_etag: &str,
        enabled: bool,
    ) -> Result<v1::Credential, Refused> {
        let name: CredentialName = parse(name)?;
        let about = about(&name);
        caller.concerns(about.clone());
        let work = async {
            self.catch_up().await?;
            let (tenant, mut row) = self.found(caller, &name).await?;
            check_etag(asked_etag, row.revision)?;
            if row.enabled != enabled {
                row.enabled = enabled;
                let kek = self.custody.kek(&tenant.keys).await?;
                self.touch(&mut row, &kek);
                let kind = if enabled { Kind::CredentialEnabled } else { Kind::CredentialDisabled };
                let change = Change::UpdateCredential(row.clone(), None);
                self.change(&change, caller.stamp(record(kind, &row))).await?;
            }
            Ok::<_, Why>(self.shown(&row))
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    pub(crate) async fn delete_credential(
        &self,
        caller: &Caller,
        request: &v1::DeleteCredentialRequest,
    ) -> Result<v1::DeleteCredentialResponse, Refused> {
        let name: CredentialName = parse(&request.name)?;
        let about = about(&name);
        caller.concerns(about.clone());
        let work = async {
            self.catch_up().await?;
            let (tenant, mut row) = self.found(caller, &name).await?;
            check_etag(&request.etag, row.revision)?;
            // Afterwards there is nothing left to delete them with.
            let made = self.made_of(&tenant, &row).await;
            row.revision += 1;
            let change = Change::DeleteCredential(row.clone());
            self.change(&change, caller.stamp(record(Kind::CredentialDeleted, &row))).await?;
            if let Some((made, order)) = made {
                self.tokens.exchange.discard(made, order);
            }
            Ok::<_, Why>(v1::DeleteCredentialResponse {})
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    /// Makes the row's next revision.
    pub(crate) fn touch(&self, row: &mut CredentialRow, kek: &envelope::Kek) {
        row.revision += 1;
        row.updated_at = self.clock.now();
        row.row_mac = row.mac_under(kek);
    }
}

/// A secret that came in a box, and which box it was.
struct Arrived {
    secret: Secret,
    session: SessionId,
    box_id: BoxId,
}

fn about(name: &CredentialName) -> About {
    About { tenant: Some(name.tenant.clone()), credential: Some(name.clone()), ..About::default() }
}

/// The record of a change of a credential.
pub(crate) fn record(kind: Kind, row: &CredentialRow) -> Record {
    Record {
        kind: kind.into(),
        tenant: row.tenant.to_string(),
        credential: row.name().to_string(),
        credential_uid: row.uid.as_bytes().to_vec().into(),
        credential_version: row.current_version,
        revision: row.revision,
        provider: row.provider.to_string(),
        ..Record::default()
    }
}

fn message(row: &CredentialRow) -> v1::Credential {
    v1::Credential {
        name: row.name().to_string(),
        provider: row.provider.to_string(),
        state: if row.enabled { State::Enabled } else { State::Disabled }.into(),
        priority: row.priority,
        base_url: row.base_url.clone().unwrap_or_default(),
        models: row.models.clone(),
        last_four: row.last_four.clone(),
        current_version: row.current_version,
        create_time: Some(proto_time(row.created_at)),
        update_time: Some(proto_time(row.updated_at)),
        etag: etag(row.revision),
        kind: row.kind.clone(),
        settings: settings(row),
        rotation: row.rotation.as_ref().map(rotation::message),
        test: None,
        warnings: Vec::new(),
    }
}
