//! The program as a process, against a broker that runs beside it.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod approvals;
mod bad_input;
mod budgets;
mod erasure;
mod keys;
mod people;
mod retention;
mod rotation;
mod route;
mod usage;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use broker::{Broker, Config};
use domain::{Clock as _, ManualClock, SystemClock};
use serde_json::Value;
use setup::Layout;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Settings by which OpenAI is a server of this process that accepts every key.
fn provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            // One request without a body, in one piece.
            let _ = connection.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
            let _ = connection.write_all(head.as_bytes());
        }
    });
    format!(
        "\n[providers.openai]\norigin = \"http://{address}\"\n\n[egress]\nallow = [\"127.0.0.0/8\"]\n\
         danger_plain_http_to_loopback = true\n"
    )
}

/// A broker in a thread of its own, and what the program needs to call it.
struct Running {
    layout: Layout,
    folder: TempDir,
    clock: Arc<ManualClock>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Starts one that keeps records for a day, and whose clock is some time ahead: records, which
    /// have the database's time, are that old to it.
    fn start(ahead: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("strongroom");
        let layout = Layout::development(&dir, Arc::new(SystemClock)).unwrap();
        let text = fs::read_to_string(&layout.broker_config).unwrap();
        let text = text
            .replace("[log]\n", "[log]\ncommit_deadline = \"10s\"\nkeep = \"24h\"\n")
            .replace("metrics_listen", "# metrics_listen");
        let text = text + &provider();
        fs::write(&layout.broker_config, text).unwrap();
        let (config, sha256) = Config::load(&layout.broker_config).unwrap();
        let clock = Arc::new(ManualClock::at(SystemClock.now() + ahead));
        let by = Arc::clone(&clock);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let broker = Broker::open_by(config, sha256, by).await.unwrap();
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                // A test that has failed drops its end, which ends the broker too.
                let stopped = async { drop(stopped.await) };
                broker.serve(listener, stopped).await.unwrap();
            });
        });
        let address = told.recv().unwrap().to_string();
        let text = fs::read_to_string(&layout.cli_config).unwrap();
        fs::write(&layout.cli_config, text.replace("127.0.0.1:7443", &address)).unwrap();
        Self { layout, folder, clock, stop, thread }
    }

    /// A path in this test's folder.
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Calls the program and gives it something to read.
    fn give(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        self.give_by(&self.layout.cli_config, arguments, stdin)
    }

    /// As `give`, by another's configuration.
    fn give_by(&self, config: &Path, arguments: &[&str], stdin: &[u8]) -> Output {
        self.call(config, &[&["--json"], arguments].concat(), stdin)
    }

    /// Calls the program as people do, and reads what it prints.
    #[track_caller]
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.call(&self.layout.cli_config, arguments, b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn call(&self, config: &Path, arguments: &[&str], stdin: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_strongroom"))
            .arg("--config")
            .arg(config)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that refuses its arguments does not read.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap()
    }

    /// Calls the program and reads what it prints.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        answer(arguments, &self.give(arguments, b""))
    }

    /// Calls the program for something that is refused; gives its exit code and what it says.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.give(arguments, b"");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn end(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

#[track_caller]
fn answer(arguments: &[&str], output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}
