use std::{
    net::{Ipv6Addr, SocketAddrV6},
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use tokio::net::TcpListener;

use super::*;
use crate::client_tls;

/// Answers with one list after the other, and the last one ever after.
#[derive(Debug)]
struct Scripted {
    answers: Vec<Vec<SocketAddr>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Resolve for Scripted {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.answers[asked.min(self.answers.len() - 1)].clone())
    }
}

fn connector(
    origin: &str,
    allow: &[&str],
    answers: &[&[SocketAddr]],
) -> (Connector, Arc<Scripted>) {
    let resolver = Arc::new(Scripted {
        answers: answers.iter().map(|answer| answer.to_vec()).collect(),
        asked: AtomicUsize::new(0),
    });
    let exit = Exit {
        rules: AddressRules::new(allow.iter().map(|net| net.parse().unwrap()).collect())
            .with_danger_plain_http_to_loopback(true),
        resolver: Arc::clone(&resolver) as Arc<dyn Resolve>,
        tls: client_tls(None).unwrap(),
        connect_timeout: Duration::from_secs(5),
    };
    (Connector::new(Arc::new(exit), origin.parse().unwrap()), resolver)
}

async fn connect(connector: &Connector, url: &str) -> Result<(), &'static str> {
    let connected = connector.clone().connect(url.parse().unwrap()).await;
    connected.map(drop).map_err(|error| error.word())
}

#[tokio::test]
async fn only_the_leases_own_origin_is_called() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let origin = format!("http://{address}");
    let (connector, _) = connector(&origin, &["127.0.0.1/32"], &[&[address]]);
    assert_eq!(connect(&connector, &origin).await, Ok(()));
    for other in
        ["http://127.0.0.1:1", "https://127.0.0.1", "http://localhost", "http://u@127.0.0.1"]
    {
        assert_eq!(connect(&connector, other).await, Err("foreign_origin"), "{other}");
    }
}

#[tokio::test]
async fn private_addresses_are_not_called_however_they_are_written() {
    for origin in [
        "https://127.0.0.1",
        "https://10.0.0.1:8443",
        "https://169.254.169.254",
        "https://[::1]",
        "https://[::ffff:127.0.0.1]",
        "https://[fd00:ec2::254]",
        "https://[64:ff9b::a9fe:a9fe]",
        "https://0.0.0.0",
        "http://169.254.169.254",
    ] {
        let (connector, _) = connector(origin, &[], &[&[]]);
        assert_eq!(connect(&connector, origin).await, Err("blocked_address"), "{origin}");
    }
}

#[tokio::test]
async fn a_name_with_private_addresses_is_not_called() {
    for address in ["127.0.0.1:443", "10.1.2.3:443", "[::1]:443", "[64:ff9b::a00:1]:443"] {
        let answer = [address.parse().unwrap()];
        let (connector, _) = connector("https://evil.example", &[], &[&answer]);
        assert_eq!(connect(&connector, "https://evil.example").await, Err("blocked_address"));
    }
    for host in ["metadata.google.internal", "instance-data.ec2.internal"] {
        let origin = format!("https://{host}");
        let answer =
            ["169.254.169.254:443".parse().unwrap(), "[fd00:ec2::254]:443".parse().unwrap()];
        let (connector, _) = connector(&origin, &["0.0.0.0/0", "::/0"], &[&answer]);
        assert_eq!(connect(&connector, &origin).await, Err("blocked_address"));
    }
}

#[tokio::test]
async fn an_answer_that_changes_between_check_and_call_changes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = listener.local_addr().unwrap();
    let private = SocketAddr::new("10.0.0.1".parse().unwrap(), good.port());
    let origin = format!("http://rebind.example:{}", good.port());
    // The first answer is allowed; a second lookup would be told a private address.
    let (connector, resolver) = connector(&origin, &["127.0.0.1/32"], &[&[good], &[private]]);
    assert_eq!(connect(&connector, &origin).await, Ok(()));
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 1);
    assert_eq!(connect(&connector, &origin).await, Err("blocked_address"));
}

#[tokio::test]
async fn of_several_addresses_only_the_allowed_are_tried() {
    // Bound and not listening: nobody answers there, and nobody else can.
    let allowed = tokio::net::TcpSocket::new_v4().unwrap();
    allowed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let good = allowed.local_addr().unwrap();
    let private = TcpListener::bind(("127.0.0.2", good.port())).await.unwrap();
    let answer = [private.local_addr().unwrap(), good];
    let origin = format!("http://mixed.example:{}", good.port());
    let (connector, _) = connector(&origin, &["127.0.0.1/32"], &[&answer]);
    // Where the allowed one does not answer, the other still is not tried.
    assert_eq!(connect(&connector, &origin).await, Err("unreachable"));
    let _listener = allowed.listen(1).unwrap();
    assert_eq!(connect(&connector, &origin).await, Ok(()));
}

#[tokio::test]
async fn a_resolver_does_not_choose_the_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = listener.local_addr().unwrap();
    let (connector, _) = connector("http://moved.example:1", &["127.0.0.1/32"], &[&[other]]);
    assert_eq!(connect(&connector, "http://moved.example:1").await, Err("blocked_address"));
}

#[tokio::test]
async fn an_address_that_leads_nowhere_does_not_hold_up_the_next() {
    // A queue for one, which is full: further attempts are left without an answer.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.3:0".parse().unwrap()).unwrap();
    let silent = silent.listen(0).unwrap();
    let nowhere = silent.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(held_one) = timeout(Duration::from_millis(200), TcpStream::connect(nowhere)).await
    {
        held.push(held_one.unwrap());
    }
    let listener = TcpListener::bind(("127.0.0.1", nowhere.port())).await.unwrap();
    let good = listener.local_addr().unwrap();
    let origin = format!("http://slow.example:{}", good.port());
    let (connector, _) = connector(&origin, &["127.0.0.0/8"], &[&[nowhere, good]]);
    let within = Duration::from_secs(20);
    assert_eq!(timeout(within, connect(&connector, &origin)).await, Ok(Ok(())));
}

#[tokio::test]
async fn plain_http_goes_to_named_loopback_addresses_only() {
    let answer = ["8.8.8.8:80".parse().unwrap(), "10.1.2.3:80".parse().unwrap()];
    let (connector, _) =
        connector("http://plain.example", &["127.0.0.1/32", "10.0.0.0/8"], &[&answer]);
    assert_eq!(connect(&connector, "http://plain.example").await, Err("plain_http"));
}

#[tokio::test]
async fn a_service_does_not_call_its_own_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap();
    let origin = format!("http://{own}");
    let (connector, _) = connector(&origin, &["127.0.0.0/8"], &[&[own]]);
    connector.exit.rules.listening_on(own);
    assert_eq!(connect(&connector, &origin).await, Err("blocked_address"));
}

#[tokio::test]
async fn a_connection_that_leads_back_here_is_not_used() {
    for dialled in ["127.0.0.1", "127.0.0.2"] {
        let listener = TcpListener::bind((dialled, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let origin = format!("http://{address}");
        let (connector, _) = connector(&origin, &["127.0.0.0/8"], &[&[]]);
        assert_eq!(connect(&connector, &origin).await, Ok(()));
        // The service listens at every address, so none of them is the one that the rules know.
        let everywhere = SocketAddr::new("0.0.0.0".parse().unwrap(), address.port());
        connector.exit.rules.listening_on(everywhere);
        assert!(connector.exit.rules.permits(address));
        assert_eq!(connect(&connector, &origin).await, Err("loop"), "{dialled}");
    }
}

#[tokio::test]
async fn a_connection_to_someone_else_than_was_dialled_is_not_used() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reached = listener.local_addr().unwrap();
    let origin = format!("http://{reached}");
    let (connector, _) = connector(&origin, &["127.0.0.0/8"], &[&[]]);
    let other_port = SocketAddr::new(reached.ip(), reached.port().wrapping_add(1));
    let other_host = SocketAddr::new("127.0.0.2".parse().unwrap(), reached.port());
    for (dialled, expected) in [
        (&[other_host, reached][..], Ok(())),
        (&[other_host, other_port], Err("blocked_address")),
        (&[], Err("blocked_address")),
    ] {
        let tcp = TcpStream::connect(reached).await.unwrap();
        let checked = connector.checked(tcp, dialled).map(drop).map_err(|error| error.word());
        assert_eq!(checked, expected, "{dialled:?}");
    }
}

#[tokio::test]
async fn who_answers_is_compared_with_who_was_dialled_on_the_way_out() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let origin = format!("http://six.example:{port}");
    // A label that the connection itself does not have: the nearest thing to another end that a machine
    // can be made to show without touching its network.
    for (label, expected) in [(0, Ok(())), (7, Err("blocked_address"))] {
        let dialled = SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, label, 0).into();
        let (connector, _) = connector(&origin, &["::1/128"], &[&[dialled]]);
        assert_eq!(connect(&connector, &origin).await, expected);
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_not_trusted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, b"HTTP/1.1 200 OK\r\n\r\n").await;
    });
    let origin = format!("https://{address}");
    let (connector, _) = connector(&origin, &["127.0.0.1/32"], &[&[address]]);
    assert_eq!(connect(&connector, &origin).await, Err("untrusted"));
}

#[test]
fn proxies_of_the_environment_are_not_asked() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["connector::tests::only_the_leases_own_origin_is_called", "--exact"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
    {
        child.env(name, &proxy);
    }
    assert!(child.env_remove("NO_PROXY").output().unwrap().status.success());
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}
