use std::{
    error::Error,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use domain::Key;
use envelope::{KeyContext, Kms, KmsError, KmsStatus, WrappedKey};
use tokio::sync::watch;

/// How a [`FailingKms`] fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KmsFailure {
    /// It answers that it is unavailable, at once.
    Unavailable,
    /// It answers no.
    Refused,
    /// It answers that nothing unwraps.
    Corrupt,
    /// It does not answer, until it recovers.
    Silent,
}

/// A KMS that works until it is told to fail, and counts what it was asked.
#[derive(Debug)]
pub struct FailingKms {
    inner: Arc<dyn Kms>,
    failure: watch::Sender<Option<KmsFailure>>,
    calls: AtomicU64,
    contexts: Mutex<Vec<KeyContext>>,
}

impl FailingKms {
    /// Passes everything on to `inner`.
    pub fn over(inner: Arc<dyn Kms>) -> Self {
        Self {
            inner,
            failure: watch::Sender::new(None),
            calls: AtomicU64::new(0),
            contexts: Mutex::default(),
        }
    }

    /// Fails from now on.
    pub fn fail(&self, failure: KmsFailure) {
        self.failure.send_replace(Some(failure));
    }

    /// Works from now on; calls that wait for an answer get theirs.
    pub fn recover(&self) {
        self.failure.send_replace(None);
    }

    /// How often it was asked for a key, whatever it answered.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// What it was asked for, in order.
    pub fn contexts(&self) -> Vec<KeyContext> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn turn(&self, context: &KeyContext) -> Result<(), KmsError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner).push(*context);
        let mut failure = self.failure.subscribe();
        // The sender lives as long as `self`, so waiting ends with a change only.
        let failure = failure
            .wait_for(|failure| *failure != Some(KmsFailure::Silent))
            .await
            .map_or(None, |failure| *failure);
        let why = || -> Arc<dyn Error + Send + Sync> { Arc::new(io::Error::other("as told")) };
        match failure {
            None | Some(KmsFailure::Silent) => Ok(()),
            Some(KmsFailure::Unavailable) => Err(KmsError::Unavailable(why())),
            Some(KmsFailure::Refused) => Err(KmsError::Refused(why())),
            Some(KmsFailure::Corrupt) => Err(KmsError::Corrupt),
        }
    }
}

#[async_trait]
impl Kms for FailingKms {
    async fn generate(&self, context: &KeyContext) -> Result<(Key, WrappedKey), KmsError> {
        self.turn(context).await?;
        self.inner.generate(context).await
    }

    async fn wrap(&self, context: &KeyContext, key: &Key) -> Result<WrappedKey, KmsError> {
        self.turn(context).await?;
        self.inner.wrap(context, key).await
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &WrappedKey) -> Result<Key, KmsError> {
        self.turn(context).await?;
        self.inner.unwrap(context, wrapped).await
    }

    async fn rewrap(
        &self,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<WrappedKey, KmsError> {
        self.turn(context).await?;
        self.inner.rewrap(context, wrapped).await
    }

    async fn status(&self) -> KmsStatus {
        let status = self.inner.status().await;
        KmsStatus { healthy: status.healthy && self.failure.borrow().is_none(), ..status }
    }

    fn wrapped_by(&self, wrapped: &WrappedKey) -> Option<String> {
        self.inner.wrapped_by(wrapped)
    }
}
