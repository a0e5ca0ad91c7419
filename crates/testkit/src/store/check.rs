use std::ops::Range;

use async_trait::async_trait;
use domain::Uid;
use store::{CheckStore, CheckedRecords, StoreError};

use super::FailingStore;

#[async_trait]
impl CheckStore for FailingStore {
    async fn stored_deployment(&self) -> Result<Uid, StoreError> {
        self.read(self.inner.stored_deployment()).await
    }

    async fn check_records(&self, range: Range<u64>) -> Result<CheckedRecords, StoreError> {
        self.read(self.inner.check_records(range)).await
    }
}
