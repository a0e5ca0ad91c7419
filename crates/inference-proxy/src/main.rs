//! The `inference-proxy` binary.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use inference_proxy::{Config, Proxy};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

#[global_allocator]
static ALLOCATOR: hardening::WipingAllocator = hardening::WipingAllocator::new();

/// The HTTP gateway that puts leased keys on outgoing calls.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration file.
    #[arg(long, default_value = "proxy.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Checks the configuration file, and stops.
    CheckConfig,
}

fn main() -> ExitCode {
    hardening::silence_panics();
    let args = Args::parse();
    // Before there are threads, so that every one of them is hardened.
    let hardened = hardening::harden_process().context("hardening the process");
    let ran = Runtime::new().context("starting").and_then(|it| it.block_on(run(args, hardened)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the proxy stops");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args, hardened: anyhow::Result<()>) -> anyhow::Result<()> {
    let loaded = Config::load(&args.config);
    let telemetry = loaded.as_ref().map(|config| config.telemetry.clone()).unwrap_or_default();
    let guard = telemetry::init(&telemetry, "strongroom-inference-proxy")?;
    hardened?;
    let config = loaded.context("loading the configuration")?;
    if matches!(args.command, Some(Command::CheckConfig)) {
        tracing::info!(config = %args.config.display(), "the configuration can be used");
        return Ok(());
    }
    // Before anybody is told that this runs: whoever is told may end it.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let proxy = Proxy::open(&config)?;
    if let Some(advice) = hardening::memory_advice() {
        tracing::warn!("{advice}");
    }
    let listener = TcpListener::bind(config.listen).await.context("binding the listener")?;
    let mut ops = JoinSet::new();
    if let Some(address) = telemetry.metrics_listen {
        let ops_listener = TcpListener::bind(address).await.context("binding the ops listener")?;
        let (metrics, readiness) = (guard.metrics(), proxy.readiness());
        ops.spawn(telemetry::serve_ops(ops_listener, metrics, readiness, std::future::pending()));
    }
    let shutdown = async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    };
    proxy.serve(listener, shutdown).await.context("serving")?;
    guard.flush().await;
    Ok(())
}
