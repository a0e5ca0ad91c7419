use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use domain::{ProviderId, SpiffePattern};
use envelope::{KeyringSettings, KmsConfig, KmsOpenError, RootConfig, Roots};
use mtls::{TlsSource, TrustDomains};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use sinks::SinkConfig;
use store::StoreConfig;
use telemetry::TelemetryConfig;
use thiserror::Error;
use url::Url;

mod outside;
mod webhook;

pub use outside::{AwsConfig, EgressConfig, KeyTests};
pub(crate) use webhook::WebhookConfig;

/// The broker's configuration: one TOML file. Unknown keys are refused; secrets are file paths.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file that this was read from.
    #[serde(skip)]
    pub path: PathBuf,
    /// Where the gRPC service listens.
    pub listen: SocketAddr,
    /// The trust domains whose workloads may connect.
    pub trust_domains: TrustDomains,
    /// The broker's certificate, its key, and the CA of the workloads.
    pub tls: TlsSource,
    /// What holds the root key.
    pub kms: KmsConfig,
    /// What holds a second root key, if there is one, for the day on which the first is lost: elsewhere,
    /// and in other hands.
    #[serde(default)]
    pub kms_recovery: Option<KmsConfig>,
    /// Root keys that tenants brought themselves.
    #[serde(default)]
    pub kms_roots: Vec<RootConfig>,
    /// Where everything is kept.
    pub store: StoreConfig,
    /// Where the shares of keys are kept, apart from everything else.
    pub shares: SharesConfig,
    /// The log.
    pub log: LogConfig,
    /// The access policy: who may call what. A changed file takes effect while the broker runs.
    pub policy: PathBuf,
    /// Providers at other addresses than their public ones: regional hosts, or stand-ins in tests.
    #[serde(default)]
    pub providers: BTreeMap<ProviderId, ProviderOverride>,
    /// What a `custom` endpoint may be.
    #[serde(default)]
    pub custom_endpoints: CustomEndpoints,
    /// The way to providers.
    #[serde(default)]
    pub egress: EgressConfig,
    /// Who the broker is at AWS, to take the roles that customers give it.
    #[serde(default)]
    pub aws: Option<AwsConfig>,
    /// When credentials are tested without anybody asking.
    #[serde(default)]
    pub key_tests: KeyTests,
    /// For how long usage is kept.
    #[serde(default)]
    pub usage: UsageConfig,
    /// When the rows of the database are held against the log.
    #[serde(default)]
    pub row_checks: RowChecks,
    /// What bounds the work in hand.
    #[serde(default)]
    pub limits: Limits,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
    /// Whether the contract can be read over gRPC reflection, by callers whom a rule allows it.
    #[serde(default)]
    pub reflection: bool,
}

/// The log's key and bounds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// The key that signs checkpoints, as `strongroom init` makes it. It must not lie in the
    /// database, and it is refused if others can read it.
    pub signing_key: PathBuf,
    /// The last checkpoint this broker signed, kept apart from the database so that a restored or
    /// rewritten database is noticed.
    pub last_checkpoint: PathBuf,
    /// A call whose record is not durable within this time is refused. The record may follow.
    #[serde(default = "commit_deadline", with = "humantime_serde")]
    pub commit_deadline: Duration,
    /// Callers who are people: records hold commitments in place of their SPIFFE IDs, so that they can
    /// be forgotten.
    #[serde(default)]
    pub people: Vec<SpiffePattern>,
    /// How old a record must be before it may be pruned; a day at the least. Absent: nothing is ever
    /// pruned.
    #[serde(default, with = "humantime_serde")]
    pub keep: Option<Duration>,
    /// Other systems that are sent every record.
    #[serde(default)]
    pub sinks: Vec<SinkConfig>,
    /// Receivers of some records, by signed HTTPS calls.
    #[serde(default)]
    pub webhooks: Vec<WebhookConfig>,
    /// Where the log is served as static files; without this it is not.
    #[serde(default)]
    pub tiles: Option<TilesConfig>,
    /// Who cosigns the checkpoints. A witness that is down delays nothing.
    #[serde(default)]
    pub witnesses: Vec<WitnessConfig>,
}

/// The store of shares: what is sealed opens with its share only, so that destroying the share erases it
/// from every backup of everything else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharesConfig {
    /// A database of its own: never the one of `[store]`, and never in the same backups.
    pub store: StoreConfig,
    /// For how long backups of it are kept, with its journal and its replicas: every receipt of an erasure
    /// says so. The shorter the better.
    #[serde(with = "humantime_serde")]
    pub backup_window: Duration,
}

/// A witness of the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its address, below which `add-checkpoint` is: `https://`, or `http://` on this machine.
    pub url: Url,
    /// The key that verifies its cosignatures.
    pub key: String,
    /// The authorities that may vouch for its certificate; the machine's without this.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// The log as static files over HTTPS, by the broker's own certificate. Who may call
/// `Audit/ListRecords` for all tenants may read them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TilesConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Connections at once.
    #[serde(default = "tile_connections")]
    pub connections: usize,
}

/// A provider at another address.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderOverride {
    /// Replaces scheme, host and port of the provider's addresses: `https://eu.api.openai.com`.
    #[serde(default)]
    pub origin: Option<String>,
    /// The same for the addresses where short-lived tokens are asked for, such as an endpoint of AWS
    /// STS in the own network.
    #[serde(default)]
    pub token_origin: Option<String>,
}

/// What a `custom` endpoint may be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomEndpoints {
    /// The origins that tenants' endpoints may have, such as `https://llm.acme.example:8443`; absent: any
    /// that `[egress]` allows. It counts for what is stored from now on.
    #[serde(default)]
    pub origins: Option<Vec<String>>,
    /// Origins that tenants may use with `http://`; everything else is `https://`.
    #[serde(default)]
    pub plain_http_origins: Vec<String>,
}

/// When the rows of the database are held against the log, by the broker that leads.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RowChecks {
    /// How long after a check the next one begins: a second to 15 minutes.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
    /// How many rows, and records of the log, one check looks at: the next one goes on from there.
    pub rows: u64,
}

impl Default for RowChecks {
    fn default() -> Self {
        Self { every: Duration::from_mins(5), rows: 100_000 }
    }
}

impl RowChecks {
    fn check(self) -> Result<(), String> {
        if !(Duration::from_secs(1)..=Duration::from_mins(15)).contains(&self.every) {
            return Err("row_checks.every is between \"1s\" and \"15m\"".to_owned());
        }
        if self.rows == 0 {
            return Err("row_checks.rows is 1 at the least".to_owned());
        }
        Ok(())
    }
}

/// For how long usage is kept.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UsageConfig {
    /// Calls one by one: 8 days at the least, for as long as a call may be reported late and be known
    /// again.
    #[serde(with = "humantime_serde")]
    pub keep_calls: Duration,
    /// The sums of calls: at the least as long as calls.
    #[serde(with = "humantime_serde")]
    pub keep_sums: Duration,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self {
            keep_calls: Duration::from_hours(30 * 24),
            keep_sums: Duration::from_hours(400 * 24),
        }
    }
}

impl UsageConfig {
    fn check(self) -> Result<(), String> {
        if self.keep_calls < SHORTEST_KEEP {
            return Err("usage.keep_calls is 8 days at the least: \"8d\"".to_owned());
        }
        if self.keep_sums < self.keep_calls {
            return Err("usage.keep_sums is as long as usage.keep_calls at the least".to_owned());
        }
        Ok(())
    }
}

/// A day longer than a call may be reported late.
const SHORTEST_KEEP: Duration = Duration::from_hours(8 * 24);

/// What bounds the work in hand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Calls in hand at once; a tenth of them is kept for renewing, releasing and revoking.
    pub concurrent_calls: usize,
    /// Connections at once.
    pub connections: usize,
    /// Streams at once on one connection.
    pub streams_per_connection: u32,
    /// A connection is closed after this time, each give or take a tenth, so that certificates are
    /// checked anew.
    #[serde(with = "humantime_serde")]
    pub connection_age: Duration,
    /// How long calls in hand may take to finish after SIGTERM.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Sessions held at once.
    pub sessions: u64,
    /// How long an unwrapped tenant key is kept: 60 s to 1 h.
    #[serde(with = "humantime_serde")]
    pub kek_ttl: Duration,
    /// How long beyond that a tenant's key may still lend while the KMS does not answer; 15 minutes at
    /// the most. Leases that it lent are marked in the log.
    #[serde(with = "humantime_serde")]
    pub kek_outage_grace: Duration,
    /// Tenant keys that this broker asks the KMS for in a second, at the most.
    pub kms_calls_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent_calls: 1024,
            connections: 1024,
            streams_per_connection: 256,
            connection_age: Duration::from_mins(15),
            drain: Duration::from_secs(10),
            sessions: 100_000,
            kek_ttl: Duration::from_mins(5),
            kek_outage_grace: Duration::ZERO,
            kms_calls_per_second: 500,
        }
    }
}

impl Limits {
    pub(crate) fn keyring(&self) -> KeyringSettings {
        KeyringSettings {
            ttl: self.kek_ttl,
            outage_grace: self.kek_outage_grace,
            calls_per_second: self.kms_calls_per_second,
            ..KeyringSettings::default()
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
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its folder.
    pub fn load(path: &Path) -> Result<(Self, [u8; 32]), ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        path.clone_into(&mut config.path);
        if let Some(folder) = path.parent() {
            config.resolve(folder);
        }
        config
            .usage
            .check()
            .and_then(|()| config.row_checks.check())
            .and_then(|()| config.log.check_sinks())
            .and_then(|()| config.log.check_webhooks(&config.egress))
            .map_err(|message| ConfigError::Malformed { path: path.to_owned(), message })?;
        config
            .key_tests
            .check()
            .map_err(|message| ConfigError::Malformed { path: path.to_owned(), message })?;
        Roots::check_config(&config.kms_roots).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        Ok((config, Sha256::digest(text.as_bytes()).into()))
    }

    pub(crate) async fn open_roots(&self) -> Result<Roots, KmsOpenError> {
        Roots::open(&self.kms, self.kms_recovery.as_ref(), &self.kms_roots).await
    }

    fn resolve(&mut self, folder: &Path) {
        self.policy = folder.join(&self.policy);
        self.tls.resolve(folder);
        self.kms.resolve(folder);
        for root in &mut self.kms_roots {
            root.kms.resolve(folder);
        }
        let named = self.kms_roots.iter_mut().filter_map(|root| root.recovery.as_mut());
        for recovery in self.kms_recovery.iter_mut().chain(named) {
            recovery.resolve(folder);
        }
        self.store.resolve(folder);
        self.shares.store.resolve(folder);
        self.egress.resolve(folder);
        for path in self.aws.iter_mut().map(|aws| &mut aws.identity_file) {
            *path = folder.join(&*path);
        }
        for path in [&mut self.log.signing_key, &mut self.log.last_checkpoint] {
            *path = folder.join(&*path);
        }
        for path in self.log.witnesses.iter_mut().filter_map(|witness| witness.ca.as_mut()) {
            *path = folder.join(&*path);
        }
        for sink in &mut self.log.sinks {
            sink.resolve(folder);
        }
        for webhook in &mut self.log.webhooks {
            webhook.resolve(folder);
        }
    }
}

impl LogConfig {
    /// The names under which cursors are kept.
    pub(crate) fn cursors(&self) -> impl Iterator<Item = &str> {
        let sinks = self.sinks.iter().map(|sink| sink.name.as_str());
        sinks.chain(self.webhooks.iter().map(|webhook| webhook.name.as_str()))
    }

    fn check_webhooks(&self, egress: &EgressConfig) -> Result<(), String> {
        for webhook in &self.webhooks {
            let checked = webhook.check(egress.danger_plain_http_to_loopback);
            let name = webhook.name.as_str();
            checked.map_err(|why| format!("log.webhooks: `{name}`: {why}"))?;
        }
        Ok(())
    }

    /// Two sinks must not share a cursor or a file, and each must be one that can be opened.
    fn check_sinks(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        if let Some(name) = self.cursors().find(|name| !names.insert(*name)) {
            return Err(format!(
                "log.sinks and log.webhooks: two are named `{name}`: name each differently"
            ));
        }
        let mut paths = BTreeSet::new();
        for sink in &self.sinks {
            let name = sink.name.as_str();
            if let Some(path) = sink.to.path()
                && !paths.insert(path)
            {
                return Err(format!("log.sinks: two write {}: give each its own", path.display()));
            }
            sink.to.open().map_err(|error| format!("log.sinks: `{name}`: {error}"))?;
        }
        Ok(())
    }
}

fn tile_connections() -> usize {
    64
}

fn commit_deadline() -> Duration {
    Duration::from_millis(250)
}
