use std::{fs, io, pin::pin, sync::Arc, sync::atomic::Ordering, time::Duration};

use futures_util::FutureExt;
use mtls::{HandshakeError, Refusal, ServerTls, TlsConnection, TlsFiles};
use rcgen::CertificateParams;
use rustls::version::TLS13;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    handshake::pair,
    pki::{Authority, NOW, Pki, leaf},
    raw::{self, Tickets},
};

/// Far less than a connection lasts by itself. A revocation takes a look at the files, each half second,
/// where the machine does nothing else.
const BOUND: Duration = Duration::from_secs(20);

/// How often the broker looks at its files.
const PACE: Duration = Duration::from_millis(500);

/// Both ends of one connection.
struct Ends {
    server: TlsConnection,
    client: TlsConnection,
}

impl Ends {
    async fn open(pki: &Pki, server: &ServerTls, files: &TlsFiles) -> Self {
        let client = pki.client(files.clone()).unwrap();
        let (ours, theirs) = pair().await;
        let (server, client) = tokio::join!(server.accept(theirs), client.connect(ours));
        Self { server: server.unwrap(), client: client.unwrap() }
    }

    /// Nothing is in the way of a byte from one end to the other.
    async fn is_open(&mut self) -> bool {
        self.client.write_all(b"x").await.unwrap();
        self.client.flush().await.unwrap();
        matches!(timeout(BOUND, self.server.read_u8()).await.unwrap(), Ok(b'x'))
    }

    /// The error that the waiting server is woken with, and then what the client reads.
    async fn ends(mut self) -> (io::Error, io::Result<u8>) {
        let woken = timeout(BOUND, self.server.read_u8()).await.unwrap().unwrap_err();
        assert!(self.server.write_all(b"x").await.is_err(), "nothing goes out on it either");
        drop(self.server);
        (woken, timeout(BOUND, self.client.read_u8()).await.unwrap())
    }
}

fn refusal(error: &io::Error) -> Option<&Refusal> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn numbered(pki: &Pki, name: &str, serial: u64) -> TlsFiles {
    let mut params: CertificateParams = leaf(&format!("spiffe://acme.internal/{name}"));
    params.serial_number = Some(serial.into());
    pki.issue(name, &params)
}

/// A server that looks at a revocation list, and at whose open connections a test looks.
fn listing(pki: &Pki, revoked: &[u64]) -> Arc<ServerTls> {
    let mut files = pki.good("broker");
    files.crl = Some(pki.path("crl.pem"));
    fs::write(pki.path("crl.pem"), pki.authority.revoke(revoked, NOW + 60)).unwrap();
    pki.server(files).unwrap()
}

#[tokio::test]
async fn a_revoked_certificate_ends_its_connections_and_no_others() {
    let pki = Pki::new();
    let server = listing(&pki, &[]);
    let (proxy, other) = (numbered(&pki, "proxy", 7), numbered(&pki, "other", 8));
    let mut revoked = Ends::open(&pki, &server, &proxy).await;
    let again = Ends::open(&pki, &server, &proxy).await;
    let mut kept = Ends::open(&pki, &server, &other).await;
    assert!(revoked.is_open().await);
    let mut watching = JoinSet::new();
    watching.spawn(Arc::clone(&server).watch(PACE));

    fs::write(pki.path("crl.pem"), pki.authority.revoke(&[7], NOW + 60)).unwrap();
    let ended = Box::pin(timeout(BOUND, async { tokio::join!(revoked.ends(), again.ends()) }));
    let ((first, at_client), (second, _)) = ended.await.unwrap();
    assert_eq!(refusal(&first), Some(&Refusal::Revoked));
    assert_eq!(refusal(&second), Some(&Refusal::Revoked));
    assert!(at_client.is_err());
    assert!(kept.is_open().await);
}

#[tokio::test]
async fn a_revoked_client_cannot_resume() {
    let pki = Pki::new();
    let server = listing(&pki, &[]);
    let proxy = numbered(&pki, "proxy", 7);
    let mut config = raw::client(Some(&proxy), &[&TLS13]);
    let tickets = Tickets::counted(&mut config);
    let connector = TlsConnector::from(Arc::new(config));
    let connect = async || {
        let (ours, theirs) = pair().await;
        let name = ServerName::try_from("broker").unwrap();
        let (accepted, client) = tokio::join!(server.accept(theirs), connector.connect(name, ours));
        // The client's end stays until the server has judged.
        accepted.map(|connection| (connection, client.unwrap()))
    };
    // What a ticket would come in is read by the client here.
    let (mut accepted, mut client) = connect().await.unwrap();
    accepted.write_all(b"x").await.unwrap();
    accepted.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'x');
    assert_eq!(tickets.seen.load(Ordering::SeqCst), 0);

    fs::write(pki.path("crl.pem"), pki.authority.revoke(&[7], NOW + 60)).unwrap();
    assert!(server.reload().unwrap());
    let refused = connect().await.map(drop).unwrap_err();
    assert!(matches!(refused, HandshakeError::Refused(Refusal::Revoked)), "{refused:?}");
}

#[tokio::test]
async fn a_handshake_that_a_revocation_overtook_is_refused() {
    let pki = Pki::new();
    let server = listing(&pki, &[]);
    for (revoked, refused) in [(&[][..], false), (&[7][..], true)] {
        let client = pki.client(numbered(&pki, "proxy", 7)).unwrap();
        let (ours, theirs) = pair().await;
        let mut accepting = pin!(server.accept(theirs));
        assert!(accepting.as_mut().now_or_never().is_none(), "it waits for the client");
        fs::write(pki.path("crl.pem"), pki.authority.revoke(revoked, NOW + 61)).unwrap();
        assert!(server.reload().unwrap());
        let (accepted, _) = tokio::join!(accepting, client.connect(ours));
        let revoked = matches!(accepted, Err(HandshakeError::Refused(Refusal::Revoked)));
        assert_eq!(revoked, refused, "{accepted:?}");
        assert_eq!(accepted.is_ok(), !refused);
    }
}

#[tokio::test]
async fn a_removed_authority_and_an_end_by_time_end_connections_too() {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    let removed = Ends::open(&pki, &server, &pki.good("proxy")).await;
    fs::write(pki.path("ca.pem"), Authority::new("ours").pem).unwrap();
    assert!(server.reload().unwrap());
    assert_eq!(refusal(&removed.ends().await.0), Some(&Refusal::UnknownIssuer));

    fs::write(pki.path("ca.pem"), &pki.authority.pem).unwrap();
    assert!(server.reload().unwrap());
    let mut expired = Ends::open(&pki, &server, &pki.good("proxy")).await;
    assert!(!server.reload().unwrap());
    assert!(expired.is_open().await);
    pki.clock.advance(Duration::from_hours(1));
    assert!(!server.reload().unwrap(), "no file has changed");
    assert_eq!(refusal(&expired.ends().await.0), Some(&Refusal::Expired));
}

#[tokio::test]
async fn a_list_that_is_out_of_date_ends_no_connection() {
    let pki = Pki::new();
    let server = listing(&pki, &[]);
    let proxy = numbered(&pki, "proxy", 7);
    let mut open = Ends::open(&pki, &server, &proxy).await;
    pki.clock.advance(Duration::from_secs(61));
    fs::write(pki.path("crl.pem"), pki.authority.revoke(&[8], NOW + 60)).unwrap();
    assert!(server.reload().unwrap());
    let client = pki.client(proxy).unwrap();
    let (ours, theirs) = pair().await;
    let (accepted, _) = tokio::join!(server.accept(theirs), client.connect(ours));
    let refused = accepted.unwrap_err();
    assert!(matches!(refused, HandshakeError::Refused(Refusal::RevocationUnknown)));
    assert!(open.is_open().await);

    // One that names it does, however old.
    fs::write(pki.path("crl.pem"), pki.authority.revoke(&[7], NOW + 60)).unwrap();
    assert!(server.reload().unwrap());
    assert_eq!(refusal(&open.ends().await.0), Some(&Refusal::Revoked));
}

#[tokio::test]
async fn a_list_that_cannot_be_read_leaves_the_last_in_force_until_its_end() {
    let pki = Pki::new();
    let server = listing(&pki, &[7]);
    let connect = async |files: TlsFiles| {
        let client = pki.client(files).unwrap();
        let (ours, theirs) = pair().await;
        let (accepted, _) = tokio::join!(server.accept(theirs), client.connect(ours));
        accepted.map(drop).map_err(|error| error.reason())
    };
    for broken in [&b"not a list"[..], b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"]
    {
        fs::write(pki.path("crl.pem"), broken).unwrap();
        assert!(server.reload().is_err());
        assert_eq!(connect(numbered(&pki, "proxy", 7)).await, Err("revoked"));
        assert_eq!(connect(numbered(&pki, "other", 8)).await, Ok(()));
    }
    pki.clock.advance(Duration::from_secs(61));
    assert_eq!(connect(numbered(&pki, "other", 8)).await, Err("revocation_unknown"));
}
