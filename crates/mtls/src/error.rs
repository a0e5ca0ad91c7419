use std::{error::Error, io, path::PathBuf, sync::Arc};

use rustls::{AlertDescription, CertificateError, OtherError};
use thiserror::Error;

use crate::SvidError;

/// Why TLS files cannot be used. What was loaded before stays in use.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("`{path}` cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others than its owner can read or change the private key: `chmod 600` it.
    #[error("`{0}` is a private key that others than its owner can reach")]
    KeyExposed(PathBuf),
    /// A file does not hold what it should.
    #[error("`{path}` holds no valid {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
    },
    /// A SPIFFE trust bundle is to stand for several trust domains, and it is the bundle of one.
    #[error(
        "`{0}` is the bundle of one trust domain and several are admitted: give `ca` a file for each"
    )]
    BundleOfOneDomain(PathBuf),
    /// There are authorities for a trust domain that is not admitted.
    #[error("`ca` names the trust domain `{0}`, which `trust_domains` does not")]
    ForeignAuthorities(String),
    /// A trust domain is admitted, but nobody can vouch for its workloads.
    #[error("the trust domain `{0}` is admitted, and there are no authorities for it")]
    NoAuthorities(String),
    /// What should be an authority's certificate is none.
    #[error("an authority of the trust domain `{0}` has no valid certificate")]
    NotAuthorities(String),
    /// The SPIFFE Workload API gave no identity.
    #[error("the Workload API at `{socket}`: {reason}")]
    WorkloadApi {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The certificate does not fit the key, or TLS cannot use them.
    #[error("the certificate and the key cannot be used together")]
    Unusable(#[source] rustls::Error),
    /// The certificate is not an SVID of one of the trust domains.
    #[error("the own certificate is not usable as an identity")]
    NotAnIdentity(#[source] SvidError),
    /// The certificate has expired.
    #[error("the own certificate has expired")]
    Expired,
}

/// Why a peer's certificate is not accepted.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refusal {
    /// It is past its end.
    #[error("the certificate has expired")]
    Expired,
    /// It is before its start.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// The revocation list names it.
    #[error("the certificate is revoked")]
    Revoked,
    /// The revocation list does not cover it or is itself out of date.
    #[error("the certificate's revocation status is unknown")]
    RevocationUnknown,
    /// None of the trusted authorities issued it.
    #[error("the certificate's issuer is not trusted")]
    UnknownIssuer,
    /// It is trusted but is not the identity of an admitted workload.
    #[error("the certificate is not an admitted identity: {0}")]
    Svid(SvidError),
    /// It breaks another rule of X.509.
    #[error("the certificate is invalid: {0}")]
    Invalid(String),
}

impl Refusal {
    /// A stable word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Svid(error) => error.reason(),
            Self::Invalid(_) => "invalid_certificate",
        }
    }
}

/// Why a connection did not come to be.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The peer took too long.
    #[error("the handshake took too long")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke during the handshake")]
    Broken(#[source] io::Error),
    /// The peer presented no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// The peer's certificate is not accepted here.
    #[error("the peer is refused")]
    Refused(#[source] Refusal),
    /// The peer ended the handshake with an alert, such as one about our certificate.
    #[error("the peer refused the handshake")]
    RefusedByPeer(#[source] rustls::Error),
    /// The peer does not speak TLS 1.3 as it is spoken here.
    #[error("the peer broke the protocol")]
    Protocol(#[source] rustls::Error),
}

impl HandshakeError {
    /// A stable word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::Broken(_) => "broken",
            Self::NoCertificate => "no_certificate",
            Self::Refused(refusal) => refusal.reason(),
            Self::RefusedByPeer(_) => "refused_by_peer",
            Self::Protocol(_) => "protocol",
        }
    }

    pub(crate) fn from_io(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner.cloned() {
            Some(error) => Self::from_rustls(error),
            None => Self::Broken(error),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds variants in minor releases")]
    fn from_rustls(error: rustls::Error) -> Self {
        match error {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::InvalidCertificate(error) => Self::Refused(refusal(error)),
            rustls::Error::InvalidCertRevocationList(_) => {
                Self::Refused(Refusal::RevocationUnknown)
            }
            rustls::Error::AlertReceived(_) => Self::RefusedByPeer(error),
            other => Self::Protocol(other),
        }
    }
}

/// Why the peer does not accept our certificate, if that is what an error, or one that it comes from, says.
///
/// In TLS 1.3 a server judges after the client has begun to speak, so that its refusal can come with any
/// read.
pub fn refused_by_peer(error: &(dyn Error + 'static)) -> Option<&'static str> {
    // HTTP/2 keeps of an I/O error no more than its text, so the texts are compared.
    let alerts = ABOUT_CERTIFICATES
        .map(|(alert, why)| (rustls::Error::AlertReceived(alert).to_string(), why));
    let mut link = Some(error);
    while let Some(error) = link {
        let text = error.to_string();
        if let Some((_, why)) = alerts.iter().find(|(alert, _)| *alert == text) {
            return Some(why);
        }
        link = error.source();
    }
    None
}

const ABOUT_CERTIFICATES: [(AlertDescription, &str); 8] = [
    (AlertDescription::CertificateRevoked, "it was revoked"),
    (AlertDescription::CertificateExpired, "it has expired, or is not valid yet"),
    (AlertDescription::CertificateRequired, "there is none"),
    (AlertDescription::UnknownCA, UNTRUSTED),
    (AlertDescription::AccessDenied, NOT_ADMITTED),
    (AlertDescription::BadCertificate, NOT_ADMITTED),
    (AlertDescription::CertificateUnknown, NOT_ADMITTED),
    (AlertDescription::UnsupportedCertificate, NOT_ADMITTED),
];
/// TLS has one alert for both.
const UNTRUSTED: &str =
    "its authority is not trusted there, or the list of revocations there is out of date";
const NOT_ADMITTED: &str = "it is no identity that is admitted there";

/// What rustls is told about a refusal, so that the peer gets the fitting alert.
pub(crate) fn certificate_error(refusal: Refusal) -> CertificateError {
    match refusal {
        Refusal::Expired => CertificateError::Expired,
        Refusal::NotYetValid => CertificateError::NotValidYet,
        Refusal::Revoked => CertificateError::Revoked,
        Refusal::RevocationUnknown => CertificateError::UnknownRevocationStatus,
        Refusal::UnknownIssuer => CertificateError::UnknownIssuer,
        other @ (Refusal::Svid(_) | Refusal::Invalid(_)) => {
            CertificateError::Other(OtherError(Arc::new(other)))
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds variants in minor releases")]
fn refusal(error: CertificateError) -> Refusal {
    match error {
        CertificateError::Expired => Refusal::Expired,
        CertificateError::NotValidYet => Refusal::NotYetValid,
        CertificateError::Revoked => Refusal::Revoked,
        CertificateError::UnknownRevocationStatus => Refusal::RevocationUnknown,
        CertificateError::UnknownIssuer => Refusal::UnknownIssuer,
        CertificateError::Other(OtherError(other)) => match other.downcast_ref::<Refusal>() {
            Some(refusal) => refusal.clone(),
            None => Refusal::Invalid(other.to_string()),
        },
        other => Refusal::Invalid(other.to_string()),
    }
}

/// What a failed path building means for the peer.
#[expect(clippy::wildcard_enum_match_arm, reason = "webpki adds variants in minor releases")]
pub(crate) fn refusal_of(error: &webpki::Error) -> Refusal {
    use webpki::Error;

    match error {
        Error::CertExpired { .. } | Error::InvalidCertValidity => Refusal::Expired,
        Error::CertNotValidYet { .. } => Refusal::NotYetValid,
        Error::CertRevoked => Refusal::Revoked,
        Error::UnknownRevocationStatus
        | Error::CrlExpired { .. }
        | Error::IssuerNotCrlSigner
        | Error::InvalidCrlSignatureForPublicKey => Refusal::RevocationUnknown,
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => Refusal::UnknownIssuer,
        Error::CaUsedAsEndEntity => Refusal::Svid(SvidError::Authority),
        other => Refusal::Invalid(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_of_our_certificate_is_found_in_whatever_it_is_wrapped_in() {
        let alert = |alert| rustls::Error::AlertReceived(alert);
        let broken = |alert: rustls::Error| HandshakeError::Broken(io::Error::other(alert));
        let as_text = |alert: rustls::Error| io::Error::other(alert.to_string());
        for (about, why) in ABOUT_CERTIFICATES {
            assert_eq!(refused_by_peer(&alert(about)), Some(why));
            assert_eq!(refused_by_peer(&broken(alert(about))), Some(why));
            assert_eq!(refused_by_peer(&as_text(alert(about))), Some(why));
        }
        assert_eq!(refused_by_peer(&broken(alert(AlertDescription::CloseNotify))), None);
        assert_eq!(refused_by_peer(&as_text(alert(AlertDescription::InternalError))), None);
    }
}
