use std::{fs, io, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    time::sleep,
};

use crate::process::Server;

const TRIES: usize = 100;

/// Starts nginx as a proxy of the same kind, with kept connections and without buffering of answers.
/// `None` when it is not installed.
pub(crate) async fn start(folder: &Path, upstream: &str) -> anyhow::Result<Option<Server>> {
    let folder = folder.join("nginx");
    fs::create_dir(&folder)?;
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let path = folder.join("nginx.conf");
    fs::write(&path, config(&folder, port, upstream))?;
    let child = Command::new("nginx")
        .arg("-c")
        .arg(&path)
        .arg("-p")
        .arg(&folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let child = match child {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        child => child.context("starting nginx")?,
    };
    let address = format!("127.0.0.1:{port}");
    for _ in 0..TRIES {
        if TcpStream::connect(&address).await.is_ok() {
            let workers = child.id().into_iter().collect();
            return Ok(Some(Server::known(address, workers, child)));
        }
        sleep(Duration::from_millis(20)).await;
    }
    bail!("nginx does not listen")
}

/// One process does everything, so that it ends with its parent and its CPU is that of the work.
fn config(folder: &Path, port: u16, upstream: &str) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log /dev/null;
         events {{ worker_connections 1024; }}
         http {{
             access_log off;
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
             fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
             client_max_body_size 10m; client_body_buffer_size 1m;
             keepalive_requests 1000000;
             upstream provider {{ server {upstream}; keepalive 256; keepalive_requests 1000000; }}
             server {{
                 listen 127.0.0.1:{port};
                 location / {{
                     proxy_pass http://provider;
                     proxy_http_version 1.1;
                     proxy_buffering off;
                     proxy_set_header Connection \"\";
                     proxy_set_header Authorization \"Bearer sk-bench-0123456789abcdef\";
                 }}
             }}
         }}"
    )
}
