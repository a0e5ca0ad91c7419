use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use domain::{Clock, ManualClock, Timestamp};
use mtls::{ClientTls, LoadError, ServerTls, TlsFiles, TrustDomains};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

/// Seconds from 1970 to the moment the tests are set in.
pub(crate) const NOW: u64 = 1_800_000_000;

/// A directory of certificates, and the clock that they are looked at with.
pub(crate) struct Pki {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) authority: Authority,
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A good leaf's parameters, to be made worse.
pub(crate) fn leaf(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(NOW - 60);
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(NOW + 3600);
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A revocation list with the serial numbers, good until `next_update` seconds after 1970.
    pub(crate) fn revoke(&self, serials: &[u64], next_update: u64) -> String {
        let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: at(NOW - 30),
            reason_code: None,
            invalidity_date: None,
        };
        CertificateRevocationListParams {
            this_update: at(NOW - 30),
            next_update: at(next_update),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }
}

impl Pki {
    pub(crate) fn new() -> Self {
        let now = Timestamp::from_millis(i64::try_from(NOW * 1000).unwrap());
        let clock = Arc::new(ManualClock::at(now));
        let pki = Self { dir: TempDir::new().unwrap(), clock, authority: Authority::new("ours") };
        fs::write(pki.path("ca.pem"), &pki.authority.pem).unwrap();
        pki
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::<ManualClock>::clone(&self.clock)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Issues a certificate by our authority.
    pub(crate) fn issue(&self, name: &str, params: &CertificateParams) -> TlsFiles {
        self.issue_by(&self.authority, name, params)
    }

    pub(crate) fn issue_by(
        &self,
        authority: &Authority,
        name: &str,
        params: &CertificateParams,
    ) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        let files = TlsFiles {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            ca: self.path("ca.pem").into(),
            crl: None,
        };
        write_private(&files.key, &key.serialize_pem());
        fs::write(&files.certificate, certificate.pem()).unwrap();
        files
    }

    /// Issues a certificate that nothing is wrong with.
    pub(crate) fn good(&self, path: &str) -> TlsFiles {
        let name = path.replace('/', "-");
        self.issue(&name, &leaf(&format!("spiffe://acme.internal/{path}")))
    }

    pub(crate) fn server(&self, files: TlsFiles) -> Result<Arc<ServerTls>, LoadError> {
        ServerTls::load(files, domains(&["acme.internal"]), self.clock())
    }

    /// A client that lets its own certificate be anything the tests make it.
    pub(crate) fn client(&self, files: TlsFiles) -> Result<Arc<ClientTls>, LoadError> {
        let expected = "spiffe://acme.internal/broker".parse().unwrap();
        let domains = domains(&["acme.internal", "evil.example"]);
        ClientTls::load(files, domains, expected, self.clock())
    }
}

pub(crate) fn domains(names: &[&str]) -> TrustDomains {
    TrustDomains::new(names.iter().copied()).unwrap()
}

pub(crate) fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
