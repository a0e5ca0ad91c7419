use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use domain::{Clock as _, SystemClock};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::{
    applications::{Applications, Pace},
    subject::{How, Subject},
    upstream::Upstream,
};
use crate::{
    fleet::Fleet,
    history::Records,
    process::{Server, persist},
    quantiles::Quantiles,
    table::note,
};

mod applications;
mod subject;
pub(crate) mod upstream;

/// How long what was revoked is still used.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A `PostgreSQL` database; a schema is made in it. Without one there is one broker, on `SQLite`.
    #[arg(long)]
    postgres: Option<String>,
    #[arg(long, default_value_t = 3)]
    brokers: usize,
    #[arg(long, default_value_t = 4)]
    proxies: usize,
    /// How many are revoked: virtual keys, credentials, versions and tenants in turn.
    #[arg(long, default_value_t = 1000)]
    revocations: usize,
    /// Revocations per second.
    #[arg(long, default_value_t = 10)]
    pace: u32,
    /// Proxied calls per second.
    #[arg(long, default_value_t = 2000)]
    calls: u32,
    /// Applications that call each proxy.
    #[arg(long, default_value_t = 16)]
    applications: u32,
    /// Do not fail for what takes longer than the bound, only for what is used for ever: for
    /// machines on which anything may take long.
    #[arg(long)]
    untimed: bool,
    #[arg(long)]
    json: bool,
}

/// One revocation, by the clock that the upstream notes arrivals with.
#[derive(Debug)]
struct Revoked {
    how: How,
    sent: Duration,
    answered: Duration,
    /// When the secret arrived upstream.
    uses: Vec<Duration>,
}

/// What came of all of one kind.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    revocations: usize,
    /// How many were not used at all after the answer.
    unused: usize,
    after_answer: Quantiles,
    after_request: Quantiles,
    /// How long the call itself took.
    call: Quantiles,
    /// How far apart two uses were, in the second before the revocation.
    apart: Quantiles,
}

/// The stated bound.
const BOUND: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let upstream = Upstream::start((1, 1)).await?;
    let (fleet, proxies) = start(&args, folder.path(), &upstream).await?;
    note("making tenants, credentials and virtual keys");
    let subjects = Subject::make(&fleet.connect(0, "admin")?, args.revocations).await?;
    let mut applications = Applications::new(&proxies, &subjects);
    note("leasing all of them at every proxy");
    lend_all(&applications, &(0..subjects.len()).collect::<Vec<_>>()).await?;
    applications.start(Pace {
        calls: args.calls,
        applications: args.applications,
        // They are called for longer than the bound, or nothing beyond it could be seen.
        behind: usize::try_from(args.pace * 3 / 2)? + 1,
    })?;
    sleep(BOUND).await;
    let began = SystemClock.elapsed();
    let times = revoke_all(&args, &fleet, &subjects, &applications).await?;
    sleep(BOUND * 2).await;
    let took = SystemClock.elapsed().saturating_sub(began);
    applications.stop().await;
    let swept = silence(&applications, &subjects, &upstream).await?;
    let revoked = subjects.iter().zip(times).map(|(subject, (sent, answered))| {
        let uses = upstream.uses(&subject.secret);
        Revoked { how: subject.how, sent, answered, uses }
    });
    let revoked = revoked.collect::<Vec<_>>();
    let records = Records::of(&fleet).await?;
    let history = records.verify(&BTreeSet::new())?;
    records.control()?;
    note(&format!(
        "{took:.0?}; calls: {:?}; {} leases in the log, which verifies",
        applications.counts, history.report.leases
    ));
    judge(&args, &revoked, swept)
}

/// Calls every proxy with every subject until all are served, so that all are held everywhere.
async fn lend_all(applications: &Applications, numbers: &[usize]) -> anyhow::Result<()> {
    let began = SystemClock.elapsed();
    let mut refused = applications.sweep(numbers).await;
    while !refused.is_empty() {
        let waited = SystemClock.elapsed().saturating_sub(began);
        ensure!(waited < PATIENCE, "{} are not served: see what was said", refused.len());
        refused = applications.sweep(&refused).await;
    }
    Ok(())
}

/// Revokes one after the other, each at the next broker. Gives when each was sent and answered.
async fn revoke_all(
    args: &Args,
    fleet: &Fleet,
    subjects: &[Subject],
    applications: &Applications,
) -> anyhow::Result<Vec<(Duration, Duration)>> {
    let mut times = Vec::new();
    let mut ticks = interval(Duration::from_secs(1) / args.pace.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let admins = (0..fleet.brokers.len()).map(|broker| fleet.connect(broker, "admin"));
    let admins = admins.collect::<anyhow::Result<Vec<_>>>()?;
    for (subject, admin) in subjects.iter().zip(admins.iter().cycle()) {
        ticks.tick().await;
        let sent = SystemClock.elapsed();
        let revoked = persist(|| subject.revoke(admin)).await;
        revoked.with_context(|| format!("revoking a {:?}", subject.how))?;
        times.push((sent, SystemClock.elapsed()));
        let revoked = applications.counts.revoked.fetch_add(1, Ordering::Relaxed) + 1;
        if revoked.is_multiple_of(100) {
            note(&format!("{revoked} of {} revoked", args.revocations));
        }
    }
    Ok(times)
}

/// Calls every proxy with every subject until nothing arrives upstream that was revoked. Gives when
/// the last of these rounds began.
async fn silence(
    applications: &Applications,
    subjects: &Arc<[Subject]>,
    upstream: &Upstream,
) -> anyhow::Result<Duration> {
    let numbers = (0..subjects.len()).collect::<Vec<_>>();
    let revoked = || subjects.iter().filter(|subject| subject.how != How::Spared);
    let uses = || revoked().map(|subject| upstream.uses(&subject.secret).len()).sum::<usize>();
    let first = SystemClock.elapsed();
    loop {
        let (before, began) = (uses(), SystemClock.elapsed());
        applications.sweep(&numbers).await;
        if uses() == before {
            return Ok(began);
        }
        let waited = SystemClock.elapsed().saturating_sub(first);
        ensure!(waited < PATIENCE, "what was revoked is still used after {waited:?}");
    }
}

async fn start(
    args: &Args,
    folder: &Path,
    upstream: &Upstream,
) -> anyhow::Result<(Fleet, Vec<Server>)> {
    let url = args.postgres.as_deref();
    let brokers = if url.is_some() { args.brokers.max(1) } else { 1 };
    let fleet = Fleet::start(&folder.join("strongroom"), brokers, url, &upstream.address).await?;
    let mut proxies = Vec::new();
    for number in 0..args.proxies {
        proxies.push(fleet.proxy(number % brokers).await?);
    }
    Ok((fleet, proxies))
}

/// Prints the figures, and fails if they are beyond the bound or mean nothing. `swept` is when every
/// proxy was called with everything for the last time.
fn judge(args: &Args, all: &[Revoked], swept: Duration) -> anyhow::Result<()> {
    let (spared, revoked): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.how == How::Spared);
    let mut rows = vec![Row::of("all", revoked.iter().copied())];
    for how in How::REAL {
        let of_kind = revoked.iter().copied().filter(|revoked| revoked.how == how);
        rows.push(Row::of(&format!("{how:?}"), of_kind));
    }
    print(&rows, args.json);
    let seen = spared.iter().any(|one| one.uses.last().is_some_and(|last| *last > swept));
    ensure!(seen, "what was not revoked was not seen in use at last: the check is worthless");
    let unused = revoked.iter().filter(|one| one.uses.iter().all(|at| *at > one.sent)).count();
    ensure!(unused == 0, "{unused} were never used before they were revoked");
    if args.untimed {
        return Ok(());
    }
    let unseen = revoked.iter().filter(|revoked| revoked.recent().next().is_none()).count();
    ensure!(unseen == 0, "{unseen} were not in use when they were revoked: call more often");
    let latest = revoked.iter().filter_map(|one| one.used_for(one.answered)).max();
    let latest = latest.unwrap_or_default();
    ensure!(latest <= BOUND, "one was used {latest:?} after its revocation was answered");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is what the run is for")]
fn print(rows: &[Row], json: bool) {
    if json {
        println!("{}", serde_json::json!({ "rows": rows }));
        return;
    }
    for Row { what, revocations, unused, after_answer, after_request, call, apart } in rows {
        println!("{what}: {revocations} revoked, {unused} of them not used after the answer");
        println!("    last use after the answer:  {after_answer}");
        println!("    last use after the request: {after_request}");
        println!("    the call that revokes:      {call}");
        println!("    between two uses before:    {apart}");
    }
}

impl Row {
    fn of<'a>(what: &str, revoked: impl Iterator<Item = &'a Revoked> + Clone) -> Self {
        let used = |since: fn(&Revoked) -> Duration| {
            let times = revoked.clone().map(|one| one.used_for(since(one)).unwrap_or_default());
            Quantiles::of(times.collect())
        };
        Self {
            what: what.to_owned(),
            revocations: revoked.clone().count(),
            unused: revoked.clone().filter(|one| one.used_for(one.answered).is_none()).count(),
            after_answer: used(|one| one.answered),
            after_request: used(|one| one.sent),
            call: Quantiles::of(revoked.clone().map(Revoked::call).collect()),
            apart: Quantiles::of(revoked.flat_map(Revoked::apart).collect()),
        }
    }
}

impl Revoked {
    /// From a time to the last use, if there is one after it.
    fn used_for(&self, since: Duration) -> Option<Duration> {
        self.uses.last().and_then(|last| last.checked_sub(since)).filter(|after| !after.is_zero())
    }

    fn call(&self) -> Duration {
        self.answered.saturating_sub(self.sent)
    }

    /// The uses in the second before the revocation.
    fn recent(&self) -> impl Iterator<Item = Duration> + Clone {
        let recent = self.sent.saturating_sub(BOUND)..self.sent;
        self.uses.iter().copied().filter(move |at| recent.contains(at))
    }

    fn apart(&self) -> impl Iterator<Item = Duration> {
        self.recent().zip(self.recent().skip(1)).map(|(one, next)| next.saturating_sub(one))
    }
}

const PATIENCE: Duration = Duration::from_mins(1);
