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
    /// The last record that the receiver took, or that was given up: when a later one fails, it is not sent
    /// again.
    taken: Option<u64>,
    /// Since when no call was taken although one was made, by the clock's elapsed time.
    failing_since: Option<Duration>,
}

/// How long the receiver may take over a call.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the receiver says beside its status is not read; more than this is an error.
const LONGEST_ANSWER: usize = 64 << 10;

/// A shorter secret can be guessed.
const SHORTEST_SECRET: usize = 32;

const LONGEST_SECRET: usize = 1024;

/// Of one and the same secret two are in use at the most: the one that was, and the one that is to be.
const MOST_SECRETS: usize = 2;

/// However old a record is, so long its call is tried.
const TRIED_FOR: Duration = Duration::from_mins(10);

impl Webhook {
    /// Refuses what cannot be used. Nothing is connected.
    pub(crate) async fn open(
        config: &WebhookConfig,
        exit: Arc<Exit>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let origin = Origin::of_url(config.url.as_str()).context("its URL")?;
        let (client, config) = (Client::new(exit), config.clone());
        let webhook = Self { config, origin, client, clock, taken: None, failing_since: None };
        webhook.secrets().await?;
        Ok(webhook)
    }

    async fn secrets(&self) -> Result<Vec<Zeroizing<Vec<u8>>>, SinkError> {
        let mut secrets = Vec::with_capacity(MOST_SECRETS);
        for path in &self.config.secrets {
            let read = read_secrets(path).await;
            secrets.extend(read.map_err(|problem| bad(path, problem))?);
            if secrets.len() > MOST_SECRETS {
                return Err(bad(
                    path,
                    format!("with it there are more than {MOST_SECRETS} secrets"),
                ));
            }
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

impl Webhook {
    /// Whether a call that has failed just now is to hold up no other any more. Records' own times count, so
    /// that neither a restart nor the calls before it put the end off; and for a while it is tried
    /// in any case, as who was away for long may be back.
    fn has_waited(&mut self, event: &Event) -> bool {
        let now = self.clock.elapsed();
        let failing = now.saturating_sub(*self.failing_since.get_or_insert(now));
        let longest = self.config.give_up_after;
        failing >= TRIED_FOR.min(longest) && self.clock.now().since(event.time()) >= longest
    }

    fn give_up(&self, event: &Event, error: &SinkError) {
        let name = self.config.name.as_str();
        metrics::counter!("strongroom_webhook_given_up_total", "sink" => name.to_owned())
            .increment(1);
        tracing::error!(
            sink = name,
            index = event.index(),
            kind = event.kind().as_str_name(),
            tenant = event.tenant(),
            error = error as &dyn std::error::Error,
            "a webhook's call is given up: its receiver has not heard of this record"
        );
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
            match self.call(event, &secrets).await {
                Ok(()) => self.failing_since = None,
                Err(error) if self.has_waited(event) => self.give_up(event, &error),
                Err(error) => return Err(error),
            }
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

/// Reads the secrets of a file, one a line; the end of a line is not part of it.
async fn read_secrets(path: &Path) -> Result<Vec<Zeroizing<Vec<u8>>>, String> {
    let metadata = fs::metadata(path).await.map_err(|error| error.to_string())?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err("others than its owner can reach this secret: chmod 0400 it".to_owned());
    }
    let most = MOST_SECRETS * (LONGEST_SECRET + 1);
    if metadata.len() > u64::try_from(most).unwrap_or(u64::MAX) {
        return Err(format!("a secret is {LONGEST_SECRET} bytes at most"));
    }
    let bytes = Zeroizing::new(fs::read(path).await.map_err(|error| error.to_string())?);
    let lines = bytes.trim_ascii_end().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let secrets: Vec<_> = lines.map(|line| Zeroizing::new(line.to_vec())).collect();
    if secrets.iter().any(|secret| secret.len() < SHORTEST_SECRET) {
        return Err(format!("a secret is {SHORTEST_SECRET} bytes or more: openssl rand -hex 32"));
    }
    Ok(secrets)
}

fn bad(path: &Path, problem: String) -> SinkError {
    SinkError::Tls { path: PathBuf::from(path), problem }
}

#[cfg(test)]
mod tests;
