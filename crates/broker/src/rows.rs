mod expected;
mod log;
mod own;
mod owned;
mod rest;
mod tenant;
mod tree;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use audit::{Kind, Reason, Record};
use domain::{CredentialName, TenantId, Uid};
use strongroom_proto::v1;
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use self::{expected::Expected, tree::Walk};
use crate::{
    config::RowChecks,
    core::Core,
    export::seconds,
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
    // Counted from the start, where there has been none.
    tell_success(&core);
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

fn tell_success(core: &Core) {
    let now = seconds(core.clock.now());
    metrics::gauge!("strongroom_row_check_last_success_seconds").set(now);
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
        let began = self.core.clock.elapsed();
        self.progress = v1::CheckRowsResponse::default();
        if self.told.iter().any(|finding| finding.table == "record") {
            // What the log says may have been read from records that were changed.
            self.expected = Expected::default();
        }
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
        let took = self.core.clock.elapsed().saturating_sub(began);
        metrics::histogram!("strongroom_row_check_seconds").record(took.as_secs_f64());
        outcome?;
        metrics::counter!("strongroom_row_checks_total").increment(1);
        tell_success(&self.core);
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
        found.extend(self.look_at_prices().await?);
        found.extend(self.look_at_the_rest().await?);
        self.progress.tenants = u64::try_from(self.expected.tenants.len()).unwrap_or_default();
        let names: Vec<String> = self.expected.tenants.keys().cloned().collect();
        let names = names.into_iter().filter(|name| *name > self.after).collect::<Vec<_>>();
        whole &= self.after.is_empty();
        for name in names {
            if self.progress.rows >= bounds.rows {
                return Ok(false);
            }
            match self.look_at_tenant(&name).await {
                Ok(of_tenant) => {
                    found.extend(of_tenant);
                    self.progress.tenants_checked += 1;
                }
                // Whose root key is out of reach does not keep the others from being checked.
                Err(why @ Why::Kms(_)) => {
                    metrics::counter!("strongroom_row_check_failures_total").increment(1);
                    tracing::warn!(tenant = name, error = %Refused::from(why), "not checked");
                    self.progress.unchecked_tenants.push(format!("tenants/{name}"));
                    whole = false;
                }
                Err(why) => return Err(why),
            }
            self.after = name;
            tell.send_replace(self.progress.clone());
            time::sleep(bounds.rest).await;
        }
        self.after.clear();
        Ok(whole)
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

    async fn put_on_record(&mut self, found: &BTreeSet<RowFinding>) -> Result<(), Why> {
        for finding in found {
            self.progress.findings.push(finding.message());
            if self.told.insert(finding.clone()) {
                finding.tell();
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

    /// For whoever watches the broker's own log.
    pub(crate) fn tell(&self) {
        let Self { table, name, what, .. } = self;
        tracing::error!(table, name, what, "a row is not as it was written");
    }

    /// Names what is a name; what is wrong is for the broker's own log, and for who asks.
    pub(crate) fn record(&self) -> Record {
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
