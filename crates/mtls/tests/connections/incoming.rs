use std::{future, net::SocketAddr, pin::pin, sync::Arc};

use futures_util::{FutureExt, StreamExt};
use mtls::{ClientTls, Limits, ServerTls, TlsConnection, incoming};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use crate::pki::Pki;

struct Ends {
    server: Arc<ServerTls>,
    client: Arc<ClientTls>,
    listener: TcpListener,
    address: SocketAddr,
}

async fn ends() -> Ends {
    let pki = Pki::new();
    let server = pki.server(pki.good("broker")).unwrap();
    let client = pki.client(pki.good("proxy")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    Ends { server, client, listener, address }
}

async fn connect(client: &ClientTls, address: SocketAddr) -> TlsConnection {
    client.connect(TcpStream::connect(address).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_silent_peer_holds_nobody_up() {
    let Ends { server, client, listener, address } = ends().await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut stream = pin!(incoming(listener, server, Limits::default(), future::pending()));
    let (connection, _) = tokio::join!(stream.next(), connect(&client, address));
    let name = connection.unwrap().unwrap().identity().spiffe_id.to_string();
    assert_eq!(name, "spiffe://acme.internal/proxy");
}

#[tokio::test]
async fn a_connection_keeps_its_slot_until_it_is_dropped() {
    let Ends { server, client, listener, address } = ends().await;
    let limits = Limits { handshakes: 4, connections: 1 };
    let mut stream = pin!(incoming(listener, server, limits, future::pending()));
    let (first, _kept) = tokio::join!(stream.next(), connect(&client, address));

    let mut second = TcpStream::connect(address).await.unwrap();
    let refused = async { second.read(&mut [0]).await };
    tokio::select! {
        _ = stream.next() => panic!("there was one slot"),
        // A closed connection reads as its end, or as reset.
        read = refused => assert!(!matches!(read, Ok(1))),
    }

    drop(first);
    let (third, _) = tokio::join!(stream.next(), connect(&client, address));
    assert!(third.unwrap().is_ok());
}

#[tokio::test]
async fn a_refused_peer_is_not_part_of_the_stream() {
    let Ends { server, client, listener, address } = ends().await;
    let mut stream = pin!(incoming(listener, server, Limits::default(), future::pending()));
    let mut plain = TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    tokio::select! {
        _ = stream.next() => panic!("that was no TLS"),
        // The alert, then the end.
        read = async { plain.read_to_end(&mut Vec::new()).await } => drop(read),
    }
    let (connection, _) = tokio::join!(stream.next(), connect(&client, address));
    assert!(connection.unwrap().is_ok());
}

#[tokio::test]
async fn it_ends_at_shutdown() {
    let Ends { server, listener, .. } = ends().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let mut stream = pin!(incoming(listener, server, Limits::default(), shutdown));
    assert!(stream.next().now_or_never().is_none());
    stop.send(()).unwrap();
    assert!(stream.next().await.is_none());
}
