use std::sync::Arc;

use audit::{Bundle, Checkpoint, HashTile, Kind, Reason, TileFolder, leaf_hash, tree_root};
use bytes::Bytes;
use domain::SystemClock;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mtls::{ClientTls, TlsFiles, TrustDomains};
use strongroom_proto::v1;
use tokio::{net::TcpStream, task::JoinSet};

use crate::harness::Running;

/// A reader of the files, with one of the deployment's identities.
struct Reader {
    requests: SendRequest<Empty<Bytes>>,
    _connection: JoinSet<()>,
}

impl Reader {
    async fn connect(running: &Running, name: &str) -> Self {
        let layout = &running.layout;
        let file = |ending: &str| layout.pki.join(format!("{name}.{ending}"));
        let files = TlsFiles {
            certificate: file("pem"),
            key: file("key"),
            ca: layout.pki.join("ca.pem").into(),
            crl: None,
        };
        let domains = TrustDomains::new([layout.trust_domain.as_str()]).unwrap();
        let broker = format!("spiffe://{}/broker", layout.trust_domain).parse().unwrap();
        let tls = ClientTls::load(files, domains, broker, Arc::new(SystemClock)).unwrap();
        let tcp = TcpStream::connect(running.tiles.unwrap()).await.unwrap();
        let stream = TokioIo::new(tls.connect(tcp).await.unwrap());
        let (requests, connection) = handshake(TokioExecutor::new(), stream).await.unwrap();
        let mut driven = JoinSet::new();
        driven.spawn(async move { connection.await.unwrap() });
        Self { requests, _connection: driven }
    }

    async fn ask(&mut self, method: Method, path: &str) -> Response<Bytes> {
        let uri = format!("https://log.internal/{path}");
        let request = Request::builder().method(method).uri(uri).body(Empty::new()).unwrap();
        let (head, body) = self.requests.send_request(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn get(&mut self, path: &str) -> Response<Bytes> {
        self.ask(Method::GET, path).await
    }

    /// The first checkpoint comes within a second of the start.
    async fn checkpoint(&mut self, running: &Running, at_least: u64) -> Checkpoint {
        loop {
            let answer = self.get("checkpoint").await;
            if answer.status() == StatusCode::OK {
                assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
                assert_eq!(answer.headers()["cache-control"], "no-store");
                let note = std::str::from_utf8(answer.body()).unwrap();
                let checkpoint = Checkpoint::verify(note, &running.verifier).unwrap();
                if checkpoint.size >= at_least {
                    return checkpoint;
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn running() -> Running {
    let tiles = "\n[log.tiles]\nlisten = \"127.0.0.1:0\"\n";
    Running::start_with(|config| config + tiles).await
}

async fn fill(running: &Running, records: usize) {
    for _ in 0..records {
        // Refused and on record.
        let page = v1::ListRecordsRequest { page_size: 1, ..Default::default() };
        running.proxy.audit().list_records(page).await.unwrap_err();
    }
}

#[tokio::test]
async fn the_log_is_served_as_a_static_log_of_its_checkpoint() {
    let running = running().await;
    fill(&running, 300).await;
    let mut reader = Reader::connect(&running, "admin").await;
    let checkpoint = reader.checkpoint(&running, 300).await;

    let (mut leaves, mut folder) = (Vec::new(), TileFolder::default());
    let mut computed = Vec::new();
    let mut keep = |tile: HashTile, bytes: &[u8]| {
        computed.push((tile, bytes.to_vec()));
        Ok::<_, ()>(())
    };
    for bundle in Bundle::covering(checkpoint.size) {
        let answer = reader.get(&bundle.path()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/octet-stream");
        assert!(answer.headers()["cache-control"].to_str().unwrap().contains("immutable"));
        for body in bundle.decode(answer.body()).unwrap() {
            leaves.push(leaf_hash(body));
            folder.push(leaf_hash(body), &mut keep).unwrap();
        }
    }
    folder.finish(&mut keep).unwrap();
    assert_eq!(tree_root(&leaves), checkpoint.root);
    assert_eq!(computed.len(), 3);
    for (tile, bytes) in computed {
        let answer = reader.get(&tile.path()).await;
        assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, &*bytes), "{tile}");
    }
    // A width that an earlier checkpoint called for is there too.
    assert_eq!(reader.get("tile/0/001.p/2").await.body().len(), 64);
    running.end().await;
}

#[tokio::test]
async fn beyond_the_checkpoint_and_off_the_paths_there_is_nothing() {
    let running = running().await;
    let mut reader = Reader::connect(&running, "admin").await;
    let size = reader.checkpoint(&running, 1).await.size;
    for path in [
        "",
        "tile",
        "tile/0/001",
        "tile/0/000",
        "tile/1/000.p/1",
        "tile/0/000.p/255",
        "tile/entries/000",
        "tile/entries/000.p/255",
        "tile/entries/../entries/000.p/1",
        "tile/0/x000/000.p/1",
        "checkpoint/",
        "metrics",
    ] {
        let answer = reader.get(path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path:?} of {size}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
    }
    let whole = reader.get("tile/entries/000.p/1").await;
    let head = reader.ask(Method::HEAD, "tile/entries/000.p/1").await;
    assert_eq!(head.headers()["content-length"], whole.body().len().to_string());
    assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let answer = reader.ask(method, "checkpoint").await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers()["allow"], "GET, HEAD");
    }
    running.end().await;
}

#[tokio::test]
async fn who_may_not_list_all_records_reads_no_file_and_is_on_record() {
    let running = running().await;
    let mut reader = Reader::connect(&running, "inference-proxy").await;
    for path in ["checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1", "anything"] {
        let answer = reader.get(path).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert_eq!(answer.body(), "Forbidden\n");
    }
    let records = running.end().await;
    let refused = records.iter().filter(|record| {
        record.kind() == Kind::Refused
            && record.reason() == Reason::NotPermitted
            && record.method == "Audit/ListRecords"
            && record.actor.ends_with("/inference-proxy")
    });
    assert_eq!(refused.count(), 4);
}
