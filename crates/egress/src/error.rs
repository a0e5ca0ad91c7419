use std::{error::Error, io, sync::Arc};

/// Why nothing was sent, or no answer can be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EgressError {
    /// The secret was not lent for this place.
    #[error("the address is not the lease's")]
    ForeignOrigin,
    /// Every address of the host is a private or special one.
    #[error("the host has no address that may be called")]
    BlockedAddress,
    /// Plain HTTP goes only to this machine, and only when that is switched on.
    #[error("plain HTTP is not allowed to this host: use https")]
    PlainHttp,
    /// The connection leads back to this service.
    #[error("the address is this service's own")]
    Loop,
    /// The address has no host that TLS can check.
    #[error("the address names no host")]
    NoHost,
    /// The address is one of those that programs read differently.
    #[error("the address is written in a way that is not taken: {0}")]
    Form(&'static str),
    /// There was no connection in time.
    #[error("connecting took too long")]
    TimedOut,
    /// There was no whole answer in time.
    #[error("the provider took too long to answer")]
    TooSlow,
    /// The host was not found, or no connection could be made.
    #[error("the provider cannot be reached")]
    Unreachable(#[source] Arc<io::Error>),
    /// The provider did not prove who it is.
    #[error("the provider's certificate was not accepted")]
    Untrusted(#[source] Arc<io::Error>),
    /// The connection ended before the answer did, or what came was no HTTP.
    #[error("the provider broke off before its answer was whole")]
    BrokenOff(#[source] Arc<dyn Error + Send + Sync>),
    /// The provider wants the call to go elsewhere. It does not.
    #[error("the provider answered with a redirect, and none is followed")]
    Redirected,
    /// More came than was asked for.
    #[error("the provider's answer is longer than {0} bytes")]
    TooLong(usize),
}

impl EgressError {
    /// Whether a rule was the reason, rather than the network.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::ForeignOrigin
            | Self::BlockedAddress
            | Self::PlainHttp
            | Self::Loop
            | Self::Form(_) => true,
            Self::NoHost
            | Self::TimedOut
            | Self::TooSlow
            | Self::Unreachable(_)
            | Self::Untrusted(_)
            | Self::BrokenOff(_)
            | Self::Redirected
            | Self::TooLong(_) => false,
        }
    }

    /// The word in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::ForeignOrigin => "foreign_origin",
            Self::BlockedAddress => "blocked_address",
            Self::PlainHttp => "plain_http",
            Self::Loop => "loop",
            Self::NoHost => "no_host",
            Self::Form(_) => "form",
            Self::TimedOut => "timed_out",
            Self::TooSlow => "too_slow",
            Self::Unreachable(_) => "unreachable",
            Self::Untrusted(_) => "untrusted",
            Self::BrokenOff(_) => "broken_off",
            Self::Redirected => "redirected",
            Self::TooLong(_) => "too_long",
        }
    }
}
