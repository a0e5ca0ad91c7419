use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use audit::SignerKey;
use domain::Clock;
use envelope::LocalKms;

use crate::{
    Pki, SetupError,
    files::{Access, absolute, create_directory, failed, write_new},
};

/// A deployment's directory: where everything in it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    /// The trust domain its identities belong to.
    pub trust_domain: String,
    /// The broker's configuration.
    pub broker_config: PathBuf,
    /// The access policy.
    pub policy: PathBuf,
    /// The inference proxy's configuration.
    pub proxy_config: PathBuf,
    /// The configuration of the command line tool.
    pub cli_config: PathBuf,
    /// The authority and the identities.
    pub pki: PathBuf,
    /// The local KMS's key.
    pub kms_key: PathBuf,
    /// The key that signs the log's checkpoints.
    pub log_key: PathBuf,
    /// The key that verifies them, to be handed to whoever verifies the log.
    pub log_verifier: PathBuf,
    /// The embedded database and what else grows.
    pub data: PathBuf,
}

impl Layout {
    /// Lays out a deployment for one machine, with an authority of its own. It is there whole or not
    /// at all; a directory that has something in it is refused.
    pub fn development(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        Self::create(dir, DEVELOPMENT_DOMAIN, clock)
    }

    /// As `development`, for a trust domain.
    pub fn create(
        dir: &Path,
        trust_domain: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SetupError> {
        let dir = absolute(dir)?;
        let staged = staging(&dir)?;
        create_directory(&staged)?;
        let moved = Self::at(&staged, trust_domain).write(clock).and_then(|()| {
            // Onto a free name or an empty directory; anything else makes this fail.
            fs::rename(&staged, &dir).map_err(|source| {
                if dir.exists() { SetupError::Exists(dir.clone()) } else { failed(&dir, source) }
            })
        });
        if moved.is_err() {
            // What went wrong before matters more than this.
            drop(fs::remove_dir_all(&staged));
        }
        moved.map(|()| Self::at(&dir, trust_domain))
    }

    /// The places in a directory, whether anything is there or not.
    pub fn at(dir: &Path, trust_domain: &str) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            broker_config: dir.join("broker.toml"),
            policy: dir.join("policy.toml"),
            proxy_config: dir.join("proxy.toml"),
            cli_config: dir.join("strongroom.toml"),
            pki: dir.join("pki"),
            kms_key: dir.join("keys/kms.key"),
            log_key: dir.join("keys/log.key"),
            log_verifier: dir.join("log.pub"),
            data: dir.join("data"),
        }
    }

    fn write(&self, clock: Arc<dyn Clock>) -> Result<(), SetupError> {
        let pki = Pki::create(&self.pki, &self.trust_domain, clock)?;
        for (name, path, hosts) in IDENTITIES {
            pki.issue_to_server(&self.pki, name, path, hosts, SVID_LIFETIME)?;
        }
        create_directory(&self.data)?;
        self.write_keys()?;
        for (path, template) in [
            (&self.broker_config, BROKER),
            (&self.policy, POLICY),
            (&self.proxy_config, PROXY),
            (&self.cli_config, CLI),
        ] {
            // A trust domain has no character that means anything in TOML.
            let text = template.replace("{{trust_domain}}", &self.trust_domain);
            toml::from_str::<toml::Table>(&text).map_err(SetupError::Configuration)?;
            write_new(path, text.as_bytes(), Access::Private)?;
        }
        Ok(())
    }

    fn write_keys(&self) -> Result<(), SetupError> {
        if let Some(keys) = self.log_key.parent() {
            create_directory(keys)?;
        }
        LocalKms::create_new(&self.kms_key, None).map_err(SetupError::KmsKey)?;
        // A key's name is the log's origin: it says whose log this is.
        let key = SignerKey::generate(&format!("{}/log", self.trust_domain))
            .map_err(SetupError::LogKey)?;
        write_new(&self.log_key, key.to_text().expose(), Access::Private)?;
        let verifier = format!("{}\n", key.verifier());
        write_new(&self.log_verifier, verifier.as_bytes(), Access::Public)
    }
}

/// A free name beside the directory, on the same file system, so that it can be renamed.
fn staging(dir: &Path) -> Result<PathBuf, SetupError> {
    let unnamed = || SetupError::InvalidName(dir.display().to_string());
    let mut name = OsString::from(".");
    name.push(dir.file_name().ok_or_else(unnamed)?);
    name.push(format!(".{}", process::id()));
    Ok(dir.with_file_name(name))
}

/// File names, SPIFFE paths, and the DNS names that clients which are not ours check.
const IDENTITIES: [(&str, &str, &[&str]); 3] = [
    ("broker", "broker", &["localhost"]),
    ("inference-proxy", "inference-proxy", &[]),
    ("admin", "admin/local", &[]),
];

const DEVELOPMENT_DOMAIN: &str = "strongroom.local";

/// A deployment with its own authority renews by hand, so these last; an issuer such as SPIRE gives
/// out hours.
const SVID_LIFETIME: Duration = Duration::from_hours(365 * 24);

const BROKER: &str = include_str!("../templates/broker.toml");
const POLICY: &str = include_str!("../templates/policy.toml");
const PROXY: &str = include_str!("../templates/proxy.toml");
const CLI: &str = include_str!("../templates/strongroom.toml");
