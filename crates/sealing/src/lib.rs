//! HPKE sessions and the boxes sealed to them, both ends: what keeps a secret unreadable to everything
//! between the broker's and the workload's own code. `docs/sealing.md` gives the exact bytes. Pure:
//! no I/O and no clock; that a box or a lease is used once is the broker's business.

mod context;
mod error;
mod seal;
mod session;
#[cfg(test)]
mod vectors;

pub use context::{BoxContext, BoxId, LeaseContext};
pub use error::{DoesNotOpen, EstablishError, SealError};
pub use seal::LONGEST_SECRET;
pub use session::{ClientKeys, Session, SessionId};
