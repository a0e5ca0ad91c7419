use std::{sync::OnceLock, time::Duration};

use domain::{Failure, ProviderId, Source};
use http::StatusCode;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::route::Operation;

/// The counters of one credential's provider and source, looked up once: the warm path only adds.
#[derive(Debug)]
pub(crate) struct Series {
    provider: String,
    source: Source,
    /// By operation, for the status that nearly all answers have.
    ok: [OnceLock<Counter>; Operation::COUNT],
    seconds: [OnceLock<Histogram>; Operation::COUNT],
    first_byte: [OnceLock<Histogram>; Operation::COUNT],
}

impl Series {
    pub(crate) fn new(provider: &ProviderId, source: Source) -> Self {
        Self {
            provider: provider.to_string(),
            source,
            ok: Default::default(),
            seconds: Default::default(),
            first_byte: Default::default(),
        }
    }

    /// An answer has begun.
    pub(crate) fn answered(&self, operation: Operation, status: StatusCode, after: Duration) {
        let labels = || self.labels(operation);
        if status == StatusCode::OK {
            if let Some(ok) = self.ok.get(operation.index()) {
                ok.get_or_init(|| self.count(operation, status)).increment(1);
            }
        } else {
            self.count(operation, status).increment(1);
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

    fn labels(&self, operation: Operation) -> [(&'static str, String); 3] {
        [
            ("route", operation.as_str().to_owned()),
            ("provider", self.provider.clone()),
            ("source", self.source.as_str().to_owned()),
        ]
    }

    fn count(&self, operation: Operation, status: StatusCode) -> Counter {
        requests(operation, &self.provider, self.source.as_str(), status)
    }
}

/// A call that ended before any lease was chosen.
pub(crate) fn refused(operation: Operation, status: StatusCode) {
    requests(operation, "none", "none", status).increment(1);
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
    provider: &str,
    source: &'static str,
    status: StatusCode,
) -> Counter {
    counter!(
        "strongroom_proxy_requests_total",
        "route" => operation.as_str(),
        "provider" => provider.to_owned(),
        "source" => source,
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
