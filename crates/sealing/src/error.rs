use thiserror::Error;

/// Why a session was not established. Nothing but another public key helps.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum EstablishError {
    /// The key is not 32 bytes of X25519, or one of the few that every shared secret is zero with.
    #[error("the public key is malformed")]
    MalformedPublicKey,
}

/// The one answer to everything that does not open: a wrong key, a changed byte, another context.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("it does not open")]
pub struct DoesNotOpen;

/// Why a secret was not sealed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SealError {
    /// A secret is 1 to 16384 bytes.
    #[error("a secret is 1 to 16384 bytes")]
    SecretLength,
}
