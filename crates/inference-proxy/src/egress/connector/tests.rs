use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::net::TcpListener;

use super::*;
use crate::egress::client_tls;

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
        rules: AddressRules::new(allow.iter().map(|net| net.parse().unwrap()).collect()),
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
    for address in ["127.0.0.1:443", "10.1.2.3:443", "[::1]:443", "169.254.169.254:443"] {
        let answer = [address.parse().unwrap()];
        let (connector, _) = connector("https://evil.example", &[], &[&answer]);
        assert_eq!(connect(&connector, "https://evil.example").await, Err("blocked_address"));
    }
}

#[tokio::test]
async fn an_answer_that_changes_between_check_and_call_changes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = listener.local_addr().unwrap();
    let private = "10.0.0.1:80".parse().unwrap();
    // The first answer is allowed; a second lookup would be told a private address.
    let (connector, resolver) =
        connector("http://rebind.example", &["127.0.0.1/32"], &[&[good], &[private]]);
    assert_eq!(connect(&connector, "http://rebind.example").await, Ok(()));
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 1);
    assert_eq!(connect(&connector, "http://rebind.example").await, Err("blocked_address"));
}

#[tokio::test]
async fn of_several_addresses_only_the_allowed_are_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = listener.local_addr().unwrap();
    let answer = ["10.0.0.1:80".parse().unwrap(), good];
    let (connector, _) = connector("http://mixed.example", &["127.0.0.1/32"], &[&answer]);
    assert_eq!(connect(&connector, "http://mixed.example").await, Ok(()));
}

#[tokio::test]
async fn plain_http_goes_to_named_networks_only() {
    let answer = ["8.8.8.8:80".parse().unwrap()];
    let (connector, _) = connector("http://plain.example", &["127.0.0.1/32"], &[&answer]);
    assert_eq!(connect(&connector, "http://plain.example").await, Err("plain_http"));
}

#[tokio::test]
async fn the_proxy_does_not_call_its_own_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap();
    let origin = format!("http://{own}");
    let (connector, _) = connector(&origin, &["127.0.0.0/8"], &[&[own]]);
    connector.exit.rules.listening_on(own);
    assert_eq!(connect(&connector, &origin).await, Err("blocked_address"));
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
