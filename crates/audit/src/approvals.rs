use std::{collections::BTreeMap, time::Duration};

use domain::{Fields, Timestamp, Uid};
use sha2::{Digest as _, Sha256};

use crate::{Hash, Kind, Record, timestamp};

/// The calls that need a second person, and the access policy that was admitted, as the log tells it. The
/// log is all that is kept of both: the broker decides by what stands here, and who verifies the log
/// follows the same steps.
#[derive(Clone, Debug, Default)]
pub struct Approvals {
    open: BTreeMap<Uid, Approval>,
    admitted: Option<Hash>,
}

/// A call that was proposed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Approval {
    /// What records call it.
    pub id: Uid,
    /// `Service/Method`.
    pub method: String,
    /// The digest of the method and the request.
    pub request_sha256: Hash,
    /// The tenant's last name segment; empty if it concerns the whole deployment.
    pub tenant: String,
    /// The commitment to who proposed it.
    pub proposer: Hash,
    /// The commitment to who approved or declined it.
    pub decider: Option<Hash>,
    /// How far it is, but for the time.
    pub step: Step,
    /// When it was proposed.
    pub proposed_at: Timestamp,
    /// The record of the proposal.
    pub log_index: u64,
}

/// How far a proposed call is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// It waits for a second person.
    Proposed,
    /// It waits to be made again.
    Approved,
    /// Nothing becomes of it.
    Declined,
    /// It was made.
    Used,
}

/// A record of a step that must not have been taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Misstep;

/// Who may call this for what a proposed call concerns may approve it.
pub const APPROVE: &str = "Approvals/Approve";

/// From the proposal to the call, no more time than this passes.
pub const APPROVAL_LASTS: Duration = Duration::from_hours(24);

/// What is approved: this method with this very request. `docs/log-format.md` has the bytes.
pub fn request_sha256(method: &str, request: &[u8]) -> Hash {
    let fields = Fields::new("strongroom approval v1").field(1, method).field(2, request);
    Sha256::digest(fields.finish()).into()
}

impl Approval {
    /// When it ends, whatever became of it.
    pub fn expires_at(&self) -> Timestamp {
        self.proposed_at + APPROVAL_LASTS
    }

    /// Whether it waits for somebody, but for the time.
    pub fn is_open(&self) -> bool {
        matches!(self.step, Step::Proposed | Step::Approved)
    }

    /// Whether its time is up.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at() <= now
    }
}

impl Approvals {
    /// Takes a record in. A misstep changes nothing.
    #[expect(clippy::wildcard_enum_match_arm, reason = "few kinds say anything of it")]
    pub fn apply(&mut self, record: &Record) -> Result<(), Misstep> {
        match record.kind() {
            Kind::PolicyAdmitted => {
                self.admitted = record.policy_sha256.as_ref().try_into().ok();
                Ok(())
            }
            Kind::ApprovalRequested => self.propose(record),
            Kind::ApprovalGiven => self.decide(record, Step::Approved),
            Kind::ApprovalDeclined => self.decide(record, Step::Declined),
            Kind::ApprovalUsed => self.make(record),
            _ => Ok(()),
        }
    }

    /// A proposed call.
    pub fn get(&self, id: &Uid) -> Option<&Approval> {
        self.open.get(id)
    }

    /// All of the last day, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Approval> {
        self.open.values()
    }

    /// What somebody proposed with this very request, as far as it can still be decided on or made.
    pub fn proposed_by(
        &self,
        proposer: Hash,
        request_sha256: Hash,
        now: Timestamp,
    ) -> impl Iterator<Item = &Approval> {
        self.open.values().filter(move |it| {
            it.is_open()
                && it.proposer == proposer
                && it.request_sha256 == request_sha256
                && !it.is_expired(now)
        })
    }

    /// The access policy that was admitted last.
    pub fn admitted(&self) -> Option<&Hash> {
        self.admitted.as_ref()
    }

    fn propose(&mut self, record: &Record) -> Result<(), Misstep> {
        let (id, proposer, proposed_at) = (id(record)?, person(record)?, time(record)?);
        if self.open.contains_key(&id) {
            return Err(Misstep);
        }
        // The log's time never goes back, so what is over by now stays so.
        self.open.retain(|_, it| !it.is_expired(proposed_at));
        let approval = Approval {
            id,
            method: record.method.clone(),
            request_sha256: request(record)?,
            tenant: record.tenant.clone(),
            proposer,
            decider: None,
            step: Step::Proposed,
            proposed_at,
            log_index: record.index,
        };
        self.open.insert(id, approval);
        Ok(())
    }

    fn decide(&mut self, record: &Record, step: Step) -> Result<(), Misstep> {
        let (decider, now, request) = (person(record)?, time(record)?, request(record)?);
        let approval = self.open.get_mut(&id(record)?).ok_or(Misstep)?;
        let is_due = if step == Step::Approved {
            approval.step == Step::Proposed && decider != approval.proposer
        } else {
            approval.is_open()
        };
        if !is_due || approval.is_expired(now) || approval.request_sha256 != request {
            return Err(Misstep);
        }
        (approval.step, approval.decider) = (step, Some(decider));
        Ok(())
    }

    fn make(&mut self, record: &Record) -> Result<(), Misstep> {
        let (maker, now, request) = (person(record)?, time(record)?, request(record)?);
        let approval = self.open.get_mut(&id(record)?).ok_or(Misstep)?;
        if approval.step != Step::Approved
            || approval.proposer != maker
            || approval.request_sha256 != request
            || approval.method != record.method
            || approval.is_expired(now)
        {
            return Err(Misstep);
        }
        approval.step = Step::Used;
        Ok(())
    }
}

fn id(record: &Record) -> Result<Uid, Misstep> {
    let bytes: [u8; 16] = record.approval_id.as_ref().try_into().map_err(|_| Misstep)?;
    Ok(Uid::from_bytes(bytes))
}

/// Only people have commitments: what a workload did is no step.
fn person(record: &Record) -> Result<Hash, Misstep> {
    record.actor_commitment.as_ref().try_into().map_err(|_| Misstep)
}

fn request(record: &Record) -> Result<Hash, Misstep> {
    record.request_sha256.as_ref().try_into().map_err(|_| Misstep)
}

fn time(record: &Record) -> Result<Timestamp, Misstep> {
    record.time.as_ref().and_then(timestamp).ok_or(Misstep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto_time;

    const OLGA: u8 = 1;
    const PAUL: u8 = 2;

    fn record(kind: Kind, who: u8, at: i64) -> Record {
        Record {
            kind: kind.into(),
            actor_commitment: vec![who; 32].into(),
            method: "Kms/RotateKek".to_owned(),
            approval_id: vec![7; 16].into(),
            request_sha256: vec![8; 32].into(),
            time: Some(proto_time(Timestamp::from_millis(at))),
            ..Record::default()
        }
    }

    fn proposed() -> Approvals {
        let mut approvals = Approvals::default();
        approvals.apply(&record(Kind::ApprovalRequested, OLGA, 0)).unwrap();
        approvals
    }

    fn approved() -> Approvals {
        let mut approvals = proposed();
        approvals.apply(&record(Kind::ApprovalGiven, PAUL, 1)).unwrap();
        approvals
    }

    const DAY: i64 = 24 * 60 * 60 * 1000;

    #[test]
    fn what_another_has_approved_is_done_once() {
        let mut approvals = approved();
        assert_eq!(approvals.apply(&record(Kind::ApprovalUsed, OLGA, 2)), Ok(()));
        assert_eq!(approvals.apply(&record(Kind::ApprovalUsed, OLGA, 3)), Err(Misstep));
        assert_eq!(approvals.apply(&record(Kind::ApprovalGiven, PAUL, 3)), Err(Misstep));
    }

    #[test]
    fn nobody_is_their_own_second_person() {
        let own = record(Kind::ApprovalGiven, OLGA, 1);
        assert_eq!(proposed().apply(&own), Err(Misstep));
        let workload = Record {
            actor: "spiffe://a.b/c".to_owned(),
            actor_commitment: Vec::new().into(),
            ..record(Kind::ApprovalGiven, PAUL, 1)
        };
        assert_eq!(proposed().apply(&workload), Err(Misstep));
        assert_eq!(proposed().apply(&record(Kind::ApprovalGiven, PAUL, 1)), Ok(()));
    }

    #[test]
    fn nothing_is_done_that_was_not_approved_as_it_is() {
        let made = record(Kind::ApprovalUsed, OLGA, 2);
        assert_eq!(proposed().apply(&made), Err(Misstep));
        assert_eq!(approved().apply(&record(Kind::ApprovalUsed, PAUL, 2)), Err(Misstep));
        let other = Record { request_sha256: vec![9; 32].into(), ..made.clone() };
        assert_eq!(approved().apply(&other), Err(Misstep));
        let other = Record { method: "Kms/RewrapKeys".to_owned(), ..made.clone() };
        assert_eq!(approved().apply(&other), Err(Misstep));
        assert_eq!(approved().apply(&made), Ok(()));
    }

    #[test]
    fn what_was_declined_or_is_a_day_old_is_over() {
        let mut declined = approved();
        declined.apply(&record(Kind::ApprovalDeclined, OLGA, 2)).unwrap();
        assert_eq!(declined.apply(&record(Kind::ApprovalUsed, OLGA, 3)), Err(Misstep));
        assert_eq!(proposed().apply(&record(Kind::ApprovalGiven, PAUL, DAY)), Err(Misstep));
        assert_eq!(approved().apply(&record(Kind::ApprovalUsed, OLGA, DAY)), Err(Misstep));
        assert_eq!(approved().apply(&record(Kind::ApprovalUsed, OLGA, DAY - 1)), Ok(()));
    }
}
