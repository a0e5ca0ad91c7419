use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;

/// The way to providers, for tests of credentials and for the exchange of tokens. Redirects are never
/// followed and proxies of the environment never used.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// Networks that may be called although they are not public, such as `10.1.0.0/16` for models in
    /// the own network.
    pub allow: Vec<IpNet>,
    /// Whether plain HTTP goes to those loopback addresses that `allow` names: for tests, whose
    /// providers run beside them.
    pub danger_plain_http_to_loopback: bool,
    /// The authorities of providers' certificates, PEM. Absent: the machine's own.
    pub ca: Option<PathBuf>,
    /// How long connecting may take, TLS included.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
}

/// Who the broker is at AWS.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsConfig {
    /// A file with keys in the form that AWS calls `credential_process`, read anew each time they are
    /// needed. Refused if others can read it.
    pub identity_file: PathBuf,
}

/// When credentials are tested without anybody asking.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyTests {
    /// Each enabled credential is tested so often, at a moment of its own; `0s`: never.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// A credential that its provider refuses is tested again after this time, and disabled when it is
    /// refused again.
    #[serde(with = "humantime_serde")]
    pub confirm_after: Duration,
}

impl EgressConfig {
    pub(super) fn resolve(&mut self, folder: &Path) {
        if let Some(path) = &mut self.ca {
            *path = folder.join(&*path);
        }
    }
}

impl KeyTests {
    /// Sooner again than this would be no confirmation, and a burden for providers.
    pub(super) fn check(&self) -> Result<(), String> {
        if !self.every.is_zero() && self.every < SHORTEST {
            return Err("key_tests: `every` is 1m at the least, or 0s for never".to_owned());
        }
        if self.confirm_after < SHORTEST {
            return Err("key_tests: `confirm_after` is 1m at the least".to_owned());
        }
        Ok(())
    }
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            danger_plain_http_to_loopback: false,
            ca: None,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for KeyTests {
    fn default() -> Self {
        Self { every: Duration::from_hours(24), confirm_after: Duration::from_mins(10) }
    }
}

const SHORTEST: Duration = Duration::from_mins(1);
