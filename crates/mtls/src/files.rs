use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use domain::Secret;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::LoadError;

/// Where a workload's own identity and the authorities it trusts are kept. The files are read
/// again when they change; files that cannot be used leave the last good ones in force.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The own certificate, an X.509-SVID, followed by its intermediates; PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM (PKCS#8 or SEC1); refused if others than its owner can reach it.
    pub key: PathBuf,
    /// The authorities whose certificates are accepted from peers, PEM. Authorities with URI name
    /// constraints are not supported: every certificate below them is refused.
    pub ca: PathBuf,
    /// Revocation lists, PEM. When set, each certificate of a peer's chain must be covered by a list
    /// that is not past its next update; otherwise the peer is refused.
    #[serde(default)]
    pub crl: Option<PathBuf>,
}

/// The bytes of the files, read together.
pub(crate) struct Contents {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Secret,
    pub(crate) ca: Vec<u8>,
    pub(crate) crl: Option<Vec<u8>>,
}

impl TlsFiles {
    /// Makes relative paths relative to a folder, that of the configuration file.
    pub fn resolve(&mut self, folder: &Path) {
        let crl = self.crl.as_mut();
        for path in [&mut self.certificate, &mut self.key, &mut self.ca].into_iter().chain(crl) {
            *path = folder.join(&*path);
        }
    }

    pub(crate) fn read(&self) -> Result<Contents, LoadError> {
        Ok(Contents {
            certificate: read_file(&self.certificate)?,
            key: read_key(&self.key)?,
            ca: read_file(&self.ca)?,
            crl: self.crl.as_deref().map(read_file).transpose()?,
        })
    }
}

impl Contents {
    /// Equal only for equal contents.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let crl = self.crl.as_deref().unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [&self.certificate, self.key.expose(), &self.ca, crl] {
            hash.update(Sha256::digest(part));
        }
        hash.finalize().into()
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    read_open(&file).map_err(unreadable)
}

fn read_key(path: &Path) -> Result<Secret, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // Asked of the open file, so that it cannot be swapped between the check and the reading.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(LoadError::KeyExposed(path.to_owned()));
    }
    read_open(&file).map(Secret::new).map_err(unreadable)
}

/// Reads into a buffer of its final size, so that a key leaves no copies behind.
fn read_open(file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > LONGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too long"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0).saturating_add(1));
    file.take(LONGEST_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A revocation list may be long; nothing else is.
const LONGEST_FILE: u64 = 16 << 20;
