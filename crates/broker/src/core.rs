use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use anyhow::Context as _;
use audit::{Entry, Record};
use domain::{Clock, Key, SpiffePattern, TenantId, Timestamp, Uid};
use envelope::{KeyringSettings, Roots, RowKey};
use exchange::{AwsIdentity, Courier};
use providers::Catalogue;
use store::{Change, ShareStore, Store};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::{
    access::Access,
    bootstrap,
    caller::Caller,
    canaries::Canaries,
    checkpoints::Checkpoints,
    config::UsageConfig,
    custody::{Custody, Passed},
    directory::{Directory, Tenant},
    endpoints::EndpointRules,
    guard::record_refusal,
    healths::Healths,
    lending::Lent,
    log::Log,
    people::People,
    refused::{Refused, Why},
    rekeying::Progress,
    session::{OpenSession, Sessions},
    tally::Tally,
    tokens::Tokens,
};

/// What every service works with. Built once, in `Broker::open`.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) access: Arc<Access>,
    pub(crate) canaries: Canaries,
    pub(crate) catalogue: Catalogue,
    pub(crate) checkpoints: Arc<Checkpoints>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) custody: Arc<Custody>,
    pub(crate) directory: Arc<Directory>,
    /// How old a record must be before it may be pruned; none if nothing may.
    pub(crate) keep: Option<Duration>,
    pub(crate) healths: Arc<Healths>,
    pub(crate) lent: Lent,
    pub(crate) log: Log,
    pub(crate) people: Arc<People>,
    /// The key of HMACs over virtual keys, lease IDs and people.
    pub(crate) pepper: Arc<Key>,
    /// What a tenant's own endpoint may be.
    pub(crate) endpoints: EndpointRules,
    pub(crate) rekeyed: Progress,
    /// The key of MACs over rows that are no tenant's.
    pub(crate) row_key: Arc<RowKey>,
    /// Rows that say what to do, and that no broker has written.
    pub(crate) passed: Passed,
    pub(crate) sessions: Sessions,
    /// For how long backups of the store of shares are kept.
    pub(crate) share_backups: Duration,
    /// The names of the sinks that are sent every record.
    pub(crate) sinks: Vec<String>,
    /// For how long usage is kept.
    pub(crate) usage: UsageConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) tokens: Arc<Tokens>,
    /// The text form of the key that verifies checkpoints.
    pub(crate) verifier_key: String,
}

/// What a [`Core`] is made of.
pub(crate) struct Parts {
    pub(crate) access: Arc<Access>,
    pub(crate) aws: Option<Arc<dyn AwsIdentity>>,
    pub(crate) catalogue: Catalogue,
    pub(crate) checkpoints: Arc<Checkpoints>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) commit_deadline: Duration,
    /// What goes to providers and token services.
    pub(crate) courier: Arc<dyn Courier>,
    pub(crate) keep: Option<Duration>,
    pub(crate) keyring: KeyringSettings,
    /// Whose SPIFFE IDs are people's.
    pub(crate) people: Vec<SpiffePattern>,
    pub(crate) roots: Arc<Roots>,
    pub(crate) endpoints: EndpointRules,
    /// The most sessions at once.
    pub(crate) sessions: u64,
    pub(crate) shares: Arc<dyn ShareStore>,
    /// For how long backups of the store of shares are kept.
    pub(crate) share_backups: Duration,
    pub(crate) sinks: Vec<String>,
    pub(crate) usage: UsageConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) verifier_key: String,
}

impl Core {
    /// Puts the parts together, with what a new store still lacks. The tasks that begin end with the
    /// core.
    #[expect(clippy::too_many_lines, reason = "a list: each part is made once")]
    pub(crate) async fn open(parts: Parts, tasks: &TaskTracker) -> anyhow::Result<Self> {
        let Parts {
            access,
            aws,
            catalogue,
            checkpoints,
            clock,
            courier,
            people,
            roots,
            endpoints,
            store,
            verifier_key,
            ..
        } = parts;
        let keyring = (Arc::clone(&clock), parts.keyring);
        let custody = Custody::new(Arc::clone(&store), roots, parts.shares, keyring);
        let custody = Arc::new(custody);
        let pepper = Arc::new(bootstrap::pepper(&store, &custody, &*clock).await?);
        let row_key = Arc::new(RowKey::of(&pepper));
        let head = store.head().await.context("reading the log")?;
        let size = head.frontier.size();
        let log = Log::open(Arc::clone(&store), size, parts.commit_deadline, Uid::random()?, tasks);
        let tokens = Arc::new(Tokens::new(courier, &clock, aws));
        let directory = Arc::new(Directory::new(&store, &custody, Arc::clone(&tokens)));
        let replayed = directory.catch_up(head.changed).await;
        replayed.map_err(|why| anyhow::anyhow!("replaying the log: {why}"))?;
        let healths = Arc::new(Healths::new(Arc::clone(&store)));
        healths.catch_up().await.context("reading how credentials fare")?;
        let people = People::new(
            people,
            Arc::clone(&access),
            Arc::clone(&directory),
            Arc::clone(&custody),
            Arc::clone(&store),
            Arc::clone(&pepper),
        );
        Ok(Self {
            people: Arc::new(people),
            sessions: Sessions::new(parts.sessions, Arc::clone(&clock)),
            keep: parts.keep,
            share_backups: parts.share_backups,
            sinks: parts.sinks,
            canaries: Canaries::default(),
            healths,
            usage: parts.usage,
            lent: Lent::new(),
            access,
            catalogue,
            checkpoints,
            clock,
            custody,
            directory,
            log,
            pepper,
            endpoints,
            rekeyed: Progress::default(),
            row_key,
            passed: Passed::default(),
            store,
            tally: Arc::default(),
            tokens,
            verifier_key,
        })
    }

    /// Answers a call, and no call without a record: of what it changed, which the work itself writes,
    /// of its refusal, or else of the fact that something was read.
    pub(crate) async fn answer<T>(
        &self,
        caller: &Caller,
        work: impl Future<Output = Result<T, Refused>>,
    ) -> Result<Response<T>, Status> {
        match work.await {
            Ok(message) if caller.is_on_record() => Ok(Response::new(message)),
            Ok(message) => match self.log.record(caller.read()).await {
                Ok(_) => Ok(Response::new(message)),
                Err(why) => self.refuse(caller, why.into()).await,
            },
            Err(refused) => self.refuse(caller, refused).await,
        }
    }

    async fn refuse<T>(&self, caller: &Caller, refused: Refused) -> Result<Response<T>, Status> {
        record_refusal(&self.log, caller, &refused).await;
        Err(refused.into())
    }

    /// Brings what is cached up to the log's end, for a call that changes what it reads.
    pub(crate) async fn catch_up(&self) -> Result<(), Why> {
        let known = self.log.size();
        let head = self.store.head().await?;
        self.log.saw(known, head.frontier.size());
        self.directory.catch_up(head.changed).await
    }

    /// Where a reader of the log begins: at its end unless told, and not beyond it.
    pub(crate) async fn start_at(&self, from: Option<u64>) -> Result<u64, Why> {
        self.catch_up().await?;
        let size = self.log.size();
        match from {
            Some(from) if from > size => Err(Why::NotInTree),
            Some(from) => Ok(from),
            None => Ok(size),
        }
    }

    /// Where a watcher of revocations begins: where it asks to, but no further back than a lease in
    /// force can be. Who kept nothing begins there too, and so hears all that still matters.
    pub(crate) async fn watch_from(&self, from: Option<u64>) -> Result<u64, Why> {
        let end = self.start_at(None).await?;
        let from = match from {
            Some(from) if from >= end => return self.start_at(Some(from)).await,
            from => from.unwrap_or(0),
        };
        let now = self.store.now().await?.as_millis();
        let oldest = Timestamp::from_millis(now.saturating_sub(REACH));
        first_since(&*self.store, from..end, oldest).await
    }

    /// The caller's session, unless it has been ended.
    pub(crate) fn session(&self, caller: &Caller, id: &[u8]) -> Result<Arc<OpenSession>, Why> {
        let session = self.sessions.of(caller, id)?;
        if self.directory.barred().ends(&session) { Err(Why::NoSuchSession) } else { Ok(session) }
    }

    /// Makes a change and waits until every later decision of this broker knows of it.
    pub(crate) async fn change(&self, change: &Change, record: Record) -> Result<Entry, Why> {
        let entry = self.log.apply(change, record).await?;
        self.directory.catch_up(entry.index + 1).await?;
        Ok(entry)
    }

    /// A tenant that the caller may act for. One that is not there and one that is out of bounds
    /// look alike to who may not see all.
    pub(crate) async fn tenant(&self, caller: &Caller, id: &TenantId) -> Result<Arc<Tenant>, Why> {
        self.access.permit(caller, id)?;
        self.directory.tenant(id).await?.ok_or(Why::NoSuchTenant)
    }
}

/// In milliseconds. No lease in force was granted longer ago: it lasts 300 s, and clocks may be 10 s
/// apart.
const REACH: i64 = 310_000;

/// The first record of a range that is not older than this, or the range's end. The log's times never
/// go back, so it is found by halving.
pub(crate) async fn first_since(
    store: &dyn Store,
    range: Range<u64>,
    oldest: Timestamp,
) -> Result<u64, Why> {
    let Range { start: mut low, end: mut high } = range;
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = store.records(middle, 1, None).await?.into_iter().next();
        let record = entry.map(|entry| entry.record()).transpose();
        let record = record.map_err(|error| Why::Corrupt(error.to_string()))?;
        let time = |record: &Record| record.time.as_ref().and_then(audit::timestamp);
        match record {
            Some(record) if time(&record) < Some(oldest) => low = middle + 1,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

/// Takes a request apart: who calls, and what is asked.
pub(crate) fn accept<M>(request: Request<M>) -> Result<(Caller, M), Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    // Absent only if a service were reachable past the guard: then nothing is answered.
    let caller = caller.ok_or_else(|| Status::from(Refused::from(Why::Unidentified)))?;
    Ok((caller, request.into_inner()))
}

/// How many to list: 100 unless told, 1000 at the most.
pub(crate) fn page_size(asked: i32) -> Result<u32, Why> {
    match u32::try_from(asked) {
        Ok(0) => Ok(100),
        Ok(asked) => Ok(asked.min(1000)),
        Err(_) => Err(Why::InvalidField("page_size must not be negative".into())),
    }
}

/// Where the next page begins: after the last name, if there may be more.
pub(crate) fn next_page<T>(rows: &[T], limit: u32, name: impl Fn(&T) -> String) -> String {
    match rows.last() {
        Some(last) if rows.len() >= limit as usize => name(last),
        Some(_) | None => String::new(),
    }
}

/// Reads a request field that must have a form of its own.
pub(crate) fn parse<T>(text: &str) -> Result<T, Why>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| Why::InvalidField(error.to_string()))
}

/// Reads a request field that names a tenant.
pub(crate) fn parse_tenant(name: &str) -> Result<TenantId, Why> {
    TenantId::from_resource(name).map_err(|error| Why::InvalidField(error.to_string()))
}

/// Reads a request field that may be empty.
pub(crate) fn parse_optional<T>(text: &str) -> Result<Option<T>, Why>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// A name for people, 128 bytes at most, on one line.
pub(crate) fn display_name(text: &str) -> Result<String, Why> {
    if text.len() <= 128 && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(Why::InvalidField("display_name is one line of 128 bytes at most".into()))
    }
}

/// Refuses unless the caller has read the state that it changes.
pub(crate) fn check_etag(asked: &str, revision: u64) -> Result<(), Why> {
    if asked.is_empty() || asked == etag(revision) { Ok(()) } else { Err(Why::EtagMismatch) }
}

/// The etag of a revision.
pub(crate) fn etag(revision: u64) -> String {
    format!("r{revision}")
}
