use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::LONGEST_TTL;
use tokio::{
    sync::{Semaphore, watch},
    task::AbortHandle,
};

use crate::{CredentialVersion, ExchangeError, token::Shared};

/// What is known of one version of a credential. It shares nothing with any other.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Mutex<State>,
    /// Room for callers that wait.
    pub(crate) room: Semaphore,
}

pub(crate) type Outcome = Option<Result<Shared, ExchangeError>>;

#[derive(Debug, Default)]
struct State {
    token: Option<Shared>,
    /// The one exchange that is under way.
    flight: Option<(watch::Receiver<Outcome>, AbortHandle)>,
    failed: Option<(ExchangeError, Duration)>,
    superseded: Vec<(String, Duration)>,
    forgotten: bool,
}

/// A key at a provider that nothing needs any more and that has not ended yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leftover {
    /// Of which version of which credential it was made.
    pub of: CredentialVersion,
    /// What the provider calls it.
    pub key_id: String,
}

/// What a caller finds.
#[derive(Debug)]
pub(crate) enum Found {
    Token(Shared),
    /// One that still serves; the next is to be had.
    Aging(Shared),
    Failed(ExchangeError),
    Nothing,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), room: Semaphore::new(MOST_WAITING) }
    }

    pub(crate) fn find(&self, now: Duration) -> Found {
        self.state().find(now)
    }

    /// The exchange that is under way, or the one that `start` starts. Never two at once, and none when
    /// one has landed since the caller looked.
    pub(crate) fn flight(
        &self,
        now: Duration,
        start: impl FnOnce(watch::Sender<Outcome>) -> AbortHandle,
    ) -> watch::Receiver<Outcome> {
        let mut state = self.state();
        match state.find(now) {
            Found::Token(token) => return watch::channel(Some(Ok(token))).1,
            Found::Failed(error) => return watch::channel(Some(Err(error))).1,
            Found::Aging(_) | Found::Nothing => {}
        }
        if let Some(flight) = state.under_way() {
            return flight.clone();
        }
        let (sender, flight) = watch::channel(None);
        let abort = start(sender);
        state.flight = Some((flight.clone(), abort));
        flight
    }

    /// Keeps what an exchange brought. Of what was forgotten meanwhile nothing is kept.
    pub(crate) fn land(&self, outcome: &Result<Shared, ExchangeError>, now: Duration) {
        let mut state = self.state();
        if state.forgotten {
            return;
        }
        // It holds the outcome, and with it a token that nothing else may need any more.
        state.flight = None;
        match outcome {
            Ok(token) => {
                state.failed = None;
                let old = state.token.replace(Arc::clone(token));
                let old = old.filter(|old| old.ends() > now + LONGEST_TTL);
                let id = old.and_then(|old| old.key_id().map(str::to_owned));
                // Leases that stand on it may live that long.
                state.superseded.extend(id.map(|id| (id, now + LONGEST_TTL)));
            }
            Err(error) => state.failed = Some((error.clone(), now + error.retry_after())),
        }
    }

    /// Keys that have been superseded for longer than any lease of them can live.
    pub(crate) fn take_superseded(&self, now: Duration) -> Vec<String> {
        let mut state = self.state();
        let due = state.superseded.extract_if(.., |(_, due)| *due <= now);
        due.map(|(id, _)| id).collect()
    }

    /// Ends what is under way and gives the names of keys that should be deleted.
    pub(crate) fn forget(&self) -> Vec<String> {
        let mut state = self.state();
        state.forgotten = true;
        state.failed = None;
        if let Some((_, flight)) = state.flight.take() {
            flight.abort();
        }
        let token = state.token.take();
        let current = token.as_ref().and_then(|token| token.key_id()).map(str::to_owned);
        let superseded = state.superseded.drain(..).map(|(id, _)| id);
        current.into_iter().chain(superseded.collect::<Vec<_>>()).collect()
    }

    /// Whether an exchange has begun that brings what there is to wait for.
    pub(crate) fn is_under_way(&self) -> bool {
        self.state().under_way().is_some()
    }

    /// Whether there is anything here that is worth its room.
    pub(crate) fn is_of_use(&self, now: Duration) -> bool {
        let state = self.state();
        state.token.as_ref().is_some_and(|token| !token.lendable_at(now).is_zero())
            || state.failed.as_ref().is_some_and(|(_, until)| now < *until)
            || state.under_way().is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One whose sender is gone has landed, or ended without a word.
    fn under_way(&self) -> Option<&watch::Receiver<Outcome>> {
        let flight = self.flight.as_ref().map(|(flight, _)| flight);
        flight.filter(|flight| flight.has_changed().is_ok())
    }

    fn find(&self, now: Duration) -> Found {
        let failed = self.failed.as_ref().filter(|(_, until)| now < *until);
        match self.token.as_ref().filter(|token| !token.lendable_at(now).is_zero()) {
            // While the token service is known to fail, what there is serves to its end.
            Some(token) if token.is_aging(now) && failed.is_none() => {
                Found::Aging(Arc::clone(token))
            }
            Some(token) => Found::Token(Arc::clone(token)),
            None => failed.map_or(Found::Nothing, |(error, _)| Found::Failed(error.clone())),
        }
    }
}

/// Half of those who may wait for one token service.
const MOST_WAITING: usize = 64;
