use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use rustls_pki_types::CertificateDer;
use tokio::sync::oneshot;

use crate::{Identity, Refusal};

/// The connections that are open at a server, so that those whose peer is no longer accepted can be
/// ended: HTTP/2 never shakes hands again.
#[derive(Debug, Default)]
pub(crate) struct Open(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: Arc<Peer>,
    end: oneshot::Sender<Refusal>,
}

/// Who is at the other end of a connection, and what they showed for it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    /// The certificate, followed by its intermediates.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl Open {
    /// Takes a connection in, until its place is dropped.
    pub(crate) fn add(self: &Arc<Self>, peer: Arc<Peer>) -> Place {
        let (end, ended) = oneshot::channel();
        let mut table = self.table();
        let id = table.next;
        table.next += 1;
        table.entries.insert(id, Entry { peer, end });
        Place { open: Arc::clone(self), id, ended: Some(ended) }
    }

    /// Ends each connection that the judge refuses.
    pub(crate) fn end(&self, judge: impl Fn(&Peer) -> Result<(), Refusal>) {
        // Judged outside the lock, so that new connections do not wait for many signatures.
        let peers: Vec<(u64, Arc<Peer>)> =
            self.table().entries.iter().map(|(id, it)| (*id, Arc::clone(&it.peer))).collect();
        for (id, peer) in peers {
            let Err(refusal) = judge(&peer) else { continue };
            let Some(entry) = self.table().entries.remove(&id) else { continue };
            let reason = refusal.reason();
            metrics::counter!("strongroom_tls_connections_ended_total", "reason" => reason)
                .increment(1);
            tracing::warn!(peer = %peer.identity.spiffe_id, reason, "connection ended: {refusal}");
            // It may have ended by itself.
            let _ = entry.end.send(refusal);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among those that are open.
#[derive(Debug)]
pub(crate) struct Place {
    open: Arc<Open>,
    id: u64,
    ended: Option<oneshot::Receiver<Refusal>>,
}

impl Place {
    /// Why the connection is to end, as soon as it is.
    pub(crate) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        let Some(ended) = self.ended.as_mut() else { return Poll::Pending };
        match Pin::new(ended).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(refusal)) => {
                self.ended = None;
                Poll::Ready(refusal)
            }
            Poll::Ready(Err(_)) => {
                self.ended = None;
                Poll::Pending
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.table().entries.remove(&self.id);
    }
}
