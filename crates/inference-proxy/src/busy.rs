use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::OwnedSemaphorePermit;

/// One call in hand: of its connection, and of the process unless it was shed.
#[derive(Debug)]
pub(crate) struct Busy {
    connection: ConnectionUse,
    _permit: Option<OwnedSemaphorePermit>,
}

/// How a connection is used.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionUse(Arc<Use>);

#[derive(Debug, Default)]
struct Use {
    calls: AtomicUsize,
    begun: AtomicUsize,
    doubtful: AtomicBool,
}

impl Busy {
    pub(crate) fn new(connection: ConnectionUse, permit: Option<OwnedSemaphorePermit>) -> Self {
        connection.0.calls.fetch_add(1, Ordering::Relaxed);
        connection.0.begun.fetch_add(1, Ordering::Relaxed);
        Self { connection, _permit: permit }
    }
}

impl ConnectionUse {
    /// Whether it has no call in hand.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.calls.load(Ordering::Relaxed) == 0
    }

    /// Takes note that nobody can be sure where its requests begin and end.
    pub(crate) fn doubt(&self) {
        self.0.doubtful.store(true, Ordering::Relaxed);
    }

    /// Whether nothing more on it is to be believed.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.0.doubtful.load(Ordering::Relaxed)
    }

    /// How many it has had.
    pub(crate) fn begun(&self) -> usize {
        self.0.begun.load(Ordering::Relaxed)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.connection.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
