use std::{io, path::PathBuf};

use domain::InvalidSpiffeId;
use thiserror::Error;

/// Why a deployment could not be laid out. Nothing that was there before has changed.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Something is in the way; it is not overwritten.
    #[error("`{0}` exists already")]
    Exists(PathBuf),
    /// The file system refused.
    #[error("`{path}` cannot be used")]
    Files {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The name is not one an identity can have.
    #[error("`{0}` is not a name for a file or an identity")]
    InvalidName(String),
    /// The trust domain and path are not a SPIFFE ID.
    #[error("the identity is not a SPIFFE ID")]
    InvalidIdentity(#[source] InvalidSpiffeId),
    /// A certificate could not be made, or the authority could not be read.
    #[error("the certificate cannot be made")]
    Certificate(#[source] rcgen::Error),
    /// The key of the log could not be made.
    #[error("the log's key cannot be made")]
    LogKey(#[source] audit::KeyError),
    /// The local KMS's key could not be made.
    #[error("the KMS's key cannot be made")]
    KmsKey(#[source] envelope::KeyFileError),
    /// A template was not filled in as TOML. This is a mistake in Strongroom.
    #[error("the configuration is not TOML")]
    Configuration(#[source] toml::de::Error),
}
