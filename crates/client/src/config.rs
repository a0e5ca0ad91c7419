use std::time::Duration;

use domain::SpiffePattern;
use mtls::{TlsFiles, TrustDomains};
use serde::Deserialize;

/// Where the broker is and how both ends prove who they are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The broker's address: `host:port`.
    pub broker: String,
    /// The own identity and the authorities it trusts.
    pub tls: TlsFiles,
    /// The trust domains that the broker's identity may belong to.
    pub trust_domains: TrustDomains,
    /// The broker's identity: `spiffe://acme.internal/broker`. Its host name does not matter.
    pub broker_id: SpiffePattern,
    /// How long a call may take; 5 s when absent. Streams have no such limit.
    #[serde(default = "default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
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

        assert!(toml::from_str::<ClientConfig>(&format!("insecure = true\n{CONFIG}")).is_err());
    }
}
