//! The `quickstart` binary: the whole system in one process, on embedded defaults.

mod environment;
mod narration;
mod ports;
mod proof;
mod seed;
mod servers;
mod speech;
mod stand_in;
mod state;
mod system;
mod welcome;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use telemetry::{LogFormat, TelemetryConfig};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: hardening::WipingAllocator = hardening::WipingAllocator::new();

/// Starts a broker and an inference proxy in one process, and says how to call them.
///
/// Keys of providers are taken from `OPENAI_API_KEY` and `ANTHROPIC_API_KEY`. Where none is set, a
/// stand-in answers instead of a model.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Where keys, the log and the database are kept; made when it is not there.
    #[arg(long, default_value = ".strongroom")]
    state_dir: PathBuf,
    /// Where applications call: a loopback address. Without it 127.0.0.1:8080, or a free port when
    /// that one is taken.
    #[arg(long)]
    listen: Option<SocketAddr>,
}

fn main() -> ExitCode {
    hardening::silence_panics();
    let args = Args::parse();
    // Before there are threads, so that every one of them is hardened.
    let hardened = hardening::harden_process().context("hardening the process");
    let ran = hardened.and_then(|()| Runtime::new().context("starting")?.block_on(run(&args)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            speech::say(format_args!("\nThe quickstart stops: {error:#}."));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let config = TelemetryConfig { log: LogFormat::Text, ..TelemetryConfig::default() };
    let telemetry = telemetry::init(&config, "strongroom-quickstart")?;
    system::run(args, &telemetry).await
}
