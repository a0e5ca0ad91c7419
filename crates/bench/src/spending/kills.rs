use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use hyper::StatusCode;
use serde::Serialize;
use strongroom_proto::v1::Unit;
use tokio::time::{sleep, timeout};

use super::{
    Args,
    world::{COST, Caller, PAUSE, World},
};
use crate::kills::random;

/// What came of all kills, in micro-USD.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Killed {
    pub(crate) kills: usize,
    /// What the provider charges.
    pub(crate) counted: u64,
    /// What was settled of it when nothing was held any more,
    pub(crate) settled: u64,
    /// what may have been spent besides,
    pub(crate) unknown: u64,
    /// and what that came to, when it was reconciled.
    pub(crate) reconciled: u64,
}

/// A budget during which somebody was killed.
struct Race {
    key: String,
    budget: String,
    counted: u64,
}

/// Kills proxies and brokers, one after the other, while callers read streams and race for a budget; each
/// time another key and another budget.
pub(crate) async fn kill_all(args: &Args, world: &mut World) -> anyhow::Result<Killed> {
    let mut races = VecDeque::new();
    let places = args.proxies + world.brokers();
    let mut killed = Killed { kills: args.kills, ..Killed::default() };
    for number in 0..args.kills {
        races.push_back(race(args, world, number, number % places).await?);
        if races.len() > MOST_OPEN
            && let Some(race) = races.pop_front()
        {
            killed.close(args, world, race).await?;
        }
        if (number + 1) % 10 == 0 {
            world.note(&format!("{} of {} killed", number + 1, args.kills));
        }
    }
    for race in races {
        killed.close(args, world, race).await?;
    }
    let lost = args.kills == 0 || killed.reconciled > 0;
    ensure!(lost, "no call was lost with a proxy: the check is worthless");
    Ok(killed)
}

impl Killed {
    /// Compares what is known of a race with what was charged, and reconciles it.
    async fn close(&mut self, args: &Args, world: &World, race: Race) -> anyhow::Result<()> {
        let Race { key, budget, counted } = race;
        let cap = args.cap * COST;
        // The allowances end with their key; what was lost is unknown then.
        let account = world.at_rest(&budget).await?;
        let (spent, unknown) = (account.spent, account.unknown);
        ensure!(counted <= cap, "{counted} were charged of {cap}");
        ensure!(spent <= counted, "{counted} were charged, and {account:?} is known");
        ensure!(counted <= spent + unknown, "{counted} were charged, and {account:?} says less");
        ensure!(spent + unknown <= cap && account.overrun == 0, "{account:?} is beyond {cap}");
        world.reconcile(&key, counted - spent).await?;
        let account = world.at_rest(&budget).await?;
        let known = (account.spent, account.unknown, account.overrun);
        ensure!(known == (counted, 0, 0), "{counted} were charged, and {account:?} is known");
        self.counted += counted;
        self.settled += spent;
        self.unknown += unknown;
        self.reconciled += counted - spent;
        world.delete(budget).await
    }
}

async fn race(args: &Args, world: &mut World, number: usize, place: usize) -> anyhow::Result<Race> {
    let group = format!("kill-{number}");
    let lasts = Duration::from_secs(args.key_lasts);
    let caller = world.caller(&group, Some(lasts)).await?.streaming();
    let key = caller.name.clone();
    let cap = args.cap * COST;
    let budget = world.budget(&group, &group, (Unit::MicroUsd, cap), None).await?;
    let before = world.counted();
    let over = Arc::new(AtomicBool::new(false));
    let race = world.call_until_refused(&caller, args.callers, Some(&over));
    let kill = async {
        serves(world, &caller, place % args.proxies).await?;
        sleep(random(LONGEST_LIFE)?).await;
        // Its callers learn only afterwards that it is over: it dies with its hands full.
        world.kill(place)?;
        over.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    tokio::join!(race, kill).1?;
    world.restart(place).await?;
    // Nobody has more than what is left.
    world.call_until_refused(&caller, args.callers, None).await;
    Ok(Race { key, budget, counted: (world.counted() - before) * COST })
}

/// Waits until a proxy serves this caller, or would if there were room.
async fn serves(world: &World, caller: &Caller, number: usize) -> anyhow::Result<()> {
    let proxy = world.proxies.get(number).context("there is no such proxy")?;
    let served = async {
        let answers = |status: StatusCode| status.is_success() || status.is_client_error();
        while !caller.call(&proxy.address).await.is_ok_and(answers) {
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, served).await.context("a proxy does not serve")
}

/// Of those before, the allowances have mostly ended; a tenant has 100 budgets at the most.
const MOST_OPEN: usize = 20;
/// Some time in the life of a race.
const LONGEST_LIFE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);
