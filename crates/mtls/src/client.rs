use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use domain::{Clock, SpiffeId, SpiffePattern};
use rustls::{ClientConfig, client::Resumption};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    HandshakeError, LoadError, TlsConnection, TlsSource, TrustDomains,
    material::{Ends, Material},
    provider::{ALPN, ClockTime, VERSIONS, crypto},
    reload::{self, Reload},
    server::HANDSHAKE_TIMEOUT,
    source::{Contents, Opened},
    verifier::PeerVerifier,
};

/// The connecting end. Each handshake uses the files as last loaded.
#[derive(Debug)]
pub struct ClientTls {
    source: Opened,
    trust_domains: TrustDomains,
    expected_server: SpiffePattern,
    clock: Arc<dyn Clock>,
    state: ArcSwap<State>,
}

#[derive(Debug)]
struct State {
    fingerprint: [u8; 32],
    own: Option<SpiffeId>,
    config: Arc<ClientConfig>,
    ends: Ends,
}

impl ClientTls {
    /// Opens the source and loads what it says, or says why that cannot be used. Connections are made only
    /// to servers whose identity the pattern names; their host names do not matter.
    pub fn load(
        source: impl Into<TlsSource>,
        trust_domains: TrustDomains,
        expected_server: SpiffePattern,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, LoadError> {
        let source = source.into().open()?;
        let contents = source.read(&trust_domains)?;
        let fingerprint = contents.fingerprint();
        let (own, ends, config) = build(contents, &trust_domains, &expected_server, &clock)?;
        let state = ArcSwap::from_pointee(State { fingerprint, own, config, ends });
        Ok(Arc::new(Self { source, trust_domains, expected_server, clock, state }))
    }

    /// Loads the files again; true when they had changed. A failure leaves the last good ones in
    /// force.
    pub fn reload(&self) -> Result<bool, LoadError> {
        let contents = self.source.read(&self.trust_domains)?;
        let fingerprint = contents.fingerprint();
        if fingerprint == self.state.load().fingerprint {
            return Ok(false);
        }
        let (domains, expected) = (&self.trust_domains, &self.expected_server);
        let (own, ends, config) = build(contents, domains, expected, &self.clock)?;
        self.state.store(Arc::new(State { fingerprint, own, config, ends }));
        Ok(true)
    }

    /// Who we are to servers, by the files as last loaded.
    pub fn own(&self) -> Option<SpiffeId> {
        self.state.load().own.clone()
    }

    /// Loads the files whenever they change, looking every so often, for as long as it is polled.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        reload::watch(self, every).await;
    }

    /// Brings a connection up, in five seconds at most, with the expected server.
    ///
    /// In TLS 1.3 the server judges our certificate after this has returned: its refusal comes as an
    /// error of the first read.
    pub async fn connect(&self, tcp: TcpStream) -> Result<TlsConnection, HandshakeError> {
        tcp.set_nodelay(true).map_err(HandshakeError::Broken)?;
        let connector = TlsConnector::from(Arc::clone(&self.state.load().config));
        let address = tcp.peer_addr().map_err(HandshakeError::Broken)?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = timeout(HANDSHAKE_TIMEOUT, connector.connect(name, tcp))
            .await
            .map_err(|_| HandshakeError::TimedOut)?
            .map_err(HandshakeError::from_io)?;
        TlsConnection::new(stream.into(), &self.trust_domains)
    }
}

impl Reload for ClientTls {
    fn reload(&self) -> Result<bool, LoadError> {
        Self::reload(self)
    }

    fn ends(&self) -> Ends {
        self.state.load().ends
    }
}

fn build(
    contents: Contents,
    trust_domains: &TrustDomains,
    expected_server: &SpiffePattern,
    clock: &Arc<dyn Clock>,
) -> Result<(Option<SpiffeId>, Ends, Arc<ClientConfig>), LoadError> {
    let material = Material::parse(contents, trust_domains, clock.as_ref())?;
    let (crypto, ends) = (crypto(), material.ends);
    let verifier = PeerVerifier {
        authorities: material.authorities,
        trust_domains: trust_domains.clone(),
        expected: Some(expected_server.clone()),
        algorithms: crypto.signature_verification_algorithms,
    };
    let time = Arc::new(ClockTime(Arc::clone(clock)));
    let mut config = ClientConfig::builder_with_details(crypto, time)
        .with_protocol_versions(VERSIONS)
        .and_then(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_client_auth_cert(material.chain, material.key)
        })
        .map_err(LoadError::Unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok((material.own, ends, Arc::new(config)))
}
