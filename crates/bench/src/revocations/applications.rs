use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::Subject;
use crate::{
    calling::{HttpClient, call, chat_url, client},
    process::Server,
};

/// Applications that call proxies at a steady rate, most of all with what was revoked last or is
/// to be revoked next: with what is not called at all, nothing could be seen.
#[derive(Debug)]
pub(crate) struct Applications {
    pub(crate) counts: Arc<Counts>,
    client: HttpClient,
    proxies: Vec<String>,
    subjects: Arc<[Subject]>,
    calling: JoinSet<()>,
}

/// What the calls came to.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// How many subjects have been revoked.
    pub(crate) revoked: AtomicUsize,
    pub(crate) served: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// How they call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Calls per second, of all together.
    pub(crate) calls: u32,
    /// Of each proxy.
    pub(crate) applications: u32,
    /// How many subjects are called on after they were revoked.
    pub(crate) behind: usize,
}

struct Application {
    number: usize,
    proxy: String,
    pace: Pace,
    subjects: Arc<[Subject]>,
    counts: Arc<Counts>,
    client: HttpClient,
}

impl Applications {
    /// They do not call yet.
    pub(crate) fn new(proxies: &[Server], subjects: &Arc<[Subject]>) -> Self {
        let url = |proxy: &Server| chat_url(&proxy.address);
        Self {
            counts: Arc::default(),
            client: client(),
            proxies: proxies.iter().map(url).collect(),
            subjects: Arc::clone(subjects),
            calling: JoinSet::new(),
        }
    }

    /// Calls every proxy once with each of these subjects, and gives the numbers of those that were
    /// not served by all proxies.
    pub(crate) async fn sweep(&self, numbers: &[usize]) -> Vec<usize> {
        let at_all = |number: &usize| self.proxies.iter().zip(std::iter::repeat(*number));
        let calls = numbers.iter().flat_map(at_all).map(async |(proxy, number)| {
            let subject = self.subjects.get(number)?;
            let served = call(&self.client, proxy, &subject.key, BODY).await;
            (!served.is_ok_and(|status| status.is_success())).then_some(number)
        });
        let calls = stream::iter(calls).buffer_unordered(AT_ONCE);
        let mut refused = calls.filter_map(async |number| number).collect::<Vec<_>>().await;
        refused.sort_unstable();
        refused.dedup();
        refused
    }

    /// Lets them call until they are stopped.
    pub(crate) fn start(&mut self, pace: Pace) -> anyhow::Result<()> {
        let all = u32::try_from(self.proxies.len())? * pace.applications;
        let every = Duration::from_secs(1) * all / pace.calls.max(1);
        // One after the other at each proxy, so that each calls with every subject.
        for (number, proxy) in (0..all).zip(self.proxies.iter().cycle()) {
            let application = Application {
                number: usize::try_from(number)? / self.proxies.len(),
                proxy: proxy.clone(),
                pace,
                subjects: Arc::clone(&self.subjects),
                counts: Arc::clone(&self.counts),
                client: self.client.clone(),
            };
            // Not all at the same moment, or nothing would be seen between two such moments.
            self.calling.spawn(application.run(every * number / all, every));
        }
        Ok(())
    }

    pub(crate) async fn stop(&mut self) {
        self.calling.shutdown().await;
    }
}

impl Application {
    async fn run(self, after: Duration, every: Duration) {
        let mut ticks = interval_at(Instant::now() + after, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for call_number in self.number.. {
            ticks.tick().await;
            let Some(subject) = self.choose(call_number) else { continue };
            let count = match call(&self.client, &self.proxy, &subject.key, BODY).await {
                Ok(status) if status.is_success() => &self.counts.served,
                Ok(status) if status.is_client_error() => &self.counts.refused,
                Ok(_) | Err(_) => &self.counts.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Of eight calls, five are with what is about to be revoked or just was, two with what was
    /// revoked a while ago, and one with any.
    fn choose(&self, call: usize) -> Option<&Subject> {
        let (turn, all) = (call / 8, self.subjects.len());
        let next = self.counts.revoked.load(Ordering::Relaxed);
        let (places, turn) = match call % 8 {
            0 => (0..all, turn.wrapping_mul(PRIME)),
            kind @ (1 | 2) => (next.saturating_sub(self.pace.behind)..next, turn * 2 + kind),
            kind => (next.saturating_sub(NEAR)..(next + NEAR).min(all), turn * 5 + kind),
        };
        let places = self.subjects.get(places)?;
        places.get(turn.checked_rem(places.len())?)
    }
}

/// How many subjects get most of the calls, before they are revoked and after.
const NEAR: usize = 2;
const PRIME: usize = 7919;
const AT_ONCE: usize = 32;
const BODY: &[u8] =
    br#"{"messages":[{"role":"user","content":"Hello"}],"model":"gpt-4o-mini","stream":false}"#;
