use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};
use setup::Layout;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};
use toml::Table;

use crate::{
    Deployment,
    official::{command, run_in},
};

/// A deployment's database, in the hands of somebody who administers it.
#[derive(Debug)]
pub struct Database {
    _script: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Database {
    /// Takes hold of a deployment's database, past the broker.
    pub fn of(deployment: &Deployment) -> Self {
        let layout = deployment.layout();
        Self::open(&url(layout).map_or_else(
            || format!("sqlite:{}", layout.data.join("strongroom.db").display()),
            |(_, url)| url,
        ))
    }

    /// Takes hold of a deployment's store of shares.
    pub fn of_shares(deployment: &Deployment) -> Self {
        let config = fs::read_to_string(&deployment.layout().broker_config).unwrap();
        let config: Table = config.parse().unwrap();
        let store = &config["shares"]["store"];
        let folder = deployment.layout().broker_config.parent().unwrap();
        Self::open(&match store.get("url_file") {
            Some(file) => fs::read_to_string(file.as_str().unwrap()).unwrap(),
            None => format!("sqlite:{}", folder.join(store["path"].as_str().unwrap()).display()),
        })
    }

    fn open(url: &str) -> Self {
        let mut command = command("database.py", &["change", url]);
        let mut script =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let (to, from) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
        Self { _script: script, to, from: BufReader::new(from).lines() }
    }

    /// The tables that have rows, with their columns.
    pub async fn tables(&mut self) -> Vec<(String, Vec<String>)> {
        let tables = self.ask(json!({ "do": "tables" })).await;
        let columns = |names: &Value| {
            names.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
        };
        tables.as_object().unwrap().iter().map(|(name, of)| (name.clone(), columns(of))).collect()
    }

    /// The tables that have no rows.
    pub async fn empty(&mut self) -> Vec<String> {
        let tables = self.ask(json!({ "do": "empty" })).await;
        tables.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
    }

    /// Of a store of shares: lets none be destroyed.
    pub async fn keep(&mut self) {
        self.ask(json!({ "do": "keep" })).await;
    }

    /// Lets them be destroyed again.
    pub async fn let_go(&mut self) {
        self.ask(json!({ "do": "let_go" })).await;
    }

    /// Changes a column of one row. Says what was changed to what, or nothing if the database does not
    /// let it.
    pub async fn change(&mut self, table: &str, column: &str) -> Option<String> {
        let changed = self.ask(json!({ "do": "change", "table": table, "column": column })).await;
        let changed = changed.as_str().unwrap().to_owned();
        (!changed.starts_with("refused")).then_some(changed)
    }

    /// Takes the last change back. Says whether it stood until now: over what the broker has written
    /// since, nothing is put.
    pub async fn undo(&mut self) -> bool {
        self.ask(json!({ "do": "undo" })).await.as_bool().unwrap()
    }

    /// Runs a statement.
    pub async fn run(&mut self, sql: &str) {
        self.ask(json!({ "do": "run", "sql": sql })).await;
    }

    async fn ask(&mut self, command: Value) -> Value {
        self.to.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let answer = self.from.next_line().await.unwrap();
        serde_json::from_str(&answer.expect("the script says on standard error why")).unwrap()
    }
}

/// A copy of everything that a broker keeps, but for the shares of keys.
#[derive(Debug)]
pub struct Backup {
    files: PathBuf,
    /// A server's database.
    url: Option<String>,
}

impl Deployment {
    /// Copies the database and the newest checkpoint, as nightly backups do.
    pub async fn back_up(&mut self, name: &str) -> Backup {
        let files = self.folder().join(name);
        self.with_nothing_running(async |layout| {
            copy_files(&layout.data, &files);
            let url = match url(layout) {
                Some((_, url)) => Some(copy(&url).await),
                None => None,
            };
            Backup { files, url }
        })
        .await
    }

    /// Puts a backup in the place of what there is, and starts with nothing in memory.
    pub async fn restore(&mut self, backup: &Backup) {
        self.with_nothing_running(async |layout| {
            fs::remove_dir_all(&layout.data).unwrap();
            copy_files(&backup.files, &layout.data);
            if let (Some((file, _)), Some(backup)) = (url(layout), &backup.url) {
                fs::write(file, copy(backup).await).unwrap();
            }
        })
        .await;
    }
}

/// The URL of a server's database, and the file that it is in.
fn url(layout: &Layout) -> Option<(PathBuf, String)> {
    let config: Table = fs::read_to_string(&layout.broker_config).unwrap().parse().unwrap();
    let file = PathBuf::from(config["store"].get("url_file")?.as_str()?);
    let url = fs::read_to_string(&file).unwrap();
    Some((file, url))
}

async fn copy(url: &str) -> String {
    let name = format!("e2e_{}", domain::Uid::random().unwrap().to_string().replace('-', ""));
    run_in("database.py", &["copy", url, &name], &[]).await
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // Modes are copied, too.
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
