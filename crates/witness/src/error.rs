use std::{io, path::PathBuf};

use audit::{CheckpointError, KeyError};
use rustls_pki_types::pem;
use thiserror::Error;

/// Why a witness cannot start.
#[derive(Debug, Error)]
pub enum WitnessError {
    /// A file cannot be read or written.
    #[error("`{path}` cannot be used")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A key can be reached by others than its owner.
    #[error("`{0}` can be read by others than its owner: give it mode 0600")]
    KeyExposed(PathBuf),
    /// A file holds no key of the kind it should.
    #[error("`{path}` holds no such key")]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
    /// The state belongs to a witness that runs.
    #[error("`{0}` is in use: one process at a time can witness with this state")]
    InUse(PathBuf),
    /// What was kept of a log is not a checkpoint that it signed. To begin anew would be to forget.
    #[error("`{path}` is not a checkpoint of `{origin}`: restore it, or move it away knowingly")]
    State {
        /// Which file.
        path: PathBuf,
        /// Which log.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: CheckpointError,
    },
    /// Others than this machine would reach the witness without TLS.
    #[error("a witness that listens beyond this machine needs --certificate and --private-key")]
    PlainBeyondLoopback,
    /// A file is not PEM of the right kind.
    #[error("`{path}` holds no certificate or key in PEM")]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key cannot be used together.
    #[error("certificate and key cannot be used together")]
    Tls(#[from] rustls::Error),
}
