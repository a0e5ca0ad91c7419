use std::path::Path;

use self::{
    kills::{Killed, kill_all},
    outages::{Outages, interrupt_all},
    races::{Races, race_all},
    window::{Window, watch},
    world::World,
};

mod gate;
mod kills;
mod outages;
mod races;
mod window;
mod world;

/// Whether budgets hold when proxies spend them, whatever becomes of proxies and of the database.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A `PostgreSQL` database to spend on as well; a schema is made in it.
    #[arg(long)]
    postgres: Option<String>,
    /// Brokers on `PostgreSQL`. `SQLite` has one.
    #[arg(long, default_value_t = 2)]
    brokers: usize,
    /// Proxies, in turn at each broker.
    #[arg(long, default_value_t = 4)]
    proxies: usize,
    /// Callers, in turn at each proxy.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// The budget of a race and of a window, in micro-USD; a call comes to 176 at the most, and to 156.
    #[arg(long, default_value_t = 20_000)]
    cap: u64,
    /// How often callers race for a budget.
    #[arg(long, default_value_t = 20)]
    races: usize,
    /// How often a proxy is killed.
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// For how many seconds callers spend a budget of a rolling minute; 0: not at all.
    #[arg(long, default_value_t = 150)]
    window: u64,
    /// How often the database goes away. `SQLite` does not.
    #[arg(long, default_value_t = 5)]
    outages: usize,
    #[arg(long)]
    json: bool,
}

/// What came of all on one database.
struct Outcome {
    store: &'static str,
    races: Races,
    killed: Killed,
    window: Window,
    outages: Outages,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    report(&args, &spend(&args, &folder.path().join("sqlite"), None).await?);
    if let Some(url) = &args.postgres {
        report(&args, &spend(&args, &folder.path().join("postgres"), Some(url)).await?);
    }
    Ok(())
}

async fn spend(args: &Args, folder: &Path, url: Option<&str>) -> anyhow::Result<Outcome> {
    let mut world = World::start(args, folder, url).await?;
    let races = race_all(args, &world).await?;
    let window = watch(args, &world).await?;
    let outages = interrupt_all(args, &world).await?;
    let killed = kill_all(args, &mut world).await?;
    Ok(Outcome { store: world.store(), races, killed, window, outages })
}

#[expect(clippy::print_stdout, reason = "this is what the run is for")]
fn report(args: &Args, outcome: &Outcome) {
    let Outcome { store, races, killed, window, outages } = outcome;
    if args.json {
        println!(
            "{}",
            serde_json::json!({
                "store": store, "races": races, "killed": killed, "window": window,
                "outages": outages,
            })
        );
        return;
    }
    let cap = args.cap;
    println!(
        "{store}: {} races of {} callers at {} proxies for {cap} micro-USD: {} to {} spent, to the \
         unit what the provider counted",
        races.count, args.callers, args.proxies, races.least, races.most
    );
    println!(
        "    {} kills of a proxy: the provider counted {} micro-USD, of which {} are known; {} more may \
         have been spent; nothing is reserved",
        killed.kills, killed.counted, killed.spent, killed.unknown
    );
    println!(
        "    {} s of a budget of {cap} in a rolling minute: {} micro-USD in the fullest minute, {} in all",
        args.window, window.fullest, window.all
    );
    println!(
        "    {} outages of the database: {} micro-USD spent, to the unit what the provider counted",
        outages.count, outages.spent
    );
}
