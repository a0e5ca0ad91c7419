use domain::{InvalidSpiffeId, SpiffeId, Timestamp};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, KeyUsage},
    prelude::FromDer,
};

use crate::TrustDomains;

/// Who is at the other end, as its verified certificate says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The workload's name.
    pub spiffe_id: SpiffeId,
    /// SHA-256 of its certificate, DER.
    pub certificate_sha256: [u8; 32],
    /// When the certificate ends.
    pub not_after: Timestamp,
    /// The certificate's serial number, lower-case hex.
    pub serial: String,
    /// SHA-256 of the issuer's distinguished name, DER: a serial number is unique per issuer only.
    pub issuer_sha256: [u8; 32],
}

/// Which rule for X.509-SVID leaf certificates does not hold.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SvidError {
    /// The certificate or one of its extensions cannot be read, or an extension is there twice.
    #[error("the certificate cannot be read")]
    Malformed,
    /// There is not exactly one URI among the alternative names.
    #[error("the certificate has {0} URIs, not one")]
    UriCount(usize),
    /// The URI is not the SPIFFE ID of a workload.
    #[error("{0}")]
    InvalidId(InvalidSpiffeId),
    /// The ID is of a trust domain that is not admitted.
    #[error("the trust domain is not admitted")]
    ForeignTrustDomain,
    /// The certificate is an authority's.
    #[error("the certificate is an authority's")]
    Authority,
    /// The key may sign certificates or revocation lists.
    #[error("the key may sign certificates or revocation lists")]
    SigningUsage,
    /// The key usage does not name digital signatures.
    #[error("the key may not sign handshakes")]
    NoSignatureUsage,
    /// The peer is admitted but is not the one that was to be reached.
    #[error("the peer is not the expected one")]
    Unexpected,
}

impl SvidError {
    /// A stable word for metrics and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "svid_malformed",
            Self::UriCount(_) => "svid_uri_count",
            Self::InvalidId(_) => "svid_invalid_id",
            Self::ForeignTrustDomain => "foreign_trust_domain",
            Self::Authority => "svid_authority",
            Self::SigningUsage => "svid_signing_usage",
            Self::NoSignatureUsage => "svid_no_signature_usage",
            Self::Unexpected => "unexpected_peer",
        }
    }
}

impl Identity {
    /// Reads a leaf certificate as an X.509-SVID. This checks form only, not who issued it: whose
    /// certificate was not verified is nobody.
    pub fn read(
        certificate: &CertificateDer<'_>,
        trust_domains: &TrustDomains,
    ) -> Result<Self, SvidError> {
        let (rest, leaf) =
            X509Certificate::from_der(certificate).map_err(|_| SvidError::Malformed)?;
        if !rest.is_empty() {
            return Err(SvidError::Malformed);
        }
        check_usage(&leaf)?;
        let spiffe_id: SpiffeId = only_uri(&leaf)?.parse().map_err(SvidError::InvalidId)?;
        if !trust_domains.admit(&spiffe_id) {
            return Err(SvidError::ForeignTrustDomain);
        }
        let not_after = leaf.validity().not_after.timestamp().saturating_mul(1000);
        Ok(Self {
            spiffe_id,
            certificate_sha256: Sha256::digest(certificate).into(),
            not_after: Timestamp::from_millis(not_after),
            serial: hex::encode(leaf.raw_serial()),
            issuer_sha256: Sha256::digest(leaf.issuer().as_raw()).into(),
        })
    }
}

fn check_usage(leaf: &X509Certificate<'_>) -> Result<(), SvidError> {
    let constraints = leaf.basic_constraints().map_err(|_| SvidError::Malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(SvidError::Authority);
    }
    let usage = leaf.key_usage().map_err(|_| SvidError::Malformed)?;
    let signs = |usage: &KeyUsage| usage.key_cert_sign() || usage.crl_sign();
    match usage.map(|usage| usage.value) {
        Some(usage) if signs(usage) => Err(SvidError::SigningUsage),
        Some(usage) if usage.digital_signature() => Ok(()),
        Some(_) | None => Err(SvidError::NoSignatureUsage),
    }
}

fn only_uri<'a>(leaf: &'a X509Certificate<'a>) -> Result<&'a str, SvidError> {
    let names = leaf.subject_alternative_name().map_err(|_| SvidError::Malformed)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris.as_slice() {
        [uri] => Ok(uri),
        other => Err(SvidError::UriCount(other.len())),
    }
}
