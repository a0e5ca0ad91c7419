use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{Kek, KeyContext, KmsError, WrappedKey};

use super::Shared;

/// The place of one key: the key while it is fresh, and the one load at a time that brings it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    /// Held while a load runs: the others wait, and share what it brought.
    loading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    loaded: Option<Loaded>,
    /// Counts invalidations.
    generation: u64,
    /// Counts loads that ended, and how the last one did if it failed.
    ended: u64,
    failure: Option<KmsError>,
    /// When the last renewal began.
    renewal: Option<Duration>,
}

#[derive(Debug)]
struct Loaded {
    kek: Arc<Kek>,
    /// When the KMS was asked, not when it answered.
    since: Duration,
    /// The KMS has said no since: no grace for this one.
    refused: bool,
}

const BETWEEN_RENEWALS: Duration = Duration::from_secs(1);
const INVALIDATIONS_BORNE: u32 = 3;

impl Slot {
    /// The key and its age, unless it is too old. Once no grace can let it serve any more, it is dropped
    /// here and now.
    pub(super) fn current(
        &self,
        now: Duration,
        ttl: Duration,
        grace: Duration,
    ) -> Option<(Arc<Kek>, Duration)> {
        let mut state = self.state();
        let age = now.saturating_sub(state.loaded.as_ref()?.since);
        if age >= ttl + grace {
            state.loaded = None;
        }
        let loaded = state.loaded.as_ref().filter(|_| age < ttl);
        loaded.map(|loaded| (Arc::clone(&loaded.kek), age))
    }

    /// The key, past its time, if it is not older than this and the KMS has not said no.
    pub(super) fn overdue(&self, now: Duration, oldest: Duration) -> Option<Arc<Kek>> {
        let state = self.state();
        let loaded = state.loaded.as_ref().filter(|loaded| !loaded.refused)?;
        if now.saturating_sub(loaded.since) >= oldest {
            return None;
        }
        loaded.kek.set_overdue();
        Some(Arc::clone(&loaded.kek))
    }

    /// Whether a renewal is due: no more than one a second.
    pub(super) fn begin_renewal(&self, now: Duration) -> bool {
        let mut state = self.state();
        let due = state.renewal.is_none_or(|last| now.saturating_sub(last) >= BETWEEN_RENEWALS);
        if due {
            state.renewal = Some(now);
        }
        due
    }

    /// Drops the key, and what a load that is under way will bring.
    pub(super) fn invalidate(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.loaded = None;
    }

    /// The key, from this load or from the one that was under way.
    pub(super) async fn load(
        &self,
        shared: &Shared,
        context: &KeyContext,
        wrapped: &WrappedKey,
        (ttl, grace): (Duration, Duration),
    ) -> Result<Arc<Kek>, KmsError> {
        let ended = self.state().ended;
        let _alone = self.loading.lock().await;
        if let Some((kek, _)) = self.current(shared.clock.elapsed(), ttl, grace) {
            return Ok(kek);
        }
        // Those who waited share a failure too: a KMS that is down must not be asked once for each.
        // A load whose caller went away ended with neither, and the next in line takes over.
        let failure = {
            let state = self.state();
            state.failure.clone().filter(|_| state.ended > ended)
        };
        match failure {
            Some(failure) => Err(failure),
            None => self.ask(shared, context, wrapped).await,
        }
    }

    /// Brings a new copy of a key that is still fresh; gives way to a load under way.
    pub(super) async fn renew(
        &self,
        shared: &Shared,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<(), KmsError> {
        match self.loading.try_lock() {
            Ok(_alone) => self.ask(shared, context, wrapped).await.map(|_| ()),
            Err(_) => Ok(()),
        }
    }

    async fn ask(
        &self,
        shared: &Shared,
        context: &KeyContext,
        wrapped: &WrappedKey,
    ) -> Result<Arc<Kek>, KmsError> {
        for _ in 0..INVALIDATIONS_BORNE {
            let generation = self.state().generation;
            let since = shared.clock.elapsed();
            let outcome = shared.unwrap(context, wrapped).await;
            let mut state = self.state();
            // An invalidation came in between: what was brought may be what it was about. Ask again.
            if state.generation != generation {
                continue;
            }
            state.ended += 1;
            state.failure = outcome.as_ref().err().cloned();
            if let Err(KmsError::Refused(_) | KmsError::Corrupt) = &outcome
                && let Some(loaded) = &mut state.loaded
            {
                loaded.refused = true;
            }
            let kek = Arc::new(outcome?);
            state.loaded = Some(Loaded { kek: Arc::clone(&kek), since, refused: false });
            return Ok(kek);
        }
        Err(KmsError::unavailable("the key was invalidated again and again while it was loaded"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
