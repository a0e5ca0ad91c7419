use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::SetupError;

/// Who may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Access {
    /// Its owner only: keys, and configuration that says where they are.
    Private,
    /// Everybody who gets into the directory: certificates.
    Public,
}

/// Makes a directory that its owner alone can enter.
pub(crate) fn create_directory(path: &Path) -> Result<(), SetupError> {
    DirBuilder::new().mode(0o700).create(path).map_err(|source| failed(path, source))
}

/// Writes a file that is there whole or not at all; refuses to replace one.
pub(crate) fn write_new(path: &Path, bytes: &[u8], access: Access) -> Result<(), SetupError> {
    let staged = stage(path, bytes, access)?;
    // A link, unlike a renaming, fails when the name is taken.
    let linked = fs::hard_link(&staged, path).map_err(|source| failed(path, source));
    fs::remove_file(&staged).map_err(|source| failed(&staged, source))?;
    linked
}

/// Writes a file that is there whole or not at all, in place of the one before.
pub(crate) fn replace(path: &Path, bytes: &[u8], access: Access) -> Result<(), SetupError> {
    let staged = stage(path, bytes, access)?;
    fs::rename(&staged, path).map_err(|source| failed(path, source))
}

/// An absolute form of the path, which need not exist.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, SetupError> {
    std::path::absolute(path).map_err(|source| failed(path, source))
}

/// The error for a file operation that failed.
pub(crate) fn failed(path: &Path, source: io::Error) -> SetupError {
    if source.kind() == io::ErrorKind::AlreadyExists {
        SetupError::Exists(path.to_owned())
    } else {
        SetupError::Files { path: path.to_owned(), source }
    }
}

fn stage(path: &Path, bytes: &[u8], access: Access) -> Result<PathBuf, SetupError> {
    let mode = match access {
        Access::Private => 0o600,
        Access::Public => 0o644,
    };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let staged = PathBuf::from(name);
    let write = || {
        if staged.try_exists()? {
            fs::remove_file(&staged)?;
        }
        // Created anew with its mode, so that a key is never readable by others, not even briefly.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| failed(&staged, source))?;
    Ok(staged)
}
