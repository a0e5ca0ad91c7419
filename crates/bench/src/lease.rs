use serde::{Deserialize, Serialize};

use crate::{
    deployment::Deployment,
    process::{Server, result, to_f64},
    table::{Rounds, note, print},
};

pub(crate) mod clients;
pub(crate) mod empty;
pub(crate) mod record;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A PostgreSQL database to measure as well, in a schema of its own.
    #[arg(long)]
    postgres: Option<String>,
    /// Calls of each kind in a round.
    #[arg(long, default_value_t = 20_000)]
    calls: u64,
    /// Calls under way at once.
    #[arg(long, default_value_t = 64)]
    concurrency: u64,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    #[arg(long)]
    json: bool,
}

/// What a role measured of itself.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Ran {
    /// How many calls that were.
    pub(crate) calls: u64,
    pub(crate) seconds: f64,
    /// CPU of the process that measured.
    pub(crate) cpu_seconds: f64,
}

const EMPTY: &str = "empty mTLS handler";

/// Measures everything once a round, in turn, so that what else the machine does hits all alike.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut stores = vec![("SQLite", None)];
    stores.extend(args.postgres.as_deref().map(|url| ("PostgreSQL", Some(url))));
    let mut deployments = Vec::new();
    for (name, url) in stores {
        let path = folder.path().join(name);
        let deployment = Deployment::start(&path, 1, url, "127.0.0.1:9").await?;
        deployments.push((name, path.display().to_string(), deployment));
    }
    let pki = folder.path().join("SQLite").display().to_string();
    let empty = Server::role(&["empty", &pki]).await?;
    let mut rounds = Rounds::default();
    for round in 0..=args.rounds {
        note(&format!("round {round} of {}", args.rounds));
        let mut lap = Rounds::default();
        let calls = Calls { args: &args, rounds: if round == 0 { &mut lap } else { &mut rounds } };
        calls.measure(&empty, &pki, &deployments).await?;
    }
    let mut ratios = Vec::new();
    for (store, ..) in &deployments {
        let cpu = |what: &str| rounds.median(what, CPU).unwrap_or(f64::NAN);
        let bare = cpu(EMPTY) + cpu(&format!("bare record, {store}"));
        let ratio = cpu(&format!("lease, {store}")) / bare;
        ratios.push((format!("lease / (empty handler + record), {store}"), ratio));
    }
    print(&rounds.rows(), &ratios, args.json);
    Ok(())
}

const CPU: &str = "µs CPU";
const RATE: &str = "per second";

struct Calls<'a> {
    args: &'a Args,
    rounds: &'a mut Rounds,
}

impl Calls<'_> {
    async fn measure(
        mut self,
        empty: &Server,
        pki: &str,
        deployments: &[(&str, String, Deployment)],
    ) -> anyhow::Result<()> {
        let (calls, concurrency) = (self.args.calls.to_string(), self.args.concurrency.to_string());
        let common = ["--calls", &calls, "--concurrency", &concurrency];
        self.clients(EMPTY, empty, &[&["clients", pki, &empty.address], &common[..]].concat())
            .await?;
        for (store, path, deployment) in deployments {
            let broker = deployment.broker()?;
            let key = ["clients", path, &broker.address, "--key", &deployment.key];
            self.clients(&format!("lease, {store}"), broker, &[&key[..], &common].concat()).await?;
            let own = format!("{path}/bare.db");
            let url = deployment.fleet.url.as_deref();
            let place = url.map_or([own.as_str(), "sqlite"], |url| [url, "postgres"]);
            let ran: Ran = result(&[&["record"], &place[..], &common].concat()).await?;
            self.add(&format!("bare record, {store}"), ran.cpu_seconds, ran.seconds);
        }
        Ok(())
    }

    async fn clients(&mut self, what: &str, server: &Server, role: &[&str]) -> anyhow::Result<()> {
        let before = server.cpu()?;
        let ran: Ran = result(role).await?;
        let cpu = server.cpu()?.saturating_sub(before);
        self.add(what, cpu.as_secs_f64(), ran.seconds);
        Ok(())
    }

    fn add(&mut self, what: &str, cpu_seconds: f64, seconds: f64) {
        let calls = to_f64(self.args.calls);
        self.rounds.add(what, CPU, cpu_seconds / calls * 1e6);
        self.rounds.add(what, RATE, calls / seconds);
    }
}
