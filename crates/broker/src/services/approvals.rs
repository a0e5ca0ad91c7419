use std::{path::Path, sync::Arc};

use audit::{Approval, Hash, Step, proto_time};
use bytes::Bytes;
use domain::{TenantId, Timestamp};
use strongroom_proto::v1::{self, approval, approvals_server::Approvals};
use tonic::{Request, Response, Status};

use crate::{
    access::{AccessError, InForce},
    approvals::{Decision, id},
    caller::Caller,
    core::{Core, accept},
    policy_file,
    refused::{Refused, Why},
};

/// `strongroom.v1.Approvals`.
#[derive(Clone, Debug)]
pub(crate) struct ApprovalService(pub(crate) Arc<Core>);

/// The most that are listed.
const MOST: usize = 1000;

#[tonic::async_trait]
impl Approvals for ApprovalService {
    async fn list_approvals(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        let (caller, _) = accept(request)?;
        self.0.answer(&caller, self.0.list_approvals(&caller)).await
    }

    async fn get_approval(
        &self,
        request: Request<v1::GetApprovalRequest>,
    ) -> Result<Response<v1::Approval>, Status> {
        let (caller, request) = accept(request)?;
        let work = async {
            let id = id(&request.name)?;
            self.0.catch_up().await?;
            let approval = self.0.approval(&caller, &id)?;
            let request = self.0.proposed_request(&approval).await?.into();
            let now = self.0.store.now().await?;
            Ok::<_, Refused>(v1::Approval { request, ..self.0.message(&approval, now).await })
        };
        self.0.answer(&caller, work).await
    }

    async fn approve(
        &self,
        request: Request<v1::ApproveRequest>,
    ) -> Result<Response<v1::Approval>, Status> {
        let (caller, request) = accept(request)?;
        let work = async {
            let seen = Hash::try_from(&*request.request_sha256).map_err(|_| Why::EtagMismatch)?;
            self.0.decided(&caller, &request.name, Decision::Approve(&seen)).await
        };
        self.0.answer(&caller, work).await
    }

    async fn decline(
        &self,
        request: Request<v1::DeclineRequest>,
    ) -> Result<Response<v1::Approval>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.decided(&caller, &request.name, Decision::Decline)).await
    }

    async fn admit_policy(
        &self,
        request: Request<v1::AdmitPolicyRequest>,
    ) -> Result<Response<v1::AdmitPolicyResponse>, Status> {
        let (caller, request) = accept(request)?;
        self.0.answer(&caller, self.0.admit_policy(&caller, &request)).await
    }
}

impl Core {
    async fn list_approvals(&self, caller: &Caller) -> Result<v1::ListApprovalsResponse, Refused> {
        self.catch_up().await?;
        let mut listed: Vec<_> = self
            .directory
            .approvals(|all| all.all().filter(|it| self.may_decide(caller, it)).cloned().collect());
        listed.sort_by_key(|approval| std::cmp::Reverse(approval.log_index));
        let (mut approvals, now) = (Vec::new(), self.store.now().await?);
        for approval in listed.iter().take(MOST) {
            approvals.push(self.message(approval, now).await);
        }
        Ok(v1::ListApprovalsResponse { approvals })
    }

    async fn decided(
        &self,
        caller: &Caller,
        name: &str,
        decision: Decision<'_>,
    ) -> Result<v1::Approval, Refused> {
        let approval = self.decide_on(caller, name, decision).await?;
        Ok(self.message(&approval, self.store.now().await?).await)
    }

    async fn admit_policy(
        &self,
        caller: &Caller,
        request: &v1::AdmitPolicyRequest,
    ) -> Result<v1::AdmitPolicyResponse, Refused> {
        self.access.permit_all(caller)?;
        let policy = InForce::parse(Path::new("that was sent"), &request.policy);
        let policy = policy.map_err(|error| match error {
            AccessError::Fault { fault, .. } => Why::InvalidField(format!("policy: {fault}")),
            AccessError::Unreadable { .. }
            | AccessError::Document(_)
            | AccessError::UnknownToUs(_) => Why::InvalidField(error.to_string()),
        })?;
        let leave = self.second_person(caller, request, None).await?;
        let record = policy_file::admission(&*self.store, policy.document()).await?;
        let log_index = self.carry_out(caller, leave, None, record).await?.index;
        let policy_sha256 = policy.document().sha256().to_vec().into();
        Ok(v1::AdmitPolicyResponse { policy_sha256, log_index })
    }

    async fn message(&self, approval: &Approval, now: Timestamp) -> v1::Approval {
        let state = match approval.step {
            Step::Used => approval::State::Used,
            Step::Declined => approval::State::Declined,
            Step::Proposed | Step::Approved if approval.is_expired(now) => approval::State::Expired,
            Step::Proposed => approval::State::Proposed,
            Step::Approved => approval::State::Approved,
        };
        let decider = match approval.decider {
            Some(decider) => self.people.tell(hex::encode(decider)).await,
            None => String::new(),
        };
        let tenant = approval.tenant.parse::<TenantId>().map(|it| it.resource());
        v1::Approval {
            name: format!("approvals/{}", hex::encode(approval.id)),
            method: approval.method.clone(),
            request: Bytes::new(),
            request_sha256: approval.request_sha256.to_vec().into(),
            tenant: tenant.unwrap_or_default(),
            state: state.into(),
            proposer: self.people.tell(hex::encode(approval.proposer)).await,
            decider,
            propose_time: Some(proto_time(approval.proposed_at)),
            expire_time: Some(proto_time(approval.expires_at())),
            log_index: approval.log_index,
        }
    }
}
