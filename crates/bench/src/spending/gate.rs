use anyhow::Context as _;
use hyper::Uri;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Stands before a database, and can keep everybody out.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The database, by way of this.
    pub(crate) url: String,
    is_open: watch::Sender<bool>,
    _passing: JoinSet<()>,
}

impl Gate {
    pub(crate) async fn before(url: &str) -> anyhow::Result<Self> {
        let parsed: Uri = url.parse().context("the database's URL")?;
        let authority = parsed.authority().context("the database's URL names no server")?;
        let port = authority.port_u16().unwrap_or(5432);
        let database = format!("{}:{port}", authority.host());
        let server = authority.as_str().rsplit('@').next().unwrap_or_default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = url.replacen(server, &listener.local_addr()?.to_string(), 1);
        let is_open = watch::channel(true).0;
        let mut passing = JoinSet::new();
        passing.spawn(pass(listener, database, is_open.subscribe()));
        Ok(Self { url, is_open, _passing: passing })
    }

    /// Breaks all connections off, and lets nobody in.
    pub(crate) fn shut(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }
}

async fn pass(listener: TcpListener, database: String, is_open: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if !*is_open.borrow() {
            continue;
        }
        let (database, mut is_open) = (database.clone(), is_open.clone());
        connections.spawn(async move {
            let both = async {
                let mut server = TcpStream::connect(database).await?;
                copy_bidirectional(&mut client, &mut server).await
            };
            // How a connection ends is the business of its ends.
            tokio::select! {
                _ = both => {}
                _ = is_open.wait_for(|is_open| !is_open) => {}
            }
        });
    }
}
