use audit::{APPROVAL_LASTS, Approval, Hash, Kind, Record, Step, request_sha256};
use domain::{TenantId, Uid};
use prost::Message;
use store::Appended;

use crate::{
    caller::Caller,
    core::Core,
    log::Basis,
    people::Called,
    refused::{Refused, Why},
};

/// How often a step is tried while others change things.
const TRIES: usize = 8;

impl Core {
    /// Lets a call go on for which the access policy asks nobody else, or that a second person has
    /// approved just as it is; the approval is used up then. Any other is kept as proposed, and refused.
    ///
    /// To be asked when all else about the request has been checked, and before anything is done.
    pub(crate) async fn second_person(
        &self,
        caller: &Caller,
        request: &impl Message,
        tenant: Option<&TenantId>,
    ) -> Result<(), Why> {
        if !self.access.needs_two_people(caller.method) {
            return Ok(());
        }
        let Called::By(proposer) = caller.called else { return Err(Why::NotAPerson) };
        let request = request.encode_to_vec();
        let request_sha256 = request_sha256(caller.method, &request);
        for _ in 0..TRIES {
            self.catch_up().await?;
            let as_of = self.directory.as_of();
            let now = self.store.now().await?;
            let known = self.directory.approvals(|approvals| {
                approvals.proposed_by(&proposer, &request_sha256, now).cloned()
            });
            let (kind, id) = match known {
                Some(known) if known.step == Step::Proposed => {
                    return Err(Why::ApprovalNeeded(known.id));
                }
                Some(known) => {
                    self.check_decider(&known)?;
                    (Kind::ApprovalUsed, known.id)
                }
                None => {
                    let until = now + APPROVAL_LASTS + APPROVAL_LASTS;
                    self.store.put_proposal(&request_sha256, &request, until, now).await?;
                    (Kind::ApprovalRequested, Uid::random()?)
                }
            };
            let record = Record {
                tenant: tenant.map(ToString::to_string).unwrap_or_default(),
                ..step(kind, id, &request_sha256)
            };
            if self.record_step(caller, record, as_of).await? {
                let is_approved = kind == Kind::ApprovalUsed;
                return if is_approved { Ok(()) } else { Err(Why::ApprovalNeeded(id)) };
            }
        }
        Err(Why::LogUnavailable)
    }

    /// Approves what another has proposed, or declines what anybody has.
    pub(crate) async fn decide_on(
        &self,
        caller: &Caller,
        name: &str,
        decision: Decision<'_>,
    ) -> Result<Approval, Refused> {
        let id = id(name)?;
        let Called::By(decider) = caller.called else { return Err(Why::NotAPerson.into()) };
        for _ in 0..TRIES {
            self.catch_up().await?;
            let as_of = self.directory.as_of();
            let approval = self.approval(caller, &id)?;
            let kind = match decision {
                Decision::Decline => Kind::ApprovalDeclined,
                Decision::Approve(_) if approval.proposer == decider => {
                    return Err(Why::SamePerson.into());
                }
                Decision::Approve(seen) if *seen != approval.request_sha256 => {
                    return Err(Why::EtagMismatch.into());
                }
                Decision::Approve(_) => Kind::ApprovalGiven,
            };
            let is_open = match decision {
                Decision::Approve(_) => approval.step == Step::Proposed,
                Decision::Decline => approval.is_open(),
            };
            if !is_open || approval.is_expired(self.store.now().await?) {
                return Err(Why::ApprovalIsOver.into());
            }
            let record = Record {
                tenant: approval.tenant.clone(),
                ..step(kind, id, &approval.request_sha256)
            };
            if self.record_step(caller, record, as_of).await? {
                return Ok(self.approval(caller, &id)?);
            }
        }
        Err(Why::LogUnavailable.into())
    }

    /// A proposed call that the caller may see. One that is out of bounds looks like one that is not there.
    pub(crate) fn approval(&self, caller: &Caller, id: &Uid) -> Result<Approval, Why> {
        let approval = self.directory.approvals(|approvals| approvals.get(id).cloned());
        approval.filter(|it| self.may_decide(caller, it)).ok_or(Why::NoSuchApproval)
    }

    /// Whether the caller's method is allowed to it for what a proposed call concerns.
    pub(crate) fn may_decide(&self, caller: &Caller, approval: &Approval) -> bool {
        match approval.tenant.parse() {
            Ok(tenant) => self.access.permit(caller, &tenant).is_ok(),
            Err(_) => self.access.permit_all(caller).is_ok(),
        }
    }

    /// What was proposed, as it was; what is kept of it must be what the log names.
    pub(crate) async fn proposed_request(&self, approval: &Approval) -> Result<Vec<u8>, Why> {
        let request = self.store.proposal(&approval.request_sha256).await?;
        let genuine = |request: &Vec<u8>| {
            request_sha256(&approval.method, request) == approval.request_sha256
        };
        request.filter(genuine).ok_or_else(|| {
            Why::Corrupt("a proposed request was changed past the broker".to_owned())
        })
    }

    /// An approval by somebody who may not call any more counts for nothing.
    fn check_decider(&self, approval: &Approval) -> Result<(), Why> {
        let decider = approval.decider.map(hex::encode).unwrap_or_default();
        if self.directory.barred().blocks(&decider) { Err(Why::ApprovalIsOver) } else { Ok(()) }
    }

    /// Records a step, unless something has changed since: false then. Applies it here before the answer.
    async fn record_step(&self, caller: &Caller, record: Record, as_of: u64) -> Result<bool, Why> {
        let basis = Basis { as_of, tenants: Vec::new() };
        match self.log.append(caller.template(record), Some(basis)).await? {
            Appended::Recorded(entry) => {
                caller.is_recorded();
                self.directory.catch_up(entry.index + 1).await?;
                Ok(true)
            }
            Appended::Stale { .. } => Ok(false),
        }
    }
}

/// What a second person says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision<'a> {
    /// To the request with this digest.
    Approve(&'a Hash),
    Decline,
}

/// Reads a name as the contract has it.
pub(crate) fn id(name: &str) -> Result<Uid, Why> {
    let mut bytes = [0; 16];
    let digits = name.strip_prefix("approvals/").ok_or(Why::NoSuchApproval)?;
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| Why::NoSuchApproval)?;
    Ok(Uid::from_bytes(bytes))
}

fn step(kind: Kind, id: Uid, request_sha256: &Hash) -> Record {
    Record {
        kind: kind.into(),
        approval_id: id.as_bytes().to_vec().into(),
        request_sha256: request_sha256.to_vec().into(),
        ..Record::default()
    }
}
