use store::PostgresStore;

use crate::{
    lease::{
        Ran,
        record::{Backend, check},
    },
    process::{result, to_f64},
    table::{Rounds, note, print},
};

/// What committing in groups is worth.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A PostgreSQL database to measure as well, in a schema of its own.
    #[arg(long)]
    postgres: Option<String>,
    /// Records that are committed in groups in a round; a tenth of them is committed one by one.
    #[arg(long, default_value_t = 20_000)]
    records: u64,
    /// Records that wait at once.
    #[arg(long, default_value_t = 256)]
    concurrency: u64,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    #[arg(long)]
    json: bool,
}

/// Measures both once a round, in turn, and checks that what was committed is there.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("measured.db").display().to_string();
    let mut stores = vec![("SQLite", file, Backend::Sqlite)];
    if let Some(url) = &args.postgres {
        let url = PostgresStore::new_schema(url).await?;
        stores.push(("PostgreSQL", url, Backend::Postgres));
    }
    let (mut rounds, mut written) = (Rounds::default(), vec![0; stores.len()]);
    for round in 0..=args.rounds {
        note(&format!("round {round} of {}", args.rounds));
        for ((store, place, backend), written) in stores.iter().zip(&mut written) {
            let backend = backend.name();
            for (how, together, records) in
                [(GROUPED, "256", args.records), (ALONE, "1", args.records / 10)]
            {
                let (records, concurrency) = (records.to_string(), args.concurrency.to_string());
                let role = ["record", place, backend, "--together", together];
                let load = ["--calls", &records, "--concurrency", &concurrency];
                let ran: Ran = result(&[&role[..], &load].concat()).await?;
                *written += ran.calls;
                // The first round warms up.
                if round > 0 {
                    let rate = to_f64(ran.calls) / ran.seconds;
                    rounds.add(&format!("{how}, {store}"), RATE, rate);
                }
            }
        }
    }
    for ((store, place, backend), written) in stores.iter().zip(written) {
        check(place, *backend, written).await?;
        note(&format!("{store}: all {written} records are there, and a record less is noticed"));
    }
    let rate = |how: &str, store: &str| {
        rounds.median(&format!("{how}, {store}"), RATE).unwrap_or(f64::NAN)
    };
    let ratio = |(store, ..): &(&str, String, Backend)| {
        (format!("{GROUPED} / {ALONE}, {store}"), rate(GROUPED, store) / rate(ALONE, store))
    };
    print(&rounds.rows(), &stores.iter().map(ratio).collect::<Vec<_>>(), args.json);
    Ok(())
}

const GROUPED: &str = "in groups";
const ALONE: &str = "one by one";
const RATE: &str = "per second";
