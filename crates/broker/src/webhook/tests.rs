use std::sync::Mutex;

use audit::{Kind, Record, RecordDraft};
use domain::{ManualClock, Timestamp};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use super::*;
use crate::{config::EgressConfig, outside};

const GOOD: &str = "0123456789abcdef0123456789abcdef";
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const DAY: Duration = Duration::from_hours(24);
const INSTANT: Duration = Duration::from_millis(1);

/// A receiver that refuses calls for some records, and keeps all that it was told.
struct Receiver {
    refused: Arc<Mutex<Vec<u64>>>,
    told: Arc<Mutex<Vec<String>>>,
    clock: Arc<ManualClock>,
    webhook: Webhook,
    folder: tempfile::TempDir,
    _serving: JoinSet<()>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (refused, told) =
            (Arc::<Mutex<Vec<u64>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (asked, keeps, mut serving) = (Arc::clone(&refused), Arc::clone(&told), JoinSet::new());
        serving.spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let (mut call, mut ends) = (Vec::new(), false);
                while !ends && connection.read_buf(&mut call).await.unwrap() > 0 {
                    ends = call.ends_with(b"}");
                }
                let call = String::from_utf8(call).unwrap();
                let is_refused = asked.lock().unwrap().contains(&index(&call));
                let status = if is_refused { "410 Gone" } else { "204 No Content" };
                keeps.lock().unwrap().push(call);
                let head =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                connection.write_all(head.as_bytes()).await.unwrap();
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let egress: EgressConfig =
            toml::from_str("allow = ['127.0.0.0/8']\ndanger_plain_http_to_loopback = true")
                .unwrap();
        let config = format!(
            "name = 'alerts'\nurl = 'http://{address}/'\nkinds = ['*']\nsecrets = ['{}']",
            folder.path().join("secret").display()
        );
        put_secrets(&folder, GOOD);
        let clock = Arc::new(ManualClock::at(START));
        let (config, exit) = (toml::from_str(&config).unwrap(), outside::exit(&egress).unwrap());
        let webhook = Webhook::open(&config, exit, Arc::clone(&clock) as _).await.unwrap();
        Self { refused, told, clock, webhook, folder, _serving: serving }
    }

    fn refuse(&self, indexes: &[u64]) {
        *self.refused.lock().unwrap() = indexes.to_vec();
    }

    /// The records of the calls since this was last asked.
    fn heard(&self) -> Vec<u64> {
        std::mem::take(&mut *self.told.lock().unwrap()).iter().map(|call| index(call)).collect()
    }

    async fn send(&mut self, events: &[Event]) -> bool {
        self.webhook.send(events).await.is_ok()
    }
}

fn put_secrets(folder: &tempfile::TempDir, text: &str) {
    let (path, next) = (folder.path().join("secret"), folder.path().join("next"));
    std::fs::write(&next, text).unwrap();
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o400)).unwrap();
    std::fs::rename(next, path).unwrap();
}

fn index(call: &str) -> u64 {
    call.split("\"index\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap()
}

/// The record at an index, so long after the start.
fn event(index: u64, after: Duration) -> Event {
    let record = Record { kind: Kind::BrokerStarted.into(), ..Record::default() };
    let entry = RecordDraft::new(record).unwrap().seal_at(index, START + after);
    Event::read(&entry, |_| None).unwrap()
}

#[tokio::test]
async fn a_call_that_is_refused_for_ever_is_given_up_and_those_behind_it_go_on() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let given_up = || {
        let text = recorder.handle().render();
        let count = text.split("strongroom_webhook_given_up_total{sink=\"alerts\"} ").nth(1);
        count.map_or(0, |count| count.lines().next().unwrap().parse::<u64>().unwrap())
    };
    let mut receiver = Receiver::start().await;
    let batch = [event(1, Duration::ZERO), event(2, Duration::ZERO), event(3, DAY)];
    receiver.refuse(&[2]);
    assert!(!receiver.send(&batch).await);
    assert_eq!(receiver.heard(), [1, 2]);
    receiver.clock.advance((DAY * 3).saturating_sub(INSTANT));
    assert!(!receiver.send(&batch).await, "not yet");
    assert_eq!((receiver.heard(), given_up()), (vec![2], 0));
    receiver.clock.advance(INSTANT);
    assert!(receiver.send(&batch).await);
    assert_eq!((receiver.heard(), given_up()), (vec![2, 3], 1));
    // It is over: not even a receiver that is well again hears of it.
    receiver.refuse(&[]);
    assert!(receiver.send(&batch).await);
    assert_eq!(receiver.heard(), [0; 0]);
}

#[tokio::test]
async fn what_waits_behind_a_call_waits_no_longer_for_that_and_old_records_are_tried_for_a_while() {
    let mut receiver = Receiver::start().await;
    let (old, late) = (event(1, Duration::ZERO), event(2, DAY));
    receiver.refuse(&[1, 2]);
    receiver.clock.advance(DAY * 7);
    let batch = [old, late, event(3, DAY * 7)];
    // As after a long outage: ten minutes at least.
    assert!(!receiver.send(&batch).await);
    receiver.clock.advance(TRIED_FOR.saturating_sub(INSTANT));
    assert!(!receiver.send(&batch).await);
    assert_eq!(receiver.heard(), [1, 1]);
    receiver.clock.advance(INSTANT);
    assert!(receiver.send(&batch).await);
    assert_eq!(receiver.heard(), [1, 2, 3]);
    // What it took begins the count anew.
    receiver.refuse(&[4]);
    assert!(!receiver.send(&[event(4, DAY)]).await);
    assert_eq!(receiver.heard(), [4]);
}

#[tokio::test]
async fn another_secret_signs_the_next_batch() {
    let mut receiver = Receiver::start().await;
    let signed = |receiver: &Receiver| {
        let call = receiver.told.lock().unwrap().pop().unwrap();
        let header = call.lines().find_map(|line| line.strip_prefix("strongroom-signature: "));
        let body = call.split_once("\r\n\r\n").unwrap().1.to_owned();
        (header.unwrap().to_owned(), body)
    };
    let other = format!("{GOOD}-other");
    let secret = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    let seconds = START.as_millis() / 1000;
    for (number, secrets) in (1..).zip([vec![GOOD], vec![GOOD, &other], vec![&other]]) {
        put_secrets(&receiver.folder, &(secrets.join("\n") + "\n"));
        assert!(receiver.send(&[event(number, Duration::ZERO)]).await);
        let (header, body) = signed(&receiver);
        let secrets: Vec<_> = secrets.into_iter().map(secret).collect();
        assert_eq!(header, signature(seconds, &body, &secrets));
    }
    // Not with three, and not with none; it waits until that is mended.
    put_secrets(&receiver.folder, &[GOOD, &other, GOOD].join("\n"));
    assert!(!receiver.send(&[event(4, Duration::ZERO)]).await);
    put_secrets(&receiver.folder, "");
    assert!(!receiver.send(&[event(4, Duration::ZERO)]).await);
    assert_eq!(receiver.heard(), [0; 0]);
    put_secrets(&receiver.folder, &other);
    assert!(receiver.send(&[event(4, Duration::ZERO)]).await);
    assert_eq!(receiver.heard(), [4]);
}

#[test]
fn a_signature_is_the_published_one() {
    // By another implementation:
    // printf '%s' '1700000000.{"index":9}' | openssl dgst -sha256 -hmac "$secret"
    let secret = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    let one = secret("0123456789abcdef0123456789abcdef");
    let expected = "158213ac3720aa83157416c5dc23865cb9ad38fa1f5630d647aa8dde5a9cb727";
    let body = r#"{"index":9}"#;
    let first = format!("t=1700000000,v1={expected}");
    assert_eq!(signature(1_700_000_000, body, std::slice::from_ref(&one)), first);
    let two = signature(1_700_000_000, body, &[one.clone(), secret("another one")]);
    assert!(two.starts_with(&format!("{first},v1=")) && two.len() == first.len() + 68);
    assert_ne!(signature(1_700_000_001, body, std::slice::from_ref(&one))[13..], first[13..]);
    assert_ne!(signature(1_700_000_000, r#"{"index":8}"#, &[one]), first);
}

#[tokio::test]
async fn a_secret_is_long_and_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let write = |text: &str, mode| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    assert!(read_secrets(&path).await.is_err());
    let good = "0123456789abcdef0123456789abcdef";
    write(good, 0o640);
    assert!(read_secrets(&path).await.unwrap_err().contains("chmod 0400"));
    write("short", 0o600);
    assert!(read_secrets(&path).await.unwrap_err().contains("32 bytes"));
    write(&format!("{good}\n"), 0o600);
    assert_eq!(*read_secrets(&path).await.unwrap()[0], good.as_bytes());
    write(&format!("{good}\r\n{good}2\n"), 0o600);
    let two = read_secrets(&path).await.unwrap();
    assert!(two.len() == 2 && *two[1] == format!("{good}2").as_bytes());
    write(&format!("{good}\nshort"), 0o600);
    assert!(read_secrets(&path).await.unwrap_err().contains("32 bytes"));
}
