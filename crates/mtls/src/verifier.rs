use domain::SpiffePattern;
use rustls::{
    DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage};

use crate::{
    Identity, Refusal, SvidError, TrustDomains,
    error::{certificate_error, refusal_of},
    material::Authorities,
};

/// Decides about a peer's certificate, the same way on both ends: the rules for SVIDs, then a path with
/// nothing revoked on it to an authority of the trust domain that it names, then whether this identity
/// was to be reached.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    pub(crate) authorities: Authorities,
    pub(crate) trust_domains: TrustDomains,
    pub(crate) expected: Option<SpiffePattern>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), rustls::Error> {
        self.judge(leaf, intermediates, now, usage)
            .map_err(|refusal| certificate_error(refusal).into())
    }

    /// Whether the peer is accepted at a moment, for that usage of its key.
    pub(crate) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Refusal> {
        let identity = Identity::read(leaf, &self.trust_domains).map_err(Refusal::Svid)?;
        let anchors = self.authorities.of(identity.spiffe_id.trust_domain());
        self.verify_path(leaf, (anchors, intermediates), now, usage)?;
        match &self.expected {
            Some(expected) if !expected.matches(&identity.spiffe_id) => {
                Err(Refusal::Svid(SvidError::Unexpected))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn verify_path(
        &self,
        leaf: &CertificateDer<'_>,
        (anchors, intermediates): (&[TrustAnchor<'_>], &[CertificateDer<'_>]),
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Refusal> {
        let leaf = EndEntityCert::try_from(leaf).map_err(|error| refusal_of(&error))?;
        let crls: Option<Vec<&CertRevocationList<'_>>> =
            self.authorities.crls.as_ref().map(|crls| crls.iter().collect());
        let revocation = match crls.as_deref() {
            None => None,
            // webpki ignores a list's next update unless it is told not to. An uncovered
            // certificate is refused, and the whole path is looked at: both are the defaults.
            Some(crls) => Some(
                webpki::RevocationOptionsBuilder::new(crls)
                    .map_err(|_| Refusal::RevocationUnknown)?
                    .with_expiration_policy(ExpirationPolicy::Enforce)
                    .build(),
            ),
        };
        let algorithms = self.algorithms.all;
        leaf.verify_for_usage(algorithms, anchors, intermediates, now, usage, revocation, None)
            .map(drop)
            .map_err(|error| refusal_of(&error))
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    /// The name is not looked at: servers are known by their SPIFFE ID, wherever they run.
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
