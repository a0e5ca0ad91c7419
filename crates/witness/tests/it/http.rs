use std::{net::SocketAddr, sync::Arc};

use audit::Note;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::oneshot, task::JoinSet};
use witness::{Listener, WitnessError, serve};

use crate::given::{Given, History};

/// A witness that listens, and a connection to it.
struct Served {
    requests: SendRequest<Full<Bytes>>,
    _stop: oneshot::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Served {
    async fn start(given: &Given) -> Self {
        let desk = Arc::new(given.open().unwrap());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind(any, None).await.unwrap();
        let address = listener.address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(desk, listener, async {
            // A test that has failed drops its end, which ends the witness too.
            let _ = stopped.await;
        }));
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (requests, connection) = handshake(stream).await.unwrap();
        tasks.spawn(async move { connection.await.unwrap() });
        Self { requests, _stop: stop, _tasks: tasks }
    }

    async fn ask(&mut self, method: Method, path: &str, body: String) -> Response<String> {
        let request = Request::builder().method(method).uri(path).header("host", "witness");
        let request = request.body(Full::from(body)).unwrap();
        let (head, body) = self.requests.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Response::from_parts(head, String::from_utf8(body.into()).unwrap())
    }

    async fn add(&mut self, body: String) -> Response<String> {
        self.ask(Method::POST, "/add-checkpoint", body).await
    }
}

#[tokio::test]
async fn the_statuses_are_those_of_the_specification() {
    let (given, log, fork) = (Given::new(), History::new(64), History::new(5));
    let mut served = Served::start(&given).await;

    let answer = served.add(log.request(0, 10)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let mut note = Note::parse(&log.note(10)).unwrap();
    note.add_cosignature(answer.body(), given.witness.witness()).unwrap();

    let answer = served.add(log.request(0, 12)).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    assert_eq!(answer.headers()["content-type"], "text/x.tlog.size");
    assert_eq!(answer.body(), "10\n");

    let answer = served.add(fork.request(10, 10)).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    assert_ne!(answer.headers()["content-type"], "text/x.tlog.size");
    let statuses = [
        (fork.request(10, 12), StatusCode::UNPROCESSABLE_ENTITY),
        (
            log.request(10, 12).replace("strongroom.test/log\n12", "other.test/log\n12"),
            StatusCode::NOT_FOUND,
        ),
        (log.request(10, 12).replace("\n12\n", "\n13\n"), StatusCode::FORBIDDEN),
        (log.request(10, 12).replace("old 10", "old 13"), StatusCode::BAD_REQUEST),
        ("old".to_owned(), StatusCode::BAD_REQUEST),
        (log.request(10, 12) + &"x".repeat(60_000), StatusCode::BAD_REQUEST),
    ];
    for (body, status) in statuses {
        assert_eq!(served.add(body.clone()).await.status(), status, "{body}");
    }
    assert_eq!(served.add(log.request(10, 12)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn its_auditors_can_see_whether_there_is_evidence() {
    let (given, log, fork) = (Given::new(), History::new(64), History::new(5));
    let mut served = Served::start(&given).await;
    served.add(log.request(0, 10)).await;
    let evidence = served.ask(Method::GET, "/evidence", String::new()).await;
    assert_eq!((evidence.status(), evidence.body().as_str()), (StatusCode::OK, ""));
    served.add(fork.request(10, 10)).await;
    let evidence = served.ask(Method::GET, "/evidence", String::new()).await;
    assert!(evidence.body().starts_with("fork-10-"), "{}", evidence.body());
    assert_eq!(served.ask(Method::GET, "/healthz", String::new()).await.body(), "ok\n");
    assert_eq!(served.ask(Method::GET, "/", String::new()).await.status(), StatusCode::NOT_FOUND);
    let answer = served.ask(Method::GET, "/add-checkpoint", String::new()).await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn without_tls_it_listens_on_this_machine_only() {
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    assert!(matches!(Listener::bind(any, None).await, Err(WitnessError::PlainBeyondLoopback)));
}
