use std::{net::SocketAddr, time::Duration};

use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use serde_json::json;
use sinks::SinkError;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    forms::check,
    given::{destination, every_event, grants},
    pki::Pki,
};

/// A collector that hands on what it is sent, and answers as it was told.
struct Collector {
    requests: mpsc::UnboundedSender<ExportLogsServiceRequest>,
    answer: Result<i64, Status>,
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.requests.send(request.into_inner()).unwrap();
        let rejected_log_records = self.answer.clone()?;
        let partial = ExportLogsPartialSuccess { rejected_log_records, ..Default::default() };
        let partial_success = (rejected_log_records > 0).then_some(partial);
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

struct Running {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<ExportLogsServiceRequest>,
    _serving: JoinSet<()>,
}

async fn start(answer: Result<i64, Status>, pki: Option<&Pki>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut address = listener.local_addr().unwrap();
    let (requests, received) = mpsc::unbounded_channel();
    let router =
        Server::builder().add_service(LogsServiceServer::new(Collector { requests, answer }));
    let mut serving = JoinSet::new();
    let incoming = TcpListenerStream::new(listener);
    serving.spawn(async { router.serve_with_incoming(incoming).await.unwrap() });
    let Some(acceptor) = pki.map(Pki::acceptor) else {
        return Running { address, requests: received, _serving: serving };
    };
    // TLS ends in front of it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = std::mem::replace(&mut address, listener.local_addr().unwrap());
    serving.spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut outside = acceptor.accept(tcp).await.unwrap();
        let mut inside = TcpStream::connect(behind).await.unwrap();
        // The test ends whenever it likes.
        let _ = copy_bidirectional(&mut outside, &mut inside).await;
    });
    Running { address, requests: received, _serving: serving }
}

fn records(request: &ExportLogsServiceRequest) -> &[LogRecord] {
    let resource = &request.resource_logs[0];
    let service = &resource.resource.as_ref().unwrap().attributes[0];
    assert_eq!((service.key.as_str(), text(service)), ("service.name", "strongroom-broker".into()));
    &resource.scope_logs[0].log_records
}

fn text(attribute: &KeyValue) -> String {
    let value = attribute.value.as_ref().unwrap().value.as_ref().unwrap();
    if let Value::IntValue(number) = value {
        return number.to_string();
    }
    let Value::StringValue(text) = value else { panic!("no attribute of ours is {value:?}") };
    text.clone()
}

#[tokio::test]
async fn every_kind_arrives_at_a_collector_as_what_is_checked_in() {
    let mut collector = start(Ok(0), None).await;
    let endpoint = format!("http://{}", collector.address);
    let mut sink = destination(json!({ "kind": "otlp", "endpoint": endpoint })).open().unwrap();
    assert_eq!(sink.send(&every_event()).await.unwrap(), 0);
    assert!(sink.acknowledges());
    let request = collector.requests.recv().await.unwrap();
    let lines: Vec<_> = records(&request)
        .iter()
        .map(|record| {
            let of = |attribute: &KeyValue| format!(" {}={:?}", attribute.key, text(attribute));
            format!(
                "{} {} {} trace={:02x?}{}",
                record.event_name,
                record.severity_text,
                record.time_unix_nano,
                record.trace_id,
                record.attributes.iter().map(of).collect::<String>()
            )
        })
        .collect();
    check("otlp.txt", &lines);
}

#[tokio::test]
async fn a_collector_is_reached_over_tls_with_certificates_on_both_sides() {
    let pki = Pki::new();
    let mut collector = start(Ok(0), Some(&pki)).await;
    let to = json!({
        "kind": "otlp",
        "endpoint": format!("https://localhost:{}", collector.address.port()),
        "tls": {
            "ca": pki.file("ca.pem"),
            "certificate": pki.file("sender.pem"),
            "key": pki.file("sender.key"),
        },
    });
    let mut sink = destination(to).open().unwrap();
    sink.send(&grants(3)).await.unwrap();
    assert_eq!(records(&collector.requests.recv().await.unwrap()).len(), 3);
}

#[tokio::test]
async fn what_a_collector_refuses_for_good_is_counted_and_what_it_refuses_now_is_an_error() {
    let collector = start(Ok(2), None).await;
    let endpoint = format!("http://{}", collector.address);
    let mut sink = destination(json!({ "kind": "otlp", "endpoint": endpoint })).open().unwrap();
    assert_eq!(sink.send(&grants(3)).await.unwrap(), 2);

    let busy = Status::resource_exhausted("later");
    let collector = start(Err(busy), None).await;
    let endpoint = format!("http://{}", collector.address);
    let mut sink = destination(json!({ "kind": "otlp", "endpoint": endpoint })).open().unwrap();
    let refused = sink.send(&grants(3)).await;
    assert!(matches!(&refused, Err(SinkError::Refused { message, .. }) if message == "later"));
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_an_error_and_one_that_hangs_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let to = destination(json!({ "kind": "otlp", "endpoint": endpoint }));
    let mut sink = to.open_with(Duration::from_millis(50)).unwrap();
    assert!(matches!(sink.send(&grants(1)).await, Err(SinkError::TimedOut(_))));
    // Bound and not listening: nobody answers there, and nobody else can.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = format!("http://{}", bound.local_addr().unwrap());
    let mut sink = destination(json!({ "kind": "otlp", "endpoint": endpoint })).open().unwrap();
    let refused = sink.send(&grants(1)).await;
    assert!(matches!(refused, Err(SinkError::Connect { .. })), "{refused:?}");
}
