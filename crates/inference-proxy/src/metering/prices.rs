use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use domain::{Clock, Cost, ProviderId, Timestamp};
use metering::{
    BUILTIN_VERSION, Basis, DatedTable, NoPrice, PriceDocument, PriceTable, PriceTableError,
    Priced, Prices, Usage,
};
use tokio::time::timeout;

use crate::{Leases, Loan, LoanAccount};

/// The prices that calls have here: those of this build, and those that leases name, which are asked for
/// once each.
#[derive(Debug)]
pub(crate) struct PriceShelf {
    of_this_build: Arc<Prices>,
    /// By tenant and version: versions count a tenant's own changes, too.
    known: Mutex<HashMap<(String, String), Arc<Prices>>>,
    /// Held by whoever asks the broker.
    asking: tokio::sync::Mutex<()>,
    /// Until when nobody asks, for it has just failed: milliseconds on the clock's `elapsed`.
    rests_until: AtomicU64,
}

impl PriceShelf {
    pub(crate) fn new() -> Result<Self, PriceTableError> {
        let table = DatedTable { effective_time: None, table: PriceTable::builtin()? };
        let version = format!("0.{BUILTIN_VERSION}");
        let document = PriceDocument { version, tables: vec![table], terms: Vec::new() };
        Ok(Self {
            of_this_build: Arc::new(document.try_into()?),
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            rests_until: AtomicU64::new(0),
        })
    }

    /// The prices that a lease names; none when they are not at hand and cannot be had now. That is no
    /// I/O but once for each version.
    pub(crate) async fn of(
        &self,
        leases: &dyn Leases,
        loan: &dyn Loan,
        clock: &dyn Clock,
    ) -> Option<Arc<Prices>> {
        let LoanAccount { tenant, price_version, .. } = loan.account();
        if price_version.is_empty() || price_version == self.of_this_build.version() {
            return Some(Arc::clone(&self.of_this_build));
        }
        let key = (tenant.to_owned(), price_version.to_owned());
        if let Some(prices) = self.known().get(&key) {
            return Some(Arc::clone(prices));
        }
        let _asking = self.asking.lock().await;
        if let Some(prices) = self.known().get(&key) {
            return Some(Arc::clone(prices));
        }
        let now = millis(clock);
        if now < self.rests_until.load(Ordering::Relaxed) {
            return None;
        }
        let asked = timeout(ANSWERS_WITHIN, leases.prices(tenant)).await;
        let document = asked.ok().and_then(Result::ok);
        let prices = document.and_then(|document| read(&document));
        if prices.is_none() {
            tracing::warn!(version = price_version, "prices cannot be had; costs are unknown");
            self.rests_until.store(now.saturating_add(REST_MILLIS), Ordering::Relaxed);
        }
        let prices = Arc::new(prices?);
        let mut known = self.known();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        // What is in force by now has the tables of before as well, with their times.
        known.insert(key, Arc::clone(&prices));
        Some(prices)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Prices>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call came to under the first of these names of the model that has a price.
pub(crate) fn price(
    prices: Option<&Prices>,
    start: Timestamp,
    provider: &ProviderId,
    models: [&str; 2],
    usage: &Usage,
) -> Priced {
    let Some(view) = prices.map(|prices| prices.at(start)) else {
        return match usage.stated {
            Some(cost) => Priced::Known { cost, basis: Basis::Stated },
            None => Priced::Unknown { why: NoPrice::UnknownModel, at_least: Cost::ZERO },
        };
    };
    let [first, second] = models;
    let found = view.price(provider, first, usage);
    let is_known = matches!(found, Priced::Known { .. });
    if is_known || first == second || second.is_empty() {
        return found;
    }
    view.price(provider, second, usage)
}

fn read(document: &Bytes) -> Option<Prices> {
    let read = Prices::parse(document);
    read.inspect_err(|error| tracing::error!(%error, "the broker's prices cannot be used")).ok()
}

fn millis(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}

const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
const REST_MILLIS: u64 = 5_000;
const MOST_KNOWN: usize = 4096;
