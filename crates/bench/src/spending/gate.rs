use anyhow::Context as _;
use hyper::Uri;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Stands before a server, and can keep everybody out. Whoever knows it finds the server again when that has
/// moved.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) address: String,
    server: watch::Sender<Option<String>>,
    _passing: JoinSet<()>,
}

impl Gate {
    pub(crate) async fn before(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let server = watch::channel(Some(server.to_owned())).0;
        let mut passing = JoinSet::new();
        passing.spawn(pass(listener, server.subscribe()));
        Ok(Self { address, server, _passing: passing })
    }

    /// Breaks all connections off, and lets nobody in.
    pub(crate) fn shut(&self) {
        self.server.send_replace(None);
    }

    /// Lets everybody in to this server.
    pub(crate) fn open(&self, server: &str) {
        self.server.send_replace(Some(server.to_owned()));
    }
}

async fn pass(listener: TcpListener, server: watch::Receiver<Option<String>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        drop(client.set_nodelay(true));
        let mut is = server.clone();
        let Some(address) = is.borrow_and_update().clone() else { continue };
        connections.spawn(async move {
            let both = async {
                let mut server = TcpStream::connect(address).await?;
                server.set_nodelay(true)?;
                copy_bidirectional(&mut client, &mut server).await
            };
            // How a connection ends is the business of its ends.
            tokio::select! {
                _ = both => {}
                _ = is.changed() => {}
            }
        });
    }
}

/// A `PostgreSQL` behind a gate.
#[derive(Debug)]
pub(crate) struct Database {
    /// The database, by way of the gate.
    pub(crate) url: String,
    pub(crate) gate: Gate,
    server: String,
}

impl Database {
    pub(crate) async fn at(url: &str) -> anyhow::Result<Self> {
        let parsed: Uri = url.parse().context("the database's URL")?;
        let authority = parsed.authority().context("the database's URL names no server")?;
        let server = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(5432));
        let gate = Gate::before(&server).await?;
        let named = authority.as_str().rsplit('@').next().unwrap_or_default();
        Ok(Self { url: url.replacen(named, &gate.address, 1), gate, server })
    }

    pub(crate) fn open(&self) {
        self.gate.open(&self.server);
    }
}
