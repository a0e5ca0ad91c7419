use std::sync::Arc;

use audit::{Kind, Record, proto_time};
use domain::{CredentialName, Origin, Permit, RequestId, Secret, TenantId, Uid};
use envelope::LONGEST_SECRET;
use providers::{CredentialKind, Provider, Settings, UnusableSecret};
use sealing::{BoxContext, BoxId, SessionId};
use store::{Change, CredentialRow, VersionRow};
use strongroom_proto::v1::{self, credential::State, credentials_server::Credentials};
use tonic::{Request, Response, Status};

use crate::{
    caller::Caller,
    core::{Core, accept, check_etag, etag, page_size, parse, parse_optional},
    custody::Sealed as _,
    directory::Tenant,
    lending::settings,
    refused::{About, Refused, Why},
};

/// `strongroom.v1.Credentials`.
#[derive(Clone, Debug)]
pub(crate) struct CredentialService(pub(crate) Arc<Core>);

/// The most models of one endpoint.
const MOST_MODELS: usize = 100;

/// The most credentials of one tenant.
const MOST_CREDENTIALS: usize = 1000;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Credentials for CredentialService {
    async fn create_credential(
        &self,
        request: Request<v1::CreateCredentialRequest>,
    ) -> Answer<v1::Credential> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.create_credential(&caller, request)).await
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
            let found = self.0.found(&caller, &name).await;
            found.map(|(_, row)| message(&row)).map_err(|why| Refused::about(why, &about))
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
        self.0.answer(&caller, self.0.rotate_credential(&caller, request)).await
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
        let tenant = TenantId::from_resource(&request.parent)
            .map_err(|error| Why::InvalidField(error.to_string()))?;
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
                Ok(message(&existing.row))
            } else {
                Err(Why::NameTaken(name.to_string()))
            };
        }
        let asked = request.credential.unwrap_or_default();
        let mut row = self.new_row(&tenant, &permit, &name, &asked)?;
        // Sealed for the provider as the caller called it, which may be by another of its names.
        let arrived = self.open_box(caller, &name, &asked.provider, request.secret)?;
        self.check_usable(&row, &arrived.secret)?;
        let secret = &arrived.secret;
        row.last_four = secret.last_four();
        let kek = self.custody.kek(&tenant.keys).await?;
        let version = VersionRow {
            credential_uid: row.uid,
            version: 1,
            envelope: self.custody.seal(&kek, &row, 1, secret)?,
            request_id,
            created_at: row.created_at,
        };
        row.row_mac = row.mac_under(&kek);
        let change = Change::CreateCredential(row.clone(), version);
        self.change(caller, &change, record(Kind::CredentialCreated, &row)).await?;
        self.sessions.use_up(arrived.session, arrived.box_id);
        Ok(message(&row))
    }

    /// A new credential's row, from what was asked for. `custom` alone has an address and models.
    fn new_row(
        &self,
        tenant: &Tenant,
        permit: &Permit,
        name: &CredentialName,
        asked: &v1::Credential,
    ) -> Result<CredentialRow, Why> {
        let known = self.catalogue.named(&asked.provider);
        let known = known.ok_or_else(|| {
            Why::InvalidField("provider is not one that this broker knows".into())
        })?;
        if permit.longest_lease(known.id()).is_none() {
            return Err(Why::NotPermitted);
        }
        let base_url = match (known.needs_base_url(), asked.base_url.is_empty()) {
            (true, false) => Some(self.custom_url(&asked.base_url)?),
            (false, true) => None,
            (true, true) => return Err(Why::InvalidField("base_url is needed".into())),
            (false, false) => {
                return Err(Why::InvalidField("base_url is for provider `custom` only".into()));
            }
        };
        let kind = kind(known, &asked.kind)?;
        let settings = settings_of(known, kind, &asked.settings)?;
        let plain = |model: &String| {
            model.parse::<domain::ModelPattern>().is_ok_and(|p| p.exact().is_some())
        };
        if base_url.is_some() == asked.models.is_empty() || !asked.models.iter().all(plain) {
            return Err(Why::InvalidField(
                "models names the models of a `custom` endpoint, exactly, and nothing else".into(),
            ));
        }
        if asked.models.len() > MOST_MODELS || tenant.credentials.len() >= MOST_CREDENTIALS {
            return Err(Why::InvalidField(
                "a tenant has 1000 credentials at most, each with 100 models at most".into(),
            ));
        }
        if !(0..=1000).contains(&asked.priority) {
            return Err(Why::InvalidField("priority is from 0 to 1000".into()));
        }
        let now = self.clock.now();
        Ok(CredentialRow {
            uid: Uid::random()?,
            tenant_uid: tenant.row.uid,
            tenant: name.tenant.clone(),
            id: name.credential.clone(),
            provider: known.id().clone(),
            kind: kind.as_str().to_owned(),
            settings: settings.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            enabled: asked.state() != State::Disabled,
            priority: if asked.priority == 0 { 100 } else { asked.priority },
            base_url,
            models: asked.models.clone(),
            last_four: String::new(),
            current_version: 1,
            revision: 1,
            created_at: now,
            updated_at: now,
            row_mac: [0; 36],
        })
    }

    fn custom_url(&self, url: &str) -> Result<String, Why> {
        let origin = Origin::of_url(url).map_err(|error| Why::InvalidField(error.to_string()))?;
        let plain = url.starts_with("http://");
        if plain && !self.plain_http_origins.iter().any(|allowed| allowed == origin.as_str()) {
            return Err(Why::InvalidField("base_url must be https".into()));
        }
        let tidy = !url.contains(['?', '#', '%', '\\']) && !url.contains("/.");
        if url.len() <= 1024 && tidy && url.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(url.trim_end_matches('/').to_owned())
        } else {
            Err(Why::InvalidField("base_url is a plain address of 1024 bytes at most".into()))
        }
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

    /// Refuses a secret that could never work: it would only fail later and elsewhere.
    fn check_usable(&self, row: &CredentialRow, secret: &Secret) -> Result<(), Why> {
        let known = self.catalogue.provider(&row.provider);
        let form = known.and_then(|known| {
            known.credential_forms().iter().find(|form| form.kind.as_str() == row.kind)
        });
        let form = form.ok_or_else(|| Why::Corrupt(format!("{}: kind", row.name())))?;
        form.usable(secret.expose()).map_err(|why| {
            if matches!(why, UnusableSecret::NotSendable) {
                Why::SecretMalformed
            } else {
                Why::SecretUnusable(why.to_string())
            }
        })
    }

    /// A credential that the caller may act on, and its tenant.
    async fn found(
        &self,
        caller: &Caller,
        name: &CredentialName,
    ) -> Result<(Arc<Tenant>, CredentialRow), Why> {
        let tenant = self.tenant(caller, &name.tenant).await?;
        let row = tenant.credential(&name.credential).map(|held| held.row.clone());
        row.map(|row| (tenant, row)).ok_or(Why::NoSuchCredential)
    }

    async fn list_credentials(
        &self,
        caller: &Caller,
        request: &v1::ListCredentialsRequest,
    ) -> Result<v1::ListCredentialsResponse, Refused> {
        let id = TenantId::from_resource(&request.parent)
            .map_err(|error| Why::InvalidField(error.to_string()))?;
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
        Ok(v1::ListCredentialsResponse {
            credentials: page.into_iter().map(message).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    pub(crate) async fn rotate_credential(
        &self,
        caller: &Caller,
        request: v1::RotateCredentialRequest,
    ) -> Result<v1::Credential, Refused> {
        let name: CredentialName = parse(&request.name)?;
        let about = about(&name);
        caller.concerns(about.clone());
        self.rotate(caller, &name, request).await.map_err(|why| Refused::about(why, &about))
    }

    async fn rotate(
        &self,
        caller: &Caller,
        name: &CredentialName,
        request: v1::RotateCredentialRequest,
    ) -> Result<v1::Credential, Why> {
        self.catch_up().await?;
        let (tenant, mut row) = self.found(caller, name).await?;
        let request_id = parse_optional::<RequestId>(&request.request_id)?;
        if request_id.is_some() {
            let made_by = self.custody.version(&row).await?;
            if made_by.request_id == request_id {
                return Ok(message(&row));
            }
        }
        check_etag(&request.etag, row.revision)?;
        let arrived = self.open_box(caller, name, row.provider.as_str(), request.secret)?;
        self.check_usable(&row, &arrived.secret)?;
        let secret = &arrived.secret;
        row.current_version += 1;
        row.last_four = secret.last_four();
        let kek = self.custody.kek(&tenant.keys).await?;
        self.touch(&mut row, &kek);
        let version = VersionRow {
            credential_uid: row.uid,
            version: row.current_version,
            envelope: self.custody.seal(&kek, &row, row.current_version, secret)?,
            request_id,
            created_at: row.updated_at,
        };
        let change = Change::UpdateCredential(row.clone(), Some(version));
        self.change(caller, &change, record(Kind::CredentialRotated, &row)).await?;
        self.sessions.use_up(arrived.session, arrived.box_id);
        Ok(message(&row))
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
                self.change(caller, &change, record(kind, &row)).await?;
            }
            Ok::<_, Why>(message(&row))
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    async fn delete_credential(
        &self,
        caller: &Caller,
        request: &v1::DeleteCredentialRequest,
    ) -> Result<v1::DeleteCredentialResponse, Refused> {
        let name: CredentialName = parse(&request.name)?;
        let about = about(&name);
        caller.concerns(about.clone());
        let work = async {
            self.catch_up().await?;
            let (_, mut row) = self.found(caller, &name).await?;
            check_etag(&request.etag, row.revision)?;
            row.revision += 1;
            let change = Change::DeleteCredential(row.clone());
            self.change(caller, &change, record(Kind::CredentialDeleted, &row)).await?;
            Ok::<_, Why>(v1::DeleteCredentialResponse {})
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    /// Makes a change and waits until every later decision of this broker knows of it.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        change: &Change,
        record: Record,
    ) -> Result<(), Why> {
        let entry = self.log.apply(change, caller.stamp(record)).await?;
        self.directory.catch_up(entry.index + 1).await
    }

    fn touch(&self, row: &mut CredentialRow, kek: &envelope::Kek) {
        row.revision += 1;
        row.updated_at = self.clock.now();
        row.row_mac = row.mac_under(kek);
    }
}

/// The kind that is asked for, or the provider's usual one.
fn kind(known: &Provider, asked: &str) -> Result<CredentialKind, Why> {
    let mut forms = known.credential_forms().iter();
    let form = forms.find(|form| asked.is_empty() || form.kind.as_str() == asked);
    form.map(|form| form.kind).ok_or_else(|| {
        let takes = known.credential_forms().iter().map(|form| form.kind.as_str());
        let takes = takes.collect::<Vec<_>>().join(", ");
        Why::InvalidField(format!("kind is not one that {} takes: {takes}", known.id()))
    })
}

/// What a credential says beside its secret, checked.
fn settings_of(
    known: &Provider,
    kind: CredentialKind,
    asked: &[v1::Setting],
) -> Result<Settings, Why> {
    let settings: Settings = asked.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
    if settings.iter().count() != asked.len() {
        return Err(Why::InvalidField("settings names one thing twice".into()));
    }
    let checked = known.check_settings(kind, &settings);
    checked.map_err(|error| Why::InvalidField(error.to_string()))?;
    Ok(settings)
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

fn record(kind: Kind, row: &CredentialRow) -> Record {
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
    }
}
