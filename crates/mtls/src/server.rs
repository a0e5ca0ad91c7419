use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use domain::Clock;
use rustls::{ServerConfig, server::NoServerSessionStorage};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;

use crate::{
    HandshakeError, Identity, LoadError, Refusal, SvidError, TlsConnection, TlsFiles, TrustDomains,
    files::Contents,
    material::{Material, Revoked},
    provider::{ALPN, ClockTime, HTTP_ALPN, VERSIONS, crypto},
    reload::{self, Reload},
    verifier::PeerVerifier,
};

/// The accepting end. Each handshake uses the files as last loaded.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    trust_domains: TrustDomains,
    clock: Arc<dyn Clock>,
    protocols: &'static [&'static [u8]],
    state: ArcSwap<State>,
}

#[derive(Debug)]
struct State {
    fingerprint: [u8; 32],
    config: Arc<ServerConfig>,
    revoked: Revoked,
}

impl ServerTls {
    /// Loads the files, or says why they cannot be used. For gRPC: HTTP/2 alone is negotiated.
    pub fn load(
        files: TlsFiles,
        trust_domains: TrustDomains,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, LoadError> {
        Self::load_for(files, trust_domains, clock, &[ALPN])
    }

    /// As [`ServerTls::load`], for a listener that speaks HTTP/1.1 too.
    pub fn load_for_http(
        files: TlsFiles,
        trust_domains: TrustDomains,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, LoadError> {
        Self::load_for(files, trust_domains, clock, HTTP_ALPN)
    }

    fn load_for(
        files: TlsFiles,
        trust_domains: TrustDomains,
        clock: Arc<dyn Clock>,
        protocols: &'static [&'static [u8]],
    ) -> Result<Arc<Self>, LoadError> {
        let state = State::build(&files, &files.read()?, &trust_domains, &clock, protocols)?;
        let state = ArcSwap::from_pointee(state);
        Ok(Arc::new(Self { files, trust_domains, clock, protocols, state }))
    }

    /// Loads the files again; true when they had changed. A failure leaves the last good ones in
    /// force. Handshakes under way finish with what they began with.
    pub fn reload(&self) -> Result<bool, LoadError> {
        let contents = self.files.read()?;
        if contents.fingerprint() == self.state.load().fingerprint {
            return Ok(false);
        }
        let (domains, protocols) = (&self.trust_domains, self.protocols);
        let state = State::build(&self.files, &contents, domains, &self.clock, protocols)?;
        self.state.store(Arc::new(state));
        Ok(true)
    }

    /// Loads the files whenever they change, looking every so often, for as long as it is polled.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        reload::watch(self, every).await;
    }

    /// How the next handshake will be made, for a transport that sets its own time limit.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.state.load().config))
    }

    /// Brings a connection up, in five seconds at most, with a peer whose certificate is accepted.
    pub async fn accept(&self, tcp: TcpStream) -> Result<TlsConnection, HandshakeError> {
        tcp.set_nodelay(true).map_err(HandshakeError::Broken)?;
        let stream = timeout(HANDSHAKE_TIMEOUT, self.acceptor().accept(tcp))
            .await
            .map_err(|_| HandshakeError::TimedOut)?
            .map_err(HandshakeError::from_io)?;
        TlsConnection::new(stream.into(), &self.trust_domains)
    }

    /// Whether an identity would still be accepted: not past its end, and not named by the revocation
    /// list as last loaded. To be asked on each request, because HTTP/2 connections last. A changed
    /// set of authorities is not looked at here; it counts from the connection's next handshake.
    pub fn recheck(&self, identity: &Identity) -> Result<(), Refusal> {
        if identity.not_after <= self.clock.now() {
            return Err(Refusal::Expired);
        }
        if self.state.load().revoked.names(identity) {
            return Err(Refusal::Revoked);
        }
        if !self.trust_domains.admit(&identity.spiffe_id) {
            return Err(Refusal::Svid(SvidError::ForeignTrustDomain));
        }
        Ok(())
    }
}

impl Reload for ServerTls {
    fn reload(&self) -> Result<bool, LoadError> {
        Self::reload(self)
    }
}

impl State {
    fn build(
        files: &TlsFiles,
        contents: &Contents,
        trust_domains: &TrustDomains,
        clock: &Arc<dyn Clock>,
        protocols: &[&[u8]],
    ) -> Result<Self, LoadError> {
        let material = Material::parse(files, contents, trust_domains, clock.as_ref())?;
        let crypto = crypto();
        let verifier = PeerVerifier {
            authorities: material.authorities,
            trust_domains: trust_domains.clone(),
            expected: None,
            algorithms: crypto.signature_verification_algorithms,
        };
        let time = Arc::new(ClockTime(Arc::clone(clock)));
        let mut config = ServerConfig::builder_with_details(crypto, time)
            .with_protocol_versions(VERSIONS)
            .and_then(|builder| {
                builder
                    .with_client_cert_verifier(Arc::new(verifier))
                    .with_single_cert(material.chain, material.key)
            })
            .map_err(LoadError::Unusable)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // A resumed session skips the certificate, and with it every decision taken since.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        let fingerprint = contents.fingerprint();
        Ok(Self { fingerprint, config: Arc::new(config), revoked: material.revoked })
    }
}

pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
