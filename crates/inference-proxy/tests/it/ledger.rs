use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{Amounts, Unit};
use strongroom_client::{LeaseError, PurseKey, Till};
use strongroom_proto::v1::{
    self, Allowance, AllowanceRequest, LimitView, NotAccepted, Settlement, UsageRecord,
};
use tokio::sync::watch;

use crate::harness::Script;

/// One key's limits, as a broker that is not there would keep them: `spent + reserved <= cap`.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    caps: HashMap<Unit, u64>,
    granted: HashMap<Vec<u8>, Amounts>,
    told: HashMap<Vec<u8>, Settlement>,
    usage: Vec<UsageRecord>,
    draws: usize,
    is_away: bool,
    refuses_with: Option<(String, Option<Duration>)>,
    prices: Option<(String, Bytes)>,
    priced: usize,
}

impl Ledger {
    /// From now on the key has this limit.
    pub(crate) fn limit(&self, unit: Unit, cap: u64) {
        self.state().caps.insert(unit, cap);
    }

    /// How it refuses: the reason, and when there will be more.
    pub(crate) fn refuse_with(&self, reason: &str, retry_after: Option<Duration>) {
        self.state().refuses_with = Some((reason.to_owned(), retry_after));
    }

    /// Whether the broker can be asked.
    pub(crate) fn go_away(&self, is_away: bool) {
        self.state().is_away = is_away;
    }

    pub(crate) fn limited(&self) -> Vec<Unit> {
        self.state().caps.keys().copied().collect()
    }

    /// From now on leases name these prices.
    pub(crate) fn set_prices(&self, version: &str, document: &str) {
        let document = Bytes::copy_from_slice(document.as_bytes());
        self.state().prices = Some((version.to_owned(), document));
    }

    pub(crate) fn price_version(&self) -> String {
        self.state().prices.as_ref().map(|(version, _)| version.clone()).unwrap_or_default()
    }

    /// How often the prices were asked for.
    pub(crate) fn priced(&self) -> usize {
        self.state().priced
    }

    pub(crate) fn prices(&self, tenant: &str) -> Result<Bytes, LeaseError> {
        assert_eq!(tenant, "tenants/acme");
        let mut state = self.state();
        state.priced += 1;
        let unavailable = LeaseError::Unavailable { retry_after: Duration::from_secs(1) };
        let prices = state.prices.as_ref().filter(|_| !state.is_away);
        prices.map(|(_, document)| document.clone()).ok_or(unavailable)
    }

    pub(crate) fn draws(&self) -> usize {
        self.state().draws
    }

    /// What is held for calls to come or under way.
    pub(crate) fn reserved(&self, unit: Unit) -> u64 {
        self.state().reserved(unit)
    }

    pub(crate) fn spent(&self, unit: Unit) -> u64 {
        self.state().covered(unit)
    }

    /// Waits until this many records have arrived, and gives them all.
    pub(crate) async fn usage(&self, count: usize) -> Vec<UsageRecord> {
        self.until(|state| state.usage.len() >= count).await;
        self.state().usage.clone()
    }

    pub(crate) fn forget_usage(&self) {
        self.state().usage.clear();
    }

    /// Waits until nothing is reserved.
    pub(crate) async fn until_quiet(&self) {
        self.until(|state| Unit::ALL.into_iter().all(|unit| state.reserved(unit) == 0)).await;
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        let mut changes = self.changes.subscribe();
        let all = async {
            while !holds(&self.state()) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    }

    pub(crate) fn draw(&self, request: &AllowanceRequest) -> Result<Allowance, LeaseError> {
        let mut state = self.state();
        if state.is_away {
            return Err(LeaseError::Unavailable { retry_after: Duration::from_secs(1) });
        }
        state.draws += 1;
        let need = amounts(request.need.unwrap_or_default());
        let wanted = amounts(request.wanted.unwrap_or_default());
        let mut granted = Amounts::default();
        for (unit, cap) in &state.caps {
            let left = cap - state.covered(*unit) - state.reserved(*unit);
            if need.of(*unit) > left {
                return Err(state.refusal(*unit, *cap, left));
            }
            let size = wanted.of(*unit).min(left / 16).max(need.of(*unit));
            granted = granted.with(*unit, size);
        }
        let id = request.allowance_id.to_vec();
        state.granted.insert(id, granted);
        let limits = state.caps.iter().map(|(unit, cap)| LimitView {
            unit: wire(*unit).into(),
            cap: *cap,
            left: cap - state.covered(*unit) - state.reserved(*unit),
            renews_after: Duration::from_secs(30).try_into().ok(),
            budget: state.budget(),
            is_rate: state.budget().is_empty(),
        });
        Ok(Allowance {
            allowance_id: request.allowance_id.clone(),
            granted: Some(wire_amounts(&granted)),
            limited: state.caps.keys().map(|unit| wire(*unit).into()).collect(),
            ttl: Duration::from_mins(5).try_into().ok(),
            expire_time: None,
            limits: limits.collect(),
        })
    }

    pub(crate) fn settle(
        &self,
        settlements: &[Settlement],
        usage: &[UsageRecord],
    ) -> Result<Vec<NotAccepted>, LeaseError> {
        let mut state = self.state();
        if state.is_away {
            return Err(LeaseError::Unavailable { retry_after: Duration::from_secs(1) });
        }
        for settlement in settlements {
            let id = settlement.allowance_id.to_vec();
            let granted = *state.granted.get(&id).unwrap();
            let covered = amounts(settlement.covered.unwrap_or_default());
            let returned = amounts(settlement.returned.unwrap_or_default());
            assert!(covered.plus(&returned).is_within(&granted), "{settlement:?} of {granted:?}");
            let before = state.told.get(&id).map_or(0, |told| told.sequence);
            if settlement.sequence > before {
                state.told.insert(id, settlement.clone());
            }
        }
        state.usage.extend_from_slice(usage);
        drop(state);
        self.changes.send_modify(|change| *change += 1);
        Ok(Vec::new())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

#[async_trait]
impl Till for Script {
    async fn draw(&self, _: &PurseKey, request: AllowanceRequest) -> Result<Allowance, LeaseError> {
        self.till.draw(&request)
    }

    async fn settle(
        &self,
        settlements: &[Settlement],
        usage: &[UsageRecord],
    ) -> Result<Vec<NotAccepted>, LeaseError> {
        self.till.settle(settlements, usage)
    }
}

impl State {
    fn covered(&self, unit: Unit) -> u64 {
        let each =
            self.told.values().map(|told| amounts(told.covered.unwrap_or_default()).of(unit));
        each.sum()
    }

    fn reserved(&self, unit: Unit) -> u64 {
        let each = self.granted.iter().map(|(id, granted)| {
            let told = self.told.get(id);
            let of = |amount: Option<v1::Amounts>| amounts(amount.unwrap_or_default()).of(unit);
            let gone = told.map_or(0, |told| of(told.covered) + of(told.returned));
            granted.of(unit) - gone
        });
        each.sum()
    }

    /// Whose limits they are: none's where they are the key's own rate limits.
    fn budget(&self) -> String {
        let reason = self.refuses_with.as_ref().map(|(reason, _)| &**reason);
        let is_rate = reason == Some("RATE_LIMIT_REACHED");
        if is_rate { String::new() } else { "tenants/acme/budgets/all".to_owned() }
    }

    fn refusal(&self, unit: Unit, cap: u64, left: u64) -> LeaseError {
        let (reason, retry_after) =
            self.refuses_with.clone().unwrap_or_else(|| ("BUDGET_EXHAUSTED".to_owned(), None));
        LeaseError::Refused {
            code: tonic::Code::ResourceExhausted,
            reason,
            message: "words".to_owned(),
            metadata: HashMap::from([
                ("unit".to_owned(), unit.as_str().to_owned()),
                ("cap".to_owned(), cap.to_string()),
                ("left".to_owned(), left.to_string()),
                ("budget".to_owned(), self.budget()),
            ]),
            retry_after,
        }
    }
}

fn wire(unit: Unit) -> v1::Unit {
    match unit {
        Unit::Money => v1::Unit::MicroUsd,
        Unit::Requests => v1::Unit::Requests,
        Unit::InputTokens => v1::Unit::InputTokens,
        Unit::OutputTokens => v1::Unit::OutputTokens,
        Unit::Tokens => v1::Unit::Tokens,
        Unit::Concurrent => v1::Unit::Concurrent,
    }
}

fn amounts(wire: v1::Amounts) -> Amounts {
    Amounts::default()
        .with(Unit::Money, wire.micro_usd)
        .with(Unit::Requests, wire.requests)
        .with(Unit::InputTokens, wire.input_tokens)
        .with(Unit::OutputTokens, wire.output_tokens)
        .with(Unit::Tokens, wire.tokens)
        .with(Unit::Concurrent, wire.concurrent)
}

fn wire_amounts(amounts: &Amounts) -> v1::Amounts {
    v1::Amounts {
        micro_usd: amounts.of(Unit::Money),
        requests: amounts.of(Unit::Requests),
        input_tokens: amounts.of(Unit::InputTokens),
        output_tokens: amounts.of(Unit::OutputTokens),
        tokens: amounts.of(Unit::Tokens),
        concurrent: amounts.of(Unit::Concurrent),
    }
}
