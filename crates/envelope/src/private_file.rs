use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat, open},
    process::geteuid,
};
use zeroize::Zeroizing;

use crate::KeyFileError;

const LARGEST: u64 = 64 * 1024;

/// Reads a file that nobody but this user could have read or written.
///
/// What is checked is the file that was opened, not its path, so it cannot be exchanged between.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let failed = |error: io::Error| KeyFileError::Io(path.to_owned(), error);
    // NONBLOCK so that a pipe put in the file's place cannot hold the start up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::LOOP) => return Err(KeyFileError::Exposed(path.to_owned())),
        Err(error) => return Err(failed(error.into())),
    };
    let stat = fstat(&file).map_err(|error| failed(error.into()))?;
    let others = Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO);
    let regular = FileType::from_raw_mode(stat.st_mode).is_file();
    if !regular || others || stat.st_uid != geteuid().as_raw() || stat.st_nlink > 1 {
        return Err(KeyFileError::Exposed(path.to_owned()));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > LARGEST {
        return Err(KeyFileError::Malformed(path.to_owned()));
    }
    // The buffer has its final size, so that growing leaves no copy of the key behind.
    let mut bytes = Zeroizing::new(vec![0; usize::try_from(size).unwrap_or(0)]);
    File::from(file).read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The content but for a line break at the end: editors end a file with one that nobody typed.
pub(crate) fn without_line_break(bytes: &[u8]) -> &[u8] {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Makes a file of mode 0600, durably. An existing one is left alone, and is an error.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let failed = |error: io::Error| KeyFileError::Io(path.to_owned(), error);
    write_new(path, bytes).map_err(failed)?;
    sync_directory(path).map_err(failed)
}

/// Puts a new file in an existing one's place, durably: a crash leaves the old one or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let failed = |error: io::Error| KeyFileError::Io(path.to_owned(), error);
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    // Left behind by a crash before the rename, and ours: the directory is.
    match std::fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    write_new(new, bytes).map_err(failed)?;
    std::fs::rename(new, path).map_err(failed)?;
    sync_directory(path).map_err(failed)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let mut file = File::from(open(path, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
