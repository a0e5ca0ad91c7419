use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use domain::Origin;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::Order;

/// Room for callers that wait, a room for each token service: one that hangs fills its own alone.
#[derive(Debug, Default)]
pub(crate) struct Rooms(Mutex<HashMap<Option<Origin>, Arc<Room>>>);

/// Room for those who wait for one token service. The first caller of each credential, for whom the
/// exchange is made, has room that the others cannot take: so the crowd that waits for one credential keeps
/// no other of the same service from being exchanged.
#[derive(Debug)]
pub(crate) struct Room {
    firsts: Semaphore,
    others: Semaphore,
}

impl Rooms {
    /// The room of the service that an order asks. What is made without asking anybody has one, too.
    pub(crate) fn of(&self, order: &Order) -> Arc<Room> {
        let url = order.minting.url.as_deref();
        let service = url.and_then(|url| Origin::of_url(url).ok());
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Customers name AWS's regions, so there can be many; a room that nobody is in is not missed.
        if rooms.len() >= MOST_ROOMS && !rooms.contains_key(&service) {
            rooms.retain(|_, room| Arc::strong_count(room) > 1);
        }
        Arc::clone(rooms.entry(service).or_default())
    }
}

impl Room {
    /// A place for a caller, if one is left.
    pub(crate) fn enter(&self, is_under_way: bool) -> Option<SemaphorePermit<'_>> {
        let places = if is_under_way { &self.others } else { &self.firsts };
        places.try_acquire().ok()
    }
}

impl Default for Room {
    fn default() -> Self {
        Self { firsts: Semaphore::new(MOST_FIRSTS), others: Semaphore::new(MOST_OTHERS) }
    }
}

const MOST_ROOMS: usize = 100;
/// With the others a fraction of the calls that a broker has in hand by default.
const MOST_FIRSTS: usize = 128;
const MOST_OTHERS: usize = 128;
