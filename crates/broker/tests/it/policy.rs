use std::{collections::HashMap, fs, time::Duration};

use audit::{Kind, PolicyDocument, Record};
use domain::PolicyFile;
use strongroom_client::Problem;
use strongroom_proto::v1;
use tonic::Status;

use crate::{
    harness::{Running, repository},
    lending::{cache, key, with_credential, with_key},
};

const POLL: Duration = Duration::from_millis(20);

async fn lists_tenants(broker: &strongroom_client::Broker) -> Result<(), Status> {
    broker.tenants().list_tenants(v1::ListTenantsRequest::default()).await.map(drop)
}

fn change(running: &Running, other: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(&running.layout.policy).unwrap();
    // Moved into place whole, as whoever rolls out files does.
    let next = running.layout.policy.with_extension("next");
    fs::write(&next, other(text)).unwrap();
    fs::rename(next, &running.layout.policy).unwrap();
}

fn sha256_of(text: &str) -> Vec<u8> {
    let policy = PolicyFile::parse(text, &strongroom_proto::methods()).unwrap();
    PolicyDocument::of(policy.policy()).unwrap().sha256().to_vec()
}

fn loaded(records: &[Record]) -> Vec<Vec<u8>> {
    let loaded = records.iter().filter(|record| record.kind() == Kind::PolicyLoaded);
    loaded.map(|record| record.policy_sha256.to_vec()).collect()
}

const MEMBER: &str = "[[grants]]\nrole = \"member\"\n\
                      to = [\"spiffe://strongroom.local/inference-proxy\"]\ntenants = [\"*\"]\n";

#[tokio::test]
async fn a_changed_policy_is_in_force_within_seconds_and_on_record() {
    let running = Running::start().await;
    let before = fs::read_to_string(&running.layout.policy).unwrap();
    assert!(lists_tenants(&running.proxy).await.is_err());
    change(&running, |policy| policy + MEMBER);
    while lists_tenants(&running.proxy).await.is_err() {
        tokio::time::sleep(POLL).await;
    }
    // What is taken away is gone as soon.
    change(&running, |policy| policy.replace(MEMBER, ""));
    while lists_tenants(&running.proxy).await.is_ok() {
        tokio::time::sleep(POLL).await;
    }
    let request = v1::GetPolicyRequest::default();
    let in_force = running.admin.audit().get_policy(request).await.unwrap().into_inner();
    let in_force = PolicyDocument::parse(in_force.document.to_vec()).unwrap();
    assert_eq!(in_force.sha256().to_vec(), sha256_of(&before));

    let records = running.end().await;
    let after = sha256_of(&(before.clone() + MEMBER));
    assert_eq!(loaded(&records), [sha256_of(&before), after, sha256_of(&before)]);
}

/// `end` holds every lease against the rules of its time; a lease that was decided by other rules than
/// those that stand before it in the log would be found there.
#[tokio::test]
async fn leases_while_the_policy_changes_are_all_decided_by_the_rules_before_them() {
    let running = Running::start().await;
    let (tenant, _) = with_credential(&running, "acme").await;
    let virtual_key = with_key(&running, &tenant, &[]).await;
    let (mut refused, mut lent) = (0, 0);
    for round in 0..3 {
        let narrow = round % 2 == 0;
        change(&running, |policy| {
            let proxy = "role = \"proxy\"\nto = [\"spiffe://strongroom.local/inference-proxy\"]\n";
            let (wide, narrowed) =
                (format!("{proxy}tenants = [\"*\"]"), format!("{proxy}tenants = [\"globex\"]"));
            if narrow { policy.replace(&wide, &narrowed) } else { policy.replace(&narrowed, &wide) }
        });
        loop {
            // A cache of its own, so that each is asked for.
            let lease = cache(&running).lease(&key(&virtual_key, "gpt-4o")).await;
            if lease.is_ok() {
                lent += 1;
            } else {
                refused += 1;
            }
            if lease.is_err() == narrow {
                break;
            }
        }
    }
    assert!(lent > 0 && refused > 0, "{lent} {refused}");
    let records = running.end().await;
    assert_eq!(loaded(&records).len(), 4);
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_leaves_the_last_in_force() {
    let running = Running::start().await;
    let good = fs::read_to_string(&running.layout.policy).unwrap();
    change(&running, |policy| policy + MEMBER);
    while lists_tenants(&running.proxy).await.is_err() {
        tokio::time::sleep(POLL).await;
    }
    change(&running, |_| "[roles".to_owned());
    // The broker looks every two seconds: after it has looked, nothing is other than before.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    lists_tenants(&running.proxy).await.unwrap();
    // And what can be used again is used.
    change(&running, |_| good.clone());
    while lists_tenants(&running.proxy).await.is_ok() {
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(loaded(&running.end().await).len(), 3);
}

#[tokio::test]
async fn other_words_about_the_same_rules_are_nothing_for_the_log() {
    let running = Running::start().await;
    let ask = |policy: String| policy.replace("whoever runs this machine", "Olga");
    change(&running, ask);
    loop {
        let refused = lists_tenants(&running.proxy).await.unwrap_err();
        if refused.message().contains("ask Olga") {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(loaded(&running.end().await).len(), 1);
}

#[tokio::test]
async fn a_refusal_says_what_is_missing_and_nothing_of_what_is_there() {
    let running = Running::start_with_policy(|policy| {
        policy
            + "[[grants]]\nrole = \"admin\"\n\
               to = [\"spiffe://strongroom.local/inference-proxy\"]\ntenants = [\"globex\"]\n"
    })
    .await;
    with_credential(&running, "acme").await;
    let ask = async |tenant: &str| {
        let request = v1::GetTenantRequest { name: format!("tenants/{tenant}") };
        running.proxy.tenants().get_tenant(request).await.unwrap_err()
    };
    let (there, not_there) = (ask("acme").await, ask("no-such-tenant").await);
    let problem = Problem::from_status(&there);
    assert_eq!(
        (there.code(), there.message(), problem.metadata.clone()),
        (
            not_there.code(),
            not_there.message(),
            Problem::from_status(&not_there).metadata.into_iter().collect()
        )
    );

    let request = v1::ListRecordsRequest::default();
    let refused = running.proxy.audit().list_records(request).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "no role that you hold allows `Audit/ListRecords` here; ask whoever runs this machine for \
         one of the roles auditor, owner"
    );
    let metadata: HashMap<_, _> = Problem::from_status(&refused).metadata.into_iter().collect();
    assert_eq!(metadata.get("permission").map(String::as_str), Some("Audit/ListRecords"));
    assert_eq!(metadata.get("roles").map(String::as_str), Some("auditor,owner"));
    running.end().await;
}

#[test]
fn the_roles_are_the_same_wherever_they_are_shipped() {
    let roles = |path: &str| {
        let text = fs::read_to_string(repository(path)).unwrap();
        let (_, rest) = text.split_once("# Roles of people.").unwrap();
        rest.split_once("# Who holds them").unwrap().0.to_owned()
    };
    assert_eq!(roles("deploy/policy.toml"), roles("crates/setup/templates/policy.toml"));
}
