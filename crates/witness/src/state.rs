use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{
    WitnessError,
    files::{failed, replace},
};

/// What a witness must not forget: the latest note that it cosigned of each log, a file each.
#[derive(Debug)]
pub(crate) struct State {
    logs: PathBuf,
    /// Held for as long as this lives: two witnesses with one state could each cosign a history.
    _lock: File,
}

impl State {
    /// Opens the folder, makes it when it is not there, and holds it against other processes.
    pub(crate) fn open(folder: &Path) -> Result<Self, WitnessError> {
        let logs = folder.join("logs");
        fs::create_dir_all(&logs).map_err(failed(&logs))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(failed(&path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => WitnessError::InUse(folder.to_owned()),
            TryLockError::Error(source) => WitnessError::File { path, source },
        })?;
        Ok(Self { logs, _lock: lock })
    }

    /// The latest note kept of a log.
    pub(crate) fn latest(&self, origin: &str) -> Result<Option<String>, WitnessError> {
        let path = self.path(origin);
        match fs::read_to_string(&path) {
            Ok(note) => Ok(Some(note)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(WitnessError::File { path, source }),
        }
    }

    /// Keeps a note in place of the one before. When this returns, a crash does not undo it.
    pub(crate) fn keep(&self, origin: &str, note: &str) -> io::Result<()> {
        replace(&self.path(origin), note.as_bytes())
    }

    /// An origin may hold what a file's name cannot.
    pub(crate) fn path(&self, origin: &str) -> PathBuf {
        self.logs.join(hex::encode(Sha256::digest(origin)))
    }
}
