use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use domain::SystemClock;
use setup::Layout;
use store::PostgresStore;
use strongroom_client::{Broker, ClientConfig};
use toml::{Table, Value};

use crate::process::Server;

/// Brokers on one database, and what they were laid out as. Each is a process of its own.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) layout: Layout,
    /// Where the database is, unless it is a file: a schema of this fleet alone.
    pub(crate) url: Option<String>,
    pub(crate) brokers: Vec<Server>,
    folder: PathBuf,
    configs: Vec<PathBuf>,
}

impl Fleet {
    /// Lays brokers out and starts them. `upstream` takes the provider's place. Without `PostgreSQL`
    /// there can be only one.
    pub(crate) async fn start(
        folder: &Path,
        brokers: usize,
        postgres: Option<&str>,
        upstream: &str,
    ) -> anyhow::Result<Self> {
        let layout = Layout::development(folder, Arc::new(SystemClock))?;
        let url = match postgres {
            Some(url) => Some(PostgresStore::new_schema(url).await?),
            None => None,
        };
        let mut fleet =
            Self { layout, url, brokers: Vec::new(), folder: folder.into(), configs: Vec::new() };
        for number in 0..brokers {
            let config = fleet.configure(number, upstream)?;
            fleet.configs.push(config);
            let broker = fleet.start_broker(number).await?;
            fleet.brokers.push(broker);
        }
        Ok(fleet)
    }

    /// Kills a broker.
    pub(crate) fn kill(&self, number: usize) -> anyhow::Result<()> {
        self.brokers.get(number).context("there is no such broker")?.kill()
    }

    /// Starts a broker that was killed again, at another address, once it is gone.
    pub(crate) async fn restart(&mut self, number: usize) -> anyhow::Result<()> {
        self.brokers.get_mut(number).context("there is no such broker")?.gone().await?;
        let started = self.start_broker(number).await?;
        *self.brokers.get_mut(number).context("there is no such broker")? = started;
        Ok(())
    }

    /// Adds a root key to the file that all brokers have it from, and starts each anew.
    pub(crate) async fn add_root_key(&mut self) -> anyhow::Result<()> {
        let path = self.configs.first().context("there is no broker")?;
        broker::add_root_key(&broker::Config::load(path)?.0, None)?;
        for number in 0..self.brokers.len() {
            self.kill(number)?;
            self.restart(number).await?;
        }
        Ok(())
    }

    /// A connection to one of the brokers, with an identity of the layout.
    pub(crate) fn connect(&self, number: usize, name: &str) -> anyhow::Result<Broker> {
        let broker = self.brokers.get(number).context("there is no such broker")?;
        connect(&self.folder, name, &broker.address)
    }

    /// A proxy that leases from one of the brokers.
    pub(crate) async fn proxy(&self, number: usize) -> anyhow::Result<Server> {
        let broker = self.brokers.get(number).context("there is no such broker")?;
        self.proxy_of(&broker.address).await
    }

    /// A proxy that leases from the broker at this address.
    pub(crate) async fn proxy_of(&self, address: &str) -> anyhow::Result<Server> {
        let mut config: Table = fs::read_to_string(&self.layout.proxy_config)?.parse()?;
        config.insert("listen".to_owned(), "127.0.0.1:0".into());
        let egress = "allow = [\"127.0.0.1/32\"]\ndanger_plain_http_to_loopback = true";
        config.insert("egress".to_owned(), toml::from_str::<Value>(egress)?);
        if let Some(peer) = config.get_mut("broker").and_then(Value::as_table_mut) {
            peer.insert("broker".to_owned(), address.into());
        }
        // It is read before the proxy says where it listens, so the next one may have it.
        let path = self.folder.join("measured-proxy.toml");
        fs::write(&path, config.to_string())?;
        Server::served(&["proxy", text(&path)?]).await
    }

    async fn start_broker(&self, number: usize) -> anyhow::Result<Server> {
        let config = self.configs.get(number).context("there is no such broker")?;
        Server::served(&["broker", text(config)?]).await
    }

    fn configure(&self, number: usize, upstream: &str) -> anyhow::Result<PathBuf> {
        let mut config: Table = fs::read_to_string(&self.layout.broker_config)?.parse()?;
        config.insert("listen".to_owned(), "127.0.0.1:0".into());
        config.insert(
            "providers".to_owned(),
            toml::from_str::<Value>(&format!("openai = {{ origin = \"http://{upstream}\" }}"))?,
        );
        let log = config.get_mut("log").and_then(Value::as_table_mut).context("has a log")?;
        log.insert("last_checkpoint".to_owned(), format!("data/last-checkpoint-{number}").into());
        // A machine that is busy with something else is to make a figure worse, not to end the run.
        log.insert("commit_deadline".to_owned(), "10s".into());
        // Old versions of keys are deleted after this. Keys stay in memory for a minute at least.
        config.insert("limits".to_owned(), toml::from_str::<Value>("kek_ttl = \"1s\"")?);
        if let Some(url) = &self.url {
            let url_file = self.folder.join("keys/postgres.url");
            fs::write(&url_file, url)?;
            fs::set_permissions(&url_file, fs::Permissions::from_mode(0o600))?;
            let store = "backend = \"postgres\"\nurl_file = \"keys/postgres.url\"";
            config.insert("store".to_owned(), toml::from_str::<Value>(store)?);
        }
        let path = self.folder.join(format!("broker-{number}.toml"));
        fs::write(&path, config.to_string())?;
        Ok(path)
    }
}

/// A connection with an identity of a deployment in this folder.
pub(crate) fn connect(folder: &Path, name: &str, address: &str) -> anyhow::Result<Broker> {
    let pki = folder.join("pki");
    let pki = pki.display();
    let config: ClientConfig = toml::from_str(&format!(
        r#"
        broker = "{address}"
        trust_domains = ["strongroom.local"]
        broker_id = "spiffe://strongroom.local/broker"
        timeout = "30s"
        tls = {{ certificate = "{pki}/{name}.pem", key = "{pki}/{name}.key", ca = "{pki}/ca.pem" }}
        "#
    ))?;
    Ok(Broker::connect(&config, Arc::new(SystemClock))?)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the folder's name is not text")
}
