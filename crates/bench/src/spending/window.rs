use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use serde::Serialize;
use strongroom_proto::v1::Unit;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Args,
    world::{COST, PAUSE, World},
};

/// What was charged under a budget of a rolling minute, in micro-USD.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Window {
    /// In the fullest minute, wherever it begins.
    pub(crate) fullest: u64,
    pub(crate) all: u64,
}

/// Lets callers take whatever a budget of a rolling minute gives, for some minutes. Another that never ends
/// counts along: what a window forgot that moves on under load would be missing there.
pub(crate) async fn watch(args: &Args, world: &World) -> anyhow::Result<Window> {
    if args.window == 0 {
        return Ok(Window::default());
    }
    world.note(&format!("{} s of a rolling minute", args.window));
    let caller = world.caller("minute", None).await?;
    let cap = args.cap * COST;
    world.budget("minute", "minute", (Unit::MicroUsd, cap), Some(MINUTE)).await?;
    let total = world.budget("minutes", "minute", (Unit::MicroUsd, cap * 1000), None).await?;
    let (before, over) = (world.arrivals().len(), Arc::new(AtomicBool::new(false)));
    let mut callers = JoinSet::new();
    for (_, proxy) in (0..args.callers).zip(world.proxies.iter().cycle()) {
        let (caller, proxy, over) = (caller.clone(), proxy.address.clone(), Arc::clone(&over));
        callers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                caller.call_until_refused(&proxy, None).await;
                sleep(PAUSE).await;
            }
        });
    }
    sleep(Duration::from_secs(args.window)).await;
    over.store(true, Ordering::Relaxed);
    callers.join_all().await;
    let arrivals = world.arrivals().split_off(before);
    let fullest = fullest_minute(&arrivals)?;
    let all = u64::try_from(arrivals.len())? * COST;
    ensure!(fullest <= cap, "{fullest} were charged in a minute, of {cap}");
    let account = world.at_rest(&total).await?;
    let known = (account.spent, account.unknown, account.overrun);
    ensure!(known == (all, 0, 0), "{all} were charged, and {account:?} is known");
    // What has been spent counts for a minute and a sixtieth of it, and is swept once a second.
    let windows = args.window.div_ceil(63);
    ensure!(all * 100 >= windows * cap * 98, "only {all} were usable in {windows} windows");
    // A window that forgot too early would be seen.
    let early = arrivals.iter().map(|at| *at * 9 / 10).collect::<Vec<_>>();
    let is_seen = windows < 2 || fullest_minute(&early)? > cap;
    ensure!(is_seen, "a window of 54 s would not be noticed: the check is worthless");
    Ok(Window { fullest, all })
}

/// The most that is charged from one call on for a minute.
fn fullest_minute(arrivals: &[Duration]) -> anyhow::Result<u64> {
    let within = |(first, at): (usize, &Duration)| {
        let rest = arrivals.get(first..).unwrap_or_default();
        rest.iter().take_while(|other| other.saturating_sub(*at) < MINUTE).count()
    };
    let most = arrivals.iter().enumerate().map(within).max().unwrap_or(0);
    Ok(u64::try_from(most)? * COST)
}

const MINUTE: Duration = Duration::from_mins(1);
