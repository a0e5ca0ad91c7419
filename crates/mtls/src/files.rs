use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use domain::Secret;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    CaFiles, LoadError, TrustDomains,
    source::{Contents, Crl},
};

/// Where a workload's own identity and the authorities it trusts are kept. The files are read
/// again when they change; files that cannot be used leave the last good ones in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// The own certificate, an X.509-SVID, followed by its intermediates; PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM (PKCS#8 or SEC1); refused if others than its owner can reach it.
    pub key: PathBuf,
    /// The authorities whose certificates are accepted from peers.
    pub ca: CaFiles,
    /// Revocation lists, PEM. When set, each certificate of a peer's chain must be covered by a list
    /// that is not past its next update; otherwise the peer is refused.
    pub crl: Option<PathBuf>,
}

impl TlsFiles {
    /// Makes relative paths relative to a folder, that of the configuration file.
    pub fn resolve(&mut self, folder: &Path) {
        let crl = self.crl.as_mut();
        for path in [&mut self.certificate, &mut self.key].into_iter().chain(crl) {
            *path = folder.join(&*path);
        }
        self.ca.resolve(folder);
    }

    pub(crate) fn read(&self, domains: &TrustDomains) -> Result<Contents, LoadError> {
        let key = read_key(&self.key)?;
        Ok(Contents {
            chain: certificates(&self.certificate, &read_file(&self.certificate)?)?,
            key: PrivateKeyDer::from_pem_slice(key.expose())
                .map_err(|_| malformed(&self.key, "private key"))?,
            bundles: self.ca.read(domains)?,
            crl: read_crl(self.crl.as_deref())?,
        })
    }
}

/// The revocation lists, when there is a file of them.
pub(crate) fn read_crl(path: Option<&Path>) -> Result<Option<Crl>, LoadError> {
    let Some(path) = path else { return Ok(None) };
    Ok(Some(Crl { path: Arc::from(path), pem: read_file(path)? }))
}

pub(crate) fn certificates(
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(malformed(path, "certificate")),
    }
}

pub(crate) fn malformed(path: &Path, expected: &'static str) -> LoadError {
    LoadError::Malformed { path: path.to_owned(), expected }
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
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
