use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{PostgresStore, ShareStore, SqliteStore, Store, StoreError, postgres};

/// Where everything is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase", deny_unknown_fields)]
pub enum StoreConfig {
    /// One file, for one broker.
    Sqlite {
        /// The file; it is made when it is not there.
        path: PathBuf,
    },
    /// A server, for many brokers.
    Postgres {
        /// A file that holds the URL and nothing else; refused if others can read it. Unless the
        /// server is on this host, the URL should say `sslmode=verify-full`: with less, who sits
        /// between the two can pose as the server.
        url_file: PathBuf,
        /// At most so many connections. One writes, one counts usage, one what is spent, one listens for
        /// other brokers' changes, and the others read.
        #[serde(default = "connections")]
        connections: u32,
    },
}

impl StoreConfig {
    /// Makes relative paths relative to a folder, that of the configuration file.
    pub fn resolve(&mut self, folder: &Path) {
        let (Self::Sqlite { path } | Self::Postgres { url_file: path, .. }) = self;
        *path = folder.join(&*path);
    }
}

/// Opens what the configuration names, and makes or updates its tables.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    match config {
        StoreConfig::Sqlite { path } => Ok(Arc::new(SqliteStore::open(path).await?)),
        StoreConfig::Postgres { url_file, connections } => {
            let url = url_in(url_file)?;
            Ok(Arc::new(PostgresStore::connect(url.trim(), *connections).await?))
        }
    }
}

/// Opens the store of shares that the configuration names, and makes or updates its tables. It must not
/// be where everything else is: a backup of both would keep what is to be destroyed.
pub async fn open_shares(
    config: &StoreConfig,
    beside: &StoreConfig,
) -> Result<Arc<dyn ShareStore>, StoreError> {
    check_shares(config, beside)?;
    match config {
        StoreConfig::Sqlite { path } => Ok(Arc::new(SqliteStore::open_shares(path).await?)),
        StoreConfig::Postgres { url_file, connections } => {
            let url = url_in(url_file)?;
            Ok(Arc::new(PostgresStore::connect_shares(url.trim(), *connections).await?))
        }
    }
}

/// Whether the stores of everything and of shares can be meant, as far as files say: no database is asked.
pub fn check_config(config: &StoreConfig, shares: &StoreConfig) -> Result<(), StoreError> {
    for config in [config, shares] {
        if let StoreConfig::Postgres { url_file, .. } = config {
            postgres::options(url_in(url_file)?.trim())?;
        }
    }
    check_shares(shares, config)
}

fn check_shares(config: &StoreConfig, beside: &StoreConfig) -> Result<(), StoreError> {
    let same = match (config, beside) {
        (StoreConfig::Sqlite { path }, StoreConfig::Sqlite { path: other }) => {
            // By any of its names, if it is there.
            let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
            place(path) == place(other)
        }
        (StoreConfig::Postgres { url_file, .. }, StoreConfig::Postgres { url_file: other, .. }) => {
            url_in(url_file)?.trim() == url_in(other)?.trim()
        }
        (StoreConfig::Sqlite { .. }, StoreConfig::Postgres { .. })
        | (StoreConfig::Postgres { .. }, StoreConfig::Sqlite { .. }) => false,
    };
    if same {
        let why = "shares are in the store itself: give [shares.store] a database of its own, with \
                   backups of its own";
        return Err(StoreError::Misconfigured(why.to_owned()));
    }
    Ok(())
}

fn url_in(file: &Path) -> Result<Zeroizing<String>, StoreError> {
    read_url(file)
        .map_err(|error| StoreError::Misconfigured(format!("`{}`: {error}", file.display())))
}

fn connections() -> u32 {
    8
}

fn read_url(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(std::io::Error::other("others than its owner can read it"));
    }
    // Large enough that the text does not move and leave a copy behind.
    let mut url = Zeroizing::new(String::with_capacity(4096));
    file.read_to_string(&mut url)?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn keys_of_the_other_back_end_are_refused() {
        let parse = serde_json::from_str::<StoreConfig>;
        let postgres = parse(r#"{"backend": "postgres", "url_file": "u"}"#).unwrap();
        assert!(matches!(postgres, StoreConfig::Postgres { connections: 8, .. }));
        assert!(parse(r#"{"backend": "sqlite", "path": "p"}"#).is_ok());
        assert!(parse(r#"{"backend": "sqlite", "path": "p", "url_file": "u"}"#).is_err());
        assert!(parse(r#"{"backend": "none"}"#).is_err());
    }

    #[tokio::test]
    async fn shares_are_not_kept_in_the_store_itself() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| StoreConfig::Sqlite { path: directory.path().join(name) };
        let (store, shares) = (at("store.db"), at("shares.db"));
        let refused = open_shares(&store, &store).await.unwrap_err();
        assert!(refused.to_string().contains("a database of its own"), "{refused}");
        // Under another name it is the same.
        drop(open(&store).await.unwrap());
        std::os::unix::fs::symlink("store.db", directory.path().join("link.db")).unwrap();
        let link = at("link.db");
        open_shares(&link, &store).await.unwrap_err();
        check_config(&store, &link).unwrap_err();
        check_config(&store, &store).unwrap_err();
        check_config(&store, &shares).unwrap();
        open_shares(&shares, &store).await.unwrap();
    }

    #[tokio::test]
    async fn a_url_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let url_file = directory.path().join("url");
        fs::write(&url_file, "postgres://strongroom:hunter2@[").unwrap();
        let config = StoreConfig::Postgres { url_file: url_file.clone(), connections: 2 };
        for (mode, reason) in [(0o644, "others"), (0o600, "parse")] {
            fs::set_permissions(&url_file, fs::Permissions::from_mode(mode)).unwrap();
            let shares = StoreConfig::Sqlite { path: directory.path().join("shares.db") };
            let unasked = check_config(&config, &shares).unwrap_err();
            for refused in [open(&config).await.unwrap_err(), unasked] {
                let StoreError::Misconfigured(text) = refused else { panic!("{refused:?}") };
                assert!(text.contains(reason), "{text}");
                assert!(!text.contains("hunter2"), "{text}");
            }
        }
    }
}
