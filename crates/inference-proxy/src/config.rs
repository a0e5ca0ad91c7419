use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;
use strongroom_client::{ClientConfig, LeaseCacheConfig};
use telemetry::TelemetryConfig;
use thiserror::Error;

/// The proxy's configuration. Relative paths in it are relative to its file's folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where applications call.
    pub listen: SocketAddr,
    /// The certificate for applications. Without one, applications call over plain HTTP, and `listen`
    /// must be a loopback address.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
    /// Plain HTTP on an address that is not loopback: the same address as `listen`, written again, to
    /// say that something in front of it does TLS. Virtual keys and prompts are readable on the way.
    #[serde(default)]
    pub danger_plain_http_on: Option<SocketAddr>,
    /// The networks of what stands in front of the proxy and adds the caller's address to
    /// `X-Forwarded-For`. From elsewhere the header is not believed: the caller is who connects.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// The broker, and who the proxy is to it.
    pub broker: ClientConfig,
    /// The leases that are held.
    #[serde(default)]
    pub leases: LeaseCacheConfig,
    /// The way to providers.
    #[serde(default)]
    pub egress: EgressConfig,
    /// What bounds the work in hand.
    #[serde(default)]
    pub limits: Limits,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// What applications see the proxy by. Both files are read again when they change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificate and its intermediates, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM; refused if others than its owner can reach it.
    pub key: PathBuf,
}

/// The way to providers. Redirects are never followed and proxies of the environment never used.
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
    /// How long an unused connection stays open. Whatever it is, connections are closed within a
    /// second after their credential's lease has ended.
    #[serde(with = "humantime_serde")]
    pub idle_connection: Duration,
}

/// What bounds the work in hand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How large a request's body may be, in bytes.
    pub body_bytes: usize,
    /// How much memory all bodies may take together, in bytes.
    pub all_bodies_bytes: usize,
    /// How long a body may pause; after that time it must also come at 1 KiB a second.
    #[serde(with = "humantime_serde")]
    pub body_idle: Duration,
    /// How long a request's headers may take from their first byte.
    #[serde(with = "humantime_serde")]
    pub header_read: Duration,
    /// How long a connection may be open without a call in hand.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// Calls in hand at once; more are answered with 503.
    pub concurrent_calls: usize,
    /// How long a provider may take to begin its answer.
    #[serde(with = "humantime_serde")]
    pub first_byte: Duration,
    /// How long a provider may pause in an answer.
    #[serde(with = "humantime_serde")]
    pub answer_idle: Duration,
    /// How long calls in hand may take to finish after SIGTERM.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            danger_plain_http_to_loopback: false,
            ca: None,
            connect_timeout: Duration::from_secs(10),
            idle_connection: Duration::from_secs(15),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            all_bodies_bytes: 512 << 20,
            body_idle: Duration::from_secs(15),
            header_read: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            connections: 10_000,
            concurrent_calls: 4096,
            first_byte: Duration::from_mins(10),
            answer_idle: Duration::from_mins(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file does not say what it must; the text names the key and the line.
    #[error("{path}: {message}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// Virtual keys would travel in the clear without anyone having said so.
    #[error(
        "plain HTTP on {0}, which is not loopback: set `tls`, or `danger_plain_http_on = \"{0}\"` if \
         something in front does TLS"
    )]
    PlainHttp(SocketAddr),
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        if let Some(folder) = path.parent() {
            config.resolve(folder);
        }
        config.check()?;
        Ok(config)
    }

    /// Refuses what must not be.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let plain = self.tls.is_none() && !self.listen.ip().is_loopback();
        if plain && self.danger_plain_http_on != Some(self.listen) {
            return Err(ConfigError::PlainHttp(self.listen));
        }
        Ok(())
    }

    fn resolve(&mut self, folder: &Path) {
        self.broker.resolve(folder);
        if let Some(tls) = &mut self.tls {
            tls.certificate = folder.join(&tls.certificate);
            tls.key = folder.join(&tls.key);
        }
        if let Some(ca) = &mut self.egress.ca {
            *ca = folder.join(&*ca);
        }
    }
}
