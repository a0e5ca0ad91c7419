use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Stands before moto and says what AWS KMS says of a key that is disabled: moto opens with it all the
/// same.
pub(crate) struct Gate {
    pub(crate) address: SocketAddr,
    closed: Arc<watch::Sender<bool>>,
    _doorman: JoinSet<()>,
}

impl Gate {
    pub(crate) async fn before(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closed = Arc::new(watch::Sender::new(false));
        let watched = Arc::clone(&closed);
        let mut doorman = JoinSet::new();
        doorman.spawn(async move {
            let mut visitors = JoinSet::new();
            while let Ok((visitor, _)) = listener.accept().await {
                visitors.spawn(attend(visitor, upstream.clone(), watched.subscribe()));
            }
        });
        Self { address, closed, _doorman: doorman }
    }

    pub(crate) fn set_closed(&self, closed: bool) {
        self.closed.send_replace(closed);
    }
}

async fn attend(mut visitor: TcpStream, upstream: String, mut closed: watch::Receiver<bool>) {
    if *closed.borrow_and_update() {
        // The requests of the three calls come in one piece, and have no more than this.
        let mut request = [0; 8192];
        if visitor.read(&mut request).await.is_ok() {
            let _ = visitor.write_all(DISABLED).await;
        }
        return;
    }
    let mut inside = TcpStream::connect(upstream).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut visitor, &mut inside) => {}
        _ = closed.changed() => {}
    }
}

const DISABLED: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: application/x-amz-json-1.1\r\n\
    content-length: 30\r\n\
    connection: close\r\n\r\n\
    {\"__type\":\"DisabledException\"}";
