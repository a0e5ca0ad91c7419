mod expected;
mod tenant;
mod tree;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use audit::{Checkpoint, Hash, Kind, Reason, Record, VerifierKey};
use domain::{CredentialName, TenantId, Uid};
use sha2::{Digest as _, Sha256};
use store::{Page, StoreError};
use strongroom_proto::v1;
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use self::{
    expected::Expected,
    tree::{Step, Walk},
};
use crate::{
    config::RowChecks,
    core::Core,
    refused::{Refused, Why},
};

/// Replays the log against the rows of the database, all of them. What a MAC cannot show, that a genuine
/// row is old, was put back or is gone, the log does; and the log's own tables are held against its tree.
#[derive(Debug)]
pub(crate) struct RowCheck {
    core: Arc<Core>,
    expected: Expected,
    /// Goes on with what is new, turn by turn.
    newest: Walk,
    /// Goes over all of it again and again.
    again: Walk,
    /// The name of the tenant that was looked at last.
    after: String,
    /// Wrapped keys that the KMS has unwrapped, by their digests.
    unwrapped: HashMap<(Uid, Uid, u32), [u8; 32]>,
    /// What was found and is on record.
    told: BTreeSet<RowFinding>,
    progress: v1::CheckRowsResponse,
}

/// A row that is not as it was written.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct RowFinding {
    pub(crate) reason: Reason,
    pub(crate) table: &'static str,
    pub(crate) name: String,
    /// Empty if it is no tenant's.
    pub(crate) tenant: String,
    pub(crate) what: String,
}

/// How much one turn looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Of rows and of records each; the next turn goes on from there.
    pub(crate) rows: u64,
    /// Rested after each step, so that others are served meanwhile.
    pub(crate) rest: Duration,
}

/// Tenants read at a time.
const PAGE: u32 = 500;

/// A finding stands if it is there each of so many times, with the log read anew in between: rows change
/// while they are read.
const LOOKS: u32 = 3;

/// Checks rows every so often, until `stop`, on whichever broker leads.
pub(crate) async fn check_regularly(
    core: Arc<Core>,
    settings: RowChecks,
    mut leads: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    if settings.every.is_zero() {
        return;
    }
    let bounds = Bounds { rows: settings.rows, rest: REST };
    let mut check = RowCheck::new(&core);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            led = leads.wait_for(|leads| *leads) => if led.is_err() { return },
        }
        let (tell, _) = watch::channel(v1::CheckRowsResponse::default());
        let turn = tokio::select! {
            () = stop.cancelled() => return,
            turn = check.turn(bounds, &tell) => turn,
        };
        if let Err(why) = turn {
            metrics::counter!("strongroom_row_check_failures_total").increment(1);
            tracing::warn!(error = %Refused::from(why), "the rows were not checked to the end");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = time::sleep(settings.every) => {}
        }
    }
}

const REST: Duration = Duration::from_millis(5);

impl RowCheck {
    /// Has looked at nothing yet.
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        Self {
            core: Arc::clone(core),
            expected: Expected::default(),
            newest: Walk::default(),
            again: Walk::default(),
            after: String::new(),
            unwrapped: HashMap::new(),
            told: BTreeSet::new(),
            progress: v1::CheckRowsResponse::default(),
        }
    }

    /// Looks at what is new in the log and, within the bounds, at more of everything else. What is found
    /// is told, and put on record once.
    pub(crate) async fn turn(
        &mut self,
        bounds: Bounds,
        tell: &watch::Sender<v1::CheckRowsResponse>,
    ) -> Result<(), Why> {
        let began = Instant::now();
        self.progress = v1::CheckRowsResponse::default();
        let mut found = BTreeSet::new();
        let outcome = self.look(bounds, tell, &mut found).await;
        let whole = outcome.as_ref().is_ok_and(|whole| *whole);
        self.put_on_record(&found).await?;
        self.progress.done = whole;
        tell.send_replace(self.progress.clone());
        if whole {
            // What is not found any more may be told again if it comes back.
            self.told.retain(|finding| found.contains(finding));
        }
        let standing = u32::try_from(self.told.len()).unwrap_or(u32::MAX);
        metrics::gauge!("strongroom_row_findings").set(f64::from(standing));
        metrics::histogram!("strongroom_row_check_seconds").record(began.elapsed().as_secs_f64());
        outcome?;
        metrics::counter!("strongroom_row_checks_total").increment(1);
        Ok(())
    }

    /// Says whether everything was looked at.
    async fn look(
        &mut self,
        bounds: Bounds,
        tell: &watch::Sender<v1::CheckRowsResponse>,
        found: &mut BTreeSet<RowFinding>,
    ) -> Result<bool, Why> {
        let mut whole = self.look_at_log(bounds, tell, found).await?;
        self.expected.catch_up(&*self.core.store).await?;
        found.extend(self.look_at_documents().await?);
        found.extend(self.look_at_erasures().await?);
        self.progress.tenants = u64::try_from(self.expected.tenants.len()).unwrap_or_default();
        let names: Vec<String> = self.expected.tenants.keys().cloned().collect();
        let names = names.into_iter().filter(|name| *name > self.after).collect::<Vec<_>>();
        whole &= self.after.is_empty();
        for name in names {
            if self.progress.rows >= bounds.rows {
                return Ok(false);
            }
            found.extend(self.look_at_tenant(&name).await?);
            self.after = name;
            self.progress.tenants_checked += 1;
            tell.send_replace(self.progress.clone());
            time::sleep(bounds.rest).await;
        }
        self.after.clear();
        found.extend(self.strangers().await?);
        Ok(whole)
    }

    /// Looks at the log: at what is new, and again at what is old.
    async fn look_at_log(
        &mut self,
        bounds: Bounds,
        tell: &watch::Sender<v1::CheckRowsResponse>,
        found: &mut BTreeSet<RowFinding>,
    ) -> Result<bool, Why> {
        let store = Arc::clone(&self.core.store);
        let head = match store.head().await {
            Ok(head) => head,
            Err(StoreError::Corrupt(what)) => {
                found.insert(RowFinding::of_log(Reason::RowChanged, "head", 0).because(what));
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        if store.stored_deployment().await? != store.deployment() {
            found.insert(RowFinding::of_log(Reason::RowChanged, "head.deployment", 0));
        }
        self.expected.catch_up(&*store).await?;
        if self.expected.changed > head.changed && store.head().await?.changed == head.changed {
            found.insert(RowFinding::of_log(Reason::RowChanged, "head.changed", head.changed));
        }
        let size = head.frontier.size();
        self.progress.tree_size = size;
        let signed = self.signed(found).await?;
        let mut left = bounds.rows;
        let mut policies: BTreeSet<Hash> = BTreeSet::new();
        let mut whole = true;
        // Once the newest is reached, the other walk begins anew from the beginning.
        for newest in [true, false] {
            let mut walk = std::mem::take(if newest { &mut self.newest } else { &mut self.again });
            if !newest && (walk.size() >= size || self.progress.records >= size) {
                walk = Walk::default();
                if self.progress.records >= size {
                    break;
                }
            }
            while walk.size() < size && left > 0 {
                // Stops where something was signed, to compare.
                let stop = signed.as_ref().map(|it| it.size).filter(|at| *at > walk.size());
                let from = walk.size();
                let Step { findings, policies: named, ended } =
                    walk.step(&*store, stop.map_or(size, |stop| stop.min(size))).await?;
                found.extend(findings);
                policies.extend(named);
                if let Some(signed) = &signed
                    && signed.size == walk.size()
                    && signed.root != walk.root()
                {
                    let forked = RowFinding::of_log(Reason::RowChanged, "record", signed.size);
                    found.insert(forked.because("the tree is not the one that was signed".into()));
                }
                let walked = walk.size() - from;
                left = left.saturating_sub(walked.max(1));
                self.progress.records += walked;
                tell.send_replace(self.progress.clone());
                time::sleep(bounds.rest).await;
                if ended {
                    // From the beginning the next time.
                    walk = Walk::default();
                    whole = false;
                    break;
                }
            }
            if walk.size() == size && walk.root() != head.frontier.root() {
                found.insert(RowFinding::of_log(Reason::RowChanged, "head.frontier", size));
                walk = Walk::default();
            }
            whole &= walk.size() == size;
            *(if newest { &mut self.newest } else { &mut self.again }) = walk;
        }
        for sha256 in policies {
            found.extend(self.look_at_policy(&sha256).await?);
        }
        Ok(whole)
    }

    /// The newest signed checkpoint, if the one that is kept is genuine.
    async fn signed(&self, found: &mut BTreeSet<RowFinding>) -> Result<Option<Checkpoint>, Why> {
        let Some(note) = self.core.store.checkpoint().await? else { return Ok(None) };
        let key: Option<VerifierKey> = self.core.verifier_key.parse().ok();
        let checkpoint = key.and_then(|key| Checkpoint::verify(&note, &key).ok());
        if checkpoint.is_none() {
            found.insert(RowFinding::of_log(Reason::RowChanged, "checkpoint.note", 0));
        }
        Ok(checkpoint)
    }

    async fn look_at_policy(&mut self, sha256: &Hash) -> Result<Option<RowFinding>, Why> {
        let document = self.core.store.policy(sha256).await?;
        Ok(self.document("policy", "", format!("policy {}", hex::encode(sha256)), sha256, document))
    }

    fn document(
        &mut self,
        table: &'static str,
        tenant: &str,
        name: String,
        sha256: &Hash,
        document: Option<Vec<u8>>,
    ) -> Option<RowFinding> {
        self.progress.rows += 1;
        let (reason, what) = match document {
            Some(document) if Sha256::digest(&document)[..] == sha256[..] => return None,
            Some(_) => (Reason::RowChanged, "it does not hash to what the log says"),
            None => (Reason::RowMissing, "the log names it"),
        };
        let (tenant, what) = (tenant.to_owned(), what.to_owned());
        Some(RowFinding { reason, table, name, tenant, what })
    }

    async fn look_at_documents(&mut self) -> Result<Vec<RowFinding>, Why> {
        let mut found = Vec::new();
        for ((tenant, revision), sha256) in self.expected.prices.clone() {
            let document = self.core.store.prices(&sha256).await?;
            let name = format!("prices {revision}");
            found.extend(self.document("price", &tenant, name, &sha256, document));
        }
        Ok(found)
    }

    /// What is to be destroyed must stay known until it is; whoever is blocked must stay known too.
    async fn look_at_erasures(&mut self) -> Result<Vec<RowFinding>, Why> {
        let mut found = Vec::new();
        for _ in 0..LOOKS {
            found.clear();
            let kept = match self.core.store.erasures().await {
                Ok(kept) => kept,
                Err(StoreError::Corrupt(what)) => {
                    let changed = RowFinding::of_log(Reason::RowChanged, "erasure", 0);
                    found.push(changed.because(what));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            self.expected.catch_up(&*self.core.store).await?;
            for (id, (tenant, credential)) in &self.expected.erasures {
                let row = kept.iter().find(|row| row.id.as_bytes()[..] == id[..]);
                let name = format!("erasure {}", hex::encode(id));
                let of = row.and_then(|row| row.credential.as_ref());
                let of = of.map(CredentialName::to_string).unwrap_or_default();
                let (reason, what) = match row {
                    None => (Reason::RowMissing, "the shares are to be destroyed still"),
                    Some(row)
                        if row.tenant.as_str() != tenant
                            || of != *credential
                            || !row.shares.contains(&row.id) =>
                    {
                        (Reason::RowChanged, "it does not say what the log says")
                    }
                    Some(_) => continue,
                };
                let (tenant, what) = (tenant.clone(), what.to_owned());
                found.push(RowFinding { reason, table: "erasure", name, tenant, what });
            }
            for commitment in &self.expected.blocked {
                let Ok(hash) = Hash::try_from(commitment.as_slice()) else { continue };
                if self.core.store.person_behind(&hash).await?.is_none() {
                    let name = format!("person {}", hex::encode(hash));
                    let (reason, tenant) = (Reason::RowMissing, String::new());
                    let what = "the person is blocked".to_owned();
                    found.push(RowFinding { reason, table: "person", name, tenant, what });
                }
            }
            if found.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    async fn look_at_tenant(&mut self, name: &str) -> Result<Vec<RowFinding>, Why> {
        let Ok(id) = name.parse::<TenantId>() else { return Ok(Vec::new()) };
        let mut stands: Option<Vec<RowFinding>> = None;
        for _ in 0..LOOKS {
            let Some(expected) = self.expected.tenants.get(name).cloned() else {
                return Ok(Vec::new());
            };
            let (mut found, rows) = self.look_at(&id, &expected).await?;
            if let Some(before) = &stands {
                found.retain(|finding| before.contains(finding));
            } else {
                self.progress.rows += rows;
            }
            if found.is_empty() {
                return Ok(found);
            }
            stands = Some(found);
            self.expected.catch_up(&*self.core.store).await?;
        }
        Ok(stands.unwrap_or_default())
    }

    /// Tenants of which the log knows nothing.
    async fn strangers(&mut self) -> Result<Vec<RowFinding>, Why> {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = Page { after: &after, limit: PAGE };
            let rows = match self.core.store.tenants(page).await {
                Ok(rows) => rows,
                // One that cannot be read is told of with its tenant.
                Err(StoreError::Corrupt(_)) => return Ok(found),
                Err(error) => return Err(error.into()),
            };
            self.expected.catch_up(&*self.core.store).await?;
            for row in &rows {
                let name = row.id.to_string();
                if !self.expected.tenants.contains_key(&name) {
                    let reason = Reason::RowNotOnRecord;
                    let what = "the log has no such tenant".to_owned();
                    let (table, tenant) = ("tenant", name);
                    found.push(RowFinding { reason, table, name: row.id.resource(), tenant, what });
                }
            }
            match rows.last() {
                Some(last) if rows.len() == PAGE as usize => after = last.id.to_string(),
                Some(_) | None => return Ok(found),
            }
        }
    }

    async fn put_on_record(&mut self, found: &BTreeSet<RowFinding>) -> Result<(), Why> {
        for finding in found {
            self.progress.findings.push(finding.message());
            if self.told.insert(finding.clone()) {
                let RowFinding { table, name, what, .. } = finding;
                tracing::error!(table, name, what, "a row is not as it was written");
                self.core.log.record(finding.record()).await?;
            }
        }
        Ok(())
    }
}

impl RowFinding {
    /// About something at an index of the log.
    fn of_log(reason: Reason, column: &'static str, index: u64) -> Self {
        let table = column.split('.').next().unwrap_or(column);
        let name = format!("{table} {index}");
        let what = format!("{column} is not what it was");
        Self { reason, table, name, tenant: String::new(), what }
    }

    fn because(self, what: String) -> Self {
        Self { what, ..self }
    }

    fn message(&self) -> v1::RowFinding {
        v1::RowFinding {
            reason: self.reason.into(),
            table: self.table.to_owned(),
            name: self.name.clone(),
            tenant: self.tenant.clone(),
            what: self.what.clone(),
        }
    }

    /// Names what is a name; what is wrong is for the broker's own log, and for who asks.
    fn record(&self) -> Record {
        let of_credential = matches!(self.table, "credential" | "credential_version");
        let credential = self.name.split(' ').next().filter(|_| of_credential);
        let credential = credential.filter(|name| name.parse::<CredentialName>().is_ok());
        Record {
            kind: Kind::Finding.into(),
            reason: self.reason.into(),
            tenant: self.tenant.clone(),
            credential: credential.unwrap_or_default().to_owned(),
            table: self.table.to_owned(),
            ..Record::default()
        }
    }
}

#[cfg(test)]
mod tests;
