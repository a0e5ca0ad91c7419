use std::{sync::OnceLock, time::Duration};

use domain::{Because, Cost, Failure, ProviderId, Source, Tokens};
use http::StatusCode;
use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};
use strongroom_proto::v1::usage_record::Outcome;

use crate::route::Operation;

/// The counters of one credential's provider and source, looked up once: the warm path only adds.
#[derive(Debug)]
pub(crate) struct Series {
    provider: String,
    source: Source,
    /// By operation and reason, for the status that nearly all answers have.
    ok: [[OnceLock<Counter>; REASONS]; Operation::COUNT],
    seconds: [OnceLock<Histogram>; Operation::COUNT],
    first_byte: [OnceLock<Histogram>; Operation::COUNT],
    /// By outcome, and by whether the usage is known.
    metered: [OnceLock<Metered>; 2 * OUTCOMES],
}

/// The counters of calls that ended in one way.
#[derive(Debug)]
struct Metered {
    calls: Counter,
    tokens: [Counter; KINDS.len()],
    cost: Counter,
}

/// Why a credential was chosen. What metrics have of it is one of a few words, whatever the broker says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason(usize);

impl Reason {
    /// Of `fallback.rate_limited` only the first word counts: `strongroom_proxy_fallbacks_total` has the
    /// other.
    pub(crate) fn of(because: &str) -> Self {
        let word = because.split('.').next().unwrap_or_default();
        let at = Because::ALL.iter().position(|known| known.as_str() == word);
        Self(at.unwrap_or(Because::ALL.len()))
    }

    fn as_str(self) -> &'static str {
        Because::ALL.get(self.0).map_or("other", |because| because.as_str())
    }
}

/// The known ones, and any other.
const REASONS: usize = Because::ALL.len() + 1;

/// Kinds of tokens in metrics. Sound is counted with the rest.
const KINDS: [&str; 5] = ["input", "cache_read", "cache_write", "output", "reasoning"];

/// The outcomes of the contract, and the unspecified one.
const OUTCOMES: usize = 7;

impl Series {
    pub(crate) fn new(provider: &ProviderId, source: Source) -> Self {
        Self {
            provider: provider.to_string(),
            source,
            ok: Default::default(),
            seconds: Default::default(),
            first_byte: Default::default(),
            metered: Default::default(),
        }
    }

    /// An answer has begun.
    pub(crate) fn answered(
        &self,
        operation: Operation,
        reason: Reason,
        status: StatusCode,
        after: Duration,
    ) {
        let labels = || self.labels(operation);
        if status == StatusCode::OK {
            if let Some(ok) = self.ok.get(operation.index()).and_then(|ok| ok.get(reason.0)) {
                ok.get_or_init(|| self.count(operation, reason, status)).increment(1);
            }
        } else {
            self.count(operation, reason, status).increment(1);
        }
        if let Some(first_byte) = self.first_byte.get(operation.index()) {
            let name = "strongroom_proxy_first_byte_seconds";
            first_byte.get_or_init(|| histogram!(name, &labels())).record(after.as_secs_f64());
        }
    }

    /// An answer is over, whole or not.
    pub(crate) fn ended(&self, operation: Operation, after: Duration) {
        if let Some(seconds) = self.seconds.get(operation.index()) {
            let name = "strongroom_proxy_request_seconds";
            seconds
                .get_or_init(|| histogram!(name, &self.labels(operation)))
                .record(after.as_secs_f64());
        }
    }

    /// A call is over, and this is what is known of what it took.
    pub(crate) fn metered(&self, outcome: Outcome, known: bool, tokens: &Tokens, cost: Cost) {
        let at = usize::try_from(i32::from(outcome)).unwrap_or(0) * 2 + usize::from(known);
        let Some(metered) = self.metered.get(at) else { return };
        let metered = metered.get_or_init(|| self.metered_counters(outcome, known));
        metered.calls.increment(1);
        let counts = [
            tokens.input.saturating_add(tokens.audio_input),
            tokens.cache_read,
            tokens.cache_write_5m.saturating_add(tokens.cache_write_1h),
            tokens.output.saturating_add(tokens.audio_output),
            tokens.reasoning,
        ];
        for (counter, count) in metered.tokens.iter().zip(counts).filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
        let nanos = u64::try_from(cost.picos() / 1000).unwrap_or(u64::MAX);
        if nanos > 0 {
            metered.cost.increment(nanos);
        }
    }

    fn metered_counters(&self, outcome: Outcome, known: bool) -> Metered {
        let outcome = outcome.as_str_name().to_ascii_lowercase();
        let labels = |more: &[(&'static str, &'static str)]| {
            let mut labels = vec![
                Label::new("provider", self.provider.clone()),
                Label::new("source", self.source.as_str()),
                Label::new("outcome", outcome.clone()),
            ];
            labels.extend(more.iter().map(|(name, value)| Label::new(*name, *value)));
            labels
        };
        let usage = if known { "known" } else { "unknown" };
        Metered {
            calls: counter!("strongroom_proxy_metered_calls_total", labels(&[("usage", usage)])),
            tokens: KINDS
                .map(|kind| counter!("strongroom_proxy_tokens_total", labels(&[("kind", kind)]))),
            cost: counter!("strongroom_proxy_cost_nano_usd_total", labels(&[])),
        }
    }

    fn labels(&self, operation: Operation) -> [(&'static str, String); 3] {
        [
            ("route", operation.as_str().to_owned()),
            ("provider", self.provider.clone()),
            ("source", self.source.as_str().to_owned()),
        ]
    }

    fn count(&self, operation: Operation, reason: Reason, status: StatusCode) -> Counter {
        requests(operation, (&self.provider, self.source.as_str()), reason.as_str(), status)
    }
}

/// A call that ended in an error of this gateway's own, and with which provider and whose credential if
/// they had been chosen.
pub(crate) fn refused(
    operation: Operation,
    chosen: Option<(&ProviderId, Source)>,
    code: &'static str,
    status: StatusCode,
) {
    let chosen = chosen.map(|(provider, source)| (provider.as_str(), source.as_str()));
    requests(operation, chosen.unwrap_or(("none", "none")), code, status).increment(1);
}

/// An attempt failed, and another credential takes over.
pub(crate) fn fell_back(provider: &ProviderId, failure: Failure) {
    counter!(
        "strongroom_proxy_fallbacks_total",
        "provider" => provider.to_string(),
        "failure" => failure.as_str(),
    )
    .increment(1);
}

fn requests(
    operation: Operation,
    (provider, source): (&str, &'static str),
    reason: &'static str,
    status: StatusCode,
) -> Counter {
    counter!(
        "strongroom_proxy_requests_total",
        "route" => operation.as_str(),
        "provider" => provider.to_owned(),
        "source" => source,
        "reason" => reason,
        "status" => status.as_str().to_owned(),
    )
}

/// The counters of the process as a whole.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) connections: Gauge,
    pub(crate) shed: Counter,
    /// Answers that held the leased secret and were stopped. Each one is an incident.
    pub(crate) leaks: Counter,
    /// Answers that the provider did not finish.
    pub(crate) cut: Counter,
}

impl Meters {
    /// Handles of the recorder that is installed now.
    pub(crate) fn new() -> Self {
        Self {
            connections: gauge!("strongroom_proxy_connections"),
            shed: counter!("strongroom_proxy_shed_total"),
            leaks: counter!("strongroom_proxy_secret_in_answer_total"),
            cut: counter!("strongroom_proxy_streams_cut_total"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_counters() {
        let outcome = |at: usize| Outcome::try_from(i32::try_from(at).unwrap());
        assert!(outcome(OUTCOMES - 1).is_ok() && outcome(OUTCOMES).is_err());
    }

    #[test]
    fn metrics_have_few_words_for_why_whatever_the_broker_says() {
        for because in Because::ALL {
            assert_eq!(Reason::of(because.as_str()).as_str(), because.as_str());
        }
        assert_eq!(Reason::of("fallback.rate_limited").as_str(), "fallback");
        for word in ["", "vk_1234", "Detected", "detected-"] {
            assert_eq!(Reason::of(word).as_str(), "other");
        }
    }
}
