use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, BufReader},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// A syslog receiver: it parses frames that are counted in octets, and hands their messages on.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    messages: mpsc::UnboundedReceiver<String>,
    connections: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn plain() -> Self {
        Self::start(None).await
    }

    pub(crate) async fn with_tls(acceptor: TlsAcceptor) -> Self {
        Self::start(Some(acceptor)).await
    }

    async fn start(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, messages) = mpsc::unbounded_channel();
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                open.spawn(async move {
                    match acceptor {
                        None => read(stream, &sender).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => read(stream, &sender).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, messages, connections }
    }

    pub(crate) async fn next(&mut self) -> String {
        self.messages.recv().await.unwrap()
    }

    /// Ends every connection and stops listening.
    pub(crate) async fn stop(mut self) {
        self.connections.shutdown().await;
    }
}

async fn read(
    stream: impl AsyncRead + Unpin,
    sender: &mpsc::UnboundedSender<String>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0_usize;
        loop {
            match stream.read_u8().await.ok()? {
                b' ' => break,
                digit => {
                    assert!(digit.is_ascii_digit(), "a frame begins with its length");
                    length = length * 10 + usize::from(digit - b'0');
                }
            }
        }
        let mut message = vec![0; length];
        stream.read_exact(&mut message).await.ok()?;
        sender.send(String::from_utf8(message).unwrap()).ok()?;
    }
}
