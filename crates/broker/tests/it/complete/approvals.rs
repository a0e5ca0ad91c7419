use std::fs;

use strongroom_proto::v1;

use super::Calls;
use crate::harness::Running;

/// What is answered where one person is enough.
pub(super) async fn admit(calls: &mut Calls, running: &Running) {
    let request = v1::ListApprovalsRequest {};
    let admin = &running.admin;
    answered!(calls, admin, approvals.list_approvals, "Approvals/ListApprovals", request);
    let policy = fs::read_to_string(&running.layout.policy).unwrap();
    let request = v1::AdmitPolicyRequest { policy };
    answered!(calls, admin, approvals.admit_policy, "Approvals/AdmitPolicy", request);
}
