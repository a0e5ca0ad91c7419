use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;

use crate::{
    LoadError, TrustDomains,
    files::{certificates, malformed, read_file},
};

/// Where the authorities are kept whose certificates are accepted from peers. A file is PEM, or a SPIFFE
/// trust bundle (JSON), as SPIRE's `bundle show -format spiffe` writes it; which of them, its contents
/// say. Authorities with URI name constraints are not supported: every certificate below them is refused.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(untagged)]
pub enum CaFiles {
    /// One file for all trust domains. A SPIFFE trust bundle is one domain's, so it can only stand for
    /// several if each has its own.
    All(PathBuf),
    /// A file for each trust domain. An authority vouches for the domain that its file is named for, and
    /// for no other.
    ByDomain(BTreeMap<String, PathBuf>),
}

/// The authorities of each trust domain.
pub(crate) type Bundles = BTreeMap<String, Vec<CertificateDer<'static>>>;

impl From<PathBuf> for CaFiles {
    fn from(path: PathBuf) -> Self {
        Self::All(path)
    }
}

impl CaFiles {
    /// Makes relative paths relative to a folder.
    pub(crate) fn resolve(&mut self, folder: &Path) {
        let paths: Vec<&mut PathBuf> = match self {
            Self::All(path) => vec![path],
            Self::ByDomain(paths) => paths.values_mut().collect(),
        };
        for path in paths {
            *path = folder.join(&*path);
        }
    }

    /// Reads the authorities of every admitted trust domain.
    pub(crate) fn read(&self, domains: &TrustDomains) -> Result<Bundles, LoadError> {
        match self {
            Self::All(path) => {
                let text = read_file(path)?;
                if is_json(&text) && domains.names().count() > 1 {
                    return Err(LoadError::BundleOfOneDomain(path.clone()));
                }
                let authorities = parse(path, &text)?;
                Ok(domains.names().map(|name| (name.to_owned(), authorities.clone())).collect())
            }
            Self::ByDomain(paths) => {
                let mut bundles = Bundles::new();
                for (domain, path) in paths {
                    if !domains.names().any(|name| name == domain) {
                        return Err(LoadError::ForeignAuthorities(domain.clone()));
                    }
                    bundles.insert(domain.clone(), parse(path, &read_file(path)?)?);
                }
                Ok(bundles)
            }
        }
    }
}

fn is_json(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"{")
}

fn parse(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    if !is_json(text) {
        return certificates(path, text);
    }
    let unreadable = || malformed(path, "SPIFFE trust bundle");
    let bundle: Bundle = serde_json::from_slice(text).map_err(|_| unreadable())?;
    let x509 = bundle.keys.into_iter().filter(|key| key.usage.as_deref() == Some("x509-svid"));
    x509.map(|key| key.certificate().ok_or_else(unreadable)).collect()
}

/// A SPIFFE trust bundle: the keys of JWT-SVIDs and those of later standards are passed over. One that
/// has no key of ours is valid: its trust domain has withdrawn what it published, and nobody of it is
/// accepted.
#[derive(Deserialize)]
struct Bundle {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    #[expect(
        dead_code,
        reason = "the standard requires it of every key; the certificate says it too"
    )]
    kty: String,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    x5c: Vec<String>,
}

impl Key {
    /// The authority's certificate, of which there is exactly one.
    fn certificate(&self) -> Option<CertificateDer<'static>> {
        let [certificate] = self.x5c.as_slice() else { return None };
        STANDARD.decode(certificate).ok().map(CertificateDer::from)
    }
}
