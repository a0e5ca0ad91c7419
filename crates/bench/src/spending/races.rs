use std::time::Duration;

use anyhow::ensure;
use domain::{Clock as _, SystemClock};
use serde::Serialize;
use strongroom_proto::v1::Unit;

use super::{
    Args,
    world::{COST, World},
};

/// What was used of each race's budget, at the least and at the most, in calls.
#[derive(Debug, Serialize)]
pub(crate) struct Races {
    pub(crate) count: usize,
    pub(crate) least: u64,
    pub(crate) most: u64,
}

/// Lets callers at all proxies race for budgets, one after the other: of calls, and of what as many calls
/// cost.
pub(crate) async fn race_all(args: &Args, world: &World) -> anyhow::Result<Races> {
    let mut races = Races { count: args.races, least: 0, most: 0 };
    for number in 0..args.races {
        let unit = if number % 2 == 0 { (Unit::MicroUsd, COST) } else { (Unit::Requests, 1) };
        let used = race(args, world, number, unit).await?;
        world.note(&format!("race {} of {}: {used} calls", number + 1, args.races));
        races.least = if number == 0 { used } else { races.least.min(used) };
        races.most = races.most.max(used);
    }
    Ok(races)
}

async fn race(
    args: &Args,
    world: &World,
    number: usize,
    (unit, worth): (Unit, u64),
) -> anyhow::Result<u64> {
    let group = format!("race-{number}");
    let caller = world.caller(&group, None).await?;
    let cap = args.cap * worth;
    let budget = world.budget(&group, &group, (unit, cap), None).await?;
    let (before, began) = (world.counted(), SystemClock.elapsed());
    let mut served = world.call_until_refused(&caller, args.callers, None).await;
    // Who was refused while others held the rest may come back for it.
    let account = loop {
        let account = world.at_rest(&budget).await?;
        if account.spent * 100 >= cap * 99 {
            break account;
        }
        let waited = SystemClock.elapsed().saturating_sub(began);
        ensure!(waited < PATIENCE, "only {} of {cap} were usable", account.spent);
        served += world.call_until_refused(&caller, args.proxies, None).await;
    };
    let counted = world.counted() - before;
    ensure!(counted <= args.cap, "{counted} calls under a budget of {}", args.cap);
    ensure!(account.spent == counted * worth, "{counted} calls arrived, and {account:?} is known");
    ensure!(served == counted, "{served} calls were served, and {counted} arrived");
    ensure!((account.unknown, account.overrun) == (0, 0), "{account:?} after a race");
    world.delete(budget).await?;
    Ok(counted)
}

const PATIENCE: Duration = Duration::from_mins(1);
