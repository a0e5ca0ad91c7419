//! The `bench` binary: what a lease and a proxied call cost, each beside bare servers in the same
//! run, and how the log and its revocations do under load and when brokers are killed. Servers are
//! processes of their own, started from this binary.

mod brokers;
mod budget_race;
mod calling;
mod commits;
mod deployment;
mod fleet;
mod history;
mod kills;
mod lease;
mod process;
mod proxy;
mod quantiles;
mod revocations;
mod rewrap;
mod spending;
mod table;
mod verify;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

/// Measures the whole system; see `docs/benchmarks.md`.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// CPU per lease, and leases per second.
    Lease(lease::Args),
    /// CPU per proxied call, calls per second, and latency.
    Proxy(proxy::Args),
    /// Records per second, in groups and one by one.
    Commits(commits::Args),
    /// Leases per second with one broker and with several.
    Brokers(brokers::Args),
    /// How long what was revoked is still used.
    Revocations(revocations::Args),
    /// Whether a broker that is killed loses what it has lent.
    Kills(kills::Args),
    /// Whether callers that race for a budget spend more than it.
    BudgetRace(budget_race::Args),
    /// Whether new keys for everybody fail a lease or leave something behind.
    Rewrap(rewrap::Args),
    /// Whether budgets hold when proxies spend them: in races, when proxies are killed, when windows
    /// move on, and while the database is away.
    Spending(spending::Args),
    /// How long an auditor waits for the verification of a large export.
    Verify(verify::Args),
    /// A process that the others start.
    #[command(hide = true, subcommand)]
    Role(Role),
}

#[derive(Debug, Subcommand)]
enum Role {
    Empty(lease::empty::Args),
    Record(lease::record::Args),
    Clients(lease::clients::Args),
    Upstream,
    Bare(proxy::bare::Args),
    Load(proxy::load::Args),
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if cfg!(debug_assertions) && !matches!(args.command, Command::Role(_)) {
        table::note("this build is not optimized: its figures mean nothing");
    }
    Runtime::new()?.block_on(async {
        match args.command {
            Command::Lease(args) => lease::run(args).await,
            Command::Proxy(args) => proxy::run(args).await,
            Command::Commits(args) => commits::run(args).await,
            Command::Brokers(args) => brokers::run(args).await,
            Command::Revocations(args) => revocations::run(args).await,
            Command::Kills(args) => kills::run(args).await,
            Command::BudgetRace(args) => budget_race::run(args).await,
            Command::Rewrap(args) => rewrap::run(args).await,
            Command::Spending(args) => spending::run(args).await,
            Command::Verify(args) => verify::run(args).await,
            Command::Role(Role::Empty(args)) => lease::empty::run(args).await,
            Command::Role(Role::Record(args)) => lease::record::run(args).await,
            Command::Role(Role::Clients(args)) => lease::clients::run(args).await,
            Command::Role(Role::Upstream) => proxy::upstream::run().await,
            Command::Role(Role::Bare(args)) => proxy::bare::run(args).await,
            Command::Role(Role::Load(args)) => proxy::load::run(args).await,
        }
    })
}
