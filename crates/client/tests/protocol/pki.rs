//! A test PKI and the files that both ends load.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use mtls::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

pub(crate) struct Pki {
    directory: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        Self { directory, authority }
    }

    /// Files of an identity: `spiffe://test.internal/{name}`.
    pub(crate) fn identity(&self, name: &str) -> TlsFiles {
        let id = format!("spiffe://test.internal/{name}");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let at = |file: &str| self.directory.path().join(format!("{name}-{file}"));
        fs::write(at("cert.pem"), certificate.pem()).unwrap();
        write_private(&at("key.pem"), &key.serialize_pem());
        TlsFiles {
            certificate: at("cert.pem"),
            key: at("key.pem"),
            ca: self.directory.path().join("ca.pem").into(),
            crl: None,
        }
    }
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
