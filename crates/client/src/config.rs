use std::{fs, io, path::Path, time::Duration};

use audit::VerifierKey;
use domain::SpiffePattern;
use mtls::{TlsSource, TrustDomains};
use serde::Deserialize;

use crate::ClientError;

/// Where the broker is and how both ends prove who they are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The broker's address: `host:port`.
    pub broker: String,
    /// The own identity and the authorities it trusts.
    pub tls: TlsSource,
    /// The trust domains that the broker's identity may belong to.
    pub trust_domains: TrustDomains,
    /// The broker's identity: `spiffe://acme.internal/broker`. Its host name does not matter.
    pub broker_id: SpiffePattern,
    /// The key that verifies the log's checkpoints: its text form, or a file that holds it. When
    /// absent, the key that the broker names at the first session is believed.
    #[serde(default)]
    pub log_key: Option<String>,
    /// How long a call may take; 5 s when absent. Streams have no such limit.
    #[serde(default = "default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
}

impl ClientConfig {
    /// The key in `log_key`, if there is one.
    pub(crate) fn log_key(&self) -> Result<Option<VerifierKey>, ClientError> {
        let Some(named) = &self.log_key else { return Ok(None) };
        if let Ok(key) = named.parse() {
            return Ok(Some(key));
        }
        let text = fs::read_to_string(named)
            .map_err(|source| ClientError::LogKeyFile { path: named.into(), source })?;
        text.trim().parse().map(Some).map_err(|_| ClientError::LogKeyFile {
            path: named.into(),
            source: io::Error::new(io::ErrorKind::InvalidData, "not the key of a log"),
        })
    }

    /// Makes relative paths relative to a folder, that of the configuration file.
    pub fn resolve(&mut self, folder: &Path) {
        self.tls.resolve(folder);
        if let Some(named) = self.log_key.as_mut().filter(|it| it.parse::<VerifierKey>().is_err()) {
            *named = folder.join(&*named).to_string_lossy().into_owned();
        }
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        broker = "127.0.0.1:7443"
        trust_domains = ["acme.internal"]
        broker_id = "spiffe://acme.internal/broker"
        tls = { certificate = "c.pem", key = "k.pem", ca = "ca.pem" }
    "#;

    #[test]
    fn the_timeout_has_a_default_and_unknown_fields_are_refused() {
        let config: ClientConfig = toml::from_str(CONFIG).unwrap();
        assert_eq!(config.timeout, Duration::from_secs(5));

        let config: ClientConfig = toml::from_str(&format!("timeout = \"2s\"\n{CONFIG}")).unwrap();
        assert_eq!(config.timeout, Duration::from_secs(2));

        let folder = tempfile::tempdir().unwrap();
        let key = audit::SignerKey::from_seed("a.b/log", &[1; 32]).unwrap().verifier().clone();
        fs::write(folder.path().join("log.pub"), format!("{key}\n")).unwrap();
        for (named, pinned) in
            [(key.to_string(), true), ("log.pub".into(), true), ("no".into(), false)]
        {
            let mut config: ClientConfig =
                toml::from_str(&format!("log_key = \"{named}\"\n{CONFIG}")).unwrap();
            config.resolve(folder.path());
            assert_eq!(config.log_key().ok().flatten().as_ref() == Some(&key), pinned, "{named}");
        }

        assert!(toml::from_str::<ClientConfig>(&format!("insecure = true\n{CONFIG}")).is_err());
    }
}
