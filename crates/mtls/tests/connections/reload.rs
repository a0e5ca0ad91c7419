use std::{fs, os::unix::fs::PermissionsExt, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use mtls::{ClientTls, HandshakeError, Limits, LoadError, Refusal, ServerTls, SvidError, incoming};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use crate::pki::{Authority, Pki, domains, leaf, write_private};

async fn handshake(
    server: &ServerTls,
    client: &ClientTls,
) -> (Result<String, HandshakeError>, Result<String, HandshakeError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (accepted, connected) =
        tokio::join!(server.accept(theirs.unwrap().0), client.connect(ours.unwrap()));
    let name = |connection: mtls::TlsConnection| connection.identity().spiffe_id.to_string();
    (accepted.map(name), connected.map(name))
}

#[test]
fn a_key_that_others_can_reach_is_refused() {
    let pki = Pki::new();
    let files = pki.good("broker");
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        let error = pki.server(files.clone()).unwrap_err();
        assert!(matches!(error, LoadError::KeyExposed(path) if path == files.key), "{mode:o}");
    }
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(pki.server(files).is_ok());
}

#[test]
fn files_that_cannot_work_are_refused_at_the_start() {
    let pki = Pki::new();
    let (broker, proxy) = (pki.good("broker"), pki.good("proxy"));

    let mut other_key = broker.clone();
    other_key.key = proxy.key;
    assert!(matches!(pki.server(other_key), Err(LoadError::Unusable(_))));

    let mut missing = broker.clone();
    missing.ca = pki.path("missing.pem").into();
    assert!(matches!(pki.server(missing), Err(LoadError::Unreadable { .. })));

    let mut empty = broker.clone();
    empty.crl = Some(pki.path("empty.pem"));
    fs::write(pki.path("empty.pem"), "").unwrap();
    assert!(matches!(pki.server(empty), Err(LoadError::Malformed { .. })));

    let foreign = pki.issue("foreign", &leaf("spiffe://evil.example/broker"));
    let error = pki.server(foreign).unwrap_err();
    assert!(matches!(error, LoadError::NotAnIdentity(SvidError::ForeignTrustDomain)));

    pki.clock.advance(Duration::from_hours(1));
    assert!(matches!(pki.server(broker), Err(LoadError::Expired)));
}

#[tokio::test]
async fn unusable_files_leave_the_last_good_ones_in_force() {
    let pki = Pki::new();
    let files = pki.good("broker");
    let server = pki.server(files.clone()).unwrap();
    let client = pki.client(pki.good("proxy")).unwrap();
    assert!(!server.reload().unwrap());

    let good = fs::read(&files.certificate).unwrap();
    for bad in [&b""[..], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(&files.certificate, bad).unwrap();
        assert!(server.reload().is_err());
        assert!(handshake(&server, &client).await.0.is_ok());
    }
    // The certificate comes before its key, as when two files are copied one after the other.
    let new = pki.issue("new", &leaf("spiffe://acme.internal/broker"));
    fs::copy(&new.certificate, &files.certificate).unwrap();
    assert!(matches!(server.reload(), Err(LoadError::Unusable(_))));
    write_private(&files.key, &fs::read_to_string(&new.key).unwrap());
    assert!(server.reload().unwrap());
    assert_ne!(fs::read(&files.certificate).unwrap(), good);
    assert!(handshake(&server, &client).await.0.is_ok());
}

#[tokio::test]
async fn a_removed_authority_is_trusted_no_longer_on_either_end() {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    let client = pki.client(pki.good("proxy")).unwrap();
    assert!(handshake(&server, &client).await.0.is_ok());

    fs::write(pki.path("ca.pem"), Authority::new("ours").pem).unwrap();
    assert!(client.reload().unwrap());
    let (_, connected) = handshake(&server, &client).await;
    assert!(matches!(connected, Err(HandshakeError::Refused(Refusal::UnknownIssuer))));

    fs::write(pki.path("ca.pem"), &pki.authority.pem).unwrap();
    assert!(client.reload().unwrap());
    fs::write(pki.path("ca.pem"), Authority::new("ours").pem).unwrap();
    assert!(server.reload().unwrap());
    let (accepted, _) = handshake(&server, &client).await;
    assert!(matches!(accepted, Err(HandshakeError::Refused(Refusal::UnknownIssuer))));
}

#[tokio::test]
async fn the_watcher_takes_changed_files_over() {
    let pki = Pki::new();
    let files = pki.good("broker");
    let server = ServerTls::load(files.clone(), domains(&["acme.internal"]), pki.clock());
    let server = server.unwrap();
    let client = ClientTls::load(
        pki.good("proxy"),
        domains(&["acme.internal"]),
        "spiffe://acme.internal/b/*".parse().unwrap(),
        pki.clock(),
    )
    .unwrap();
    let mut watcher = JoinSet::new();
    watcher.spawn(Arc::clone(&server).watch(Duration::from_millis(1)));
    let new = pki.issue("new", &leaf("spiffe://acme.internal/b/2"));
    write_private(&files.key, &fs::read_to_string(&new.key).unwrap());
    fs::copy(&new.certificate, &files.certificate).unwrap();
    let name = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let (_, Ok(name)) = handshake(&server, &client).await {
                return name;
            }
        }
    });
    assert_eq!(name.await.unwrap(), "spiffe://acme.internal/b/2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloading_under_load_fails_no_connection() {
    let pki = Pki::new();
    let files = pki.good("broker");
    let server = pki.server(files.clone()).unwrap();
    let client = pki.client(pki.good("proxy")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let connections = incoming(listener, Arc::clone(&server), Limits::default(), shutdown);

    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = pin!(connections);
        let mut count = 0;
        while let Some(connection) = connections.next().await {
            let mut connection = connection.unwrap();
            connection.write_all(b"x").await.unwrap();
            connection.flush().await.unwrap();
            count += 1;
        }
        count
    });
    let mut calling = JoinSet::new();
    for _ in 0..4 {
        let client = Arc::clone(&client);
        calling.spawn(async move {
            for _ in 0..25 {
                let tcp = TcpStream::connect(address).await.unwrap();
                let mut connection = client.connect(tcp).await.unwrap();
                assert_eq!(connection.read_u8().await.unwrap(), b'x');
            }
        });
    }
    for _ in 0..20 {
        let new = pki.issue("new", &leaf("spiffe://acme.internal/broker"));
        write_private(&files.key, &fs::read_to_string(&new.key).unwrap());
        fs::copy(&new.certificate, &files.certificate).unwrap();
        assert!(server.reload().unwrap());
        assert!(!client.reload().unwrap());
        tokio::task::yield_now().await;
    }
    while let Some(called) = calling.join_next().await {
        called.unwrap();
    }
    stop.send(()).unwrap();
    assert_eq!(serving.join_next().await.unwrap().unwrap(), 100);
}
