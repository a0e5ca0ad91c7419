use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mtls::{HandshakeError, Refusal, ServerTls, SvidError, TlsConnection, TlsFiles};
use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::{
    HandshakeKind, NamedGroup, ServerConfig,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{
    pki::{Authority, NOW, Pki, leaf},
    raw::{self, Tickets},
};

pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// What the server makes of a peer that presents a certificate; the peer itself checks nothing.
async fn accept(
    server: &ServerTls,
    files: Option<&TlsFiles>,
) -> Result<TlsConnection, HandshakeError> {
    let (client, accepted) = pair().await;
    let connector = TlsConnector::from(Arc::new(raw::client(files, &[&TLS13])));
    let name = ServerName::try_from("broker").unwrap();
    // Who is refused is waited for until it has gone.
    let peer = async { drop(connector.connect(name, client).await) };
    tokio::join!(server.accept(accepted), peer).0
}

async fn refused(server: &ServerTls, files: Option<&TlsFiles>) -> HandshakeError {
    accept(server, files).await.err().unwrap()
}

#[track_caller]
fn assert_refusal(error: &HandshakeError, expected: &Refusal) {
    assert!(matches!(error, HandshakeError::Refused(refusal) if refusal == expected), "{error:?}");
}

#[tokio::test]
async fn both_ends_learn_who_the_other_is() {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    let client = pki.client(pki.good("inference-proxy")).unwrap();
    let (ours, theirs) = pair().await;

    let (accepted, connected) = tokio::join!(server.accept(theirs), client.connect(ours));
    let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());

    assert_eq!(accepted.identity().spiffe_id.as_str(), "spiffe://acme.internal/inference-proxy");
    assert_eq!(connected.identity().spiffe_id.as_str(), "spiffe://acme.internal/broker");
    let not_after = i64::try_from((NOW + 3600) * 1000).unwrap();
    assert_eq!(accepted.identity().not_after.as_millis(), not_after);
    assert_eq!(accepted.key_exchange_group(), Some(NamedGroup::X25519MLKEM768));
    connected.write_all(b"ping").await.unwrap();
    connected.flush().await.unwrap();
    let mut bytes = [0; 4];
    accepted.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping");
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    assert!(matches!(refused(&server, None).await, HandshakeError::NoCertificate));
    // The control: the same client with a certificate gets in.
    assert!(accept(&server, Some(&pki.good("proxy"))).await.is_ok());
}

#[tokio::test]
async fn a_stranger_of_the_same_name_is_refused() {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    for name in ["ours", "theirs"] {
        let stranger = Authority::new(name);
        let files = pki.issue_by(&stranger, "stranger", &leaf("spiffe://acme.internal/proxy"));
        assert_refusal(&refused(&server, Some(&files)).await, &Refusal::UnknownIssuer);
    }
}

#[tokio::test]
async fn certificates_are_good_in_their_time_only() {
    let pki = Pki::new();
    let mut server = leaf("spiffe://acme.internal/broker");
    server.not_after += Duration::from_hours(24);
    let server = pki.server(pki.issue("broker", &server)).unwrap();
    let mut early = leaf("spiffe://acme.internal/early");
    early.not_before += Duration::from_secs(61);
    let early = pki.issue("early", &early);
    assert_refusal(&refused(&server, Some(&early)).await, &Refusal::NotYetValid);

    let proxy = pki.good("proxy");
    assert!(accept(&server, Some(&proxy)).await.is_ok());
    pki.clock.advance(Duration::from_secs(3601));
    assert_refusal(&refused(&server, Some(&proxy)).await, &Refusal::Expired);
}

#[tokio::test]
async fn each_rule_for_identities_refuses() {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let base = || leaf("spiffe://acme.internal/proxy");

    let mut two = base();
    two.subject_alt_names.push(uri("spiffe://acme.internal/admin"));
    let mut none = base();
    none.subject_alt_names = vec![SanType::DnsName("proxy".try_into().unwrap())];
    let mut signs = base();
    signs.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let mut signs_lists = base();
    signs_lists.key_usages.push(KeyUsagePurpose::CrlSign);
    let mut encrypts = base();
    encrypts.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    let mut anything = base();
    anything.key_usages = Vec::new();
    let mut authority = base();
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let cases = [
        (two, SvidError::UriCount(2)),
        (none, SvidError::UriCount(0)),
        (signs, SvidError::SigningUsage),
        (signs_lists, SvidError::SigningUsage),
        (encrypts, SvidError::NoSignatureUsage),
        (anything, SvidError::NoSignatureUsage),
        (authority, SvidError::Authority),
        (leaf("spiffe://evil.example/proxy"), SvidError::ForeignTrustDomain),
        (leaf("spiffe://acme.internal.evil.example/proxy"), SvidError::ForeignTrustDomain),
    ];
    for (params, expected) in cases {
        let files = pki.issue("case", &params);
        assert_refusal(&refused(&server, Some(&files)).await, &Refusal::Svid(expected));
    }
    for id in
        ["https://acme.internal/proxy", "spiffe://acme.internal", "spiffe://acme.internal/a/../b"]
    {
        let error = refused(&server, Some(&pki.issue("case", &leaf(id)))).await;
        let invalid =
            matches!(error, HandshakeError::Refused(Refusal::Svid(SvidError::InvalidId(_))));
        assert!(invalid, "{id}: {error:?}");
    }
}

#[tokio::test]
async fn a_certificate_for_servers_only_does_not_make_a_client() {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    let mut params = leaf("spiffe://acme.internal/proxy");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let error = refused(&server, Some(&pki.issue("server-only", &params))).await;
    assert!(matches!(error, HandshakeError::Refused(Refusal::Invalid(_))), "{error:?}");
}

#[tokio::test]
async fn the_client_refuses_servers_it_did_not_mean_to_reach() {
    let pki = Pki::new();
    let client = pki.client(pki.good("inference-proxy")).unwrap();
    for name in ["other", "broker/1", "inference-proxy"] {
        let server = pki.server(pki.good(name)).unwrap();
        let (ours, theirs) = pair().await;
        let (accepted, connected) = tokio::join!(server.accept(theirs), client.connect(ours));
        assert_refusal(&connected.err().unwrap(), &Refusal::Svid(SvidError::Unexpected));
        assert!(matches!(accepted.err().unwrap(), HandshakeError::RefusedByPeer(_)));
    }
    let stranger = Authority::new("ours");
    let files = pki.issue_by(&stranger, "stranger", &leaf("spiffe://acme.internal/broker"));
    let server = pki.server(files).unwrap();
    let (ours, theirs) = pair().await;
    let (_, connected) = tokio::join!(server.accept(theirs), client.connect(ours));
    assert_refusal(&connected.err().unwrap(), &Refusal::UnknownIssuer);
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    let files = pki.good("proxy");
    for (versions, spoken) in [(&[&TLS12][..], false), (&[&TLS12, &TLS13][..], true)] {
        let (client, accepted) = pair().await;
        let connector = TlsConnector::from(Arc::new(raw::client(Some(&files), versions)));
        let name = ServerName::try_from("broker").unwrap();
        let (outcome, _) = tokio::join!(server.accept(accepted), connector.connect(name, client));
        match outcome {
            Ok(_) => assert!(spoken),
            Err(error) => {
                assert!(!spoken && matches!(error, HandshakeError::Protocol(_)), "{error:?}");
            }
        }
    }
}

/// Two connections by one client; how the second began, and how many tickets it was given.
async fn connect_twice(acceptor: &TlsAcceptor, files: &TlsFiles) -> (HandshakeKind, usize) {
    let mut config = raw::client(Some(files), &[&TLS13]);
    let tickets = Tickets::counted(&mut config);
    let connector = TlsConnector::from(Arc::new(config));
    let mut kind = None;
    for _ in 0..2 {
        let (ours, theirs) = pair().await;
        let name = ServerName::try_from("broker").unwrap();
        let (accepted, connected) =
            tokio::join!(acceptor.accept(theirs), connector.connect(name, ours));
        let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
        // Tickets come after the handshake, before what is written here.
        accepted.write_all(b"x").await.unwrap();
        accepted.flush().await.unwrap();
        assert_eq!(connected.read_u8().await.unwrap(), b'x');
        kind = connected.get_ref().1.handshake_kind();
    }
    (kind.unwrap(), tickets.seen.load(Ordering::SeqCst))
}

#[tokio::test]
async fn sessions_are_not_resumed() {
    let pki = Pki::new();
    let (files, broker) = (pki.good("proxy"), pki.good("broker"));
    let ours = pki.server(broker.clone()).unwrap().acceptor();
    assert_eq!(connect_twice(&ours, &files).await, (HandshakeKind::Full, 0));

    // The control: the same client resumes with a server that lets it.
    let chain = CertificateDer::pem_file_iter(&broker.certificate).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(&broker.key).unwrap(),
        )
        .unwrap();
    let lenient = TlsAcceptor::from(Arc::new(config));
    let (kind, tickets) = connect_twice(&lenient, &files).await;
    assert_eq!(kind, HandshakeKind::Resumed);
    assert!(tickets > 0);
}

#[tokio::test]
async fn revoked_certificates_are_refused_and_their_connections_found() {
    let pki = Pki::new();
    let mut params = leaf("spiffe://acme.internal/proxy");
    params.serial_number = Some(7.into());
    let proxy = pki.issue("proxy", &params);
    let mut broker = pki.good("broker");
    broker.crl = Some(pki.path("crl.pem"));
    fs::write(pki.path("crl.pem"), pki.authority.revoke(&[6], NOW + 60)).unwrap();
    let server = pki.server(broker).unwrap();
    let open = accept(&server, Some(&proxy)).await.unwrap();
    assert_eq!(server.recheck(open.identity()), Ok(()));

    fs::write(pki.path("crl.pem"), pki.authority.revoke(&[6, 7], NOW + 60)).unwrap();
    assert!(server.reload().unwrap());
    assert_refusal(&refused(&server, Some(&proxy)).await, &Refusal::Revoked);
    assert_eq!(server.recheck(open.identity()), Err(Refusal::Revoked));
    let other = accept(&server, Some(&pki.good("other"))).await.unwrap();
    assert_eq!(server.recheck(other.identity()), Ok(()));

    // An issuer with the same serial number is another one.
    let stranger = Authority::new("theirs");
    fs::write(pki.path("crl.pem"), stranger.revoke(&[7], NOW + 60)).unwrap();
    assert!(server.reload().unwrap());
    assert_eq!(server.recheck(open.identity()), Ok(()));
    // Nothing is known about ours now, and that is not good enough for a handshake.
    assert_refusal(&refused(&server, Some(&proxy)).await, &Refusal::RevocationUnknown);
}

#[tokio::test]
async fn an_out_of_date_revocation_list_lets_nobody_in() {
    let pki = Pki::new();
    let mut broker = pki.good("broker");
    broker.crl = Some(pki.path("crl.pem"));
    fs::write(pki.path("crl.pem"), pki.authority.revoke(&[], NOW + 60)).unwrap();
    let server = pki.server(broker).unwrap();
    let proxy = pki.good("proxy");
    assert!(accept(&server, Some(&proxy)).await.is_ok());
    pki.clock.advance(Duration::from_secs(61));
    assert_refusal(&refused(&server, Some(&proxy)).await, &Refusal::RevocationUnknown);
}

#[tokio::test]
async fn an_open_connection_is_noticed_to_outlive_its_certificate() {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    let open = accept(&server, Some(&pki.good("proxy"))).await.unwrap();
    assert_eq!(server.recheck(open.identity()), Ok(()));
    pki.clock.advance(Duration::from_hours(1));
    assert_eq!(server.recheck(open.identity()), Err(Refusal::Expired));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up() {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    let (_silent, accepted) = pair().await;
    assert!(matches!(server.accept(accepted).await, Err(HandshakeError::TimedOut)));
}
