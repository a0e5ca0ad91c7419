use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use domain::{Key, Timestamp, Uid};
use store::{Share, ShareStore, SqliteStore, StoreError};

/// A store of shares that works until it is told to be away.
#[derive(Debug)]
pub struct FailingShares {
    inner: Arc<dyn ShareStore>,
    away: AtomicBool,
}

impl FailingShares {
    /// One in memory.
    pub async fn new() -> Result<Self, StoreError> {
        Ok(Self::over(Arc::new(SqliteStore::shares_in_memory().await?)))
    }

    /// Passes everything on to `inner`.
    pub fn over(inner: Arc<dyn ShareStore>) -> Self {
        Self { inner, away: AtomicBool::new(false) }
    }

    /// Does not answer from now on.
    pub fn go_away(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    /// Answers again.
    pub fn come_back(&self) {
        self.away.store(false, Ordering::SeqCst);
    }

    fn here(&self) -> Result<&dyn ShareStore, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable(io::Error::other("away, as told")));
        }
        Ok(&*self.inner)
    }
}

#[async_trait]
impl ShareStore for FailingShares {
    async fn put_share(&self, id: Uid, share: &Key) -> Result<(), StoreError> {
        self.here()?.put_share(id, share).await
    }

    async fn share(&self, id: Uid) -> Result<Share, StoreError> {
        self.here()?.share(id).await
    }

    async fn destroy_shares(&self, ids: &[Uid], now: Timestamp) -> Result<Timestamp, StoreError> {
        self.here()?.destroy_shares(ids, now).await
    }
}
