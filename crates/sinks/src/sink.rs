use std::{fmt, io, path::PathBuf};

use async_trait::async_trait;
use thiserror::Error;

use crate::Event;

/// A way out of the log.
#[async_trait]
pub trait Sink: fmt::Debug + Send {
    /// Hands a batch over, and says how many of its events the receiver refused for good.
    ///
    /// On `Ok` the receiver has all the others, as far as its protocol can tell (see
    /// [`Sink::acknowledges`]). On `Err` it may have any part of them: send the batch again. The same
    /// holds for a call that is given up before it is done.
    async fn send(&mut self, batch: &[Event]) -> Result<u64, SinkError>;

    /// Whether the receiver confirms what it has. If it does not, a broken connection or a stopped
    /// process may have lost what was sent last: send a part of it again.
    fn acknowledges(&self) -> bool;
}

/// Why a batch was not handed over. Trying again is right in every case: what has to change lies with
/// the receiver or with the configuration.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The file cannot be written: look at its folder, its owner and the room on the disk.
    #[error("cannot write {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file does not end as one of ours does: give the sink a file of its own.
    #[error("{0} holds something else than records: move it away, or name another file")]
    NotOurs(PathBuf),
    /// A file of certificates, keys or secrets cannot be used.
    #[error("{path}: {problem}")]
    Tls {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The receiver cannot be reached, or does not prove who it is.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to {address} broke")]
    Broken {
        /// Where to.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The receiver took too long.
    #[error("{0} does not take what is sent")]
    TimedOut(String),
    /// The receiver answered with an error.
    #[error("the receiver refuses what is sent: {code}: {message}")]
    Refused {
        /// Its gRPC code, or that it is an HTTP status.
        code: &'static str,
        /// What it said.
        message: String,
    },
}
