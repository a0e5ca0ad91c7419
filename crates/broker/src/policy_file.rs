use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use audit::{Hash, Kind, PolicyDocument, Reason, Record, RecordDraft};
use domain::ADMIT_POLICY;
use store::{Appended, Pending, Store, StoreError};
use tokio::{fs, time};
use tokio_util::sync::CancellationToken;

use crate::{access::InForce, config::Config, core::Core, refused::Why};

/// How long to wait before a record that could not be written is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Keeps a policy beside the log; gives the record that a broker goes by it.
pub(crate) async fn put(core: &Core, policy: &PolicyDocument) -> Result<Record, StoreError> {
    named(&*core.store, policy, Kind::PolicyLoaded).await
}

/// Keeps a policy beside the log; gives the record that it is the one to come into force.
pub(crate) async fn admission(
    store: &dyn Store,
    policy: &PolicyDocument,
) -> Result<Record, StoreError> {
    named(store, policy, Kind::PolicyAdmitted).await
}

async fn named(
    store: &dyn Store,
    policy: &PolicyDocument,
    kind: Kind,
) -> Result<Record, StoreError> {
    store.put_policy(policy.sha256(), policy.as_bytes()).await?;
    let policy_sha256 = policy.sha256().to_vec().into();
    Ok(Record { kind: kind.into(), policy_sha256, ..Record::default() })
}

/// Whether a policy may come into force. Where the one that was admitted last asks for two people for
/// that, no other may: whoever can write the file is one person at the most.
pub(crate) async fn is_admitted(core: &Core, policy: &PolicyDocument) -> Result<bool, Why> {
    core.catch_up().await?;
    match core.directory.approvals(|approvals| approvals.admitted().copied()) {
        Some(admitted) if admitted != *policy.sha256() => {
            Ok(!needs_two_people(core, &admitted).await?)
        }
        Some(_) | None => Ok(true),
    }
}

/// A policy that cannot be told counts as one that does.
async fn needs_two_people(core: &Core, sha256: &Hash) -> Result<bool, Why> {
    let Some(document) = core.store.policy(sha256).await? else { return Ok(true) };
    let document = PolicyDocument::parse(document).ok().filter(|it| it.sha256() == sha256);
    Ok(document.is_none_or(|it| it.policy().needs_two_people(ADMIT_POLICY)))
}

/// Puts on record that no other policy may come into force than one that asks for two people for that,
/// when it is the first to.
pub(crate) async fn admit_first(core: &Core, policy: &PolicyDocument) -> Result<(), Why> {
    core.catch_up().await?;
    let admitted = core.directory.approvals(|approvals| approvals.admitted().copied());
    if !policy.policy().needs_two_people(ADMIT_POLICY) || admitted == Some(*policy.sha256()) {
        return Ok(());
    }
    let entry = core.log.record_change(admission(&*core.store, policy).await?).await?;
    core.directory.catch_up(entry.index + 1).await
}

/// Admits the policy of a configuration by the word of whoever runs this machine: the way out when no
/// two people are left who could. It is on record, without an actor. Says where.
///
/// # Errors
/// When the policy cannot be used, or the database cannot.
pub async fn admit_policy(config: Config) -> anyhow::Result<u64> {
    let policy = InForce::read(&config.policy)?;
    let store = store::open(&config.store).await.context("opening the store")?;
    let record = admission(&*store, policy.document()).await.context("keeping the access rules")?;
    let pending = Pending { record: RecordDraft::new(record)?, as_of: None, tenants: Vec::new() };
    let appended = store.append(&[pending]).await.context("recording the decision")?;
    store.close().await;
    match appended.into_iter().next() {
        Some(Appended::Recorded(entry)) => Ok(entry.index),
        Some(Appended::Stale { .. }) | None => bail!("the decision was not recorded"),
    }
}

/// What became of a policy's file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Taken {
    InForce,
    /// It is a policy, and others must agree to it first.
    Waits,
    Unusable,
}

/// Looks at the policy's file every so often, and puts it in force when it has changed. One that cannot
/// be used, or was not admitted, leaves the last in force, and is reported once.
pub(crate) async fn follow(
    core: Arc<Core>,
    path: PathBuf,
    every: Duration,
    stop: CancellationToken,
) {
    let mut ticks = time::interval(every);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut seen: Option<(Result<String, String>, Taken)> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let read = fs::read_to_string(&path).await;
        let read = read.map_err(|error| format!("it cannot be read: {error}"));
        let before = seen.take().filter(|(known, _)| *known == read).map(|(_, taken)| taken);
        let taken = match before {
            // It may have been admitted since.
            Some(Taken::Waits) | None => take(&core, &path, &read, before, &stop).await,
            Some(taken) => taken,
        };
        let is_unusable = f64::from(u8::from(taken != Taken::InForce));
        metrics::gauge!("strongroom_policy_file_unusable").set(is_unusable);
        seen = Some((read, taken));
    }
}

/// Puts what was read in force, if it is a policy and may be.
async fn take(
    core: &Core,
    path: &Path,
    read: &Result<String, String>,
    before: Option<Taken>,
    stop: &CancellationToken,
) -> Taken {
    let parsed = read.as_ref().map_err(Clone::clone);
    let parsed =
        parsed.and_then(|text| InForce::parse(path, text).map_err(|error| error.to_string()));
    let policy = match parsed {
        Ok(policy) => policy,
        Err(error) => {
            let path = path.display();
            tracing::error!(%path, error, "the access policy cannot be used, keeping the last");
            return Taken::Unusable;
        }
    };
    let document = policy.document().clone();
    // Other words about the same rules are nothing for the log.
    if document.sha256() == core.access.in_force().document().sha256() {
        core.access.replace(policy, async { true }).await;
        return Taken::InForce;
    }
    match is_admitted(core, &document).await {
        Ok(true) => {
            core.access.replace(policy, record(core, &document, stop)).await;
            Taken::InForce
        }
        Ok(false) => {
            if before.is_none() {
                report(core, path, &document).await;
            }
            Taken::Waits
        }
        Err(why) => {
            tracing::warn!(%why, "whether the access policy was admitted is not known yet");
            before.unwrap_or(Taken::Waits)
        }
    }
}

/// Puts on record that the file holds a policy that was not admitted: somebody may have meant to get
/// round the second person.
async fn report(core: &Core, path: &Path, policy: &PolicyDocument) {
    let (path, sha256) = (path.display(), hex::encode(policy.sha256()));
    tracing::error!(
        %path,
        sha256,
        "the access policy was not admitted by two people, keeping the last; `strongroom policy admit` \
         proposes it"
    );
    // It is kept, so that whoever looks into it can read what somebody meant to put in force.
    let recorded = match named(&*core.store, policy, Kind::Finding).await {
        Ok(found) => {
            let reason = Reason::PolicyNotAdmitted.into();
            core.log.record(Record { reason, ..found }).await.map(drop)
        }
        Err(error) => Err(error.into()),
    };
    if let Err(why) = recorded {
        tracing::error!(%why, "that is not on record");
    }
}

/// Records that the broker goes on by other rules. Whether a record of which nothing was heard is in the
/// log nobody knows, so there is no way back: it is tried until it is, or the broker stops. Without a
/// log nothing is lent meanwhile in any case.
async fn record(core: &Core, policy: &PolicyDocument, stop: &CancellationToken) -> bool {
    let try_once = async || {
        let Ok(record) = put(core, policy).await else { return false };
        core.log.record_change(record).await.is_ok() && admit_first(core, policy).await.is_ok()
    };
    let recorded = async {
        while !try_once().await {
            time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => return false,
        () = recorded => {}
    }
    let sha256 = hex::encode(policy.sha256());
    tracing::info!(sha256, "the access policy changed and is in force");
    true
}
