use std::{pin::Pin, sync::Arc, time::Duration};

use audit::{Kind, Record, revocation, timestamp};
use domain::{LeaseId, TenantId, VirtualKeyName};
use futures_util::Stream;
use mtls::ServerTls;
use strongroom_proto::v1::{self, leases_server::Leases};
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::{
    caller::Caller,
    core::{Core, accept, page_size, parse_optional, parse_tenant},
    live::Live,
    people::Called,
    refused::{Refused, Why},
};

/// `strongroom.v1.Leases`.
#[derive(Clone, Debug)]
pub(crate) struct LeaseService {
    pub(crate) core: Arc<Core>,
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) tasks: TaskTracker,
}

/// A watcher hears from the broker at least this often.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Records read at a time for a watcher.
const STEP: u32 = 512;

mod allowance;
pub(super) mod ask;
mod explain;
mod models;
mod reports;

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
            let ask = ask::ask(request, self.core.clock.now())?;
            self.core.lend(&caller, &session, ask, None).await
        };
        self.core.answer(&caller, Box::pin(work)).await
    }

    async fn renew_lease(&self, request: Request<v1::RenewLeaseRequest>) -> Answer<v1::Lease> {
        let (caller, request) = accept(request)?;
        let work = async {
            let session = self.core.session(&caller, &request.session_id)?;
            let id = lease_id(&request.lease_id)?;
            self.core.hear(&request.checkpoint).await?;
            self.core.renew(&caller, &session, id, ask::ttl(request.ttl)?).await
        };
        self.core.answer(&caller, Box::pin(work)).await
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Answer<v1::ReleaseLeaseResponse> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.release(&caller, &request)).await
    }

    async fn report_failures(
        &self,
        request: Request<v1::ReportFailuresRequest>,
    ) -> Answer<v1::ReportFailuresResponse> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.hear_failures(&caller, &request)).await
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
        let work = async { Ok::<_, Refused>(self.core.watch_from(request.from_index).await?) };
        let from = self.core.answer(&caller, work).await?.into_inner();
        let watcher = Watcher { core: Arc::clone(&self.core), caller, live, answers };
        self.tasks.spawn(watcher.run(from));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn explain_route(
        &self,
        request: Request<v1::ExplainRouteRequest>,
    ) -> Answer<v1::ExplainRouteResponse> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.explain_route(&caller, request)).await
    }

    async fn draw_allowance(
        &self,
        request: Request<v1::DrawAllowanceRequest>,
    ) -> Answer<v1::Allowance> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.draw_allowance(&caller, &request)).await
    }

    async fn settle_usage(
        &self,
        request: Request<v1::SettleUsageRequest>,
    ) -> Answer<v1::SettleUsageResponse> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.settle_usage(&caller, &request)).await
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
        Ok(v1::RevokeLeaseResponse { log_index: self.bar(caller, record).await? })
    }

    async fn list_leases(
        &self,
        caller: &Caller,
        request: &v1::ListLeasesRequest,
    ) -> Result<v1::ListLeasesResponse, Refused> {
        let tenant = parse_tenant(&request.parent)?;
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
}

/// One stream of revocations.
struct Watcher {
    core: Arc<Core>,
    caller: Caller,
    live: Live,
    answers: mpsc::Sender<Result<v1::WatchRevocationsResponse, Status>>,
}

impl Watcher {
    /// Sends revocations from an index on until the watcher, the connection or the broker goes.
    async fn run(self, mut from: u64) {
        let mut progress = self.core.directory.progress();
        loop {
            let reached = *progress.borrow_and_update();
            while from < reached {
                let sent = self.send_changes(from, reached).await;
                let Some(next) = sent else { return };
                from = next;
            }
            tokio::select! {
                () = self.live.leaving.cancelled() => return,
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
        let revocations = entries.iter().filter_map(|entry| {
            let record = self.for_the_watcher(entry.record().ok()?);
            self.concerns(&record).then(|| revocation(&record))?
        });
        self.send(next, revocations.collect()).await.map(|()| next)
    }

    /// The record with the watcher's own name in it, where it stands there as a commitment. Others'
    /// names end nothing that this watcher holds.
    fn for_the_watcher(&self, record: Record) -> Record {
        match self.caller.called {
            Called::By(own) if record.subject_commitment == own.as_slice() => {
                Record { subject: self.caller.identity.to_string(), ..record }
            }
            Called::By(_) | Called::ById | Called::ByNothing => record,
        }
    }

    /// Whether a change may end what the watcher holds.
    fn concerns(&self, record: &Record) -> bool {
        // Whose session it is, its holder knows by the key.
        record.kind() == Kind::SessionRevoked
            || record.subject == self.caller.identity.as_str()
            // Managed credentials serve every tenant, so every holder hears of them.
            || record.tenant == TenantId::platform().as_str()
            || self.core.access.shows(&self.caller, record)
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

fn lease_id(bytes: &[u8]) -> Result<LeaseId, Why> {
    bytes.try_into().map(LeaseId::from_bytes).map_err(|_| Why::NoSuchLease)
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
