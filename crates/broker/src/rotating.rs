use std::{sync::Arc, time::Duration};

use audit::{Kind, Record};
use domain::{CredentialName, Rotation, RotationState, SetBack};
use store::{Change, CredentialRow, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    caller::Caller, core::Core, directory::Tenant, leadership, refused::Why,
    services::credentials::record,
};

/// Takes rotations on, step by step, until `stop`: on whichever broker leads, from what is stored, so
/// that it goes on where another stopped.
pub(crate) async fn go_on(core: Arc<Core>, leads: watch::Receiver<bool>, stop: CancellationToken) {
    while leadership::next_turn(LOOK, &leads, &stop).await {
        if let Err(why) = core.take_rotations_on().await {
            tracing::warn!(%why, "rotations wait");
        }
    }
}

/// How often a leader looks for steps that are due.
const LOOK: Duration = Duration::from_secs(1);

/// So many are read at once.
const AT_ONCE: u32 = 100;

impl Core {
    /// Takes every step that is due.
    pub(crate) async fn take_rotations_on(&self) -> Result<(), Why> {
        let (now, mut after) = (self.clock.now(), None);
        loop {
            let due = self.store.rotations_due(now, after.as_ref(), AT_ONCE).await?;
            let Some(last) = due.last() else { return Ok(()) };
            after = Some(last.clone());
            self.catch_up().await?;
            for name in due {
                // One that cannot go on does not hold the others up.
                if let Err(why) = self.take_step(&name).await {
                    tracing::warn!(credential = %name, %why, "a rotation waits");
                }
            }
        }
    }

    async fn take_step(&self, name: &CredentialName) -> Result<(), Why> {
        let Some(tenant) = self.directory.tenant(&name.tenant).await? else { return Ok(()) };
        let Some(held) = tenant.credential(&name.credential) else { return Ok(()) };
        let now = self.clock.now();
        // By what is under the row's MAC, and not by what found it.
        let next = held.row.rotation.as_ref().and_then(|rotation| rotation.next_step(now));
        let Some(next) = next.filter(|_| held.row.enabled) else { return Ok(()) };
        // A key that nobody has called with yet has met no failure either.
        if self.is_unproven(name, &next).await? {
            return Ok(());
        }
        self.enter(&tenant, &held.row, next, None).await.map(drop)
    }

    /// Whether nothing has shown yet that the provider accepts a rotation's new key: no test before it
    /// began, and no call since.
    async fn is_unproven(&self, name: &CredentialName, rotation: &Rotation) -> Result<bool, Why> {
        Ok(!rotation.tested && !self.store.has_served(name, rotation.candidate).await?)
    }

    /// Whether a rotation's next step is due and waits for the new key to be seen to work.
    pub(crate) async fn waits(&self, row: &CredentialRow) -> Result<bool, Why> {
        let Some(rotation) = &row.rotation else { return Ok(false) };
        let is_due = rotation.next_step(self.clock.now()).is_some();
        Ok(is_due && self.is_unproven(&row.name(), rotation).await?)
    }

    /// Sets a rotation back because of what calls have met. Another broker may do the same at the same
    /// time; one of them does it.
    pub(crate) async fn set_back(&self, tenant: &Tenant, row: &CredentialRow, why: SetBack) {
        let now = self.clock.now();
        let Some(back) = row.rotation.as_ref().and_then(|it| it.set_back(why, now)) else { return };
        let credential = row.name();
        match self.enter(tenant, row, back, None).await {
            Ok(_) => {
                tracing::warn!(%credential, why = why.as_str(), "a rotation was set back");
                metrics::counter!("strongroom_rotations_set_back_total").increment(1);
            }
            Err(Why::Store(StoreError::Changed(_))) => {}
            // The next report tries again; until then calls go on with the other version.
            Err(refused) => {
                tracing::error!(%credential, why = why.as_str(), ?refused, "a rotation is to be set back");
            }
        }
    }

    /// Brings a credential's rotation into its next state, with the record of it.
    pub(crate) async fn enter(
        &self,
        tenant: &Tenant,
        row: &CredentialRow,
        next: Rotation,
        caller: Option<&Caller>,
    ) -> Result<CredentialRow, Why> {
        let (kind, because) = match next.state {
            RotationState::Canary(_) | RotationState::Overlap => {
                (Kind::CredentialRotationAdvanced, "")
            }
            RotationState::Done => (Kind::CredentialRotationFinished, ""),
            RotationState::RolledBack(why) => (Kind::CredentialRotationRolledBack, why.as_str()),
        };
        let deleted = next.deletes();
        let mut row = moved(row, next);
        let kek = self.custody.kek(&tenant.keys).await?;
        self.touch(&mut row, &kek);
        let record = Record { because: because.to_owned(), ..rotation_record(kind, &row) };
        let change = match deleted {
            Some(version) => Change::DropVersion(row.clone(), version),
            None => Change::UpdateCredential(row.clone(), None),
        };
        let record = match caller {
            Some(caller) => caller.stamp(record),
            None => record,
        };
        self.change(&change, record).await?;
        Ok(row)
    }
}

/// The credential as it is in the rotation's next state.
fn moved(row: &CredentialRow, mut next: Rotation) -> CredentialRow {
    let mut row = row.clone();
    if row.current_version != next.current() {
        row.current_version = next.current();
        std::mem::swap(&mut row.last_four, &mut next.other_last_four);
    }
    row.rotation = Some(next);
    row
}

/// The record of a rotation's step: it names the new version, whichever is current.
pub(crate) fn rotation_record(kind: Kind, row: &CredentialRow) -> Record {
    let record = record(kind, row);
    let Some(rotation) = &row.rotation else { return record };
    let percent = u32::from(rotation.percent());
    let is_share =
        matches!(kind, Kind::CredentialRotationStarted | Kind::CredentialRotationAdvanced);
    Record {
        credential_version: rotation.candidate,
        request_id: rotation.operation.as_str().to_owned(),
        rotation_percent: if is_share { percent } else { 0 },
        deleted_version: rotation.deletes().unwrap_or_default(),
        ..record
    }
}
