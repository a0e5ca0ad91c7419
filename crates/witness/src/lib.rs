//! A witness: it cosigns a log's checkpoints for as long as each continues the one before, and keeps
//! both notes when one does not. It speaks <https://c2sp.org/tlog-witness>.
//!
//! It is to run where neither the log's operators nor its database reach. So it has no store, no
//! KMS and no connection to a broker, and needs nothing of a deployment but the log's public key.

mod desk;
mod error;
mod evidence;
mod files;
mod listener;
mod server;
mod state;

pub use desk::{Answer, Desk};
pub use error::WitnessError;
pub use files::{read_private, write_private};
pub use listener::Listener;
pub use server::{ServerFiles, serve};
