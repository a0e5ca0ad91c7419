use std::{collections::BTreeSet, time::Duration};

use anyhow::ensure;
use futures_util::future::try_join_all;

use crate::{
    deployment::Deployment,
    history::Records,
    lease::Ran,
    process::{Server, result, to_f64},
    table::{Rounds, note, print},
};

/// What more brokers on one database are worth.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A PostgreSQL database; a schema is made in it.
    #[arg(long)]
    postgres: String,
    /// The most brokers.
    #[arg(long, default_value_t = 3)]
    brokers: usize,
    /// Leases in a round, at each broker.
    #[arg(long, default_value_t = 10_000)]
    calls: u64,
    /// Calls under way at once, at each broker.
    #[arg(long, default_value_t = 64)]
    concurrency: u64,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    #[arg(long)]
    json: bool,
}

/// Measures each number of brokers once a round, in turn. All of them run all the time. In the end
/// the log must hold all that was lent.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("strongroom");
    let url = Some(args.postgres.as_str());
    let deployment = Deployment::start(&path, args.brokers, url, "127.0.0.1:9").await?;
    let folder = path.display().to_string();
    let (mut rounds, mut received) = (Rounds::default(), 0);
    let (calls, concurrency) = (args.calls.to_string(), args.concurrency.to_string());
    for round in 0..=args.rounds {
        note(&format!("round {round} of {}", args.rounds));
        for count in 1..=args.brokers {
            let brokers = deployment.fleet.brokers.get(..count).unwrap_or_default();
            let before = cpu(brokers)?;
            let ran = try_join_all(brokers.iter().map(async |broker| {
                let role = ["clients", &folder, &broker.address, "--key", &deployment.key];
                let load = ["--calls", &calls, "--concurrency", &concurrency];
                result::<Ran>(&[&role[..], &load].concat()).await
            }));
            let ran = ran.await?;
            let used = cpu(brokers)?.saturating_sub(before).as_secs_f64();
            let calls = ran.iter().map(|ran| ran.calls).sum::<u64>();
            received += calls;
            // The first round warms up.
            if round > 0 {
                let seconds = ran.iter().map(|ran| ran.seconds).fold(0.0, f64::max);
                rounds.add(&name(count), RATE, to_f64(calls) / seconds);
                rounds.add(&name(count), CPU, used / to_f64(calls) * 1e6);
            }
        }
    }
    let records = Records::of(&deployment.fleet).await?;
    let leases = records.verify(&BTreeSet::new())?.report.leases;
    ensure!(leases >= received, "{received} leases were received, and {leases} are in the log");
    records.control()?;
    note(&format!("{received} leases received, {leases} in the log, which verifies"));
    let rate = |count| rounds.median(&name(count), RATE).unwrap_or(f64::NAN);
    let ratio = |count| (format!("rate, {} / {}", name(count), name(1)), rate(count) / rate(1));
    let ratios = (2..=args.brokers).map(ratio).collect::<Vec<_>>();
    print(&rounds.rows(), &ratios, args.json);
    Ok(())
}

fn cpu(brokers: &[Server]) -> anyhow::Result<Duration> {
    brokers.iter().map(Server::cpu).sum()
}

fn name(brokers: usize) -> String {
    if brokers == 1 { "1 broker".to_owned() } else { format!("{brokers} brokers") }
}

const CPU: &str = "µs CPU of brokers";
const RATE: &str = "per second";
