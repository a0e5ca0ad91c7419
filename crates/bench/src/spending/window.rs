use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Args,
    world::{COST, PAUSE, World},
};

/// What was charged within a minute, in micro-USD.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Window {
    /// In the fullest minute, wherever it begins.
    pub(crate) fullest: u64,
    pub(crate) all: u64,
}

/// Lets callers take whatever a budget of a rolling minute gives, for some minutes.
pub(crate) async fn watch(args: &Args, world: &World) -> anyhow::Result<Window> {
    if args.window == 0 {
        return Ok(Window::default());
    }
    world.note(&format!("{} s of a rolling minute", args.window));
    let caller = world.caller("minute", None).await?;
    world.budget("minute", args.cap, Some(MINUTE)).await?;
    let (before, over) = (world.arrivals().len(), Arc::new(AtomicBool::new(false)));
    let mut callers = JoinSet::new();
    for (_, proxy) in (0..args.callers).zip(world.proxies.iter().cycle()) {
        let (caller, proxy, over) = (caller.clone(), proxy.address.clone(), Arc::clone(&over));
        callers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                caller.call_until_refused(&proxy).await;
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
    ensure!(fullest <= args.cap, "{fullest} were charged in a minute, of {}", args.cap);
    // What has been spent counts for a minute and a sixtieth of it, and is swept once a second.
    let windows = args.window.div_ceil(63);
    ensure!(all * 100 >= windows * args.cap * 98, "only {all} were usable in {windows} windows");
    // A window that forgot too early would be seen.
    let early = arrivals.iter().map(|at| *at * 9 / 10).collect::<Vec<_>>();
    let is_seen = windows < 2 || fullest_minute(&early)? > args.cap;
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
