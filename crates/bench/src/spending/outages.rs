use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{bail, ensure};
use domain::{Clock as _, SystemClock};
use serde::Serialize;
use strongroom_proto::v1::Unit;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Args,
    world::{COST, Caller, PAUSE, World},
};

/// What was asked for while the database was away, and what was spent in all, in micro-USD.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outages {
    pub(crate) count: usize,
    /// Calls under a budget, when the slices at hand were used up: none is admitted.
    pub(crate) refused: usize,
    /// Calls that no budget covers: all are.
    pub(crate) served: usize,
    pub(crate) spent: u64,
}

/// Takes the database away from under callers, and gives it back.
pub(crate) async fn interrupt_all(args: &Args, world: &World) -> anyhow::Result<Outages> {
    let Some(database) = world.database.as_ref().filter(|_| args.outages > 0) else {
        return Ok(Outages::default());
    };
    let limited = world.caller("outages", None).await?;
    let cap = (Unit::MicroUsd, args.cap * COST * 1000);
    let budget = world.budget("outages", "outages", cap, None).await?;
    let (before, over) = (world.counted(), Arc::new(AtomicBool::new(false)));
    let mut callers = JoinSet::new();
    for (_, proxy) in (0..args.callers).zip(world.proxies.iter().cycle()) {
        let (caller, proxy, over) = (limited.clone(), proxy.address.clone(), Arc::clone(&over));
        callers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                if !caller.is_served(&proxy).await {
                    sleep(PAUSE).await;
                }
            }
        });
    }
    let mut outages = Outages { count: args.outages, ..Outages::default() };
    // Calls that no budget covers and that reached the provider.
    let mut uncovered = 0;
    for number in 0..args.outages {
        // Its leases are new: what is lent already goes on until it ends.
        let free = world.caller("free", None).await?;
        uncovered += until_all(world, &free, true).await?;
        until_all(world, &limited, true).await?;
        database.gate.shut();
        // The callers use up the slices at hand.
        until_all(world, &limited, false).await?;
        for proxy in world.proxies.iter().cycle().take(CALLS * world.proxies.len()) {
            let admitted = limited.is_served(&proxy.address).await;
            ensure!(!admitted, "a budgeted call was admitted while the database was away");
            ensure!(free.is_served(&proxy.address).await, "a call without a budget was refused");
        }
        outages.refused += CALLS * world.proxies.len();
        outages.served += CALLS * world.proxies.len();
        database.open();
        world.note(&format!("outage {} of {}", number + 1, args.outages));
    }
    until_all(world, &limited, true).await?;
    over.store(true, Ordering::Relaxed);
    callers.join_all().await;
    uncovered += u64::try_from(outages.served)?;
    let account = world.at_rest(&budget).await?;
    outages.spent = (world.counted() - before - uncovered) * COST;
    let known = (account.spent, account.unknown, account.overrun);
    ensure!(known == (outages.spent, 0, 0), "{outages:?} were charged, and {account:?} is known");
    Ok(outages)
}

/// Waits until each proxy serves this caller, or until none does; gives how often one did.
async fn until_all(world: &World, caller: &Caller, serve: bool) -> anyhow::Result<u64> {
    let began = SystemClock.elapsed();
    let mut served = 0;
    for proxy in &world.proxies {
        loop {
            let is_served = caller.is_served(&proxy.address).await;
            served += u64::from(is_served);
            if is_served == serve {
                break;
            }
            if SystemClock.elapsed().saturating_sub(began) > PATIENCE {
                bail!("after {PATIENCE:?} a proxy serves: {is_served}");
            }
            sleep(PAUSE).await;
        }
    }
    Ok(served)
}

/// At each proxy, in each outage.
const CALLS: usize = 5;
const PATIENCE: Duration = Duration::from_mins(1);
