use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use serde_json::json;
use sinks::{Format, SinkError};
use tokio::net::TcpListener;

use crate::{
    given::{destination, every_event, grants},
    pki::Pki,
    receiver::Receiver,
};

/// The parts of a message: header up to the structured data, and what follows.
fn parts(message: &str) -> (Vec<&str>, &str) {
    let mut words = message.splitn(8, ' ');
    let header: Vec<_> = words.by_ref().take(7).collect();
    (header, words.next().unwrap())
}

#[tokio::test]
async fn every_record_arrives_over_tcp_as_one_message() {
    let mut receiver = Receiver::plain().await;
    let address = receiver.address.to_string();
    let to = destination(json!({ "kind": "syslog-tcp", "address": address, "format": "cef" }));
    let mut sink = to.open().unwrap();
    let events = every_event();
    for half in events.chunks(events.len() / 2) {
        assert_eq!(sink.send(half).await.unwrap(), 0);
    }
    for event in &events {
        let message = receiver.next().await;
        let (header, line) = parts(&message);
        assert_eq!(line, Format::Cef.line(event));
        assert!(line.contains(&format!("externalId={} ", event.index())));
        let priority = header[0].strip_prefix('<').unwrap().strip_suffix(">1").unwrap();
        assert_eq!(priority.parse::<u8>().unwrap() / 8, 13);
        assert_eq!(header[1], "2023-11-14T22:13:20.005Z");
        assert_eq!((header[3], header[4], header[6]), ("strongroom", "-", "-"));
        assert!(line.contains(&format!("|{}|", header[5])), "{message}");
    }
}

#[tokio::test]
async fn every_record_arrives_over_tls_with_certificates_on_both_sides() {
    let pki = Pki::new();
    let mut receiver = Receiver::with_tls(pki.acceptor()).await;
    let mut to = json!({
        "kind": "syslog-tls",
        "address": receiver.address.to_string(),
        "format": "jsonl",
        "server_name": "localhost",
        "tls": {
            "ca": pki.file("ca.pem"),
            "certificate": pki.file("sender.pem"),
            "key": pki.file("sender.key"),
        },
    });
    let mut sink = destination(to.clone()).open().unwrap();
    let events = every_event();
    sink.send(&events).await.unwrap();
    for event in &events {
        assert_eq!(parts(&receiver.next().await).1, Format::Jsonl.line(event));
    }

    // A receiver with another name, or of another authority, gets nothing.
    to["server_name"] = json!("siem.acme.internal");
    let refused = destination(to.clone()).open().unwrap().send(&events).await;
    assert!(matches!(refused, Err(SinkError::Connect { .. })), "{refused:?}");
    to["server_name"] = json!("localhost");
    to["tls"]["ca"] = json!(Pki::new().file("ca.pem"));
    let refused = destination(to.clone()).open().unwrap().send(&events).await;
    assert!(matches!(refused, Err(SinkError::Tls { .. })), "{refused:?}");
    let other = Pki::new();
    to["tls"]["ca"] = json!(other.file("ca.pem"));
    let refused = destination(to).open().unwrap().send(&events).await;
    assert!(matches!(refused, Err(SinkError::Connect { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_private_key_that_others_can_read_is_not_used() {
    let pki = Pki::new();
    let receiver = Receiver::with_tls(pki.acceptor()).await;
    fs::set_permissions(pki.file("sender.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let to = json!({
        "kind": "syslog-tls",
        "address": receiver.address.to_string(),
        "format": "jsonl",
        "server_name": "localhost",
        "tls": {
            "ca": pki.file("ca.pem"),
            "certificate": pki.file("sender.pem"),
            "key": pki.file("sender.key"),
        },
    });
    let refused = destination(to).open().unwrap().send(&grants(1)).await.unwrap_err();
    assert!(refused.to_string().contains("chmod 600"), "{refused}");
}

#[tokio::test]
async fn a_receiver_that_went_away_is_noticed_before_anything_is_sent_to_it() {
    let receiver = Receiver::plain().await;
    let address = receiver.address;
    let to = json!({ "kind": "syslog-tcp", "address": address.to_string(), "format": "jsonl" });
    let mut sink = destination(to).open().unwrap();
    sink.send(&grants(1)).await.unwrap();
    receiver.stop().await;
    assert!(matches!(sink.send(&grants(1)).await, Err(SinkError::Broken { .. })));
    assert!(matches!(sink.send(&grants(1)).await, Err(SinkError::Connect { .. })));
    assert!(!sink.acknowledges());
}

#[tokio::test]
async fn a_receiver_that_never_reads_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let to = json!({ "kind": "syslog-tcp", "address": address, "format": "ocsf" });
    let mut sink = destination(to).open_with(Duration::from_millis(50)).unwrap();
    let events = grants(512);
    let ended = loop {
        // The buffers of the system take some of it.
        if let Err(error) = sink.send(&events).await {
            break error;
        }
    };
    assert!(matches!(ended, SinkError::TimedOut(_)), "{ended}");
}
