use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::{Clock, Uid};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tracing::Instrument as _;

use crate::{
    ExchangeError, Leftover, Minter, Order, Token,
    rooms::Rooms,
    slot::{Found, Outcome, Slot},
};

/// Tokens that are at hand: each is made once for all who need it, and the next one before it ends.
///
/// Every version of a credential stands for itself. One exchange of it runs at a time, whoever waits
/// for a slow one waits for that one alone, and what fails is not tried again at once. Whoever waits for
/// one token service takes no room from those who wait for another.
#[derive(Debug)]
pub struct Exchange {
    minter: Arc<Minter>,
    clock: Arc<dyn Clock>,
    slots: Mutex<HashMap<CredentialVersion, Arc<Slot>>>,
    rooms: Rooms,
    /// The exchanges under way. They end with this.
    flights: Mutex<JoinSet<()>>,
}

/// Which secret a token is made of.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CredentialVersion {
    /// The credential's permanent id: another of the same name is another.
    pub credential: Uid,
    /// Its version, or whatever else changes when secret or settings do.
    pub version: u64,
}

impl Exchange {
    /// With nothing at hand.
    pub fn new(minter: Arc<Minter>, clock: Arc<dyn Clock>) -> Self {
        let (slots, rooms, flights) = (Mutex::default(), Rooms::default(), Mutex::default());
        Self { minter, clock, slots, rooms, flights }
    }

    /// A token that can be lent: at hand, or made now. `order` is dropped, and its secret wiped, when it
    /// is not needed. Must be called inside a tokio runtime.
    ///
    /// Who stops waiting harms nobody: the exchange goes on for the others.
    pub async fn token(
        &self,
        of: &CredentialVersion,
        order: Order,
    ) -> Result<Arc<Token>, ExchangeError> {
        let slot = self.slot(of);
        let now = self.clock.elapsed();
        match slot.find(now) {
            Found::Token(token) => {
                self.clear_away(&slot, order);
                Ok(token)
            }
            Found::Aging(token) => {
                self.fly(&slot, order);
                Ok(token)
            }
            Found::Failed(error) => Err(error),
            Found::Nothing => {
                let _place = slot.room.try_acquire().map_err(|_| ExchangeError::Busy)?;
                let room = self.rooms.of(&order);
                let _room = room.enter(slot.is_under_way()).ok_or(ExchangeError::Busy)?;
                landed(self.fly(&slot, order)).await
            }
        }
    }

    /// Drops all that was made of the versions of a credential that are over, and ends what is under way. Gives the keys that should
    /// now be deleted at the provider, with [`Self::discard`].
    pub fn forget(&self, credential: Uid, is_over: impl Fn(u64) -> bool) -> Vec<Leftover> {
        let mut slots = self.slots();
        let gone = slots.extract_if(|of, _| of.credential == credential && is_over(of.version));
        let leftovers = gone.flat_map(|(of, slot)| {
            let ids = slot.forget().into_iter();
            ids.map(move |key_id| Leftover { of: of.clone(), key_id })
        });
        leftovers.collect()
    }

    /// Deletes keys at their provider, in the background. The order is the one of which they were made.
    pub fn discard(&self, leftovers: Vec<Leftover>, order: Order) {
        self.delete_all(leftovers.into_iter().map(|left| left.key_id).collect(), order);
    }

    /// Drops, and so wipes, what cannot be lent any more. To be called now and then.
    pub fn sweep(&self) {
        let now = self.clock.elapsed();
        self.slots().retain(|_, slot| slot.is_of_use(now));
    }

    fn slot(&self, of: &CredentialVersion) -> Arc<Slot> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(of) {
            return Arc::clone(slot);
        }
        if slots.len() >= MOST_SLOTS {
            let now = self.clock.elapsed();
            slots.retain(|_, slot| slot.is_of_use(now));
        }
        let slot = Arc::new(Slot::new());
        // With every place taken it serves once and is not kept.
        if slots.len() < MOST_SLOTS {
            slots.insert(of.clone(), Arc::clone(&slot));
        }
        slot
    }

    fn fly(&self, slot: &Arc<Slot>, order: Order) -> watch::Receiver<Outcome> {
        slot.flight(self.clock.elapsed(), |sender| {
            let (minter, clock) = (Arc::clone(&self.minter), Arc::clone(&self.clock));
            let slot = Arc::clone(slot);
            let span = tracing::info_span!("exchange", how = order.minting.how.as_str());
            let flight = async move {
                let outcome = minter.mint(&order).await.map(Arc::new);
                if let Err(error) = &outcome {
                    tracing::warn!(how = order.minting.how.as_str(), %error, "no token was made");
                }
                slot.land(&outcome, clock.elapsed());
                sender.send_replace(Some(outcome));
            };
            self.spawn(flight.instrument(span))
        })
    }

    /// Deletes superseded keys while there is a secret at hand to do it with.
    fn clear_away(&self, slot: &Slot, order: Order) {
        self.delete_all(slot.take_superseded(self.clock.elapsed()), order);
    }

    fn delete_all(&self, ids: Vec<String>, order: Order) {
        if ids.is_empty() {
            return;
        }
        let minter = Arc::clone(&self.minter);
        self.spawn(async move {
            for id in ids {
                if let Err(error) = minter.delete(&id, &order).await {
                    // It ends by itself; nothing is left behind for good.
                    tracing::warn!(%error, "a key that is not needed any more was not deleted");
                }
            }
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        while flights.try_join_next().is_some() {}
        flights.spawn(task)
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<CredentialVersion, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn landed(mut flight: watch::Receiver<Outcome>) -> Result<Arc<Token>, ExchangeError> {
    match flight.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(outcome)) => outcome.clone(),
        Ok(None) | Err(_) => Err(ExchangeError::Stopped),
    }
}

const MOST_SLOTS: usize = 10_000;
