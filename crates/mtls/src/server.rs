use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use domain::Clock;
use rustls::{ServerConfig, server::NoServerSessionStorage, time_provider::TimeProvider as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use webpki::KeyUsage;

use crate::{
    HandshakeError, Identity, LoadError, Refusal, SvidError, TlsConnection, TlsSource,
    TrustDomains,
    material::{Ends, Material, Revoked},
    open::{Open, Peer},
    provider::{ALPN, ClockTime, HTTP_ALPN, VERSIONS, crypto},
    reload::{self, Reload},
    source::{Contents, Opened},
    verifier::PeerVerifier,
};

/// The accepting end. Each handshake uses the files as last loaded.
#[derive(Debug)]
pub struct ServerTls {
    source: Opened,
    trust_domains: TrustDomains,
    clock: Arc<dyn Clock>,
    protocols: &'static [&'static [u8]],
    state: ArcSwap<State>,
    open: Arc<Open>,
}

#[derive(Debug)]
struct State {
    fingerprint: [u8; 32],
    config: Arc<ServerConfig>,
    verifier: Arc<PeerVerifier>,
    revoked: Revoked,
    ends: Ends,
}

impl ServerTls {
    /// Opens the source and loads what it says, or says why that cannot be used. For gRPC: HTTP/2 alone
    /// is negotiated.
    pub fn load(
        source: impl Into<TlsSource>,
        trust_domains: TrustDomains,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, LoadError> {
        Self::load_for(source.into(), trust_domains, clock, &[ALPN])
    }

    /// As [`ServerTls::load`], for a listener that speaks HTTP/1.1 too.
    pub fn load_for_http(
        source: impl Into<TlsSource>,
        trust_domains: TrustDomains,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, LoadError> {
        Self::load_for(source.into(), trust_domains, clock, HTTP_ALPN)
    }

    fn load_for(
        source: TlsSource,
        trust_domains: TrustDomains,
        clock: Arc<dyn Clock>,
        protocols: &'static [&'static [u8]],
    ) -> Result<Arc<Self>, LoadError> {
        let source = source.open()?;
        let state = State::build(source.read(&trust_domains)?, &trust_domains, &clock, protocols)?;
        let state = ArcSwap::from_pointee(state);
        let open = Arc::default();
        Ok(Arc::new(Self { source, trust_domains, clock, protocols, state, open }))
    }

    /// Loads the files again; true when they had changed. A failure leaves the last good ones in
    /// force. Connections whose peer would no longer be accepted are ended, those of handshakes under
    /// way among them; a list that is out of date refuses handshakes and ends nothing.
    pub fn reload(&self) -> Result<bool, LoadError> {
        let changed = self.load_changed();
        if matches!(changed, Ok(true)) {
            self.open.end(|peer| self.judge(peer));
        } else {
            // Certificates end without a change of files, too.
            self.open.end(|peer| self.recheck(&peer.identity));
        }
        changed
    }

    fn load_changed(&self) -> Result<bool, LoadError> {
        let contents = self.source.read(&self.trust_domains)?;
        if contents.fingerprint() == self.state.load().fingerprint {
            return Ok(false);
        }
        let (domains, protocols) = (&self.trust_domains, self.protocols);
        let state = State::build(contents, domains, &self.clock, protocols)?;
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

    /// Brings a connection up, in five seconds at most, with a peer whose certificate is accepted. One that is
    /// refused has a second more to read why.
    pub async fn accept(&self, tcp: TcpStream) -> Result<TlsConnection, HandshakeError> {
        match self.shake_hands(tcp).await {
            Ok(connection) => Ok(connection),
            Err(failed) => Err(failed.say_goodbye().await),
        }
    }

    /// As [`Self::accept`], and leaves it to the caller to let a peer read why it is refused.
    pub(crate) async fn shake_hands(&self, tcp: TcpStream) -> Result<TlsConnection, Failed> {
        tcp.set_nodelay(true).map_err(HandshakeError::Broken)?;
        let state = self.state.load_full();
        let acceptor = TlsAcceptor::from(Arc::clone(&state.config));
        let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp).into_fallible())
            .await
            .map_err(|_| HandshakeError::TimedOut)?
            .map_err(|(error, tcp)| Failed {
                error: HandshakeError::from_io(error),
                tcp: Some(tcp),
            })?;
        let connection = TlsConnection::new(stream.into(), &self.trust_domains)?;
        let connection = connection.entered(&self.open);
        // Entered first: a reload from here on sees it, and one of before is made up for.
        if !Arc::ptr_eq(&state, &self.state.load()) {
            self.judge(connection.peer()).map_err(HandshakeError::Refused)?;
        }
        Ok(connection)
    }

    /// Whether a peer would be accepted by the files as last loaded, but for a list that is out of
    /// date: it refuses handshakes, and breaking off what is in hand would make its end an outage.
    fn judge(&self, peer: &Peer) -> Result<(), Refusal> {
        self.recheck(&peer.identity)?;
        let Some((leaf, intermediates)) = peer.chain.split_first() else { return Ok(()) };
        let now = ClockTime(Arc::clone(&self.clock)).current_time();
        let now = now.ok_or(Refusal::NotYetValid)?;
        let verifier = Arc::clone(&self.state.load().verifier);
        match verifier.judge(leaf, intermediates, now, KeyUsage::client_auth()) {
            Ok(()) | Err(Refusal::RevocationUnknown) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Whether an identity would still be accepted: not past its end, and not named by the revocation
    /// list as last loaded. Asked on each request: it costs next to nothing, and is right between two
    /// looks at the files, too.
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

    fn ends(&self) -> Ends {
        self.state.load().ends
    }
}

impl State {
    fn build(
        contents: Contents,
        trust_domains: &TrustDomains,
        clock: &Arc<dyn Clock>,
        protocols: &[&[u8]],
    ) -> Result<Self, LoadError> {
        let fingerprint = contents.fingerprint();
        let material = Material::parse(contents, trust_domains, clock.as_ref())?;
        let crypto = crypto();
        let verifier = Arc::new(PeerVerifier {
            authorities: material.authorities,
            trust_domains: trust_domains.clone(),
            expected: None,
            algorithms: crypto.signature_verification_algorithms,
        });
        let time = Arc::new(ClockTime(Arc::clone(clock)));
        let mut config = ServerConfig::builder_with_details(crypto, time)
            .with_protocol_versions(VERSIONS)
            .and_then(|builder| {
                builder
                    .with_client_cert_verifier(Arc::<PeerVerifier>::clone(&verifier))
                    .with_single_cert(material.chain, material.key)
            })
            .map_err(LoadError::Unusable)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // A resumed session skips the certificate, and with it every decision taken since.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        let (revoked, ends) = (material.revoked, material.ends);
        Ok(Self { fingerprint, config: Arc::new(config), verifier, revoked, ends })
    }
}

/// A handshake that failed, and the connection if it is there still.
pub(crate) struct Failed {
    pub(crate) error: HandshakeError,
    tcp: Option<TcpStream>,
}

impl From<HandshakeError> for Failed {
    fn from(error: HandshakeError) -> Self {
        Self { error, tcp: None }
    }
}

impl Failed {
    /// Closes the connection so that the peer can read why: one that is closed while something of it has
    /// not been read is reset, and takes the alert with it.
    pub(crate) async fn say_goodbye(self) -> HandshakeError {
        if let Some(mut tcp) = self.tcp
            // A peer that has gone already needs no word.
            && tcp.shutdown().await.is_ok()
        {
            let mut rest = [0; 1024];
            let gone = async { while matches!(tcp.read(&mut rest).await, Ok(1..)) {} };
            let _ = timeout(GOODBYE, gone).await;
        }
        self.error
    }
}

const GOODBYE: Duration = Duration::from_secs(1);

pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
