use std::fs::{self, Permissions};

use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

struct Files {
    _folder: tempfile::TempDir,
    paths: ListenerTls,
}

/// A certificate that signed itself, which is also what to trust to reach it.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Files {
    fn new(identity: &Identity) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = ListenerTls {
            certificate: folder.path().join("listener.pem"),
            key: folder.path().join("listener.key"),
        };
        let files = Self { _folder: folder, paths };
        files.write_key(&identity.key.serialize_pem(), 0o600);
        files.write_certificate(&identity.certificate.pem());
        files
    }

    fn write_certificate(&self, pem: &str) {
        fs::write(&self.paths.certificate, pem).unwrap();
    }

    fn write_key(&self, pem: &str, mode: u32) {
        fs::write(&self.paths.key, pem).unwrap();
        fs::set_permissions(&self.paths.key, Permissions::from_mode(mode)).unwrap();
    }
}

impl Identity {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }
}

/// Whether a connection that is made now is to this identity.
async fn answers_as(tls: &ServerTls, identity: &Identity) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(identity.certificate.der().clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("localhost").unwrap();
    let (client, server) = tokio::join!(
        TlsConnector::from(Arc::new(client)).connect(name, near),
        TlsAcceptor::from(tls.config()).accept(far),
    );
    client.is_ok() && server.is_ok()
}

#[tokio::test]
async fn a_certificate_that_is_replaced_serves_the_next_connection() {
    let (old, new) = (Identity::new(), Identity::new());
    let files = Files::new(&old);
    let tls = ServerTls::load(files.paths.clone()).unwrap();
    assert!(answers_as(&tls, &old).await);
    files.write_key(&new.key.serialize_pem(), 0o600);
    files.write_certificate(&new.certificate.pem());
    tls.renew();
    assert!(answers_as(&tls, &new).await);
    assert!(!answers_as(&tls, &old).await);
}

#[tokio::test]
async fn a_replacement_that_cannot_be_used_leaves_the_last_good_one() {
    let (old, new) = (Identity::new(), Identity::new());
    let (pem, key) = (new.certificate.pem(), new.key.serialize_pem());
    let files = Files::new(&old);
    let tls = ServerTls::load(files.paths.clone()).unwrap();
    let half = &pem[..pem.len() / 2];
    for (certificate, key, mode) in [
        ("", &*key, 0o600),
        ("not a certificate", &*key, 0o600),
        (half, &*key, 0o600),
        (&*pem, "not a key", 0o600),
        (&*pem, &*old.key.serialize_pem(), 0o600),
        (&*pem, &*key, 0o644),
    ] {
        files.write_key(key, mode);
        files.write_certificate(certificate);
        tls.renew();
        assert!(answers_as(&tls, &old).await, "{certificate} {mode:o}");
    }
    fs::remove_file(&files.paths.certificate).unwrap();
    tls.renew();
    assert!(answers_as(&tls, &old).await);
}

#[tokio::test]
async fn a_certificate_that_comes_before_its_key_is_used_once_the_key_is_there() {
    let (old, new) = (Identity::new(), Identity::new());
    let files = Files::new(&old);
    let tls = ServerTls::load(files.paths.clone()).unwrap();
    files.write_certificate(&new.certificate.pem());
    tls.renew();
    assert!(answers_as(&tls, &old).await);
    files.write_key(&new.key.serialize_pem(), 0o600);
    tls.renew();
    assert!(answers_as(&tls, &new).await);
}

#[test]
fn the_certificate_of_the_chain_that_ends_first_is_told() {
    let date = |year| rcgen::date_time_ymd(year, 1, 1);
    let issued = |from, to| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date(from), date(to));
        Identity { certificate: params.self_signed(&key).unwrap(), key }
    };
    let (leaf, above) = (issued(2020, 2050), issued(2030, 2040));
    let files = Files::new(&leaf);
    files.write_certificate(&(leaf.certificate.pem() + &above.certificate.pem()));
    let tls = ServerTls::load(files.paths.clone()).unwrap();
    let at = date(2040).unix_timestamp();
    assert_eq!(tls.state.load().ends, Some((at, at - date(2030).unix_timestamp())));
}
