use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Args,
    world::{PAUSE, World},
};
use crate::kills::random;

/// What came of all kills, in micro-USD.
#[derive(Debug, Serialize)]
pub(crate) struct Killed {
    pub(crate) kills: usize,
    /// What the provider charges.
    pub(crate) counted: u64,
    pub(crate) spent: u64,
    pub(crate) unknown: u64,
}

/// Kills proxies that hold slices, one after the other, while they serve.
pub(crate) async fn kill_all(args: &Args, world: &mut World) -> anyhow::Result<Killed> {
    let cap = args.cap * 1000;
    let budget = world.budget("kills", cap, None).await?;
    let before = world.charged()?;
    for number in 0..args.kills {
        kill(args, world, number % args.proxies).await?;
        if (number + 1) % 10 == 0 {
            world.note(&format!("{} of {} proxies killed", number + 1, args.kills));
        }
    }
    // The allowances end with their keys; what was lost with the proxies is unknown then.
    let account = world.at_rest(&budget).await?;
    let (counted, spent, unknown) = (world.charged()? - before, account.spent, account.unknown);
    let killed = Killed { kills: args.kills, counted, spent, unknown };
    ensure!(spent <= counted, "{killed:?}: more was settled than was charged");
    ensure!(counted <= spent + unknown, "{killed:?}: charges are neither known nor unknown");
    ensure!(spent + unknown <= cap && account.overrun == 0, "{killed:?}: beyond the budget");
    ensure!(args.kills == 0 || unknown > 0, "no slice was lost: the check is worthless");
    Ok(killed)
}

async fn kill(args: &Args, world: &mut World, number: usize) -> anyhow::Result<()> {
    let caller = world.caller("kills", Some(KEY_LASTS)).await?;
    let over = Arc::new(AtomicBool::new(false));
    let (count, mut first) = watch::channel(0_u64);
    let mut callers = JoinSet::new();
    for (turn, proxy) in (0..args.callers).zip(world.proxies.iter().cycle()) {
        let (caller, proxy, over) = (caller.clone(), proxy.address.clone(), Arc::clone(&over));
        let count = (turn % args.proxies == number).then(|| count.clone());
        callers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                match (caller.call(&proxy).await, &count) {
                    (Ok(status), Some(count)) if status.is_success() => {
                        count.send_modify(|count| *count += 1);
                    }
                    (Ok(status), _) if status.is_success() => {}
                    (Ok(_) | Err(_), _) => sleep(PAUSE).await,
                }
            }
        });
    }
    let serves = timeout(PATIENCE, first.wait_for(|count| *count > 0)).await;
    drop(serves.context("a proxy does not serve")??);
    sleep(random(LONGEST_LIFE)?).await;
    let proxy = world.proxies.get_mut(number).context("there is no such proxy")?;
    // Its callers learn only afterwards that it is over: it dies with its hands full.
    proxy.kill()?;
    over.store(true, Ordering::Relaxed);
    proxy.gone().await?;
    callers.join_all().await;
    let brokers = world.deployment.fleet.brokers.len();
    let started = world.deployment.fleet.proxy(number % brokers).await?;
    *world.proxies.get_mut(number).context("there is no such proxy")? = started;
    Ok(())
}

const LONGEST_LIFE: Duration = Duration::from_millis(700);
/// Longer than a proxy needs to start and be killed on a busy machine.
const KEY_LASTS: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(25);
