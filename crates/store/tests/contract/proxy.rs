use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Stands between a store and its server, and cuts the connection at the next commit when asked.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// The server's own URL, past this.
    pub(crate) server_url: String,
    cues: Cues,
    _tasks: JoinSet<()>,
}

/// Tells a proxy when to cut.
#[derive(Clone)]
pub(crate) struct Cues(Arc<AtomicU8>);

impl Cues {
    pub(crate) fn cut(&self, cut: Cut) {
        self.0.store(cut as u8, Ordering::SeqCst);
    }
}

/// When to cut.
#[derive(Clone, Copy)]
pub(crate) enum Cut {
    /// The server never hears of the commit.
    BeforeCommit = 1,
    /// The server has committed, and its answer is lost.
    AfterCommit = 2,
}

impl Proxy {
    pub(crate) async fn start(server: String, server_url: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cue = Arc::new(AtomicU8::new(0));
        let mut tasks = JoinSet::new();
        let given = Arc::clone(&cue);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                connections.spawn(carry(client, server, Arc::clone(&given)));
            }
        });
        Self { address, server_url, cues: Cues(cue), _tasks: tasks }
    }

    pub(crate) fn cut(&self, cut: Cut) {
        self.cues.cut(cut);
    }

    pub(crate) fn cues(&self) -> Cues {
        self.cues.clone()
    }

    pub(crate) fn has_cut(&self) -> bool {
        self.cues.0.load(Ordering::SeqCst) == 0
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, cue: Arc<AtomicU8>) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let is_commit = up[..length].windows(7).any(|bytes| bytes == b"COMMIT\0");
                let cut = if is_commit { cue.swap(0, Ordering::SeqCst) } else { 0 };
                if cut == Cut::BeforeCommit as u8 || server.write_all(&up[..length]).await.is_err() {
                    return;
                }
                if cut == Cut::AfterCommit as u8 {
                    // The answer has come, and goes nowhere.
                    server.readable().await.unwrap();
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&down[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
