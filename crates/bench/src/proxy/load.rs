use anyhow::{Context as _, bail};
use bytes::Bytes;
use domain::{Clock as _, SystemClock};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    client::conn::http1::{SendRequest, handshake},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::Seen;
use crate::process::announce;

/// Applications that call one address, each over a connection of its own.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    address: String,
    key: String,
    #[arg(long)]
    calls: u64,
    #[arg(long)]
    concurrency: u64,
    /// The length of the prompt in bytes.
    #[arg(long)]
    prompt: usize,
    #[arg(long)]
    streamed: bool,
}

/// What one application saw, in nanoseconds.
#[derive(Default)]
struct Latencies {
    calls: Vec<u128>,
    chunks: Vec<u128>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let started = SystemClock.elapsed();
    let mut tasks = JoinSet::new();
    for _ in 0..args.concurrency {
        tasks.spawn(application(args.clone()));
    }
    let mut all = Latencies::default();
    while let Some(ended) = tasks.join_next().await {
        let seen = ended??;
        all.calls.extend(seen.calls);
        all.chunks.extend(seen.chunks);
    }
    let seconds = SystemClock.elapsed().saturating_sub(started).as_secs_f64();
    let seen = Seen {
        seconds,
        median_us: quantile(&mut all.calls, 50).context("there were no calls")?,
        chunk_p50_us: quantile(&mut all.chunks, 50),
        chunk_p99_us: quantile(&mut all.chunks, 99),
    };
    announce(&serde_json::to_string(&seen)?);
    Ok(())
}

async fn application(args: Args) -> anyhow::Result<Latencies> {
    let tcp = TcpStream::connect(&args.address).await?;
    tcp.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(tcp)).await?;
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let body = body(&args);
    let mut latencies = Latencies::default();
    for _ in 0..args.calls / args.concurrency {
        let started = SystemClock.elapsed();
        call(&args, &mut sender, &body, &mut latencies.chunks).await?;
        latencies.calls.push(SystemClock.elapsed().saturating_sub(started).as_nanos());
    }
    Ok(latencies)
}

async fn call(
    args: &Args,
    sender: &mut SendRequest<Full<Bytes>>,
    body: &Bytes,
    chunks: &mut Vec<u128>,
) -> anyhow::Result<()> {
    let accept = if args.streamed { "text/event-stream" } else { "application/json" };
    let request = Request::post("/v1/chat/completions")
        .header(HOST, &args.address)
        .header(AUTHORIZATION, format!("Bearer {}", args.key))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, accept)
        .body(Full::new(body.clone()))?;
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let mut answer = answer.into_body();
    while let Some(frame) = answer.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&data));
        }
        if let Some(written) = written_at(&data) {
            chunks.push(SystemClock.elapsed().as_nanos().saturating_sub(written));
        }
    }
    Ok(())
}

/// When the upstream wrote the first event of a piece, in the clock that all processes share.
fn written_at(data: &[u8]) -> Option<u128> {
    let at = data.strip_prefix(b"data: {\"at\":")?.get(..20)?;
    std::str::from_utf8(at).ok()?.parse().ok()
}

/// The model stands behind the prompt, as the official Python SDK sends it.
fn body(args: &Args) -> Bytes {
    let prompt = "word ".repeat(args.prompt / 5);
    let streamed = args.streamed;
    Bytes::from(format!(
        "{{\"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}\"}}],\"model\":\"gpt-4o-mini\",\
         \"stream\":{streamed}}}"
    ))
}

#[expect(clippy::cast_precision_loss, reason = "measurements are not that exact")]
fn quantile(nanos: &mut [u128], percent: usize) -> Option<f64> {
    nanos.sort_unstable();
    let at = (nanos.len() * percent / 100).min(nanos.len().checked_sub(1)?);
    nanos.get(at).map(|nanos| *nanos as f64 / 1000.0)
}
