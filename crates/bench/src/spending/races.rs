use anyhow::ensure;
use domain::{Clock as _, SystemClock};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{
    Args,
    world::{COST, World},
};

/// What was spent of each race's budget, at the least and at the most.
#[derive(Debug, Serialize)]
pub(crate) struct Races {
    pub(crate) count: usize,
    pub(crate) least: u64,
    pub(crate) most: u64,
}

/// Lets callers at all proxies race for budgets, one after the other.
pub(crate) async fn race_all(args: &Args, world: &World) -> anyhow::Result<Races> {
    let mut races = Races { count: args.races, least: u64::MAX, most: 0 };
    for number in 0..args.races {
        let spent = race(args, world, number).await?;
        world.note(&format!("race {} of {}: {spent} spent", number + 1, args.races));
        races.least = races.least.min(spent);
        races.most = races.most.max(spent);
    }
    Ok(races)
}

async fn race(args: &Args, world: &World, number: usize) -> anyhow::Result<u64> {
    let group = format!("race-{number}");
    let caller = world.caller(&group, None).await?;
    let budget = world.budget(&group, args.cap, None).await?;
    let (before, began) = (world.charged()?, SystemClock.elapsed());
    let mut callers = JoinSet::new();
    for (_, proxy) in (0..args.callers).zip(world.proxies.iter().cycle()) {
        let (caller, proxy) = (caller.clone(), proxy.address.clone());
        callers.spawn(async move { caller.call_until_refused(&proxy).await });
    }
    let mut served = callers.join_all().await.iter().sum::<u64>();
    // Who was refused while others held the rest may come back for it.
    let account = loop {
        let account = world.at_rest(&budget).await?;
        if account.spent * 100 >= args.cap * 99 {
            break account;
        }
        let waited = SystemClock.elapsed().saturating_sub(began);
        ensure!(waited < PATIENCE, "only {} of {} were usable", account.spent, args.cap);
        for proxy in &world.proxies {
            served += caller.call_until_refused(&proxy.address).await;
        }
    };
    let charged = world.charged()? - before;
    ensure!(charged <= args.cap, "{charged} were charged of {}", args.cap);
    ensure!(account.spent == charged, "{charged} were charged, and {account:?} is known");
    ensure!(served * COST == charged, "{served} calls were served, and {charged} charged");
    ensure!((account.unknown, account.overrun) == (0, 0), "{account:?} after a race");
    Ok(charged)
}

const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);
