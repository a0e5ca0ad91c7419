use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use audit::{Kind, PolicyDocument, Record};
use store::StoreError;
use tokio::{fs, time};
use tokio_util::sync::CancellationToken;

use crate::{
    access::{AccessError, InForce},
    core::Core,
};

/// How long to wait before a record that could not be written is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Keeps a policy beside the log; gives the record that names it.
pub(crate) async fn put(core: &Core, policy: &PolicyDocument) -> Result<Record, StoreError> {
    core.store.put_policy(policy.sha256(), policy.as_bytes()).await?;
    Ok(Record {
        kind: Kind::PolicyLoaded.into(),
        policy_sha256: policy.sha256().to_vec().into(),
        ..Record::default()
    })
}

/// Looks at the policy's file every so often, and puts it in force when it has changed. One that cannot
/// be used leaves the last in force, and is reported once.
pub(crate) async fn follow(
    core: Arc<Core>,
    path: PathBuf,
    every: Duration,
    stop: CancellationToken,
) {
    let mut ticks = time::interval(every);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let read = fs::read_to_string(&path).await;
        let read = read.map_err(|error| format!("it cannot be read: {error}"));
        if seen.as_ref() != Some(&read) {
            let is_usable = take(&core, &path, &read, &stop).await;
            metrics::gauge!("strongroom_policy_file_unusable").set(f64::from(u8::from(!is_usable)));
            seen = Some(read);
        }
    }
}

/// Puts what was read in force, if it is a policy. False if it is none.
async fn take(
    core: &Core,
    path: &Path,
    read: &Result<String, String>,
    stop: &CancellationToken,
) -> bool {
    let parsed = read.as_ref().map_err(Clone::clone);
    let parsed = parsed.and_then(|text| {
        InForce::parse(path, text).map_err(|error: AccessError| error.to_string())
    });
    match parsed {
        Ok(policy) => {
            put_in_force(core, policy, stop).await;
            true
        }
        Err(error) => {
            let path = path.display();
            tracing::error!(%path, error, "the access policy cannot be used, keeping the last");
            false
        }
    }
}

async fn put_in_force(core: &Core, policy: InForce, stop: &CancellationToken) {
    let document = policy.document().clone();
    // Other words about the same rules are nothing for the log.
    if document.sha256() == core.access.in_force().document().sha256() {
        core.access.replace(policy, async { true }).await;
        return;
    }
    core.access.replace(policy, record(core, &document, stop)).await;
}

/// Records that the broker goes on by other rules. Whether a record of which nothing was heard is in the
/// log nobody knows, so there is no way back: it is tried until it is, or the broker stops. Without a
/// log nothing is lent meanwhile in any case.
async fn record(core: &Core, policy: &PolicyDocument, stop: &CancellationToken) -> bool {
    loop {
        let recorded = match put(core, policy).await {
            Ok(record) => core.log.record(record).await.is_ok(),
            Err(_) => false,
        };
        if recorded {
            let sha256 = hex::encode(policy.sha256());
            tracing::info!(sha256, "the access policy changed and is in force");
            return true;
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = time::sleep(AGAIN) => {}
        }
    }
}
