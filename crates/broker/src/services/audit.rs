mod prune;
mod rows;
mod search;

use std::{pin::Pin, sync::Arc, time::Duration};

use ::audit::{Checkpoint, Entry, ProofPlan, RecordFilter, VerifierKey};
use bytes::Bytes;
use domain::TenantId;
use futures_util::Stream;
use mtls::ServerTls;
use store::Tree;
use strongroom_proto::v1::{self, audit_server::Audit};
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::{
    caller::Caller,
    core::{Core, accept, parse_tenant},
    live::Live,
    refused::{Refused, Why},
    services::audit::search::Search,
};

/// `strongroom.v1.Audit`.
#[derive(Clone, Debug)]
pub(crate) struct AuditService {
    pub(crate) core: Arc<Core>,
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) tasks: TaskTracker,
}

/// Records read at a time for a tail.
const STEP: u32 = 256;

/// A tail hears from the broker at least this often.
const HEARTBEAT: Duration = Duration::from_secs(2);

#[tonic::async_trait]
impl Audit for AuditService {
    async fn list_records(
        &self,
        request: Request<v1::ListRecordsRequest>,
    ) -> Result<Response<v1::ListRecordsResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.list_records(&caller, &request)).await
    }

    type TailRecordsStream =
        Pin<Box<dyn Stream<Item = Result<v1::TailRecordsResponse, Status>> + Send>>;

    async fn tail_records(
        &self,
        request: Request<v1::TailRecordsRequest>,
    ) -> Result<Response<Self::TailRecordsStream>, Status> {
        let live = Live::of(&request, &self.tls, &self.core)?;
        let (caller, request) = accept(request)?;
        let work = async {
            let readable = self.core.readable(&caller, &request.tenant)?;
            let filter = self.core.filter(request.filter).await?;
            let from = self.core.start_at(request.from_index).await?;
            self.core.check_kept(from).await?;
            Ok::<_, Refused>((readable, filter, from))
        };
        let (Readable(tenant), filter, from) = self.core.answer(&caller, work).await?.into_inner();
        let (answers, stream) = mpsc::channel(16);
        let tail = Tail { core: Arc::clone(&self.core), tenant, filter, live, answers };
        self.tasks.spawn(tail.run(from));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    type CheckRowsStream =
        Pin<Box<dyn Stream<Item = Result<v1::CheckRowsResponse, Status>> + Send>>;

    async fn check_rows(
        &self,
        request: Request<v1::CheckRowsRequest>,
    ) -> Result<Response<Self::CheckRowsStream>, Status> {
        let Live { leaving, .. } = Live::of(&request, &self.tls, &self.core)?;
        let (caller, _) = accept(request)?;
        let permitted = async { Ok(self.core.access.permit_all(&caller)?) };
        self.core.answer(&caller, permitted).await?;
        let (answers, stream) = mpsc::channel(16);
        self.tasks.spawn(rows::check_now(Arc::clone(&self.core), answers, leaving));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let (caller, _) = accept(request)?;
        let work = async {
            let checkpoint = self.core.store.checkpoint().await?.ok_or(Why::NoCheckpoint)?;
            let verifier_key = self.core.verifier_key.clone();
            Ok::<_, Refused>(v1::GetCheckpointResponse { checkpoint, verifier_key })
        };
        self.core.answer(&caller, work).await
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        let (caller, request) = accept(request)?;
        let work = async {
            // Rules speak of every tenant.
            self.core.access.permit_all(&caller)?;
            if request.policy_sha256.is_empty() {
                let document = self.core.access.in_force().document().as_bytes().to_vec();
                return Ok(v1::GetPolicyResponse { document: document.into() });
            }
            let sha256 = (&*request.policy_sha256).try_into().map_err(|_| Why::NoSuchPolicy)?;
            let document = self.core.store.policy(&sha256).await?.ok_or(Why::NoSuchPolicy)?;
            Ok::<_, Refused>(v1::GetPolicyResponse { document: document.into() })
        };
        self.core.answer(&caller, work).await
    }

    async fn prove_inclusion(
        &self,
        request: Request<v1::ProveInclusionRequest>,
    ) -> Result<Response<v1::ProveInclusionResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.prove_inclusion(&caller, &request)).await
    }

    async fn prune_records(
        &self,
        request: Request<v1::PruneRecordsRequest>,
    ) -> Result<Response<v1::PruneRecordsResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.core.answer(&caller, self.core.prune_records(&caller, &request)).await
    }

    async fn prove_consistency(
        &self,
        request: Request<v1::ProveConsistencyRequest>,
    ) -> Result<Response<v1::ProveConsistencyResponse>, Status> {
        let (caller, request) = accept(request)?;
        let work = async {
            let plan = ProofPlan::consistency(request.old_size, request.new_size);
            let plan = plan.map_err(|_| Why::NotInTree)?;
            self.core.in_tree(request.new_size)?;
            let hashes = self.core.prove(&plan).await?;
            Ok::<_, Refused>(v1::ProveConsistencyResponse { hashes })
        };
        self.core.answer(&caller, work).await
    }
}

/// Whose records may be read: one tenant's, or all.
pub(crate) struct Readable(Option<TenantId>);

impl Core {
    /// Whose records the caller asks for, if it may read them.
    fn readable(&self, caller: &Caller, tenant: &str) -> Result<Readable, Why> {
        if tenant.is_empty() {
            self.access.permit_all(caller)?;
            return Ok(Readable(None));
        }
        let tenant = parse_tenant(tenant)?;
        caller.concerns((&tenant).into());
        self.access.permit(caller, &tenant)?;
        Ok(Readable(Some(tenant)))
    }

    /// What is asked for. A person is found by the commitment that records hold.
    async fn filter(&self, asked: Option<v1::RecordFilter>) -> Result<RecordFilter, Why> {
        let filter = RecordFilter::new(asked.unwrap_or_default());
        let filter = filter.map_err(|error| Why::InvalidField(error.to_string()))?;
        match filter.actor().parse() {
            Ok(identity) => Ok(filter.or_by(self.people.commitment(&identity).await?)),
            Err(_) => Ok(filter),
        }
    }

    async fn list_records(
        &self,
        caller: &Caller,
        request: &v1::ListRecordsRequest,
    ) -> Result<v1::ListRecordsResponse, Refused> {
        let Readable(tenant) = self.readable(caller, &request.tenant)?;
        let limit = match u32::try_from(request.page_size) {
            Ok(0) => 256,
            Ok(asked) => asked.min(4096),
            Err(_) => return Err(Why::InvalidField("page_size must not be negative".into()).into()),
        };
        let filter = self.filter(request.filter.clone()).await?;
        let before = request.newest_first.then_some(match request.from_index {
            0 => u64::MAX,
            index => index,
        });
        let from = if before.is_some() { None } else { Some(request.from_index) };
        let from = self.start_at(from).await?;
        // The size first: what is read after it may hold more, never less.
        let size = self.log.size();
        let tenant = tenant.as_ref();
        let store = &*self.store;
        let first = store.first_kept().await?;
        let search = Search { store, tenant, filter: &filter, first, size };
        let found = match before {
            Some(before) => search.backwards(before.min(size), limit).await?,
            None => search.forwards(from, limit).await?,
        };
        if !request.newest_first {
            // After the reading: what was pruned meanwhile must not look as if it never was.
            self.check_kept(from).await?;
        }
        let disclosures = self.people.disclose(&found.entries).await;
        let entries: Vec<_> = found.entries.into_iter().map(log_entry).collect();
        let seen = entries.iter().map(|entry| entry.index + 1).max().unwrap_or(0);
        Ok(v1::ListRecordsResponse {
            disclosures,
            entries,
            next_index: found.next,
            tree_size: size.max(seen),
            first_index: first,
            searched_from: found.from,
        })
    }

    async fn prove_inclusion(
        &self,
        caller: &Caller,
        request: &v1::ProveInclusionRequest,
    ) -> Result<v1::ProveInclusionResponse, Refused> {
        let note = self.store.checkpoint().await?;
        let newest = note.as_deref().and_then(|note| {
            let key: VerifierKey = self.verifier_key.parse().ok()?;
            Checkpoint::verify(note, &key).ok()
        });
        let tree_size = match (request.tree_size, &newest) {
            (0, None) => return Err(Why::NoCheckpoint.into()),
            (0, Some(newest)) => newest.size,
            (size, _) => size,
        };
        self.in_tree(tree_size)?;
        let plan = ProofPlan::inclusion(request.index, tree_size).map_err(|_| Why::NotInTree)?;
        let entry = self.store.records(request.index, 1, None).await?;
        self.check_kept(request.index).await?;
        let entry = entry.into_iter().next().ok_or(Why::NotInTree)?;
        let record = entry.record().map_err(|error| Why::Corrupt(error.to_string()))?;
        if !self.access.shows(caller, &record) {
            return Err(self.access.refusal(caller).into());
        }
        let signed = newest.is_some_and(|newest| newest.size == tree_size);
        let disclosures = self.people.disclose(std::slice::from_ref(&entry)).await;
        Ok(v1::ProveInclusionResponse {
            disclosures,
            hashes: self.prove(&plan).await?,
            entry: Some(log_entry(entry)),
            tree_size,
            checkpoint: note.filter(|_| signed).unwrap_or_default(),
        })
    }

    /// Refuses what has been pruned.
    pub(crate) async fn check_kept(&self, index: u64) -> Result<(), Why> {
        let first = self.store.first_kept().await?;
        if index < first { Err(Why::Pruned(first)) } else { Ok(()) }
    }

    fn in_tree(&self, size: u64) -> Result<(), Why> {
        if size <= self.log.size() { Ok(()) } else { Err(Why::NotInTree) }
    }

    async fn prove(&self, plan: &ProofPlan) -> Result<Vec<Bytes>, Why> {
        let hashes = Tree::of(&*self.store).prove(plan).await?;
        Ok(hashes.into_iter().map(|hash| hash.to_vec().into()).collect())
    }
}

/// One stream of records.
struct Tail {
    core: Arc<Core>,
    tenant: Option<TenantId>,
    filter: RecordFilter,
    live: Live,
    answers: mpsc::Sender<Result<v1::TailRecordsResponse, Status>>,
}

impl Tail {
    /// Sends records from an index on until the reader, the connection or the broker goes.
    async fn run(self, mut from: u64) {
        let mut growth = self.core.log.growth();
        // At once, so that the reader knows where to resume before the first record comes.
        if self.send(from, vec![]).await.is_none() {
            return;
        }
        loop {
            let reached = *growth.borrow_and_update();
            while from < reached {
                let Some(next) = self.send_records(from, reached).await else { return };
                from = next;
            }
            tokio::select! {
                () = self.live.leaving.cancelled() => return,
                () = self.answers.closed() => return,
                changed = growth.changed() => if changed.is_err() { return },
                () = time::sleep(HEARTBEAT) => {
                    if self.send(from, vec![]).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Sends one step of records; gives where the next one begins, or nothing when the stream ends.
    async fn send_records(&self, from: u64, reached: u64) -> Option<u64> {
        let read = async {
            let entries = self.core.store.records(from, STEP, self.tenant.as_ref()).await?;
            // After the reading: a reader that was overtaken by pruning must hear of the gap.
            self.core.check_kept(from).await.map(|()| entries)
        };
        let entries = match read.await {
            Ok(entries) => entries,
            Err(why) => {
                // Who is gone need not hear of it.
                let _ = self.answers.send(Err(Refused::from(why).into())).await;
                return None;
            }
        };
        let full = entries.len() == STEP as usize;
        let last = entries.last().map_or(0, |entry| entry.index + 1);
        let next = if full { last } else { last.max(reached) };
        let asked = |entry: &Entry| {
            self.filter.is_open() || entry.record().is_ok_and(|record| self.filter.matches(&record))
        };
        let entries = entries.into_iter().filter(asked).collect();
        self.send(next, entries).await.map(|()| next)
    }

    async fn send(&self, next_index: u64, entries: Vec<Entry>) -> Option<()> {
        let disclosures = self.core.people.disclose(&entries).await;
        let entries = entries.into_iter().map(log_entry).collect();
        let answer = v1::TailRecordsResponse { entries, next_index, disclosures };
        let answer = self.live.check().map(|()| answer);
        let ended = answer.is_err();
        let sent = self.answers.send(answer).await;
        (sent.is_ok() && !ended).then_some(())
    }
}

fn log_entry(entry: Entry) -> v1::LogEntry {
    v1::LogEntry { index: entry.index, body: entry.body.into() }
}
