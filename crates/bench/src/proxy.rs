use serde::{Deserialize, Serialize};

use crate::{
    deployment::Deployment,
    process::{Server, result, to_f64},
    table::{Rounds, note, print},
};

pub(crate) mod bare;
pub(crate) mod load;
mod nginx;
pub(crate) mod upstream;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Calls of each kind in a round; streams are a tenth of it.
    #[arg(long, default_value_t = 20_000)]
    calls: u64,
    /// Calls under way at once.
    #[arg(long, default_value_t = 32)]
    concurrency: u64,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    #[arg(long)]
    json: bool,
}

/// What the load generator saw.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Seen {
    pub(crate) seconds: f64,
    pub(crate) median_us: f64,
    /// From when the upstream wrote a chunk to when the client had it.
    pub(crate) chunk_p50_us: Option<f64>,
    pub(crate) chunk_p99_us: Option<f64>,
}

/// What is called, and with which key.
struct Target {
    name: &'static str,
    server: Server,
    key: String,
}

/// How it is called.
struct Kind {
    name: &'static str,
    prompt: &'static str,
    streamed: bool,
}

const KINDS: [Kind; 3] = [
    Kind { name: "1 KB", prompt: "1024", streamed: false },
    Kind { name: "64 KB", prompt: "65536", streamed: false },
    Kind { name: "50-chunk stream", prompt: "1024", streamed: true },
];

const STRONGROOM: &str = "strongroom";
const BARE: &str = "bare hyper";
const DIRECT: &str = "direct";
const CPU: &str = "µs CPU";
const ALONE: &str = "µs latency alone";

/// Measures everything once a round, in turn, so that what else the machine does hits all alike.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let upstream = Server::role(&["upstream"]).await?;
    let to = upstream.address.clone();
    let deployment = Deployment::start(&folder.path().join("strongroom"), 1, None, &to).await?;
    let key = deployment.key.clone();
    let (bare, proxy) = (Server::role(&["bare", &to]).await?, deployment.fleet.proxy(0).await?);
    let target = |name, server| Target { name, server, key: key.clone() };
    let mut targets = vec![target(DIRECT, upstream), target(BARE, bare), target(STRONGROOM, proxy)];
    match nginx::start(folder.path(), &to).await? {
        Some(server) => targets.push(target("nginx", server)),
        None => note("nginx is not installed, so it is not measured"),
    }
    let mut rounds = Rounds::default();
    for round in 0..=args.rounds {
        note(&format!("round {round} of {}", args.rounds));
        let mut lap = Rounds::default();
        // The first round warms up.
        let into = if round == 0 { &mut lap } else { &mut rounds };
        for kind in &KINDS {
            for target in &targets {
                measure(&args, kind, target, into).await?;
            }
        }
    }
    let mut ratios = Vec::new();
    for kind in &KINDS {
        let value = |who: &str, measure| {
            rounds.median(&format!("{}, {who}", kind.name), measure).unwrap_or(f64::NAN)
        };
        let ratio = value(STRONGROOM, CPU) / value(BARE, CPU);
        ratios.push((format!("CPU, {}: strongroom / bare hyper", kind.name), ratio));
        if !kind.streamed {
            let added = value(STRONGROOM, ALONE) - value(DIRECT, ALONE);
            ratios.push((format!("added latency, {}, strongroom, µs", kind.name), added));
            let added = value(BARE, ALONE) - value(DIRECT, ALONE);
            ratios.push((format!("added latency, {}, bare hyper, µs", kind.name), added));
        }
    }
    print(&rounds.rows(), &ratios, args.json);
    Ok(())
}

async fn measure(
    args: &Args,
    kind: &Kind,
    target: &Target,
    rounds: &mut Rounds,
) -> anyhow::Result<()> {
    let what = format!("{}, {}", kind.name, target.name);
    let calls = if kind.streamed { args.calls / 10 } else { args.calls };
    let load = async |calls: u64, concurrency: u64| {
        let (calls, concurrency) = (calls.to_string(), concurrency.to_string());
        let mut role = vec!["load", &target.server.address, &target.key, "--prompt", kind.prompt];
        role.extend(["--calls", &calls, "--concurrency", &concurrency]);
        role.extend(kind.streamed.then_some("--streamed"));
        result::<Seen>(&role).await
    };
    let before = target.server.cpu()?;
    let seen = load(calls, args.concurrency).await?;
    let cpu = target.server.cpu()?.saturating_sub(before);
    rounds.add(&what, CPU, cpu.as_secs_f64() / to_f64(calls) * 1e6);
    rounds.add(&what, "per second", to_f64(calls) / seen.seconds);
    if let Some((p50, p99)) = seen.chunk_p50_us.zip(seen.chunk_p99_us) {
        rounds.add(&what, "µs chunk p50", p50);
        rounds.add(&what, "µs chunk p99", p99);
    } else {
        let alone = load(calls.div_ceil(20), 1).await?;
        rounds.add(&what, ALONE, alone.median_us);
    }
    Ok(())
}
