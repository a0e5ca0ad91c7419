//! Somebody who administers the database changes it past the broker: each column, whole rows, and rows of
//! before.

use std::{collections::BTreeSet, fs};

use audit::{Kind, Reason};
use e2e::{Database, Deployment, NewCredential};
use strongroom_proto::v1;

use crate::{OPENAI_KEY, furnish, on_both_stacks};

on_both_stacks![
    a_change_of_any_column_is_found_and_named,
    a_change_of_the_head_is_found_or_undone,
    rows_of_before_swapped_lost_and_foreign_are_found_and_named,
];

/// What the replay says nothing of, and why nothing is lost by it.
const UNGUARDED: [(&str, &str); 16] = [
    // Who leads, how a credential fares: they spare work, and are found out anew.
    ("leader", ""),
    ("credential_health", ""),
    // What was counted, and what a rotation in steps goes on by. The threat model says that whoever administers
    // the database can miscount, and have such a rotation go on.
    ("usage_call", ""),
    ("usage_sum", ""),
    ("budget_account", ""),
    ("allowance", ""),
    // A request that needs a second person is read by the digest that the log names it by.
    ("proposal", ""),
    // Has a test of its own.
    ("head", ""),
    // Finds what was written at once, when its answer was lost.
    ("record", "batch"),
    // Find what was asked before, and say when. Nothing is decided by them.
    ("credential_version", "request_id"),
    ("credential_version", "created_at"),
    ("wrapped_key", "request_id"),
    ("wrapped_key", "created_at"),
    // The log names each document by its digest, and says whose it is.
    ("price", "tenant"),
    ("price", "revision"),
    ("price", "created_at"),
];

/// No row is of these here, so that none is changed: bundles come to be when records are pruned, and those are
/// a day old at the least. The hashes in one are the leaves that the log's tree is held against.
const EMPTY: [&str; 1] = ["pruned_bundle"];

const GUARDED: [&str; 17] = [
    "budget",
    "checkpoint",
    "credential",
    "credential_test",
    "credential_version",
    "erasure",
    "key_work",
    "person",
    "policy",
    "price",
    "record",
    "sink",
    "tenant",
    "tree_node",
    "virtual_key",
    "wrapped_key",
    "head",
];

fn is_unguarded(table: &str, column: &str) -> bool {
    UNGUARDED.iter().any(|(of, it)| *of == table && (it.is_empty() || *it == column))
}

/// A deployment with at least one row of everything that is guarded.
async fn fill(deployment: &Deployment) -> String {
    furnish(deployment).await;
    let (_, key) = deployment.create_key("acme", &[]).await;
    let admin = deployment.admin();
    let limits = vec![v1::Limit { unit: v1::Unit::Requests.into(), cap: 9 }];
    let length = v1::period::Length::Total.into();
    let period = Some(v1::Period { length, ..Default::default() });
    let request = v1::CreateBudgetRequest {
        parent: "tenants/acme".to_owned(),
        budget_id: "once".to_owned(),
        budget: Some(v1::Budget { limits, period, ..Default::default() }),
        request_id: "r-1".to_owned(),
    };
    admin.budgets().create_budget(request).await.unwrap();
    let table = r#"{"version": 1000, "date": "2026-11-21", "providers": {}}"#;
    let request = v1::ImportPricesRequest { table: table.into(), ..Default::default() };
    admin.prices().import_prices(request).await.unwrap();
    let name = "tenants/acme/credentials/openai-prod".to_owned();
    admin.credentials().test_credential(v1::TestCredentialRequest { name }).await.unwrap();
    // Nodes of the tree are of 256 records.
    for _ in 0..260 {
        let request = v1::ListTenantsRequest::default();
        admin.tenants().list_tenants(request).await.unwrap();
    }
    key
}

/// Leaves rows that tell the broker to do something: an erasure that cannot go on, work on keys, and how far a sink
/// came that there is no more.
async fn ask_for_more(deployment: &mut Deployment) {
    let request = v1::RewrapKeysRequest::default();
    deployment.admin().kms().rewrap_keys(request).await.unwrap();
    let spare =
        NewCredential { tenant: "acme", id: "spare", provider: "openai", secret: OPENAI_KEY };
    deployment.store(spare).await.unwrap();
    Database::of_shares(deployment).keep().await;
    let name = "tenants/acme/credentials/spare".to_owned();
    let request = v1::ShredCredentialRequest { name, etag: String::new() };
    let erased = deployment.admin().credentials().shred_credential(request).await.unwrap();
    assert_eq!(erased.into_inner().receipt_index, None, "it waits for the store of shares");

    let (file, copy) =
        (&deployment.layout().broker_config.clone(), deployment.folder().join("log"));
    let config = fs::read_to_string(file).unwrap();
    let sink = format!(
        "[[log.sinks]]\nname = 'archive'\nfrom = 'start'\n\
         to = {{ kind = 'file', format = 'jsonl', path = '{}' }}\n",
        copy.display()
    );
    fs::write(file, format!("{config}\n{sink}")).unwrap();
    deployment.restart_broker().await;
    while !copy.exists() {
        tokio::task::yield_now().await;
    }
    fs::write(file, config).unwrap();
    deployment.restart_broker().await;
}

async fn a_change_of_any_column_is_found_and_named(mut deployment: Deployment) {
    fill(&deployment).await;
    ask_for_more(&mut deployment).await;
    assert_eq!(deployment.check_rows().await.unwrap(), [], "the control: nothing was changed");
    let mut database = Database::of(&deployment);
    let mut guarded = BTreeSet::from(["head".to_owned()]);
    let mut unseen = Vec::new();
    for (table, columns) in database.tables().await {
        for column in &columns {
            if is_unguarded(&table, column) {
                continue;
            }
            guarded.insert(table.clone());
            if let Some(changed) = unnoticed(&deployment, &mut database, &table, column).await {
                unseen.push(changed);
            }
        }
    }
    assert_eq!(unseen, Vec::<String>::new(), "nobody noticed");
    assert_eq!(guarded, GUARDED.map(str::to_owned).into());
    let empty = database.empty().await;
    let forgotten = empty.iter().filter(|it| !is_unguarded(it, "") && !EMPTY.contains(&&***it));
    assert_eq!(forgotten.collect::<Vec<_>>(), Vec::<&String>::new(), "neither list has them");
    assert_eq!(deployment.check_rows().await.unwrap(), [], "everything is as it was again");
    let records = deployment.end().await.records();
    let found = records.iter().filter(|record| record.kind() == Kind::Finding);
    let found: BTreeSet<_> = found.map(|record| record.table.clone()).collect();
    assert!(found.contains("credential") && found.contains("virtual_key"), "{found:?}");
}

/// Changes a column and takes it back. Gives what was changed, if nobody has named its table.
async fn unnoticed(
    deployment: &Deployment,
    database: &mut Database,
    table: &str,
    column: &str,
) -> Option<String> {
    loop {
        // What the database does not let anybody write needs no check.
        let changed = database.change(table, column).await?;
        let found = deployment.check_rows().await;
        let stood = database.undo().await;
        match found {
            Ok(found) if found.iter().any(|finding| finding.table == table) => return None,
            // Refused is noticed as well.
            Err(_) => return None,
            Ok(_) if stood => return Some(format!("{table}.{column}: {changed}")),
            // The broker itself has written it anew, as it does with each checkpoint: once more.
            Ok(_) => {}
        }
    }
}

async fn a_change_of_the_head_is_found_or_undone(mut deployment: Deployment) {
    furnish(&deployment).await;
    let backup = deployment.back_up("before").await;
    let mut noticed = BTreeSet::new();
    for column in ["deployment", "size", "time", "frontier", "changed"] {
        deployment.restore(&backup).await;
        assert_eq!(deployment.check_rows().await.unwrap(), []);
        let mut database = Database::of(&deployment);
        if database.change("head", column).await.is_none() {
            continue;
        }
        match deployment.check_rows().await {
            Ok(found) if found.is_empty() => {
                // The next record has written it as it must be.
                assert_eq!(deployment.check_rows().await.unwrap(), [], "{column}");
            }
            Ok(found) => {
                assert!(found.iter().any(|it| it.table == "head"), "{column}: {found:?}");
                noticed.insert(column);
            }
            Err(_) => {
                noticed.insert(column);
            }
        }
    }
    assert!(noticed.contains("deployment"), "{noticed:?}");
    deployment.restore(&backup).await;
    deployment.end().await;
}

async fn rows_of_before_swapped_lost_and_foreign_are_found_and_named(deployment: Deployment) {
    const ROWS: [(&str, &str); 4] = [
        ("tenant", "id = 'acme'"),
        ("credential", "id = 'openai-prod'"),
        ("virtual_key", "tenant = 'acme'"),
        ("budget", "tenant = 'acme'"),
    ];
    let key = fill(&deployment).await;
    let mut database = Database::of(&deployment);
    for (table, _) in ROWS {
        database.run(&format!("CREATE TABLE before_{table} AS SELECT * FROM {table}")).await;
    }
    let admin = deployment.admin();
    deployment.disable("tenants/acme/credentials/openai-prod").await;
    deployment.revoke_key(&key).await;
    let name = "tenants/acme".to_owned();
    let request = v1::SuspendTenantRequest { name: name.clone() };
    admin.tenants().suspend_tenant(request).await.unwrap();
    let request = v1::GetBudgetRequest { name: "tenants/acme/budgets/once".into() };
    let mut budget = admin.budgets().get_budget(request).await.unwrap().into_inner();
    budget.limits = vec![v1::Limit { unit: v1::Unit::Requests.into(), cap: 1 }];
    let request = v1::UpdateBudgetRequest { budget: Some(budget) };
    admin.budgets().update_budget(request).await.unwrap();
    assert_eq!(deployment.check_rows().await.unwrap(), []);

    for (table, which) in ROWS {
        database.run(&format!("CREATE TABLE now_{table} AS SELECT * FROM {table}")).await;
        // What was disabled, revoked, suspended or lowered is put back.
        let lost = format!("DELETE FROM {table} WHERE {which}");
        database.run(&lost).await;
        expect(&deployment, (table, Reason::RowMissing)).await;
        database
            .run(&format!("INSERT INTO {table} SELECT * FROM before_{table} WHERE {which}"))
            .await;
        expect(&deployment, (table, Reason::RowRolledBack)).await;
        database.run(&lost).await;
        database.run(&format!("INSERT INTO {table} SELECT * FROM now_{table} WHERE {which}")).await;
        assert_eq!(deployment.check_rows().await.unwrap(), [], "{table}");
    }

    // Two credentials' ciphertexts in each other's place.
    database.run("CREATE TABLE before_swap AS SELECT * FROM credential_version").await;
    let put = |which: &str| {
        format!(
            "UPDATE credential_version SET envelope = (SELECT it.envelope FROM before_swap AS it \
             WHERE it.credential_uid {which} credential_version.credential_uid)"
        )
    };
    database.run(&put("<>")).await;
    expect(&deployment, ("credential_version", Reason::RowChanged)).await;
    database.run(&put("=")).await;

    // A row that the broker has never written.
    let foreign = "INSERT INTO budget SELECT * FROM before_budget";
    database.run("UPDATE before_budget SET uid = tenant_uid, id = 'foreign'").await;
    database.run(foreign).await;
    expect(&deployment, ("budget", Reason::RowNotOnRecord)).await;
    database.run("DELETE FROM budget WHERE id = 'foreign'").await;
    expect_foreign(&deployment, &mut database).await;
    assert_eq!(deployment.check_rows().await.unwrap(), []);
    deployment.end().await;
}

/// Rows that would tell a broker to do something that nobody has asked for. Each has a MAC of 32 bytes.
const FOREIGN: [(&str, &str); 3] = [
    (
        "erasure",
        "INSERT INTO erasure (id, tenant, credential, shares, begun_at, row_mac) \
         SELECT uid, 'acme', 'tenants/acme/credentials/whatever', uid, 0, substr(row_mac, 5) FROM credential \
         WHERE id = 'openai-prod'",
    ),
    (
        "key_work",
        "INSERT INTO key_work (name, request_id, begun_at, done, row_mac) \
         SELECT 'rotate', NULL, updated_at + 1000000000, suspended, substr(row_mac, 5) FROM tenant \
         WHERE id = 'acme'",
    ),
    (
        "sink",
        "INSERT INTO sink (name, next_index, row_mac) SELECT 'archive', 12, substr(row_mac, 5) FROM tenant \
         WHERE id = 'acme'",
    ),
];

async fn expect_foreign(deployment: &Deployment, database: &mut Database) {
    for (table, foreign) in FOREIGN {
        database.run(foreign).await;
        let reason = if table == "sink" { Reason::RowChanged } else { Reason::RowNotOnRecord };
        expect(deployment, (table, reason)).await;
        database.run(&format!("DELETE FROM {table}")).await;
    }
}

async fn expect(deployment: &Deployment, (table, reason): (&str, Reason)) {
    let found = deployment.check_rows().await.unwrap();
    let named = |it: &v1::RowFinding| it.table == table && it.reason() == reason;
    assert!(found.iter().any(named), "{table}, {reason:?}: {found:?}");
}
