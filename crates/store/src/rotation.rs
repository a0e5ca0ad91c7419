use std::time::Duration;

use domain::{Rotation, RotationPlan, RotationState, SetBack, Timestamp};
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// A rotation as it stands in its column.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    operation: String,
    candidate: u64,
    previous: u64,
    /// Share of the first step, hold and overlap in milliseconds, whether the old version is kept.
    plan: (u8, u64, u64, bool),
    state: String,
    /// Of a canary.
    #[serde(default, skip_serializing_if = "is_zero")]
    percent: u8,
    /// Of one that was set back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    because: String,
    started: i64,
    since: i64,
    other_last_four: String,
    tested: bool,
}

/// The one text for a rotation, empty for none; it is under the row's MAC.
pub fn write_rotation(rotation: Option<&Rotation>) -> String {
    let Some(rotation) = rotation else { return String::new() };
    let (state, percent, because) = match rotation.state {
        RotationState::Canary(percent) => (CANARY, percent, ""),
        RotationState::Overlap => (OVERLAP, 0, ""),
        RotationState::Done => (DONE, 0, ""),
        RotationState::RolledBack(why) => (ROLLED_BACK, 0, why.as_str()),
    };
    let plan = &rotation.plan;
    let written = Written {
        operation: rotation.operation.as_str().to_owned(),
        candidate: rotation.candidate,
        previous: rotation.previous,
        plan: (plan.percent(), millis(plan.hold()), millis(plan.overlap()), plan.keeps_previous()),
        state: state.to_owned(),
        percent,
        because: because.to_owned(),
        started: rotation.started.as_millis(),
        since: rotation.since.as_millis(),
        other_last_four: rotation.other_last_four.clone(),
        tested: rotation.tested,
    };
    serde_json::to_string(&written).unwrap_or_default()
}

pub(crate) fn read_rotation(text: &str) -> Result<Option<Rotation>, StoreError> {
    if text.is_empty() {
        return Ok(None);
    }
    let read = || {
        let written: Written = serde_json::from_str(text).ok()?;
        let state = match &*written.state {
            CANARY if (1..=99).contains(&written.percent) => RotationState::Canary(written.percent),
            OVERLAP => RotationState::Overlap,
            DONE => RotationState::Done,
            ROLLED_BACK => RotationState::RolledBack(SetBack::named(&written.because)?),
            _ => return None,
        };
        let (percent, hold, overlap, keeps_previous) = written.plan;
        let (hold, overlap) = (Duration::from_millis(hold), Duration::from_millis(overlap));
        Some(Rotation {
            operation: written.operation.parse().ok()?,
            candidate: written.candidate,
            previous: written.previous,
            plan: RotationPlan::new(percent, hold, overlap, keeps_previous)?,
            state,
            started: Timestamp::from_millis(written.started),
            since: Timestamp::from_millis(written.since),
            other_last_four: written.other_last_four,
            tested: written.tested,
        })
    };
    read().map(Some).ok_or_else(|| StoreError::Corrupt("credential.rotation".to_owned()))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

const CANARY: &str = "canary";
const OVERLAP: &str = "overlap";
const DONE: &str = "done";
const ROLLED_BACK: &str = "rolled_back";
