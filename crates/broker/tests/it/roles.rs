//! What each shipped role may and may not do, method by method: the table that the access guide shows.

use std::{collections::BTreeSet, fs};

use domain::{AccessPolicy, PolicyFile, Question};

use crate::harness::repository;

fn shipped() -> AccessPolicy {
    let text = fs::read_to_string(repository("deploy/policy.toml")).unwrap();
    PolicyFile::parse(&text, &strongroom_proto::methods()).unwrap().policy().clone()
}

/// What somebody may call, of the whole contract.
fn may(who: &str, tenant: Option<&str>) -> BTreeSet<String> {
    let policy = shipped();
    let allowed = |method: &String| {
        let question = Question {
            identity: format!("spiffe://acme.internal/{who}").parse().unwrap(),
            method: method.clone(),
            tenant: tenant.map(|name| name.parse().unwrap()),
            provider: None,
        };
        policy.ruling(&question).is_allowed()
    };
    strongroom_proto::methods().into_iter().filter(allowed).collect()
}

#[track_caller]
fn check(who: &str, tenant: Option<&str>, may_do: &[&str], may_not: &[&str]) {
    let allowed = may(who, tenant);
    for method in may_do {
        assert!(allowed.contains(*method), "{who} may not {method}");
    }
    for method in may_not {
        assert!(!allowed.contains(*method), "{who} may {method}");
    }
}

const LEND: [&str; 2] = ["Leases/AcquireLease", "Leases/RenewLease"];

#[test]
fn machines_do_their_one_thing() {
    check(
        "inference-proxy",
        None,
        &LEND,
        &["Leases/ListLeases", "Credentials/ListCredentials", "Tenants/ListTenants"],
    );
    let borrower = may("batch/embeddings", Some("acme"));
    let expected = ["AcquireLease", "OpenSession", "ReleaseLease", "RenewLease"];
    assert_eq!(borrower, expected.map(|method| format!("Leases/{method}")).into());
    assert!(may("batch/embeddings", Some("globex")).is_empty());
    // Puts, and neither reads nor borrows.
    let provisioner = may("provisioning", Some("acme"));
    let expected =
        ["Credentials/CreateCredential", "Credentials/RotateCredential", "Leases/OpenSession"];
    assert_eq!(provisioner, expected.map(str::to_owned).into());
}

#[test]
fn no_person_borrows_and_nobody_prunes() {
    let people = ["owner/o", "admin/a", "auditor/u", "approver/p"];
    for who in people {
        check(who, Some("acme"), &[], &LEND);
        check(who, None, &[], &["Audit/PruneRecords"]);
    }
}

#[test]
fn people_do_what_their_role_is_for() {
    check("owner/o", None, &["Identities/BlockIdentity", "Approvals/AdmitPolicy"], &[]);
    check(
        "admin/a",
        Some("acme"),
        &["Credentials/DeleteCredential", "Leases/RevokeLease"],
        &["Tenants/CreateTenant", "Audit/ListRecords", "Approvals/Approve", "Prices/ImportPrices"],
    );
    let member = "tenants/acme/member/m";
    check(
        member,
        Some("acme"),
        &["VirtualKeys/CreateVirtualKey", "Credentials/ListCredentials"],
        &["Credentials/CreateCredential", "Leases/RevokeLease", "Budgets/CreateBudget"],
    );
    assert!(may(member, Some("globex")).is_empty());
    let reads = |method: &String| method.starts_with("Audit/") || method.starts_with("Approvals/");
    let auditor = may("auditor/u", None);
    assert!(auditor.contains("Audit/ListRecords") && auditor.iter().all(reads), "{auditor:?}");
    assert!(!auditor.contains("Approvals/Approve"));
    // The second person does nothing but that.
    let approver = may("approver/p", None);
    let expected = ["Approve", "Decline", "GetApproval", "ListApprovals"];
    let expected = expected.map(|method| format!("Approvals/{method}"));
    let expected: BTreeSet<_> =
        expected.into_iter().chain(["Audit/GetPolicy".to_owned()]).collect();
    assert_eq!(approver, expected);
}

/// A table of roles that said too much would be found.
#[test]
fn a_role_that_may_more_is_found() {
    let text = fs::read_to_string(repository("deploy/policy.toml")).unwrap();
    let text = text.replacen("    \"Credentials/CreateCredential\",", "    \"Credentials/*\",", 1);
    let policy = PolicyFile::parse(&text, &strongroom_proto::methods()).unwrap();
    let question = Question {
        identity: "spiffe://acme.internal/provisioning".parse().unwrap(),
        method: "Credentials/GetCredential".to_owned(),
        tenant: Some("acme".parse().unwrap()),
        provider: None,
    };
    assert!(policy.policy().ruling(&question).is_allowed());
}
