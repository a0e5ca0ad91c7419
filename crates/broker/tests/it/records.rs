use audit::Kind;
use strongroom_proto::v1;
use tonic::Code;

use crate::{
    harness::Running,
    lending::{with_credential, with_key},
};

async fn list(running: &Running, filter: v1::RecordFilter) -> Vec<Kind> {
    let request = v1::ListRecordsRequest { filter: Some(filter), ..Default::default() };
    let page = running.admin.audit().list_records(request).await.unwrap().into_inner();
    assert_eq!((page.next_index, page.first_index), (page.tree_size, 0));
    let records = page.entries.iter().map(|entry| audit::decode_record(&entry.body).unwrap());
    records.map(|record| record.kind()).collect()
}

#[tokio::test]
async fn records_are_found_by_what_they_say() {
    let running = Running::start().await;
    let (tenant, name) = with_credential(&running, "acme").await;
    let key = with_key(&running, &tenant, &[]).await;
    with_credential(&running, "other").await;

    let credential = name.to_string();
    let of_credential = v1::RecordFilter { credential, ..Default::default() };
    assert_eq!(list(&running, of_credential).await, [Kind::CredentialCreated]);
    let of_key = v1::RecordFilter { virtual_key: key.id().to_string(), ..Default::default() };
    assert_eq!(list(&running, of_key).await, [Kind::VirtualKeyCreated]);
    let kinds = vec![Kind::TenantCreated.into()];
    let tenants = v1::RecordFilter { kinds, ..Default::default() };
    // The platform's, which the broker makes at its first start, and the two of this test.
    assert_eq!(list(&running, tenants).await.len(), 3);

    let latest = v1::ListRecordsRequest { page_size: 1, newest_first: true, ..Default::default() };
    let page = running.admin.audit().list_records(latest).await.unwrap().into_inner();
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].index + 1, page.tree_size);
    assert_eq!(page.next_index, page.entries[0].index);

    let filter = Some(v1::RecordFilter { kinds: vec![4711], ..Default::default() });
    let wrong = v1::ListRecordsRequest { filter, ..Default::default() };
    let status = running.admin.audit().list_records(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    running.end().await;
}

#[tokio::test]
async fn a_tail_says_at_once_where_to_resume_and_gives_what_is_asked_for() {
    let running = Running::start().await;
    let kinds = vec![Kind::TenantCreated.into()];
    let filter = Some(v1::RecordFilter { kinds, ..Default::default() });
    let request = v1::TailRecordsRequest { filter, ..Default::default() };
    let mut tail = running.admin.audit().tail_records(request).await.unwrap().into_inner();
    let first = tail.message().await.unwrap().unwrap();
    assert!(first.entries.is_empty() && first.next_index > 0);

    with_credential(&running, "acme").await;
    let entry = loop {
        let message = tail.message().await.unwrap().unwrap();
        if let Some(entry) = message.entries.into_iter().next() {
            break entry;
        }
    };
    assert_eq!(audit::decode_record(&entry.body).unwrap().kind(), Kind::TenantCreated);
    assert!(entry.index >= first.next_index);
    drop(tail);
    running.end().await;
}
