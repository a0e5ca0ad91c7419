use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use domain::SystemClock;
use setup::Layout;
use strongroom_client::ClientConfig;
use toml::{Table, Value};

use crate::proof::Export;

/// The state directory, held by this process alone.
#[derive(Debug)]
pub(crate) struct State {
    layout: Layout,
    dir: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

/// Who its identities belong to.
const TRUST_DOMAIN: &str = "strongroom.local";

impl State {
    /// Opens the directory, and lays it out first if there is nothing yet. Keys, the log and the
    /// database of earlier starts are used again.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir)?;
        let mut layout = Layout::at(&dir, TRUST_DOMAIN);
        if !layout.broker_config.exists() {
            if let Some(parent) = dir.parent() {
                fs::create_dir_all(parent)
                    .with_context(|| format!("making {}", parent.display()))?;
            }
            layout = Layout::create(&dir, TRUST_DOMAIN, Arc::new(SystemClock))
                .with_context(|| format!("laying out {}", dir.display()))?;
        }
        let lock = private(&dir.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!("another quickstart runs in {}", dir.display());
        }
        Ok(Self { layout, dir, _lock: lock })
    }

    /// Where the log is exported to, and the key that verifies it.
    pub(crate) fn export(&self) -> anyhow::Result<Export> {
        let key = fs::read_to_string(&self.layout.log_verifier).context("reading the log's key")?;
        Ok(Export {
            folder: self.dir.join("export"),
            last_proved: self.dir.join("last-proved-checkpoint"),
            key: key.trim().parse().context("the log's key")?,
        })
    }

    /// The broker's configuration for this start, on record by its hash: as it was laid out, but
    /// with the address it got, and with the stand-in in the providers' places if there is one.
    pub(crate) fn broker_config(
        &self,
        listen: SocketAddr,
        stand_in: Option<SocketAddr>,
    ) -> anyhow::Result<(broker::Config, [u8; 32])> {
        let mut config = read(&self.layout.broker_config)?;
        config.insert("listen".to_owned(), listen.to_string().into());
        // The disk of somebody's own machine may be busy: a call waits for its record.
        if let Some(log) = config.get_mut("log").and_then(Value::as_table_mut) {
            log.insert("commit_deadline".to_owned(), "3s".into());
        }
        if let Some(address) = stand_in {
            let origin =
                Table::from_iter([("origin".to_owned(), format!("http://{address}").into())]);
            let providers = crate::environment::KNOWN
                .map(|known| (known.provider.to_owned(), Value::Table(origin.clone())));
            config.insert("providers".to_owned(), Value::Table(Table::from_iter(providers)));
            config.insert("egress".to_owned(), to_stand_in(address));
        }
        let path = self.write("broker.running.toml", &config)?;
        Ok(broker::Config::load(&path)?)
    }

    /// The proxy's configuration for this start. It may call loopback only if the stand-in is there.
    pub(crate) fn proxy_config(
        &self,
        listen: SocketAddr,
        broker: SocketAddr,
        stand_in: Option<SocketAddr>,
    ) -> anyhow::Result<inference_proxy::Config> {
        let mut config = read(&self.layout.proxy_config)?;
        config.insert("listen".to_owned(), listen.to_string().into());
        if let Some(peer) = config.get_mut("broker").and_then(Value::as_table_mut) {
            peer.insert("broker".to_owned(), broker.to_string().into());
        }
        if let Some(address) = stand_in {
            config.insert("egress".to_owned(), to_stand_in(address));
        }
        let path = self.write("proxy.running.toml", &config)?;
        Ok(inference_proxy::Config::load(&path)?)
    }

    /// The administrator's configuration, which the command line tool reads too: it is written again
    /// when the broker has another address than it says.
    pub(crate) fn admin_config(&self, broker: SocketAddr) -> anyhow::Result<ClientConfig> {
        let path = &self.layout.cli_config;
        let mut config = read(path)?;
        let address = Value::from(broker.to_string());
        if config.get("broker") != Some(&address) {
            config.insert("broker".to_owned(), address);
            write_private(path, &config.to_string())?;
        }
        let mut config: ClientConfig =
            config.try_into().context("reading the CLI's configuration")?;
        config.resolve(&self.dir);
        Ok(config)
    }

    fn write(&self, name: &str, config: &Table) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        write_private(&path, &format!("# Written at each start of the quickstart.\n{config}"))?;
        Ok(path)
    }
}

/// The way out to the stand-in, which is on this machine.
fn to_stand_in(address: SocketAddr) -> Value {
    let allow = Value::Array(vec![format!("{}/32", address.ip()).into()]);
    Value::Table(Table::from_iter([
        ("allow".to_owned(), allow),
        ("danger_plain_http_to_loopback".to_owned(), true.into()),
    ]))
}

fn read(path: &Path) -> anyhow::Result<Table> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.parse().with_context(|| format!("{}", path.display()))
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = private(path)?;
    file.set_len(0)?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// A file for its owner only, with what it holds already.
fn private(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).with_context(|| format!("opening {}", path.display()))
}
