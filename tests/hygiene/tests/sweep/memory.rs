//! What a process holds, as the kernel shows it to root, and what it writes, as `strace` shows it.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use e2e::Forms;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinSet,
};

/// All that can be read of a process's memory, a piece for each mapping. Without root nothing can be:
/// the process has seen to that, and this checks it.
pub(crate) fn memory(pid: u32) -> Option<Vec<(String, Vec<u8>)>> {
    let opened = File::open(format!("/proc/{pid}/mem"));
    if !geteuid().is_root() {
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::PermissionDenied);
        return None;
    }
    let memory = opened.unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut pieces = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        // What cannot be written holds the program and its constants.
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut piece = vec![0; usize::try_from(to - from).unwrap()];
        // Secret memory is not even root's to read, and what was unmapped meanwhile is gone.
        if memory.read_exact_at(&mut piece, from).is_ok() {
            pieces.push((line.to_owned(), piece));
        }
    }
    Some(pieces)
}

/// The mappings of a process that hold one of these secrets, with its form.
pub(crate) fn memory_with(forms: &Forms, pid: u32) -> Vec<(String, String)> {
    let pieces = memory(pid).unwrap_or_default();
    let found = |(of, piece): &(String, Vec<u8>)| forms.show(piece).map(|form| (of.clone(), form));
    pieces.iter().filter_map(found).collect()
}

/// What a process writes from here on.
pub(crate) struct Writes {
    tracer: Child,
    into: PathBuf,
    _reading: JoinSet<()>,
}

/// One write: where to, and what.
pub(crate) struct Write {
    pub(crate) to: String,
    pub(crate) bytes: Vec<u8>,
}

impl Writes {
    /// Begins to look. Without root nobody may, which this checks.
    pub(crate) async fn of(strace: &Path, pid: u32, into: &Path) -> Option<Self> {
        let mut tracer = Command::new(strace)
            .args(["-f", "-y", "-xx", "-s", "1000000", "-e"])
            .arg("trace=write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendmmsg")
            .arg("-o")
            .arg(into)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(tracer.stderr.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().unwrap_or_default();
        if !geteuid().is_root() {
            assert!(first.contains("not permitted"), "{first}");
            return None;
        }
        assert!(first.contains("attached"), "{first}");
        // It stops when nobody reads what it says.
        let mut reading = JoinSet::new();
        reading.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self { tracer, into: into.to_owned(), _reading: reading })
    }

    /// The file that they are noted in.
    pub(crate) fn noted_in(&self) -> &Path {
        &self.into
    }

    /// Looks no longer, and says what was seen.
    pub(crate) async fn end(mut self) -> Vec<Write> {
        let tracer = Pid::from_raw(self.tracer.id().unwrap().cast_signed()).unwrap();
        kill_process(tracer, Signal::INT).unwrap();
        self.tracer.wait().await.unwrap();
        fs::read_to_string(&self.into).unwrap().lines().filter_map(read).collect()
    }
}

/// Reads a line such as `17 write(2</tmp/log>, "\x61\x62", 2) = 2`, with all text in hex.
fn read(line: &str) -> Option<Write> {
    let (_, of) = line.split_once('<')?;
    let (to, rest) = of.split_once('>')?;
    let to = String::from_utf8_lossy(&unescaped(to)).into_owned();
    // Several pieces of one write follow each other in what is sent, so they do here.
    let pieces = rest.split('"').skip(1).step_by(2);
    Some(Write { to, bytes: pieces.flat_map(unescaped).collect() })
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let code = rest.strip_prefix("\\x").and_then(|it| it.get(..2));
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            bytes.push(byte);
            rest = rest.get(4..).unwrap_or_default();
        } else {
            let mut utf8 = [0; 4];
            bytes.extend_from_slice(first.encode_utf8(&mut utf8).as_bytes());
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    bytes
}

#[test]
fn a_line_of_strace_is_read() {
    let line = r#"17 writev(9<\x73\x6f\x63\x6b\x65\x74:[1]>, [{iov_base="\x61\x62", iov_len=2}, {iov_base="\x63", iov_len=1}], 2) = 3"#;
    let write = read(line).unwrap();
    assert_eq!((&*write.to, &*write.bytes), ("socket:[1]", &b"abc"[..]));
    assert!(read("17 +++ exited with 0 +++").is_none());
}
