//! A broker or a proxy as its own binary runs it, for the benchmarks to start: it says on standard
//! output where it listens, and ends when its standard input does.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use tokio::{
    io::{AsyncReadExt as _, stdin},
    net::TcpListener,
    runtime::Runtime,
};

#[global_allocator]
static ALLOCATOR: hardening::WipingAllocator = hardening::WipingAllocator::new();

#[derive(Debug, Parser)]
struct Args {
    what: What,
    config: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Broker,
    Proxy,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    hardening::harden_process()?;
    Runtime::new()?.block_on(run(&args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&telemetry::TelemetryConfig::default(), "bench")?;
    match args.what {
        What::Broker => {
            let (config, sha256) = broker::Config::load(&args.config)?;
            let listener = TcpListener::bind(config.listen).await?;
            let broker = broker::Broker::open(config, sha256).await?;
            announce(&listener)?;
            broker.serve(listener, ended()).await
        }
        What::Proxy => {
            let config = inference_proxy::Config::load(&args.config)?;
            let listener = TcpListener::bind(config.listen).await?;
            let proxy = inference_proxy::Proxy::open(&config)?;
            announce(&listener)?;
            proxy.serve(listener, ended()).await.context("serving")
        }
    }
}

#[expect(clippy::print_stdout, reason = "whoever started it reads this")]
fn announce(listener: &TcpListener) -> anyhow::Result<()> {
    println!("{}", listener.local_addr()?);
    Ok(())
}

async fn ended() {
    // However reading ends, nobody is left who wants this to run.
    drop(stdin().read_to_end(&mut Vec::new()).await);
}
