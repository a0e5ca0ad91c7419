use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::SinkError;

/// How a receiver proves who it is, and how this side does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The authorities that may vouch for the receiver, PEM.
    pub ca: PathBuf,
    /// The own certificate and its intermediates, PEM, for receivers that ask for one.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM; refused if others than its owner can reach it.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

impl Tls {
    /// Makes relative paths relative to a folder, that of the configuration file.
    pub(crate) fn resolve(&mut self, folder: &Path) {
        for path in
            [Some(&mut self.ca), self.certificate.as_mut(), self.key.as_mut()].into_iter().flatten()
        {
            *path = folder.join(&*path);
        }
    }

    /// Reads the files, anew for each connection: renewed ones take effect without a restart.
    pub(crate) fn client(&self, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>, SinkError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.ca)? {
            roots.add(authority).map_err(|error| bad(&self.ca, &error))?;
        }
        let crypto = Arc::new(CryptoProvider::clone(&aws_lc_rs::default_provider()));
        let builder = ClientConfig::builder_with_provider(crypto)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| bad(&self.ca, &error))?
            .with_root_certificates(roots);
        let mut config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|error| bad(certificate, &error))?,
            (None, None) => builder.with_no_client_auth(),
            (Some(path), None) | (None, Some(path)) => {
                return Err(bad(path, &"a certificate and its key belong together: name both"));
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let bytes = fs::read(path).map_err(|error| bad(path, &error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(bad(path, &"it holds no certificate")),
        Err(error) => Err(bad(path, &error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, SinkError> {
    let mut file = File::open(path).map_err(|error| bad(path, &error))?;
    // Asked of the open file, so that it cannot be swapped between the check and the reading.
    let stat = file.metadata().map_err(|error| bad(path, &error))?;
    if stat.permissions().mode() & 0o077 != 0 {
        return Err(bad(path, &"others than its owner can reach this private key: chmod 600 it"));
    }
    let length = usize::try_from(stat.len()).unwrap_or(0).min(LONGEST_KEY);
    let mut bytes = Zeroizing::new(vec![0; length]);
    file.read_exact(&mut bytes).map_err(|error| bad(path, &error))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| bad(path, &"it holds no private key"))
}

fn bad(path: &Path, problem: &dyn std::fmt::Display) -> SinkError {
    SinkError::Tls { path: path.to_owned(), problem: problem.to_string() }
}

const LONGEST_KEY: usize = 64 * 1024;
