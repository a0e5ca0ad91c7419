use std::{fs, sync::Arc, time::Duration};

use domain::SystemClock;
use http::{StatusCode, Version};
use inference_proxy::{Leases, Proxy};
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use testkit::Upstream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::{
    caller::{Caller, handshake},
    certificates::Authority,
    harness::{SECRET, World, config, read},
};

const PATH: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o"}"#;

#[tokio::test]
async fn applications_call_over_tls_with_the_http_that_they_agree_on() {
    let authority = Authority::new();
    let world = World::with(&authority.as_listener()).await;
    world.upstream.answer(PATH, 200, &[], r#"{"id":"c1"}"#);
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["h2"], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let mut caller = Caller::tls(world.address, authority.application(offered)).await;
        let answer = caller.send(world.post(PATH), BODY).await.unwrap();
        assert_eq!(answer.version(), agreed, "{offered:?}");
        let (status, _, body) = read(answer).await;
        assert_eq!((status, body), (StatusCode::OK, json!({"id": "c1"})));
    }
    assert_eq!(world.upstream.seen().len(), 4);
}

#[tokio::test]
async fn a_listener_with_a_certificate_takes_no_older_tls_and_no_plain_http() {
    let authority = Authority::new();
    let world = World::with(&authority.as_listener()).await;
    let older = authority.application_of(&TLS12, &["h2"]);
    assert!(handshake(world.address, older).await.is_err());
    let unknown = authority.application(&["spdy/3"]);
    assert!(handshake(world.address, unknown).await.is_err());
    let mut tcp = TcpStream::connect(world.address).await.unwrap();
    tcp.write_all(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Whether by an end or by a reset, the connection is over.
    drop(tcp.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
}

#[tokio::test]
async fn a_certificate_that_is_replaced_on_disk_is_taken_over() {
    let (old, new) = (Authority::new(), Authority::new());
    let world = World::start().await;
    let leases = Arc::clone(&world.leases) as Arc<dyn Leases>;
    let config = config(&old.as_listener());
    let proxy = Proxy::with_leases(&config, leases, Arc::new(SystemClock)).unwrap();
    // The proxy has read the old files, and looks at them again as soon as it serves.
    new.as_listener();
    for name in ["listener.pem", "listener.key"] {
        fs::copy(new.path(name), old.path(name)).unwrap();
    }
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { proxy.serve(listener, std::future::pending()).await });
    let taken_over = async {
        while handshake(address, new.application(&["h2"])).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), taken_over).await.unwrap();
    assert!(handshake(address, old.application(&["h2"])).await.is_err());
}

#[tokio::test]
async fn a_provider_is_called_over_tls_with_the_http_that_it_chooses() {
    let authority = Authority::new();
    for (tls, offered, chosen) in [
        (&TLS13, &["h2", "http/1.1"][..], Version::HTTP_2),
        (&TLS13, &["http/1.1"], Version::HTTP_11),
        (&TLS13, &[], Version::HTTP_11),
        (&TLS12, &["h2"], Version::HTTP_2),
    ] {
        let provider = authority.provider("127.0.0.1", tls, offered);
        let upstream = Upstream::start_tls(provider).await.unwrap();
        let world = World::before(upstream, &authority.as_egress()).await;
        world.upstream.answer(PATH, 200, &[], r#"{"id":"c1"}"#);
        for _ in 0..2 {
            let (status, _, body) = world.call(PATH, BODY).await;
            assert_eq!((status, body), (StatusCode::OK, json!({"id": "c1"})), "{offered:?}");
        }
        let seen = world.upstream.seen();
        assert_eq!((seen[0].version, seen[1].version), (chosen, chosen), "{offered:?}");
        assert_eq!(seen[0].headers["authorization"], format!("Bearer {SECRET}"));
        assert_eq!(seen[0].body, BODY);
    }
}

#[tokio::test]
async fn connections_of_http_2_end_soon_after_their_lease_too() {
    let authority = Authority::new();
    let provider = authority.provider("127.0.0.1", &TLS13, &["h2"]);
    let upstream = Upstream::start_tls(provider).await.unwrap();
    let egress = format!("{}idle_connection = \"1h\"\n", authority.as_egress());
    let world = World::before(upstream, &egress).await;
    world.upstream.answer(PATH, 200, &[], "{}");
    assert_eq!(world.call(PATH, BODY).await.0, StatusCode::OK);
    assert_eq!(world.upstream.seen()[0].version, Version::HTTP_2);
    world.leases.live.store(false, std::sync::atomic::Ordering::SeqCst);
    timeout(Duration::from_secs(20), world.upstream.until_idle()).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_does_not_prove_who_it_is_gets_nothing() {
    let (trusted, other) = (Authority::new(), Authority::new());
    for (authority, host) in
        [(&other, "127.0.0.1"), (&trusted, "127.0.0.2"), (&trusted, "api.openai.com")]
    {
        let provider = authority.provider(host, &TLS13, &["h2", "http/1.1"]);
        let upstream = Upstream::start_tls(provider).await.unwrap();
        let world = World::before(upstream, &trusted.as_egress()).await;
        world.upstream.answer(PATH, 200, &[], "{}");
        let (status, _, body) = world.call(PATH, BODY).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{host}");
        assert_eq!(body["error"]["code"], "upstream_unreachable");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("certificate was not accepted; nothing was sent"), "{message}");
        assert!(!body.to_string().contains(SECRET));
        world.upstream.until_idle().await;
        assert!(world.upstream.seen().is_empty(), "{host}");
    }
}

#[tokio::test]
async fn without_a_file_of_authorities_only_the_machines_own_are_trusted() {
    let authority = Authority::new();
    let provider = authority.provider("127.0.0.1", &TLS13, &["h2"]);
    let world = World::before(Upstream::start_tls(provider).await.unwrap(), "").await;
    world.upstream.answer(PATH, 200, &[], "{}");
    let (status, _, _) = world.call(PATH, BODY).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(world.upstream.seen().is_empty());
}
