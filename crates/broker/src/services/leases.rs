use std::{pin::Pin, sync::Arc, time::Duration};

use audit::{Kind, Record, revocation, timestamp};
use domain::{
    Dialect, LeaseId, Scope, Source, TenantId, VirtualKeyDigest, VirtualKeyId, VirtualKeyName,
};
use futures_util::Stream;
use mtls::ServerTls;
use store::Appended;
use strongroom_proto::v1::{self, acquire_lease_request, leases_server::Leases};
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

use crate::{
    caller::Caller,
    core::{Core, accept, page_size, parse_optional},
    lending::{Ask, Target, proto_source},
    live::Live,
    refused::{About, Refused, Why},
};

/// `strongroom.v1.Leases`.
#[derive(Clone, Debug)]
pub(crate) struct LeaseService {
    pub(crate) core: Arc<Core>,
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// A watcher hears from the broker at least this often.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Records read at a time for a watcher.
const STEP: u32 = 512;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Leases for LeaseService {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Answer<v1::OpenSessionResponse> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.open_session(&caller, &request)).await
    }

    async fn acquire_lease(&self, request: Request<v1::AcquireLeaseRequest>) -> Answer<v1::Lease> {
        let (caller, request) = accept(request)?;
        let work = async {
            let session = self.core.session(&caller, &request.session_id)?;
            self.core.hear(&request.checkpoint).await?;
            self.core.lend(&caller, &session, ask(request)?, None).await
        };
        self.core.answer(&caller, work).await
    }

    async fn renew_lease(&self, request: Request<v1::RenewLeaseRequest>) -> Answer<v1::Lease> {
        let (caller, request) = accept(request)?;
        let work = async {
            let session = self.core.session(&caller, &request.session_id)?;
            let id = lease_id(&request.lease_id)?;
            self.core.hear(&request.checkpoint).await?;
            self.core.renew(&caller, &session, id, ttl(request.ttl)?).await
        };
        self.core.answer(&caller, work).await
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Answer<v1::ReleaseLeaseResponse> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.release(&caller, &request)).await
    }

    async fn revoke_lease(
        &self,
        request: Request<v1::RevokeLeaseRequest>,
    ) -> Answer<v1::RevokeLeaseResponse> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.revoke_lease(&caller, &request)).await
    }

    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Answer<v1::ListLeasesResponse> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.list_leases(&caller, &request)).await
    }

    type WatchRevocationsStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchRevocationsResponse, Status>> + Send>>;

    async fn watch_revocations(
        &self,
        request: Request<v1::WatchRevocationsRequest>,
    ) -> Answer<Self::WatchRevocationsStream> {
        let live = Live::of(&request, &self.tls, &self.core)?;
        let (caller, request) = accept(request)?;
        let (answers, stream) = mpsc::channel(16);
        let work = async { Ok::<_, Refused>(self.core.start_at(request.from_index).await?) };
        let from = self.core.answer(&caller, work).await?.into_inner();
        let watcher = Watcher { core: Arc::clone(&self.core), caller, live, answers };
        self.tasks.spawn(watcher.run(from, self.stop.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_models(
        &self,
        request: Request<v1::ListModelsRequest>,
    ) -> Answer<v1::ListModelsResponse> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.list_models(&caller, &request)).await
    }
}

impl Core {
    /// Takes in the largest checkpoint that a caller has seen.
    pub(crate) async fn hear(&self, checkpoint: &str) -> Result<(), Why> {
        self.checkpoints.hear(checkpoint, &self.log, &*self.store).await
    }

    async fn open_session(
        &self,
        caller: &Caller,
        request: &v1::OpenSessionRequest,
    ) -> Result<v1::OpenSessionResponse, Refused> {
        let (mut open, encapsulated_key) = self.sessions.establish(caller, &request.public_key)?;
        let record = Record {
            kind: Kind::SessionOpened.into(),
            session_key_sha256: open.key_sha256.to_vec().into(),
            ..Record::default()
        };
        open.log_index = self.log.record(caller.stamp(record)).await?.index;
        let open = self.sessions.keep(open);
        Ok(v1::OpenSessionResponse {
            session_id: open.session.id().to_vec().into(),
            encapsulated_key: encapsulated_key.to_vec().into(),
            identity: open.identity.to_string(),
            expire_time: Some(audit::proto_time(open.expires_at)),
            verifier_key: self.verifier_key.clone(),
        })
    }

    async fn release(
        &self,
        caller: &Caller,
        request: &v1::ReleaseLeaseRequest,
    ) -> Result<v1::ReleaseLeaseResponse, Refused> {
        let session = self.session(caller, &request.session_id)?;
        let id = lease_id(&request.lease_id)?;
        // One that is not there any more has ended: there is nothing left to do.
        let Ok(loan) = self.lent.of(&session, id) else {
            return Ok(v1::ReleaseLeaseResponse {});
        };
        let mut released = loan.released.lock().await;
        if *released {
            return Ok(v1::ReleaseLeaseResponse {});
        }
        // Before the record: if this call is given up while it waits, the lease has ended anyway.
        *released = true;
        self.lent.forget(id);
        let record = Record { kind: Kind::LeaseReleased.into(), ..loan.record.clone() };
        self.log.record(caller.stamp(record)).await?;
        Ok(v1::ReleaseLeaseResponse {})
    }

    pub(crate) async fn revoke_lease(
        &self,
        caller: &Caller,
        request: &v1::RevokeLeaseRequest,
    ) -> Result<v1::RevokeLeaseResponse, Refused> {
        let records = self.store.lease_records(&request.lease_hash).await?;
        let Some(last) = records.last() else { return Err(Why::NoSuchLease.into()) };
        let last = last.record().map_err(|error| Why::Corrupt(error.to_string()))?;
        let tenant: TenantId = last.tenant.parse().map_err(|_| Why::NoSuchLease)?;
        // Someone else's lease looks like none.
        self.access.permit(caller, &tenant).map_err(|_| Why::NoSuchLease)?;
        // The same lease, but a record of its own.
        let ended = last.kind() == Kind::LeaseRevoked
            || last.lease_expire_time.as_ref().and_then(timestamp) <= Some(self.clock.now());
        if ended {
            return Ok(v1::RevokeLeaseResponse { log_index: last.index });
        }
        let record = Record { kind: Kind::LeaseRevoked.into(), index: 0, time: None, ..last };
        match self.log.append(caller.stamp(record), None).await? {
            Appended::Recorded(entry) => {
                self.directory.catch_up(entry.index + 1).await?;
                Ok(v1::RevokeLeaseResponse { log_index: entry.index })
            }
            Appended::Stale { .. } => Err(Why::LogUnavailable.into()),
        }
    }

    async fn list_leases(
        &self,
        caller: &Caller,
        request: &v1::ListLeasesRequest,
    ) -> Result<v1::ListLeasesResponse, Refused> {
        let tenant = parent(&request.parent)?;
        caller.concerns((&tenant).into());
        self.tenant(caller, &tenant).await?;
        let limit = page_size(request.page_size)?;
        let before = parse_optional(&request.page_token)?;
        let now = self.clock.now();
        let entries = self.store.live_leases(&tenant, now, before, limit).await?;
        let full = entries.len() >= limit as usize;
        let next = entries.last().filter(|_| full).map(|entry| entry.index.to_string());
        let mut leases = Vec::with_capacity(entries.len());
        for entry in &entries {
            let record = entry.record().map_err(|error| Why::Corrupt(error.to_string()))?;
            leases.push(lease_info(record));
        }
        Ok(v1::ListLeasesResponse { leases, next_page_token: next.unwrap_or_default() })
    }

    async fn list_models(
        &self,
        caller: &Caller,
        request: &v1::ListModelsRequest,
    ) -> Result<v1::ListModelsResponse, Refused> {
        let (id, digest) = presented(&request.virtual_key_id, &request.key_sha256)?;
        let key = self.check_virtual_key(&id, &digest).await?;
        let (tenant, virtual_key) = (Some(key.tenant.clone()), Some(id));
        caller.concerns(About { tenant, virtual_key, ..About::default() });
        let tenant = self.tenant(caller, &key.tenant).await?;
        if tenant.row.suspended {
            return Err(Why::TenantSuspended.into());
        }
        let managed = match tenant.row.on_missing {
            domain::OnMissing::Managed => self.directory.tenant(&TenantId::platform()).await?,
            domain::OnMissing::Refuse => None,
        };
        let mut models = Vec::new();
        let sources = [(Some(&tenant), Source::Byok), (managed.as_ref(), Source::Managed)];
        for (owner, source) in sources {
            for held in owner.iter().flat_map(|owner| &owner.credentials) {
                self.add_models(&mut models, &held.row, source, &key.scope);
            }
        }
        models.sort_by(|a, b| a.model.cmp(&b.model));
        models.dedup_by(|a, b| a.model == b.model);
        Ok(v1::ListModelsResponse { models })
    }

    fn add_models(
        &self,
        models: &mut Vec<v1::ReachableModel>,
        row: &store::CredentialRow,
        source: Source,
        scope: &Scope,
    ) {
        let own_models = !row.models.is_empty();
        if !row.enabled
            || !scope.allows_provider(&row.provider)
            || (own_models && source == Source::Managed)
        {
            return;
        }
        let known = self.catalogue.provider(&row.provider).map_or(&[][..], |known| known.models());
        let listed = if own_models { &*row.models } else { known };
        let source = if own_models { Source::Custom } else { source };
        // A key made for one model reaches it even if nobody here has heard of it.
        let named = scope
            .models
            .iter()
            .filter_map(|pattern| pattern.exact())
            .filter(|model| !own_models && self.catalogue.detect(model) == Some(&row.provider));
        let allowed = listed.iter().map(String::as_str).filter(|model| scope.allows_model(model));
        models.extend(named.chain(allowed).map(|model| v1::ReachableModel {
            model: model.to_owned(),
            provider: row.provider.to_string(),
            source: proto_source(source).into(),
        }));
    }
}

/// One stream of revocations.
struct Watcher {
    core: Arc<Core>,
    caller: Caller,
    live: Live,
    answers: mpsc::Sender<Result<v1::WatchRevocationsResponse, Status>>,
}

impl Watcher {
    /// Sends revocations from an index on until the watcher or the broker goes.
    async fn run(self, mut from: u64, stop: CancellationToken) {
        let mut progress = self.core.directory.progress();
        loop {
            let reached = *progress.borrow_and_update();
            while from < reached {
                let sent = self.send_changes(from, reached).await;
                let Some(next) = sent else { return };
                from = next;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.answers.closed() => return,
                changed = progress.changed() => if changed.is_err() { return },
                () = time::sleep(HEARTBEAT) => {
                    if self.send(from, vec![]).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Sends one step of changes; gives where the next one begins, or nothing when the stream ends.
    async fn send_changes(&self, from: u64, reached: u64) -> Option<u64> {
        let entries = match self.core.store.changes(from, STEP).await {
            Ok(entries) => entries,
            Err(error) => {
                // Who is gone need not hear of it.
                let _ = self.answers.send(Err(Refused::from(error).into())).await;
                return None;
            }
        };
        let full = entries.len() == STEP as usize;
        let last = entries.last().map(|entry| entry.index + 1);
        let next = if full { last.unwrap_or(reached) } else { last.unwrap_or(0).max(reached) };
        let platform = TenantId::platform();
        let revocations = entries.iter().filter_map(|entry| {
            let record = entry.record().ok()?;
            // Managed credentials serve every tenant, so every holder hears of them.
            let concerns =
                record.tenant == platform.as_str() || self.core.access.shows(&self.caller, &record);
            concerns.then(|| revocation(&record))?
        });
        self.send(next, revocations.collect()).await.map(|()| next)
    }

    async fn send(&self, next_index: u64, revocations: Vec<v1::Revocation>) -> Option<()> {
        // Even a watcher that may not go on hears what ends its leases.
        let answer = v1::WatchRevocationsResponse { next_index, revocations };
        self.answers.send(Ok(answer)).await.ok()?;
        match self.live.check() {
            Ok(()) => Some(()),
            Err(status) => {
                let _ = self.answers.send(Err(status)).await;
                None
            }
        }
    }
}

fn ask(request: v1::AcquireLeaseRequest) -> Result<Ask, Why> {
    let dialect = match request.dialect() {
        v1::Dialect::Openai => Dialect::OpenAi,
        v1::Dialect::Anthropic => Dialect::Anthropic,
        v1::Dialect::Native | v1::Dialect::Unspecified => Dialect::Native,
    };
    let ttl = ttl(request.ttl)?;
    let request_id = parse_optional::<domain::RequestId>(&request.request_id)?;
    let target = match request.target {
        Some(acquire_lease_request::Target::VirtualKey(target)) => {
            let (id, digest) = presented(&target.virtual_key_id, &target.key_sha256)?;
            let v1::VirtualKeyTarget { model, provider, .. } = target;
            if model.len() > 256 || provider.len() > 63 {
                return Err(Why::InvalidField("model or provider is too long".into()));
            }
            Target::VirtualKey { id, digest, model, provider }
        }
        Some(acquire_lease_request::Target::Tenant(target)) => {
            match parse_optional(&target.credential)? {
                Some(name) => Target::Credential(name),
                None => {
                    Target::Provider { tenant: parent(&target.tenant)?, provider: target.provider }
                }
            }
        }
        None => return Err(Why::InvalidField("a lease needs virtual_key or tenant".into())),
    };
    let request_id = request_id.map(|id| id.as_str().to_owned()).unwrap_or_default();
    Ok(Ask { target, dialect, ttl, request_id })
}

/// What proves that the caller has seen a virtual key. A malformed proof is as wrong as any other.
fn presented(id: &str, digest: &[u8]) -> Result<(VirtualKeyId, VirtualKeyDigest), Why> {
    let id = id.parse().map_err(|_| Why::VirtualKeyRefused)?;
    let digest: [u8; 32] = digest.try_into().map_err(|_| Why::VirtualKeyRefused)?;
    Ok((id, VirtualKeyDigest::from_bytes(digest)))
}

fn lease_id(bytes: &[u8]) -> Result<LeaseId, Why> {
    bytes.try_into().map(LeaseId::from_bytes).map_err(|_| Why::NoSuchLease)
}

fn ttl(asked: Option<prost_types::Duration>) -> Result<Option<Duration>, Why> {
    let wrong = || Why::InvalidField("ttl must not be negative".into());
    let plain = |ttl: prost_types::Duration| {
        let seconds = u64::try_from(ttl.seconds).map_err(|_| wrong())?;
        let nanos = u32::try_from(ttl.nanos).map_err(|_| wrong())?;
        Ok(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
    };
    asked.map(plain).transpose()
}

fn parent(name: &str) -> Result<TenantId, Why> {
    TenantId::from_resource(name).map_err(|error| Why::InvalidField(error.to_string()))
}

fn lease_info(record: Record) -> v1::LeaseInfo {
    let name = || {
        let (tenant, id) = (record.tenant.parse().ok()?, record.virtual_key.parse().ok()?);
        Some(VirtualKeyName { tenant, id }.to_string())
    };
    v1::LeaseInfo {
        virtual_key: name().unwrap_or_default(),
        lease_hash: record.lease_hash,
        credential: record.credential,
        credential_version: record.credential_version,
        holder: record.actor,
        grant_time: record.time,
        expire_time: record.lease_expire_time,
        log_index: record.index,
    }
}
