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
    /// The budget of a race and of a window, in calls, or what so many cost: 156 micro-USD each, and 176 at
    /// the most.
    #[arg(long, default_value_t = 1000)]
    cap: u64,
    /// How often callers race for a budget.
    #[arg(long, default_value_t = 20)]
    races: usize,
    /// How often a proxy or a broker is killed.
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// For how many seconds a key lasts in whose race somebody is killed: longer than whoever it is needs to be
    /// back, and nobody knows of what was lost before it ends.
    #[arg(long, default_value_t = 30)]
    key_lasts: u64,
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
    let (sqlite, postgres) = (folder.path().join("sqlite"), folder.path().join("postgres"));
    let on_postgres = async {
        let Some(url) = &args.postgres else { return Ok(None) };
        Box::pin(spend(&args, &postgres, Some(url))).await.map(Some)
    };
    // Both at once: much of the time they wait for keys to end.
    let on_sqlite = Box::pin(spend(&args, &sqlite, None));
    let (sqlite, postgres) = tokio::try_join!(on_sqlite, on_postgres)?;
    for outcome in std::iter::once(sqlite).chain(postgres) {
        report(&args, &outcome);
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
    println!(
        "{store}: {} races of {} callers at {} proxies for {} calls or their cost: {} to {} calls, to the unit \
         what the provider counted",
        races.count, args.callers, args.proxies, args.cap, races.least, races.most
    );
    println!(
        "    {} s of that budget in a rolling minute: {} micro-USD in the fullest minute, {} in all, none lost",
        args.window, window.fullest, window.all
    );
    println!(
        "    {} outages of the database: {} budgeted calls, none admitted; {} others, all served; {} micro-USD \
         spent, to the unit what the provider counted",
        outages.count, outages.refused, outages.served, outages.spent
    );
    println!(
        "    {} kills in races of streams: the provider counted {} micro-USD, never more than the budget; {} of \
         them were settled, {} more were unknown and came to {}; then nothing is held or missing",
        killed.kills, killed.counted, killed.settled, killed.unknown, killed.reconciled
    );
}
