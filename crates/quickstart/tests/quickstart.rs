//! The binary as a newcomer starts it, without a provider's key.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up fails")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// The running binary, killed when a test ends early.
struct Quickstart {
    child: Child,
    address: String,
    key: String,
    stderr: Option<JoinHandle<String>>,
}

impl Quickstart {
    /// Starts it and reads the two lines that scripts read.
    fn start(state_dir: &Path) -> Self {
        Self::start_with(state_dir, &[])
    }

    /// The same with keys of providers in the environment.
    fn start_with(state_dir: &Path, keys: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_quickstart"))
            .args(["--listen", "127.0.0.1:0", "--state-dir"])
            .arg(state_dir)
            .env_remove("OPENAI_API_KEY")
            .env_remove("ANTHROPIC_API_KEY")
            .envs(keys.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Read all the time, so that it never waits for a reader.
        let mut pipe = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            text
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = |name: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(name).unwrap_or_else(|| panic!("not {name}: {line}")).to_owned()
        };
        let base_url = line("STRONGROOM_BASE_URL=");
        let key = line("STRONGROOM_API_KEY=");
        let address = base_url.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap();
        Self { address: address.to_owned(), child, key, stderr: Some(stderr) }
    }

    fn call(&self, path: &str, body: &str) -> String {
        call(&self.address, &self.key, path, body)
    }

    /// Ctrl-C; what it wrote for people.
    fn stop(mut self) -> String {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).unwrap();
        let status = self.child.wait().unwrap();
        let said = self.stderr.take().unwrap().join().unwrap();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        // Gone already after `stop`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP call as a program without an SDK makes it: the whole answer, headers included.
fn call(address: &str, key: &str, path: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(
        connection,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ncontent-type: \
         application/json\r\ntraceparent: 00-{TRACE}-b7ad6b7169203331-01\r\ncontent-length: \
         {}\r\nconnection: close\r\n\r\n{body}",
        body.len(),
    )
    .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// The trace that every call of a test belongs to.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Everything in a folder, one file after another.
fn contents(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .flat_map(|it| if it.is_dir() { contents(&it) } else { std::fs::read(it).unwrap() })
        .collect()
}

const PLAIN: &str = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hi"}]}"#;
const STREAMED: &str =
    r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
const MESSAGE: &str = r#"{"model":"claude-haiku-4-5","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;

#[test]
fn a_newcomer_calls_it_and_ctrl_c_proves_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let quickstart = Quickstart::start(&state);

    let plain = quickstart.call("/v1/chat/completions", PLAIN);
    assert!(plain.starts_with("HTTP/1.1 200 "), "{plain}");
    assert!(plain.contains("no model wrote this"), "{plain}");
    assert!(plain.to_ascii_lowercase().contains("x-strongroom-source: byok"), "{plain}");
    assert!(!plain.contains(&quickstart.key));

    let streamed = quickstart.call("/v1/chat/completions", STREAMED);
    assert!(streamed.contains("text/event-stream"), "{streamed}");
    assert!(streamed.matches("data: {").count() > 5, "{streamed}");
    assert!(streamed.contains("data: [DONE]"), "{streamed}");

    let message = quickstart.call("/v1/messages", MESSAGE);
    assert!(message.contains("event: message_stop"), "{message}");

    let foreign = call(&quickstart.address, "vk_nonsense", "/v1/chat/completions", PLAIN);
    assert!(foreign.starts_with("HTTP/1.1 401 "), "{foreign}");

    let said = quickstart.stop();
    assert!(said.contains("answers come from a stand-in"), "{said}");
    assert!(said.contains("lent tenants/quickstart/credentials/openai-stand-in v1"), "{said}");
    assert!(said.contains("2 leases, nothing changed and nothing missing"), "{said}");

    // From the application through the proxy to the broker: the record names the call's trace.
    let trace: Vec<u8> = TRACE.as_bytes().chunks(2).map(hex_byte).collect();
    let log = contents(&state.join("export"));
    assert!(log.windows(trace.len()).any(|part| part == trace), "the trace is not in the log");
}

fn hex_byte(digits: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
}

#[test]
fn a_second_start_goes_on_with_the_same_log_and_ends_the_first_key() {
    let folder = tempfile::tempdir().unwrap();
    let first = Quickstart::start(folder.path().join("state").as_path());
    let ended = first.key.clone();
    first.call("/v1/chat/completions", PLAIN);
    first.stop();

    let second = Quickstart::start(folder.path().join("state").as_path());
    let refused = call(&second.address, &ended, "/v1/chat/completions", PLAIN);
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    let answered = second.call("/v1/chat/completions", PLAIN);
    assert!(answered.starts_with("HTTP/1.1 200 "), "{answered}");
    let said = second.stop();
    assert!(said.contains("It continues the log of"), "{said}");
    assert!(said.contains("2 leases, nothing changed and nothing missing"), "{said}");
}

#[test]
fn a_state_directory_has_one_user_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let quickstart = Quickstart::start(folder.path().join("state").as_path());
    let second = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .args(["--listen", "127.0.0.1:0", "--state-dir"])
        .arg(folder.path().join("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another quickstart runs"), "{said}");
    quickstart.stop();
}

#[test]
fn a_providers_key_takes_the_stand_ins_place_and_rests_when_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    Quickstart::start(&state).stop();

    let real = Quickstart::start_with(&state, &[("OPENAI_API_KEY", "sk-not-a-real-key-4321")]);
    let said = real.stop();
    assert!(!said.contains("stand-in at"), "{said}");
    assert!(!said.contains("sk-not-a-real-key"), "{said}");

    let third = Quickstart::start(&state);
    let answered = third.call("/v1/chat/completions", PLAIN);
    assert!(answered.contains("no model wrote this"), "{answered}");
    let said = third.stop();
    assert!(said.contains("credentials/openai is stored and rests"), "{said}");

    // Once more, as it is stored already: it is enabled again.
    let said =
        Quickstart::start_with(&state, &[("OPENAI_API_KEY", "sk-not-a-real-key-4321")]).stop();
    assert!(said.contains("nothing changed and nothing missing"), "{said}");
}
