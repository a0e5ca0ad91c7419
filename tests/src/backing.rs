use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::official::{run, run_in};

/// What a deployment stands on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Backing {
    /// `SQLite` and a key file: the embedded defaults.
    Embedded,
    /// `PostgreSQL` and AWS KMS.
    Scaled,
}

impl Backing {
    /// Whether this machine has what it takes. `tests/run` provides everything; without it only
    /// the embedded stack is tested.
    pub fn is_available(self) -> bool {
        let set = |name| variable(name).is_some();
        match self {
            Self::Embedded => set("TEST_PYTHON"),
            Self::Scaled => {
                set("TEST_PYTHON") && set("TEST_POSTGRES_URL") && set("TEST_KMS_ENDPOINT")
            }
        }
    }

    /// Replaces what a broker's configuration says of store and KMS. The database is a new one.
    pub async fn configure(self, config: &mut Table, dir: &Path) {
        if self == Self::Embedded {
            return;
        }
        let server = variable("TEST_POSTGRES_URL").unwrap();
        let name = format!("e2e_{}", domain::Uid::random().unwrap().to_string().replace('-', ""));
        let key = run("new_kms_key.py", &[]).await;
        let store = new_database(&server, &name, &dir.join("postgres.url")).await;
        config.insert("store".to_owned(), store);
        let shares = config.get_mut("shares").and_then(Value::as_table_mut).unwrap();
        let name = format!("{name}_shares");
        let store = new_database(&server, &name, &dir.join("shares.url")).await;
        shares.insert("store".to_owned(), store);
        config.insert(
            "kms".to_owned(),
            table(&[
                ("kind", "aws"),
                ("key_id", key.trim()),
                ("region", "us-east-1"),
                ("endpoint_url", &variable("TEST_KMS_ENDPOINT").unwrap()),
            ]),
        );
    }
}

/// A new database, as a configuration names it.
async fn new_database(server: &str, name: &str, url_file: &Path) -> Value {
    let url = run_in("new_database.py", &[server, name], &[]).await;
    fs::write(url_file, url.trim()).unwrap();
    fs::set_permissions(url_file, fs::Permissions::from_mode(0o600)).unwrap();
    table(&[("backend", "postgres"), ("url_file", url_file.to_str().unwrap())])
}

/// What the database server of the tests keeps, if there is one.
pub fn server_files() -> Option<PathBuf> {
    variable("TEST_POSTGRES_DATA").map(PathBuf::from)
}

/// The program that shows what another one writes, if there is one.
pub fn strace() -> Option<PathBuf> {
    variable("TEST_STRACE").map(PathBuf::from)
}

/// What `tests/run` says of the servers that it has started.
#[expect(clippy::disallowed_methods, reason = "the test command hands its servers over this way")]
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

pub(crate) fn table(entries: &[(&str, &str)]) -> Value {
    let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).into()));
    Value::Table(entries.collect())
}
