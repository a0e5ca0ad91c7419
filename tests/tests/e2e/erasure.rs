//! What is erased is erased from backups, too, as far as they were made of the database.

use audit::{Kind, Reason};
use domain::Uid;
use e2e::{Database, Deployment, Sdk, refused};
use strongroom_proto::v1;

use crate::{furnish, on_both_stacks};

on_both_stacks![
    a_backup_from_before_an_erasure_opens_nothing_of_it,
    the_receipt_of_an_erasure_is_verified_with_the_log,
    an_erasure_that_was_written_into_the_database_destroys_nothing,
];

/// Whether calls that need each of the two credentials are served.
async fn served(deployment: &Deployment, key: &str) -> (bool, bool) {
    let openai = Sdk::OpenAi.call(deployment, key, "once").await;
    let anthropic = Sdk::Anthropic.call(deployment, key, "once").await;
    (refused(&openai).is_null(), refused(&anthropic).is_null())
}

async fn a_backup_from_before_an_erasure_opens_nothing_of_it(mut deployment: Deployment) {
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    assert_eq!(served(&deployment, &key).await, (true, true));
    let backup = deployment.back_up("before").await;
    deployment.restore(&backup).await;
    assert_eq!(served(&deployment, &key).await, (true, true), "the control: the backup is good");

    let name = "tenants/acme/credentials/openai-prod".to_owned();
    let request = v1::ShredCredentialRequest { name, etag: String::new() };
    let erased = deployment.admin().credentials().shred_credential(request).await.unwrap();
    assert!(erased.into_inner().receipt_index.is_some());
    assert_eq!(served(&deployment, &key).await, (false, true));
    deployment.restore(&backup).await;
    let openai = deployment.credential("tenants/acme/credentials/openai-prod").await;
    assert_eq!(
        openai.state(),
        v1::credential::State::Enabled,
        "its row is back, as it was: {openai:?}"
    );
    assert_eq!(served(&deployment, &key).await, (false, true));
    assert_eq!(reasons(&deployment).await, [Reason::Erased]);

    let request = v1::ShredTenantRequest { name: "tenants/acme".into(), etag: String::new() };
    let erased = deployment.admin().tenants().shred_tenant(request).await.unwrap();
    assert!(erased.into_inner().receipt_index.is_some());
    deployment.restore(&backup).await;
    assert_eq!(served(&deployment, &key).await, (false, false));
    assert!(reasons(&deployment).await.contains(&Reason::KmsRefused));
    // What is nobody's of these goes on.
    deployment.create_tenant("globex").await;
    // And the check says that what is back was erased.
    let found = deployment.check_rows().await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&*found[0].table, &*found[0].name), ("tenant", "tenants/acme"));
    assert!(found[0].what.contains("erased"), "{found:?}");
    deployment.end_as_it_is().await;
}

/// Why leases were refused, without repetitions.
async fn reasons(deployment: &Deployment) -> Vec<Reason> {
    let page = v1::ListRecordsRequest { page_size: 4096, ..Default::default() };
    let page = deployment.admin().audit().list_records(page).await.unwrap().into_inner();
    let records = page.entries.iter().map(|entry| audit::decode_record(&entry.body).unwrap());
    let refused =
        records.filter(|it| it.kind() == Kind::Refused && it.method.starts_with("Leases"));
    let mut reasons: Vec<_> = refused.map(|record| record.reason()).collect();
    reasons.dedup();
    reasons
}

async fn the_receipt_of_an_erasure_is_verified_with_the_log(deployment: Deployment) {
    furnish(&deployment).await;
    let request = v1::ShredTenantRequest { name: "tenants/acme".into(), etag: String::new() };
    let erased = deployment.admin().tenants().shred_tenant(request.clone()).await.unwrap();
    let again = deployment.admin().tenants().shred_tenant(request).await.unwrap();
    assert_eq!(erased.get_ref(), again.get_ref());
    let erased = erased.into_inner();

    let records = deployment.end().await.records();
    let receipt = &records[usize::try_from(erased.receipt_index.unwrap()).unwrap()];
    assert_eq!((receipt.kind(), &*receipt.tenant), (Kind::SharesDestroyed, "acme"));
    // The tenant's own share, and one of each credential.
    assert_eq!(receipt.count, 3);
    assert_eq!(receipt.copies_until_time, erased.copies_until_time);
    let begun = &records[usize::try_from(erased.log_index).unwrap()];
    assert_eq!(begun.kind(), Kind::TenantShredded);
    assert_eq!(begun.erasure_id, receipt.erasure_id);
    assert!(<[u8; 16]>::try_from(&*receipt.erasure_id).map(Uid::from_bytes).is_ok());
}

/// Somebody who administers the database wants another's shares destroyed, and writes down that they are to be.
async fn an_erasure_that_was_written_into_the_database_destroys_nothing(
    mut deployment: Deployment,
) {
    furnish(&deployment).await;
    let (key, _) = deployment.create_key("acme", &[]).await;
    assert_eq!(served(&deployment, &key).await, (true, true));
    let (mut database, mut shares) = (Database::of(&deployment), Database::of_shares(&deployment));
    // Before one that goes on by itself, so that it is known when the broker has looked at both.
    shares.keep().await;
    let name = "tenants/acme/credentials/anthropic-prod".to_owned();
    let request = v1::ShredCredentialRequest { name, etag: String::new() };
    let erased = deployment.admin().credentials().shred_credential(request).await.unwrap();
    assert_eq!(erased.into_inner().receipt_index, None);
    let whatever = "\
        INSERT INTO erasure (id, tenant, credential, shares, begun_at, row_mac) \
        SELECT tenant_uid, 'acme', 'tenants/acme/credentials/whatever', uid, 0, substr(row_mac, 5) \
        FROM credential WHERE id = 'openai-prod'";
    database.run(whatever).await;
    shares.let_go().await;
    while destroyed(&deployment).await == 0 {
        tokio::task::yield_now().await;
    }
    deployment.restart_broker().await;
    assert_eq!(served(&deployment, &key).await, (true, false), "what nobody asked for still opens");
    assert_eq!(destroyed(&deployment).await, 1);
    let found = deployment.check_rows().await.unwrap();
    let found: Vec<_> = found.iter().map(|it| (&*it.table, it.reason())).collect();
    assert_eq!(found, [("erasure", Reason::RowNotOnRecord)]);
    database.run("DELETE FROM erasure").await;
    deployment.end().await;
}

/// How many receipts there are.
async fn destroyed(deployment: &Deployment) -> usize {
    let kinds = vec![Kind::SharesDestroyed.into()];
    let filter = Some(v1::RecordFilter { kinds, ..Default::default() });
    let page = v1::ListRecordsRequest { filter, newest_first: true, ..Default::default() };
    let page = deployment.admin().audit().list_records(page).await.unwrap().into_inner();
    page.entries.len()
}
