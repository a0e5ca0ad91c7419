use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    mem,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use tokio::task::spawn_blocking;

use crate::{Event, Format, Sink, SinkError};

/// Lines in a file, each batch durable before it counts as sent.
///
/// Whoever moves the file away gets a new one in its place with the next batch: no signal is needed.
#[derive(Debug)]
pub(crate) struct FileSink {
    path: PathBuf,
    format: Format,
    open: Option<File>,
}

/// A record is far smaller than this: whatever half a line a crash left lies within.
const TAIL: u64 = 1 << 20;

impl FileSink {
    pub(crate) fn new(path: PathBuf, format: Format) -> Self {
        Self { path, format, open: None }
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn send(&mut self, batch: &[Event]) -> Result<u64, SinkError> {
        let mut lines = String::new();
        for event in batch {
            lines.push_str(&self.format.line(event));
            lines.push('\n');
        }
        let (path, open) = (self.path.clone(), mem::take(&mut self.open));
        // In one piece on a thread of its own: a call that is given up leaves no half of it behind.
        let written = spawn_blocking(move || write(&path, open, lines.as_bytes())).await;
        let failed = |source| SinkError::File { path: self.path.clone(), source };
        self.open = Some(written.map_err(|ended| failed(ended.into()))??);
        Ok(0)
    }

    fn acknowledges(&self) -> bool {
        true
    }
}

fn write(path: &Path, open: Option<File>, lines: &[u8]) -> Result<File, SinkError> {
    let failed = |source| SinkError::File { path: path.to_owned(), source };
    let mut file = match open {
        Some(file) if is_at(&file, path).map_err(failed)? => file,
        Some(_) | None => reopen(path)?,
    };
    let before = file.metadata().map_err(failed)?.len();
    match file.write_all(lines).and_then(|()| file.sync_all()) {
        Ok(()) => Ok(file),
        Err(error) => {
            // On a full disk half a line may stand there; what is left is cut when it is next opened.
            let _ = file.set_len(before);
            Err(failed(error))
        }
    }
}

/// Whether the open file still is the one at the path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the file at its end, without the half line that a crash may have left there.
fn reopen(path: &Path) -> Result<File, SinkError> {
    let failed = |source| SinkError::File { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640);
    let mut file = options.open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length == 0 {
        sync_folder(path).map_err(failed)?;
        return Ok(file);
    }
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(failed)?;
    let whole = match tail.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => from + u64::try_from(at).unwrap_or(0) + 1,
        // Half of the first line; anything else is not ours to cut.
        None if from == 0 && is_beginning(&tail) => 0,
        None => return Err(SinkError::NotOurs(path.to_owned())),
    };
    if whole < length {
        file.set_len(whole).and_then(|()| file.sync_all()).map_err(failed)?;
    }
    Ok(file)
}

/// Whether these bytes can be the beginning of a line of ours.
fn is_beginning(bytes: &[u8]) -> bool {
    let begins = |line: &[u8]| bytes.starts_with(line) || line.starts_with(bytes);
    begins(b"{\"") || begins(b"CEF:0|")
}

/// A new file is durable when its name is.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all(),
        Some(_) | None => File::open(".")?.sync_all(),
    }
}
