use std::{error::Error, io, path::PathBuf, sync::Arc};

use thiserror::Error;

/// The one answer to everything that does not open: a wrong key, a changed byte, another context, a
/// format this build does not know.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("it does not open")]
pub struct DoesNotOpen;

/// Why a secret was not sealed.
#[derive(Clone, Copy, Debug, Error)]
pub enum SealError {
    /// A secret is 1 to 16384 bytes.
    #[error("a secret is 1 to 16384 bytes")]
    SecretLength,
    /// The operating system has no random bytes. There is nothing to fall back to.
    #[error("there are no random bytes")]
    Random(#[source] getrandom::Error),
}

/// Why the KMS gave no key.
#[derive(Clone, Debug, Error)]
pub enum KmsError {
    /// The KMS did not answer, or not in time. Trying again may help.
    #[error("the kms is unavailable")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// The KMS answered no: access is denied, or the key disabled or gone. A person has to act.
    #[error("the kms refuses")]
    Refused(#[source] Arc<dyn Error + Send + Sync>),
    /// The wrapped key does not unwrap in this context: it was altered, moved, or wrapped elsewhere.
    #[error("the wrapped key does not unwrap")]
    Corrupt,
}

impl KmsError {
    /// It did not answer, for a reason that the operator is told.
    pub fn unavailable(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(why.into().into())
    }

    /// It says no, for a reason that the operator is told.
    pub fn refused(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused(why.into().into())
    }
}

impl From<DoesNotOpen> for KmsError {
    fn from(_: DoesNotOpen) -> Self {
        Self::Corrupt
    }
}

impl From<SealError> for KmsError {
    fn from(error: SealError) -> Self {
        Self::unavailable(error)
    }
}

/// Why a KMS was not opened. All of it is for whoever runs the machine.
#[derive(Debug, Error)]
pub enum KmsOpenError {
    /// A key file, or the file of a passphrase, a PIN or a token, cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The PKCS#11 module is not one, or does not start.
    #[error("the PKCS#11 module `{0}` cannot be used")]
    Module(PathBuf, #[source] Box<dyn Error + Send + Sync>),
    /// A certificate file cannot be used.
    #[error("`{0}` cannot be used: it must hold certificates in PEM")]
    Authorities(PathBuf, #[source] Box<dyn Error + Send + Sync>),
    /// The configuration says what cannot be.
    #[error("{0}")]
    Configuration(String),
    /// The thread that opened it ended early.
    #[error("opening was interrupted")]
    Interrupted(#[source] Box<dyn Error + Send + Sync>),
}

/// Why a key file was not opened, made or changed. All of it is for whoever runs the machine.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// Reading or writing failed.
    #[error("`{0}` cannot be read or written")]
    Io(PathBuf, #[source] io::Error),
    /// Someone else could have read or replaced it: make it ours, a regular file, mode 0400 or 0600.
    #[error("`{0}` must be a regular file of this user's, mode 0400 or 0600, and not a link")]
    Exposed(PathBuf),
    /// It is not a key file, or a damaged one.
    #[error("`{0}` is not a key file of this version")]
    Malformed(PathBuf),
    /// The file is locked with a passphrase and none was given, or one was given and it is not.
    #[error("`{0}` is locked with a passphrase, or is not, unlike the configuration says")]
    Passphrase(PathBuf),
    /// A passphrase so short that the file might as well be open.
    #[error("the passphrase in `{0}` has fewer than 12 bytes")]
    WeakPassphrase(PathBuf),
    /// The passphrase is not the one.
    #[error("the passphrase does not open `{0}`")]
    WrongPassphrase(PathBuf),
    /// The operating system has no random bytes.
    #[error("there are no random bytes")]
    Random(#[from] getrandom::Error),
}
