use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use domain::{Clock, Origin};
use egress::{Bounds, Client, Exit};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Request, header};
use sha2::Sha256;
use sinks::{Event, Format, Sink, SinkError};
use tokio::fs;
use zeroize::Zeroizing;

use crate::config::WebhookConfig;

/// A receiver that is called once for each record that it asked for, in the order of the log. Each
/// call is signed, and done when the receiver has answered with 2xx.
#[derive(Debug)]
pub(crate) struct Webhook {
    config: WebhookConfig,
    origin: Origin,
    client: Client,
    clock: Arc<dyn Clock>,
    /// The last record that the receiver took: when a later one fails, it is not sent again.
    taken: Option<u64>,
}

/// How long the receiver may take over a call.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the receiver says beside its status is not read; more than this is an error.
const LONGEST_ANSWER: usize = 64 << 10;

/// A shorter secret can be guessed.
const SHORTEST_SECRET: usize = 32;

const LONGEST_SECRET: u64 = 1024;

impl Webhook {
    /// Refuses what cannot be used. Nothing is connected.
    pub(crate) async fn open(
        config: &WebhookConfig,
        exit: Arc<Exit>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let origin = Origin::of_url(config.url.as_str()).context("its URL")?;
        let (client, config) = (Client::new(exit), config.clone());
        let webhook = Self { config, origin, client, clock, taken: None };
        webhook.secrets().await?;
        Ok(webhook)
    }

    async fn secrets(&self) -> Result<Vec<Zeroizing<Vec<u8>>>, SinkError> {
        let mut secrets = Vec::with_capacity(self.config.secrets.len());
        for path in &self.config.secrets {
            let secret = read_secret(path).await;
            secrets.push(secret.map_err(|problem| bad(path, problem))?);
        }
        Ok(secrets)
    }

    async fn call(&self, event: &Event, secrets: &[Zeroizing<Vec<u8>>]) -> Result<(), SinkError> {
        let body = Format::Jsonl.line(event);
        let seconds = self.clock.now().as_millis().div_euclid(1000);
        let request = Request::post(self.config.url.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "strongroom-broker")
            .header("strongroom-signature", signature(seconds, &body, secrets))
            .body(Bytes::from(body));
        let bounds = Bounds {
            origins: std::slice::from_ref(&self.origin),
            within: PATIENCE,
            longest_answer: LONGEST_ANSWER,
        };
        // The URL stays out of errors: its path may be what lets one in.
        let unsent = |error: io::Error| SinkError::Connect {
            address: self.origin.to_string(),
            source: error,
        };
        let request = request.map_err(|error| unsent(io::Error::other(error)))?;
        let answer = self.client.send(request, &bounds).await;
        let status = answer.map_err(|error| unsent(io::Error::other(error)))?.status();
        let outcome = if status.is_success() { "taken" } else { "refused" };
        let name = self.config.name.as_str().to_owned();
        metrics::counter!("strongroom_webhook_calls_total", "sink" => name, "outcome" => outcome)
            .increment(1);
        if status.is_success() {
            return Ok(());
        }
        Err(SinkError::Refused { code: "HTTP status", message: status.as_str().to_owned() })
    }
}

#[async_trait]
impl Sink for Webhook {
    async fn send(&mut self, batch: &[Event]) -> Result<u64, SinkError> {
        let is_due = |event: &&Event| {
            self.taken.is_none_or(|taken| taken < event.index())
                && self.config.wants(event.kind(), event.tenant())
        };
        let due: Vec<&Event> = batch.iter().filter(is_due).collect();
        if due.is_empty() {
            return Ok(0);
        }
        let secrets = self.secrets().await?;
        for event in due {
            self.call(event, &secrets).await?;
            self.taken = Some(event.index());
        }
        Ok(0)
    }

    fn acknowledges(&self) -> bool {
        true
    }
}

/// `t=<seconds since 1970>,v1=<hex>`, with one `v1` for each secret: HMAC-SHA256 of `<t>.<body>`. The
/// time is signed, so that a receiver can refuse a call that somebody sends again.
fn signature(seconds: i64, body: &str, secrets: &[Zeroizing<Vec<u8>>]) -> String {
    let mut header = format!("t={seconds}");
    for secret in secrets {
        // Any length will do.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { continue };
        mac.update(format!("{seconds}.{body}").as_bytes());
        header.push_str(",v1=");
        header.push_str(&hex::encode(mac.finalize().into_bytes()));
    }
    header
}

/// Reads a secret; the end of its line is not part of it.
async fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let metadata = fs::metadata(path).await.map_err(|error| error.to_string())?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err("others than its owner can reach this secret: chmod 0400 it".to_owned());
    }
    if metadata.len() > LONGEST_SECRET {
        return Err(format!("a secret is {LONGEST_SECRET} bytes at most"));
    }
    let bytes = fs::read(path).await.map_err(|error| error.to_string())?;
    let mut secret = Zeroizing::new(bytes);
    while secret.last().is_some_and(u8::is_ascii_whitespace) {
        secret.pop();
    }
    if secret.len() < SHORTEST_SECRET {
        return Err(format!("a secret is {SHORTEST_SECRET} bytes or more: openssl rand -hex 32"));
    }
    Ok(secret)
}

fn bad(path: &Path, problem: String) -> SinkError {
    SinkError::Tls { path: PathBuf::from(path), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_published_one() {
        // By another implementation:
        // printf '%s' '1700000000.{"index":9}' | openssl dgst -sha256 -hmac "$secret"
        let secret = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
        let one = secret("0123456789abcdef0123456789abcdef");
        let expected = "158213ac3720aa83157416c5dc23865cb9ad38fa1f5630d647aa8dde5a9cb727";
        let body = r#"{"index":9}"#;
        let first = format!("t=1700000000,v1={expected}");
        assert_eq!(signature(1_700_000_000, body, std::slice::from_ref(&one)), first);
        let two = signature(1_700_000_000, body, &[one.clone(), secret("another one")]);
        assert!(two.starts_with(&format!("{first},v1=")) && two.len() == first.len() + 68);
        assert_ne!(signature(1_700_000_001, body, std::slice::from_ref(&one))[13..], first[13..]);
        assert_ne!(signature(1_700_000_000, r#"{"index":8}"#, &[one]), first);
    }

    #[tokio::test]
    async fn a_secret_is_long_and_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(read_secret(&path).await.is_err());
        let good = "0123456789abcdef0123456789abcdef";
        write(good, 0o640);
        assert!(read_secret(&path).await.unwrap_err().contains("chmod 0400"));
        write("short", 0o600);
        assert!(read_secret(&path).await.unwrap_err().contains("32 bytes"));
        write(&format!("{good}\n"), 0o600);
        assert_eq!(read_secret(&path).await.unwrap().as_slice(), good.as_bytes());
    }
}
