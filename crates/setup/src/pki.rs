use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use domain::{Clock, SpiffeId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd, string::Ia5String,
};
use zeroize::Zeroizing;

use crate::{
    SetupError,
    files::{Access, create_directory, failed, replace, write_new},
};

/// A certificate authority that issues identities for one trust domain. It suits a deployment that
/// has no SPIRE or other issuer of X.509-SVIDs; move `ca.key` off the machine when all are issued.
#[derive(Debug)]
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    trust_domain: String,
    certificate: PathBuf,
    clock: Arc<dyn Clock>,
}

/// An issued identity, as files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Svid {
    /// Who it names.
    pub spiffe_id: SpiffeId,
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM, mode 0600.
    pub key: PathBuf,
}

impl Pki {
    /// Makes a new authority as `ca.pem` and `ca.key` in `dir`, which is made too unless it is there.
    /// An authority that is there already is not replaced.
    pub fn create(
        dir: &Path,
        trust_domain: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SetupError> {
        identity(trust_domain, "x")?;
        if !dir.is_dir() {
            create_directory(dir)?;
        }
        let key = KeyPair::generate().map_err(SetupError::Certificate)?;
        let params = authority(trust_domain, clock.as_ref())?;
        let certificate = params.self_signed(&key).map_err(SetupError::Certificate)?;
        let pem = Zeroizing::new(key.serialize_pem());
        write_new(&dir.join(CA_KEY), pem.as_bytes(), Access::Private)?;
        let path = dir.join(CA_CERTIFICATE);
        write_new(&path, certificate.pem().as_bytes(), Access::Public)?;
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, trust_domain: trust_domain.to_owned(), certificate: path, clock })
    }

    /// Opens the authority that `create` made in `dir`.
    pub fn open(dir: &Path, trust_domain: &str, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        identity(trust_domain, "x")?;
        let read = |path: &Path| fs::read_to_string(path).map_err(|source| failed(path, source));
        let key = Zeroizing::new(read(&dir.join(CA_KEY))?);
        let key = KeyPair::from_pem(&key).map_err(SetupError::Certificate)?;
        let certificate = dir.join(CA_CERTIFICATE);
        let issuer =
            Issuer::from_ca_cert_pem(&read(&certificate)?, key).map_err(SetupError::Certificate)?;
        Ok(Self { issuer, trust_domain: trust_domain.to_owned(), certificate, clock })
    }

    /// The authority's certificate, which peers are told to trust.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Issues `spiffe://<trust domain>/<path>` with a new key as `<name>.pem` and `<name>.key` in
    /// `dir`, in place of those before; whoever watches the files takes the new ones over.
    pub fn issue(
        &self,
        dir: &Path,
        name: &str,
        path: &str,
        lifetime: Duration,
    ) -> Result<Svid, SetupError> {
        self.issue_to_server(dir, name, path, &[], lifetime)
    }

    /// As `issue`, with DNS names beside the identity: clients that are not ours check those.
    pub fn issue_to_server(
        &self,
        dir: &Path,
        name: &str,
        path: &str,
        hosts: &[&str],
        lifetime: Duration,
    ) -> Result<Svid, SetupError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name == "ca" || !name.bytes().all(plain) {
            return Err(SetupError::InvalidName(name.to_owned()));
        }
        let spiffe_id = identity(&self.trust_domain, path)?;
        let key = KeyPair::generate().map_err(SetupError::Certificate)?;
        let mut params = leaf(&spiffe_id, lifetime, self.clock.as_ref())?;
        for host in hosts {
            let host = Ia5String::try_from(*host).map_err(SetupError::Certificate)?;
            params.subject_alt_names.push(SanType::DnsName(host));
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(SetupError::Certificate)?;
        let svid = Svid {
            spiffe_id,
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
        };
        let pem = Zeroizing::new(key.serialize_pem());
        replace(&svid.key, pem.as_bytes(), Access::Private)?;
        replace(&svid.certificate, certificate.pem().as_bytes(), Access::Public)?;
        Ok(svid)
    }
}

fn identity(trust_domain: &str, path: &str) -> Result<SpiffeId, SetupError> {
    let id: SpiffeId =
        format!("spiffe://{trust_domain}/{path}").parse().map_err(SetupError::InvalidIdentity)?;
    // A slash in the trust domain would move part of it into the path.
    if id.trust_domain() != trust_domain {
        return Err(SetupError::InvalidName(trust_domain.to_owned()));
    }
    Ok(id)
}

fn authority(trust_domain: &str, clock: &dyn Clock) -> Result<CertificateParams, SetupError> {
    let mut params = params(
        &format!("Strongroom authority of {trust_domain}"),
        // A signing certificate carries its trust domain as an ID without a path.
        &format!("spiffe://{trust_domain}"),
        CA_LIFETIME,
        clock,
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(
    id: &SpiffeId,
    lifetime: Duration,
    clock: &dyn Clock,
) -> Result<CertificateParams, SetupError> {
    let mut params = params("Strongroom workload", id.as_str(), lifetime, clock)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Both, because a workload may serve one peer and call another.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(
    name: &str,
    uri: &str,
    lifetime: Duration,
    clock: &dyn Clock,
) -> Result<CertificateParams, SetupError> {
    let mut params = CertificateParams::default();
    let now = u64::try_from(clock.now().as_millis()).unwrap_or(0) / 1000;
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + lifetime;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let uri = Ia5String::try_from(uri).map_err(SetupError::Certificate)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    Ok(params)
}

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const CA_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// Certificates start this much early, for peers whose clocks run behind.
const CLOCK_SKEW: Duration = Duration::from_mins(5);
