//! The `broker` binary.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use broker::{Broker, Config};
use clap::{Parser, Subcommand};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

#[global_allocator]
static ALLOCATOR: hardening::WipingAllocator = hardening::WipingAllocator::new();

/// Lends provider credentials over gRPC, and records every loan.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration file.
    #[arg(long, global = true, default_value = "broker.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Checks what a start would refuse of the configuration, the access policy and the files that they name,
    /// without a database or a KMS, and stops.
    CheckConfig,
    /// Admits the access policy of the configuration, puts that on record, and stops: for the day on which
    /// the policy asks for two people and no two are left who can.
    AdmitPolicy,
    /// Adds a root key to the key file, and stops. Give the file to every broker and restart them, then
    /// call `strongroom kms rewrap`. The keys before it stay in the file: backups need them.
    AddRootKey {
        /// One of `[[kms_roots]]`; without this, the root key of `[kms]`.
        #[arg(long)]
        root: Option<domain::RootName>,
    },
    /// Opens every key by its recovery root (`[kms_recovery]`), wraps it under the root key of `[kms]`, and
    /// stops. For when a root key is lost and another one stands in its place; stop the brokers first.
    Recover {
        /// Opens every key and changes nothing: a drill, also beside brokers on `PostgreSQL`.
        #[arg(long)]
        dry_run: bool,
    },
    /// Gives up a signed checkpoint whose records the database has lost for good, puts that on record,
    /// and stops. Run it with what a broker that refuses to start says, and not before you know why
    /// they are lost: a rewritten history looks the same.
    GiveUpCheckpoint {
        /// How many records were signed.
        #[arg(long)]
        size: u64,
        /// The root that was signed: base64 as in the checkpoint, or hex.
        #[arg(long, value_parser = root)]
        root: [u8; 32],
    },
}

fn root(text: &str) -> Result<[u8; 32], &'static str> {
    audit::Checkpoint::parse_root(text).ok_or("a root is 32 bytes in base64 or hex")
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
            tracing::error!(error = format!("{error:#}"), "the broker stops");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args, hardened: anyhow::Result<()>) -> anyhow::Result<()> {
    let loaded = Config::load(&args.config);
    let telemetry = loaded.as_ref().map(|(config, _)| config.telemetry.clone()).unwrap_or_default();
    let guard = telemetry::init(&telemetry, "strongroom-broker")?;
    hardened?;
    let (config, sha256) = loaded.context("loading the configuration")?;
    if matches!(args.command, Some(Command::CheckConfig)) {
        broker::check_config(&config).await?;
        tracing::info!(config = %args.config.display(), "the configuration can be used");
        return Ok(());
    }
    if matches!(args.command, Some(Command::AdmitPolicy)) {
        let index = broker::admit_policy(config).await?;
        tracing::warn!(index, "the access policy is admitted, by this machine's word alone");
        return Ok(());
    }
    if let Some(Command::AddRootKey { root }) = &args.command {
        let version = broker::add_root_key(&config, root.as_ref())?;
        tracing::info!(version, "a root key was added; restart the brokers, then rewrap");
        return Ok(());
    }
    if let Some(Command::Recover { dry_run }) = args.command {
        let broker::Recovered { opened, left } = broker::recover(config, dry_run).await?;
        tracing::info!(opened, left, dry_run, "keys were opened by their recovery root");
        return Ok(());
    }
    if let Some(Command::GiveUpCheckpoint { size, root }) = args.command {
        let index = broker::give_up_checkpoint(config, size, root).await?;
        tracing::info!(size, index, "the checkpoint is given up; brokers can start again");
        return Ok(());
    }
    // Before anybody is told that this runs: whoever is told may end it.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listen = config.listen;
    let broker = Broker::open(config, sha256).await?;
    if let Some(advice) = hardening::memory_advice() {
        tracing::warn!("{advice}");
    }
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    tracing::info!(address = %listener.local_addr()?, vkey = broker.verifier_key(), "listening");
    let mut ops = tokio::task::JoinSet::new();
    if let Some(address) = telemetry.metrics_listen {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        let (metrics, readiness) = (guard.metrics(), broker.readiness());
        ops.spawn(telemetry::serve_ops(listener, metrics, readiness, std::future::pending()));
    }
    let shutdown = async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    };
    // It holds everything that runs, so it is large.
    Box::pin(broker.serve(listener, shutdown)).await?;
    guard.flush().await;
    Ok(())
}
