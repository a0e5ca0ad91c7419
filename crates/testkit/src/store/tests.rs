use audit::{Reason, Record};
use store::SqliteStore;

use super::*;

async fn store() -> FailingStore {
    FailingStore::new(Arc::new(SqliteStore::in_memory().await.unwrap()))
}

fn refusal() -> [Pending; 1] {
    let (kind, reason) = (Kind::Refused.into(), Reason::NotPermitted.into());
    let record = RecordDraft::new(Record { kind, reason, ..Record::default() }).unwrap();
    [Pending { record, as_of: None, tenants: Vec::new() }]
}

async fn size(store: &FailingStore) -> u64 {
    store.head().await.unwrap().frontier.size()
}

#[tokio::test]
async fn a_fault_before_does_nothing_and_one_after_does_it() {
    let store = store().await;
    store.fail_once(Operation::Append, Fault::Before);
    assert!(store.append(&refusal()).await.is_err());
    assert_eq!(size(&store).await, 0);
    store.fail_once(Operation::Append, Fault::AfterPersisting);
    assert!(store.append(&refusal()).await.is_err());
    assert_eq!(size(&store).await, 1);
    assert!(store.append(&refusal()).await.is_ok());
}

#[tokio::test]
async fn what_hangs_goes_on_when_the_store_is_healed() {
    let store = store().await;
    store.fail(Operation::Append, Fault::Hang);
    let batch = refusal();
    let (appended, ()) = tokio::join!(store.append(&batch), async {
        store.until_hanging(1).await;
        assert_eq!(size(&store).await, 0);
        store.heal();
    });
    assert!(appended.is_ok());
    assert_eq!(size(&store).await, 1);
}
