use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use domain::Secret;

use crate::WitnessError;

/// Reads a file that holds a key, unless others than its owner can reach it.
pub fn read_private(path: &Path) -> Result<Secret, WitnessError> {
    let file = File::open(path).map_err(failed(path))?;
    let mode = file.metadata().map_err(failed(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(WitnessError::KeyExposed(path.to_owned()));
    }
    // At its final size from the start, so that no copy is left behind.
    let mut bytes = Vec::with_capacity(LONGEST_KEY);
    let limit = u64::try_from(LONGEST_KEY).unwrap_or(0);
    file.take(limit).read_to_end(&mut bytes).map_err(failed(path))?;
    Ok(Secret::new(bytes))
}

/// Writes a new file that holds a key, for its owner alone; one that is there is left alone.
pub fn write_private(path: &Path, secret: &Secret) -> Result<(), WitnessError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed(path))?;
    file.write_all(secret.expose()).and_then(|()| file.sync_all()).map_err(failed(path))
}

/// Puts a file in place of what was there, durably: after a crash it is the old one or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The error for a file operation that failed.
pub(crate) fn failed(path: &Path) -> impl FnOnce(io::Error) -> WitnessError {
    let path = path.to_owned();
    move |source| WitnessError::File { path, source }
}

const LONGEST_KEY: usize = 4096;
