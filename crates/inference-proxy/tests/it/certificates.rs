use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, crypto::aws_lc_rs,
    version::TLS13,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

/// An authority made for one test, and what trusts it.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { certificate, issuer: Issuer::new(params, key), folder }
    }

    /// The part of a proxy's configuration that trusts this authority for providers.
    pub(crate) fn as_egress(&self) -> String {
        let ca = self.folder.path().join("ca.pem");
        format!("[egress]\nallow = [\"127.0.0.1/32\"]\nca = \"{}\"\n", ca.display())
    }

    /// The part of a proxy's configuration that shows applications a certificate of this authority.
    pub(crate) fn as_listener(&self) -> String {
        let (certificate, key) = self.issue("127.0.0.1");
        let (pem_path, key_path) = (self.path("listener.pem"), self.path("listener.key"));
        fs::write(&pem_path, certificate.pem()).unwrap();
        fs::write(&key_path, key.serialize_pem()).unwrap();
        fs::set_permissions(&key_path, fs::Permissions::from_mode(0o600)).unwrap();
        format!(
            "[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
            pem_path.display(),
            key_path.display()
        )
    }

    /// A provider's side of TLS, as the host of this name.
    pub(crate) fn provider(
        &self,
        host: &str,
        version: &'static SupportedProtocolVersion,
        protocols: &[&str],
    ) -> ServerConfig {
        let (certificate, key) = self.issue(host);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key.into())
                .unwrap();
        config.alpn_protocols = bytes_of(protocols);
        config
    }

    /// An application's side of TLS, which trusts this authority alone.
    pub(crate) fn application(&self, protocols: &[&str]) -> ClientConfig {
        self.application_of(&TLS13, protocols)
    }

    /// The same with another version of TLS.
    pub(crate) fn application_of(
        &self,
        version: &'static SupportedProtocolVersion,
        protocols: &[&str],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = bytes_of(protocols);
        config
    }

    fn issue(&self, host: &str) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Where a file of this authority is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn bytes_of(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|name| name.as_bytes().to_vec()).collect()
}
