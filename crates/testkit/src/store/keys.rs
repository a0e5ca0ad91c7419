use async_trait::async_trait;
use domain::{TenantId, Timestamp, Uid};
use store::{KeyStore, KeyWork, Legible, Resealed, Stale, StoreError, TenantKey};

use super::{FailingStore, Operation};

#[async_trait]
impl KeyStore for FailingStore {
    async fn wrapped_keys(
        &self,
        after: Option<(Uid, u32)>,
        limit: u32,
    ) -> Result<Vec<TenantKey>, StoreError> {
        self.read(self.inner.wrapped_keys(after, limit)).await
    }

    async fn keys_in_rotation(&self, limit: u32) -> Result<Vec<TenantKey>, StoreError> {
        self.read(self.inner.keys_in_rotation(limit)).await
    }

    async fn keys_from_before(
        &self,
        time: Timestamp,
        limit: u32,
    ) -> Result<Vec<TenantKey>, StoreError> {
        self.read(self.inner.keys_from_before(time, limit)).await
    }

    async fn stale(&self, newest: &TenantKey, limit: u32) -> Result<Vec<Stale>, StoreError> {
        self.read(self.inner.stale(newest, limit)).await
    }

    async fn key_references(
        &self,
        tenant: &TenantId,
        uid: Uid,
    ) -> Result<Vec<(u32, u64)>, StoreError> {
        self.read(self.inner.key_references(tenant, uid)).await
    }

    async fn reseal(&self, rows: &[Resealed]) -> Result<u64, StoreError> {
        self.pass(Operation::Reseal, self.inner.reseal(rows)).await
    }

    async fn key_work(&self) -> Result<Legible<KeyWork>, StoreError> {
        self.read(self.inner.key_work()).await
    }

    async fn end_key_work(&self, work: &KeyWork) -> Result<(), StoreError> {
        self.pass(Operation::Reseal, self.inner.end_key_work(work)).await
    }
}
