use std::net::SocketAddr;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A chat of an application without an SDK, for what SDKs do not do: to go away in the middle.
#[derive(Debug)]
pub struct Application {
    connection: TcpStream,
    heard: String,
}

impl Application {
    /// Asks for a short chat at a proxy, as a stream or in one piece.
    pub async fn ask(proxy: SocketAddr, key: &str, streamed: bool) -> Self {
        let mut connection = TcpStream::connect(proxy).await.unwrap();
        let body = json!({
            "model": "gpt-4o-mini", "max_tokens": 10, "stream": streamed,
            "messages": [{ "role": "user", "content": "Hello" }],
        });
        let body = body.to_string();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\nauthorization: \
             Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        Self { connection, heard: String::new() }
    }

    /// Waits until the answer has this in it, or is over.
    pub async fn hears(&mut self, text: &str) -> bool {
        let mut piece = [0; 4096];
        while !self.heard.contains(text) {
            // A connection that breaks ends the answer as well.
            let length = self.connection.read(&mut piece).await.unwrap_or(0);
            if length == 0 {
                return false;
            }
            self.heard.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        true
    }

    /// The whole answer, with its head.
    pub async fn answer(mut self) -> String {
        self.hears("\0").await;
        self.heard
    }

    /// The status of the answer, when all of it has come.
    pub async fn status(self) -> u16 {
        let answer = self.answer().await;
        answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).expect(&answer)
    }
}
