use std::ops::Range;

use async_trait::async_trait;
use store::{CheckStore, CheckedRecords, StoreError, Stored};

use super::FailingStore;

#[async_trait]
impl CheckStore for FailingStore {
    async fn stored(&self) -> Result<Stored, StoreError> {
        self.read(self.inner.stored()).await
    }

    async fn strays(&self) -> Result<Vec<(&'static str, Vec<u8>)>, StoreError> {
        self.read(self.inner.strays()).await
    }

    async fn check_records(&self, range: Range<u64>) -> Result<CheckedRecords, StoreError> {
        self.read(self.inner.check_records(range)).await
    }
}
