use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use domain::{Clock as _, SystemClock};
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Args,
    world::{Caller, PAUSE, World},
};

/// What was spent while the database came and went.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outages {
    pub(crate) count: usize,
    pub(crate) spent: u64,
}

/// Takes the database away from under callers, and gives it back.
pub(crate) async fn interrupt_all(args: &Args, world: &World) -> anyhow::Result<Outages> {
    let Some(gate) = world.gate.as_ref().filter(|_| args.outages > 0) else {
        return Ok(Outages::default());
    };
    let caller = world.caller("outages", None).await?;
    let cap = args.cap * 1000;
    let budget = world.budget("outages", cap, None).await?;
    let (before, over) = (world.charged()?, Arc::new(AtomicBool::new(false)));
    let mut callers = JoinSet::new();
    for (_, proxy) in (0..args.callers).zip(world.proxies.iter().cycle()) {
        let (caller, proxy, over) = (caller.clone(), proxy.address.clone(), Arc::clone(&over));
        callers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let served = caller.call(&proxy).await;
                if !served.is_ok_and(|status| status.is_success()) {
                    sleep(PAUSE).await;
                }
            }
        });
    }
    let mut refused = false;
    for number in 0..args.outages {
        all_serve(world, &caller).await?;
        gate.shut();
        sleep(OUTAGE).await;
        refused |= !caller.call(&first(world)).await.is_ok_and(|status| status.is_success());
        gate.open();
        world.note(&format!("outage {} of {}", number + 1, args.outages));
    }
    all_serve(world, &caller).await?;
    over.store(true, Ordering::Relaxed);
    callers.join_all().await;
    ensure!(refused, "nothing was refused while the database was away: the check is worthless");
    let account = world.at_rest(&budget).await?;
    let charged = world.charged()? - before;
    ensure!(account.spent == charged, "{charged} were charged, and {account:?} is known");
    ensure!((account.unknown, account.overrun) == (0, 0), "{account:?} after outages");
    Ok(Outages { count: args.outages, spent: charged })
}

/// Waits until each proxy serves.
async fn all_serve(world: &World, caller: &Caller) -> anyhow::Result<()> {
    let began = SystemClock.elapsed();
    for proxy in &world.proxies {
        while !caller.call(&proxy.address).await.is_ok_and(|status| status.is_success()) {
            let waited = SystemClock.elapsed().saturating_sub(began);
            ensure!(waited < PATIENCE, "a proxy does not serve although the database is there");
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

fn first(world: &World) -> String {
    world.proxies.first().map(|proxy| proxy.address.clone()).unwrap_or_default()
}

/// Long enough to use up the slices at hand.
const OUTAGE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_mins(1);
