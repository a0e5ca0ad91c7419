use std::{fs, path::PathBuf};

use audit::{Kind, Reason, Record, RecordDraft};
use domain::{Key, SystemClock, Uid};
use envelope::RowKey;
use metrics_exporter_prometheus::PrometheusBuilder;
use sinks::SinkConfig;
use store::{Pending, SinkRow, SqliteStore};
use tempfile::TempDir;
use testkit::{FailingStore, Fault, Operation};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinSet, yield_now},
};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{custody::OwnRow as _, log::Log};

/// A log, and what an exporter of it needs.
struct Fixture {
    folder: TempDir,
    store: Arc<FailingStore>,
    key: Arc<RowKey>,
    log: Log,
    size: watch::Sender<u64>,
    drives: watch::Sender<bool>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Fixture {
    async fn new() -> Self {
        let store = Arc::new(SqliteStore::in_memory().await.unwrap());
        let store = Arc::new(FailingStore::new(store));
        let (of, tasks) = (Arc::clone(&store) as Arc<dyn Store>, TaskTracker::new());
        let log = Log::open(of, 0, Duration::from_secs(9), Uid::from_bytes([1; 16]), &tasks);
        Self {
            folder: tempfile::tempdir().unwrap(),
            store,
            key: Arc::new(RowKey::of(&Key::take(&mut [7; 32]))),
            log,
            size: watch::Sender::new(0),
            drives: watch::Sender::new(true),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Appends so many records, as the log does.
    async fn append(&self, count: usize) {
        let (kind, reason) = (Kind::Refused.into(), Reason::NotPermitted.into());
        let record = RecordDraft::new(Record { kind, reason, ..Record::default() }).unwrap();
        let pending = Pending { record, as_of: None, tenants: Vec::new() };
        self.store.append(&vec![pending; count]).await.unwrap();
        self.size.send_replace(self.store.head().await.unwrap().frontier.size());
    }

    fn exporter(&self, config: &str) -> Exporter {
        let config: SinkConfig = toml::from_str(config).unwrap();
        let pace = Pace {
            page: 8,
            save_every: Duration::from_millis(1),
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(5),
        };
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        let (name, sink) = (config.name.as_str().to_owned(), config.to.open().unwrap());
        let outlet = Outlet { name, from: config.from, sink };
        let cursors = Cursors { store, key: Arc::clone(&self.key), log: self.log.clone() };
        Exporter::new(outlet, cursors, Arc::new(SystemClock), self.size.subscribe(), pace)
    }

    /// Moves the cursor as another broker does.
    async fn put(&self, next_index: u64) {
        let row = SinkRow { name: "archive".to_owned(), next_index, row_mac: [0; 32] };
        self.store.put_sink(&row.sealed(&self.key)).await.unwrap();
    }

    async fn cursor(&self) -> Option<u64> {
        self.store.sink("archive").await.unwrap().map(|row| row.next_index)
    }

    fn start(&mut self, config: &str) {
        let exporter = self.exporter(config);
        self.tasks.spawn(exporter.run(self.drives.subscribe(), self.stop.clone()));
    }

    /// Ends what runs as a killed process does.
    async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }

    async fn end(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.stop = CancellationToken::new();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log.jsonl")
    }

    fn to_file(&self, from: &str) -> String {
        let path = self.path();
        format!(
            "name = 'archive'\nfrom = '{from}'\n\
             to = {{ kind = 'file', format = 'jsonl', path = '{}' }}\n",
            path.display()
        )
    }

    /// The indexes in the file, in its order.
    fn indexes(&self) -> Vec<u64> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        text.lines().map(index).collect()
    }

    async fn until(&self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            yield_now().await;
        }
    }

    async fn until_cursor(&self, cursor: u64) {
        while self.cursor().await != Some(cursor) {
            yield_now().await;
        }
    }
}

fn to_syslog(listener: &TcpListener) -> String {
    let address = listener.local_addr().unwrap();
    format!(
        "name = 'siem'\nto = {{ kind = 'syslog-tcp', format = 'jsonl', address = '{address}' }}\n"
    )
}

/// The index in a line of JSON.
fn index(line: &str) -> u64 {
    let digits = line.split("\"index\":").nth(1).unwrap();
    digits.split(',').next().unwrap().parse().unwrap()
}

/// Reads one frame.
async fn frame(stream: &mut BufReader<TcpStream>) -> u64 {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).await.unwrap();
    let length = String::from_utf8(length).unwrap().trim().parse().unwrap();
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.unwrap();
    index(&String::from_utf8(message).unwrap())
}

#[tokio::test]
async fn a_sink_gets_every_record_once_while_nothing_fails() {
    let mut fixture = Fixture::new().await;
    fixture.append(20).await;
    fixture.start(&fixture.to_file("start"));
    fixture.until_cursor(20).await;
    fixture.append(3).await;
    fixture.until_cursor(23).await;
    fixture.end().await;
    fixture.append(2).await;
    fixture.start(&fixture.to_file("start"));
    fixture.until_cursor(25).await;
    assert_eq!(fixture.indexes(), (0..25).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_sink_that_begins_now_stays_where_it_began() {
    let mut fixture = Fixture::new().await;
    fixture.append(5).await;
    fixture.start(&fixture.to_file("now"));
    fixture.until_cursor(5).await;
    fixture.kill().await;
    fixture.append(2).await;
    fixture.start(&fixture.to_file("now"));
    fixture.until_cursor(7).await;
    assert_eq!(fixture.indexes(), [5, 6]);
}

#[tokio::test]
async fn a_kill_between_sending_and_moving_the_cursor_repeats_records_and_leaves_none_out() {
    let mut fixture = Fixture::new().await;
    fixture.append(20).await;
    fixture.put(0).await;
    fixture.store.fail(Operation::PutSink, Fault::Hang);
    fixture.start(&fixture.to_file("start"));
    fixture.store.until_hanging(1).await;
    let before = fixture.indexes();
    assert!(!before.is_empty());
    fixture.kill().await;
    assert_eq!(fixture.cursor().await, Some(0));
    fixture.store.heal();

    fixture.start(&fixture.to_file("start"));
    fixture.until_cursor(20).await;
    let expected: Vec<_> = before.into_iter().chain(0..20).collect();
    assert_eq!(fixture.indexes(), expected);
}

#[tokio::test]
async fn what_fails_is_tried_until_it_works() {
    let mut fixture = Fixture::new().await;
    fixture.append(9).await;
    fixture.store.fail_once(Operation::Read, Fault::Before);
    fixture.store.fail_once(Operation::PutSink, Fault::Before);
    fs::create_dir(fixture.path()).unwrap();
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let metrics = recorder.handle();
    fixture.start(&fixture.to_file("start"));
    let failed = |times: usize| {
        let metrics = metrics.clone();
        move |_: &Fixture| {
            let text = metrics.render();
            let count = text.split("strongroom_sink_failures_total{sink=\"archive\"} ").nth(1);
            count.is_some_and(|count| {
                count.lines().next().unwrap().parse::<usize>().unwrap() >= times
            })
        }
    };
    fixture.until(failed(4)).await;
    fs::remove_dir(fixture.path()).unwrap();
    fixture.until_cursor(9).await;
    assert_eq!(fixture.indexes(), (0..9).collect::<Vec<_>>());
    assert!(metrics.render().contains("strongroom_sink_lag_records{sink=\"archive\"} 0"));
    assert!(metrics.render().contains("strongroom_sink_sent_total{sink=\"archive\"} 9"));
}

#[tokio::test]
async fn a_receiver_that_never_reads_holds_no_append_up_and_its_lag_shows() {
    let mut fixture = Fixture::new().await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    fixture.append(1).await;
    fixture.start(&to_syslog(&listener));
    let (silent, _) = listener.accept().await.unwrap();
    silent.readable().await.unwrap();
    // It takes what the buffers hold and no more, and every append returns all the same.
    let stuck = |size: u64, metrics: &str| {
        let lag = metrics.split("strongroom_sink_lag_records{sink=\"siem\"} ").nth(1);
        let lag: u64 = lag.unwrap().lines().next().unwrap().parse().unwrap();
        lag * 2 > size && size > 1000
    };
    let mut size = 1;
    while !stuck(size, &recorder.handle().render()) {
        fixture.append(1000).await;
        size += 1000;
        yield_now().await;
        assert!(size < 1_000_000, "it was never stuck");
    }
    // Now it reads, and everything comes, in order.
    let mut stream = BufReader::new(silent);
    for expected in 0..size {
        assert_eq!(frame(&mut stream).await, expected);
    }
}

#[tokio::test]
async fn what_a_broken_connection_may_have_lost_is_sent_again() {
    let mut fixture = Fixture::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fixture.append(20).await;
    fixture.start(&to_syslog(&listener));
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    for expected in 0..3 {
        assert_eq!(frame(&mut stream).await, expected);
    }
    // The receiver dies with most of it unread.
    drop(stream);
    fixture.append(1).await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    for expected in 0..21 {
        assert_eq!(frame(&mut stream).await, expected);
    }
}

#[tokio::test]
async fn only_the_broker_whose_turn_it_is_sends() {
    let mut fixture = Fixture::new().await;
    fixture.append(4).await;
    fixture.drives.send_replace(false);
    fixture.start(&fixture.to_file("start"));
    for _ in 0..1000 {
        yield_now().await;
    }
    assert!(fixture.indexes().is_empty());
    fixture.drives.send_replace(true);
    fixture.until_cursor(4).await;
    fixture.end().await;
    assert_eq!(fixture.indexes(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_turn_begins_where_another_broker_has_left_off() {
    let fixture = Fixture::new().await;
    fixture.append(4).await;
    let mut exporter = fixture.exporter(&fixture.to_file("start"));
    exporter.take_turn(fixture.until_cursor(4)).await;
    fixture.put(6).await;
    fixture.append(4).await;
    assert_eq!(fixture.indexes(), [0, 1, 2, 3]);
    exporter.take_turn(fixture.until_cursor(8)).await;
    assert_eq!(fixture.indexes(), [0, 1, 2, 3, 6, 7]);
}

#[tokio::test]
async fn a_cursor_that_somebody_else_has_moved_leaves_no_record_out() {
    let mut fixture = Fixture::new().await;
    fixture.append(4).await;
    let mut exporter = fixture.exporter(&fixture.to_file("now"));
    exporter.take_turn(fixture.until_cursor(4)).await;
    fixture.append(2).await;
    exporter.take_turn(fixture.until_cursor(6)).await;
    assert_eq!(fixture.indexes(), [4, 5]);
    fixture.append(12).await;
    let moved = |next_index| SinkRow { name: "archive".into(), next_index, row_mac: [0; 32] };
    assert!(!moved(18).is_genuine(&fixture.key));
    fixture.store.put_sink(&moved(18)).await.unwrap();
    // From where this process has last seen it, with the finding.
    exporter.take_turn(fixture.until_cursor(19)).await;
    assert_eq!(fixture.indexes(), (4..19).collect::<Vec<_>>());

    // One that knows nothing of it sends everything, however far it was said to be.
    fixture.store.put_sink(&moved(19)).await.unwrap();
    fixture.start(&fixture.to_file("now"));
    fixture.until(|it| it.indexes().len() >= 35).await;
    assert_eq!(fixture.indexes()[15..], (0..20).collect::<Vec<_>>());
    let records = fixture.store.records(18, 9, None).await.unwrap();
    let found = records.iter().map(|entry| entry.record().unwrap());
    let found: Vec<_> = found.map(|it| (it.kind(), it.reason(), it.table)).collect();
    let finding = (Kind::Finding, Reason::RowChanged, "sink".to_owned());
    assert_eq!(found, [finding.clone(), finding]);
    fixture.end().await;
}
