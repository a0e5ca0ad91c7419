use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    CaFiles, LoadError, TlsFiles, TrustDomains, WorkloadApi, bundle::Bundles, workload::Feed,
};

/// Where a workload's own identity and the authorities it trusts come from: files, or the SPIFFE
/// Workload API. In a configuration either `certificate`, `key` and `ca`, or `workload_api`; with both
/// goes `crl`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Table")]
pub enum TlsSource {
    /// Files, read again when they change.
    Files(TlsFiles),
    /// The socket of an agent such as SPIRE's.
    WorkloadApi(WorkloadApi),
}

/// Both kinds of sources as they stand in a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<CaFiles>,
    crl: Option<PathBuf>,
    workload_api: Option<PathBuf>,
}

impl TryFrom<Table> for TlsSource {
    type Error = &'static str;

    fn try_from(table: Table) -> Result<Self, Self::Error> {
        let Table { certificate, key, ca, crl, workload_api } = table;
        match (certificate, key, ca, workload_api) {
            (Some(certificate), Some(key), Some(ca), None) => {
                Ok(Self::Files(TlsFiles { certificate, key, ca, crl }))
            }
            (None, None, None, Some(socket)) => Ok(Self::WorkloadApi(WorkloadApi { socket, crl })),
            _ => Err("say `certificate`, `key` and `ca`, or `workload_api` and none of them"),
        }
    }
}

impl From<TlsFiles> for TlsSource {
    fn from(files: TlsFiles) -> Self {
        Self::Files(files)
    }
}

impl TlsSource {
    /// Makes relative paths relative to a folder, that of the configuration file.
    pub fn resolve(&mut self, folder: &Path) {
        match self {
            Self::Files(files) => files.resolve(folder),
            Self::WorkloadApi(api) => api.resolve(folder),
        }
    }

    /// Begins to follow the source. Of an agent, this waits for the first identity.
    pub(crate) fn open(self) -> Result<Opened, LoadError> {
        match self {
            Self::Files(files) => Ok(Opened::Files(files)),
            Self::WorkloadApi(api) => Feed::open(api).map(Opened::Feed),
        }
    }
}

/// A source that can be read.
#[derive(Debug)]
pub(crate) enum Opened {
    Files(TlsFiles),
    Feed(Feed),
}

impl Opened {
    /// What the source says now.
    pub(crate) fn read(&self, domains: &TrustDomains) -> Result<Contents, LoadError> {
        match self {
            Self::Files(files) => files.read(domains),
            Self::Feed(feed) => feed.read(domains),
        }
    }
}

/// What was read together.
pub(crate) struct Contents {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) bundles: Bundles,
    /// Revocation lists, and the file that they are from.
    pub(crate) crl: Option<Crl>,
}

/// A file of revocation lists, PEM.
pub(crate) struct Crl {
    pub(crate) path: Arc<Path>,
    pub(crate) pem: Vec<u8>,
}

impl Contents {
    /// Equal only for equal contents.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        // A digest of each part, so that no two lists of parts run together into the same bytes.
        let mut part = |tag: &[u8], bytes: &[u8]| {
            hash.update(Sha256::digest(tag));
            hash.update(Sha256::digest(bytes));
        };
        for certificate in &self.chain {
            part(b"chain", certificate);
        }
        part(b"key", self.key.secret_der());
        for (domain, authorities) in &self.bundles {
            part(b"domain", domain.as_bytes());
            for authority in authorities {
                part(b"authority", authority);
            }
        }
        if let Some(crl) = &self.crl {
            part(b"crl", &crl.pem);
        }
        hash.finalize().into()
    }
}
