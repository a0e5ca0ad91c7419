use std::sync::Arc;

use audit::{APPROVAL_LASTS, APPROVE, Approval, Entry, Hash, Kind, Record, Step, request_sha256};
use domain::{TenantId, Uid};
use prost::Message;
use store::{Appended, Change};

use crate::{
    access::InForce,
    caller::{Actor, Caller},
    core::Core,
    log::Basis,
    people::Called,
    refused::{Refused, Why},
};

/// How often a step is tried while others change things.
const TRIES: usize = 8;

/// What lets a change be made, once all about it is checked: nothing more, or a second person's word.
#[derive(Debug)]
pub(crate) struct Leave(Option<Asked>);

/// A call that needs a second person.
#[derive(Debug)]
struct Asked {
    proposer: Hash,
    request: Vec<u8>,
    request_sha256: Hash,
    tenant: Option<TenantId>,
}

/// An approval that counts, by what is known up to a place in the log and by a policy.
struct Counts {
    used: Record,
    as_of: u64,
    policy: Arc<InForce>,
}

impl Core {
    /// Lets a call go on for which the access policy asks nobody else, or that a second person has
    /// approved just as it is. Any other is kept as proposed, and refused.
    ///
    /// To be asked when all else about the request has been checked, and before anything is done. What is
    /// approved is done by [`Self::carry_out`], which uses the approval up.
    pub(crate) async fn second_person(
        &self,
        caller: &Caller,
        request: &impl Message,
        tenant: Option<&TenantId>,
    ) -> Result<Leave, Why> {
        if !self.access.needs_two_people(caller.method) {
            return Ok(Leave(None));
        }
        let Called::By(proposer) = caller.called else { return Err(Why::NotAPerson) };
        let request = request.encode_to_vec();
        let request_sha256 = request_sha256(caller.method, &request);
        let asked = Asked { proposer, request, request_sha256, tenant: tenant.cloned() };
        Box::pin(self.counts(caller, &asked)).await?;
        Ok(Leave(Some(asked)))
    }

    /// Makes a change and appends the record of it, and between the two and the end of an approval nothing
    /// can come: an approval is used up by what it was given for, and an attempt that fails leaves it as it
    /// was. There is no change where the record is all that is kept. Applies it here before the answer.
    pub(crate) async fn carry_out(
        &self,
        caller: &Caller,
        leave: Leave,
        change: Option<&Change>,
        record: Record,
    ) -> Result<Entry, Why> {
        let entry = match (leave.0, change) {
            (Some(asked), _) => {
                Box::pin(self.make_approved(caller, &asked, change, record)).await?
            }
            (None, Some(change)) => self.log.apply(change, caller.stamp(record)).await?,
            (None, None) => self.log.record_change(caller.stamp(record)).await?,
        };
        self.directory.catch_up(entry.index + 1).await?;
        Ok(entry)
    }

    async fn make_approved(
        &self,
        caller: &Caller,
        asked: &Asked,
        change: Option<&Change>,
        record: Record,
    ) -> Result<Entry, Why> {
        for _ in 0..TRIES {
            let Counts { used, as_of, policy } = self.counts(caller, asked).await?;
            // Until it is recorded, no policy comes into force by which it would not count.
            let Some(_policy) = self.access.hold(&policy).await else { continue };
            let used = (caller.template(used), as_of);
            let record = caller.template(record.clone());
            if let Appended::Recorded(entry) = self.log.apply_approved(used, change, record).await?
            {
                caller.is_recorded();
                return Ok(entry);
            }
        }
        Err(Why::LogUnavailable)
    }

    /// The approval by which a call may be made now. A call without one is kept as proposed, and refused.
    async fn counts(&self, caller: &Caller, asked: &Asked) -> Result<Counts, Why> {
        for _ in 0..TRIES {
            self.catch_up().await?;
            let (as_of, policy) = (self.directory.as_of(), self.access.in_force());
            self.directory.barred().admit(&caller.actor)?;
            if !policy.allows(&caller.identity, caller.method, asked.tenant.as_ref()) {
                return Err(self.access.refusal(caller));
            }
            let now = self.store.now().await?;
            let known: Vec<_> = self.directory.approvals(|approvals| {
                let known = approvals.proposed_by(asked.proposer, asked.request_sha256, now);
                known.cloned().collect()
            });
            let mut has_lapsed = false;
            for approval in known.iter().filter(|it| it.step == Step::Approved) {
                if self.stands(approval, &policy).await? {
                    let used = asked.step(Kind::ApprovalUsed, approval.id);
                    return Ok(Counts { used, as_of, policy });
                }
                has_lapsed = true;
            }
            if let Some(waits) = known.iter().find(|it| it.step == Step::Proposed) {
                return Err(Why::ApprovalNeeded(waits.id));
            }
            let until = now + APPROVAL_LASTS + APPROVAL_LASTS;
            self.store.put_proposal(&asked.request_sha256, &asked.request, until, now).await?;
            let id = Uid::random()?;
            let record = asked.step(Kind::ApprovalRequested, id);
            if self.record_step(caller, record, as_of).await? {
                let why = if has_lapsed { Why::ApprovalLapsed } else { Why::ApprovalNeeded };
                return Err(why(id));
            }
        }
        Err(Why::LogUnavailable)
    }

    /// Whether who approved a call would be let approve it now. Of who is forgotten nobody can tell.
    async fn stands(&self, approval: &Approval, policy: &InForce) -> Result<bool, Why> {
        let Some(decider) = approval.decider else { return Ok(false) };
        let Some(identity) = self.people.identity(&decider).await? else { return Ok(false) };
        let actor = Actor::of(&identity, Called::By(decider));
        let tenant = approval.tenant.parse().ok();
        Ok(!self.directory.barred().is_blocked(&actor)
            && policy.allows(&identity, APPROVE, tenant.as_ref()))
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
            if approval.is_open() && approval.is_expired(self.store.now().await?) {
                return Err(Why::ApprovalIsOver(None).into());
            }
            let is_due = match decision {
                Decision::Approve(_) => approval.step == Step::Proposed,
                Decision::Decline => approval.is_open(),
            };
            if !is_due {
                return Err(Why::ApprovalIsOver(Some(approval.step)).into());
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
        let (policy, tenant) = (self.access.in_force(), approval.tenant.parse().ok());
        policy.allows(&caller.identity, caller.method, tenant.as_ref())
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

    /// Records a step, unless something has changed since: false then. Applies it here before the answer.
    async fn record_step(&self, caller: &Caller, record: Record, as_of: u64) -> Result<bool, Why> {
        let basis = Basis { as_of, tenants: Vec::new() };
        match self.log.append_change(caller.template(record), Some(basis)).await? {
            Appended::Recorded(entry) => {
                caller.is_recorded();
                self.directory.catch_up(entry.index + 1).await?;
                Ok(true)
            }
            Appended::Stale { .. } => Ok(false),
        }
    }
}

impl Asked {
    fn step(&self, kind: Kind, id: Uid) -> Record {
        let tenant = self.tenant.as_ref().map(ToString::to_string).unwrap_or_default();
        Record { tenant, ..step(kind, id, &self.request_sha256) }
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
