use std::{sync::Arc, time::Duration};

use audit::{Kind, Record, proto_time};
use domain::{CredentialName, Fare, RequestId, Rotation, RotationPlan, RotationState, SetBack};
use store::{Change, CredentialRow, VersionRow};
use strongroom_proto::v1;

use super::{Arrived, about, message as credential, record, testing::Looked};
use crate::{
    caller::Caller,
    core::{Core, check_etag, parse, parse_optional},
    directory::Tenant,
    refused::{Refused, Why},
    rotating::rotation_record,
};

/// A new version, as it came and as it was found to be.
struct Stored {
    version: u64,
    request_id: Option<RequestId>,
    arrived: Arrived,
    looked: Looked,
}

impl Core {
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
            let made_by = self.custody.version(&row, row.current_version).await?;
            if made_by.row.request_id == request_id {
                return self.with_test(&tenant, &row).await;
            }
        }
        check_not_rotating(&row)?;
        check_etag(&request.etag, row.revision)?;
        let arrived = self.open_box(caller, name, row.provider.as_str(), request.secret)?;
        let looked = self.look_at(&row, &arrived.secret, request.test).await?;
        row.current_version = row.next_version();
        row.last_four = arrived.secret.last_four();
        let version = row.current_version;
        let record = |row: &CredentialRow| record(Kind::CredentialRotated, row);
        let stored = Stored { version, request_id, arrived, looked };
        self.store_version(caller, (&tenant, row), stored, record).await
    }

    pub(crate) async fn start_rotation(
        &self,
        caller: &Caller,
        request: v1::StartRotationRequest,
    ) -> Result<v1::Credential, Refused> {
        let name: CredentialName = parse(&request.name)?;
        let about = about(&name);
        caller.concerns(about.clone());
        self.start(caller, &name, request).await.map_err(|why| Refused::about(why, &about))
    }

    async fn start(
        &self,
        caller: &Caller,
        name: &CredentialName,
        request: v1::StartRotationRequest,
    ) -> Result<v1::Credential, Why> {
        self.catch_up().await?;
        let (tenant, mut row) = self.found(caller, name).await?;
        let operation = parse::<RequestId>(&request.operation_id)?;
        if row.rotation.as_ref().is_some_and(|known| known.operation == operation) {
            return self.with_test(&tenant, &row).await;
        }
        check_not_rotating(&row)?;
        check_etag(&request.etag, row.revision)?;
        let plan = plan(&request.plan.unwrap_or_default())?;
        let arrived = self.open_box(caller, name, row.provider.as_str(), request.secret)?;
        let looked = self.look_at(&row, &arrived.secret, request.test).await?;
        let (versions, now) = ((row.current_version, row.next_version()), self.clock.now());
        let new = (arrived.secret.last_four(), looked.is_valid());
        row.rotation = Some(Rotation::begin(operation.clone(), versions, plan, new, now));
        let (version, begun) = (versions.1, Kind::CredentialRotationStarted);
        let record = |row: &CredentialRow| rotation_record(begun, row);
        let stored = Stored { version, request_id: Some(operation), arrived, looked };
        self.store_version(caller, (&tenant, row), stored, record).await
    }

    /// Stores a version of a secret, with the state in which the credential is by it.
    async fn store_version(
        &self,
        caller: &Caller,
        (tenant, mut row): (&Arc<Tenant>, CredentialRow),
        stored: Stored,
        record: impl FnOnce(&CredentialRow) -> Record,
    ) -> Result<v1::Credential, Why> {
        let Stored { version, request_id, arrived, looked } = stored;
        let kek = self.custody.kek(&tenant.keys).await?;
        self.touch(&mut row, &kek);
        let row_of_it = VersionRow {
            credential_uid: row.uid,
            version,
            envelope: self.custody.seal(&kek, &row, version, &arrived.secret).await?,
            request_id,
            created_at: row.updated_at,
        };
        let change = Change::UpdateCredential(row.clone(), Some(row_of_it));
        self.change(&change, caller.stamp(record(&row))).await?;
        self.sessions.use_up(arrived.session, arrived.box_id);
        self.stored(caller, tenant, (&row, version), looked).await
    }

    pub(crate) async fn promote_rotation(
        &self,
        caller: &Caller,
        name: &str,
        etag: &str,
    ) -> Result<v1::Credential, Refused> {
        let now = self.clock.now();
        self.go_on_by_hand(caller, name, etag, |rotation| rotation.promoted(now)).await
    }

    pub(crate) async fn cancel_rotation(
        &self,
        caller: &Caller,
        name: &str,
        etag: &str,
    ) -> Result<v1::Credential, Refused> {
        let now = self.clock.now();
        let back = |rotation: &Rotation| rotation.set_back(SetBack::Cancelled, now);
        self.go_on_by_hand(caller, name, etag, back).await
    }

    async fn go_on_by_hand(
        &self,
        caller: &Caller,
        name: &str,
        etag: &str,
        step: impl Fn(&Rotation) -> Option<Rotation>,
    ) -> Result<v1::Credential, Refused> {
        let name: CredentialName = parse(name)?;
        let about = about(&name);
        caller.concerns(about.clone());
        let work = async {
            self.catch_up().await?;
            let (tenant, row) = self.found(caller, &name).await?;
            check_etag(etag, row.revision)?;
            let next = row.rotation.as_ref().and_then(step).ok_or(Why::NoSuchRotation)?;
            let row = self.enter(&tenant, &row, next, Some(caller)).await?;
            Ok::<_, Why>(self.shown(&row))
        };
        work.await.map_err(|why| Refused::about(why, &about))
    }

    /// A credential, with what this broker has seen of its rotation.
    pub(crate) fn shown(&self, row: &CredentialRow) -> v1::Credential {
        let mut shown = credential(row);
        if let (Some(rotation), Some(fares)) = (&mut shown.rotation, self.canaries.fares(row)) {
            rotation.candidate = Some(counts(&fares.candidate));
            rotation.previous = Some(counts(&fares.previous));
        }
        shown
    }
}

fn check_not_rotating(row: &CredentialRow) -> Result<(), Why> {
    match row.live_rotation() {
        Some(rotation) => Err(Why::RotationRunning(rotation.operation.clone())),
        None => Ok(()),
    }
}

fn plan(asked: &v1::RotationPlan) -> Result<RotationPlan, Why> {
    let percent = match asked.canary_percent {
        0 => Some(RotationPlan::PERCENT),
        percent => u8::try_from(percent).ok(),
    };
    let time = |asked: Option<prost_types::Duration>, usual| match asked {
        Some(asked) => Duration::try_from(asked).ok(),
        None => Some(usual),
    };
    let (hold, overlap) = (time(asked.hold, RotationPlan::HOLD), RotationPlan::OVERLAP);
    let plan =
        || RotationPlan::new(percent?, hold?, time(asked.overlap, overlap)?, asked.keep_previous);
    plan().ok_or_else(|| {
        let bounds =
            "plan: canary_percent is 1 to 99, hold 1 s to 7 days, overlap a day at the most";
        Why::InvalidField(bounds.into())
    })
}

/// A rotation as the contract tells it, but for what a broker has seen of it.
pub(super) fn message(rotation: &Rotation) -> v1::Rotation {
    use v1::rotation::State;

    let (state, because) = match rotation.state {
        RotationState::Canary(_) => (State::Canary, ""),
        RotationState::Overlap => (State::Overlap, ""),
        RotationState::Done => (State::Done, ""),
        RotationState::RolledBack(why) => (State::RolledBack, why.as_str()),
    };
    let plan = &rotation.plan;
    v1::Rotation {
        operation_id: rotation.operation.as_str().to_owned(),
        state: state.into(),
        percent: rotation.percent().into(),
        candidate_version: rotation.candidate,
        previous_version: rotation.previous,
        plan: Some(v1::RotationPlan {
            canary_percent: plan.percent().into(),
            hold: plan.hold().try_into().ok(),
            overlap: plan.overlap().try_into().ok(),
            keep_previous: plan.keeps_previous(),
        }),
        start_time: Some(proto_time(rotation.started)),
        step_time: Some(proto_time(rotation.since)),
        next_step_time: rotation.due().map(proto_time),
        because: because.to_owned(),
        candidate: None,
        previous: None,
        waits: false,
    }
}

fn counts(fare: &Fare) -> v1::VersionCounts {
    let &Fare { leases, refused, no_quota, not_allowed } = fare;
    v1::VersionCounts { leases, refused, no_quota, not_allowed }
}
