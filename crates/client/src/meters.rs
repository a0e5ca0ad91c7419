use metrics::{Counter, Gauge, counter, gauge};

/// The cache's counters, looked up once: the warm path only adds.
pub(crate) struct Meters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) refusals: Counter,
    pub(crate) outages: Counter,
    pub(crate) renewals: Counter,
    pub(crate) renewals_failed: Counter,
    pub(crate) revoked: Counter,
    pub(crate) overtaken: Counter,
    pub(crate) streams_lost: Counter,
    pub(crate) watching: Gauge,
}

impl Meters {
    /// Handles of the recorder that is installed now.
    pub(crate) fn new() -> Self {
        let asked = |outcome| counter!("strongroom_client_leases_total", "outcome" => outcome);
        let renewed = |outcome| counter!("strongroom_client_renewals_total", "outcome" => outcome);
        Self {
            hits: asked("hit"),
            misses: asked("miss"),
            refusals: asked("refused"),
            outages: asked("unavailable"),
            renewals: renewed("renewed"),
            renewals_failed: renewed("failed"),
            revoked: counter!("strongroom_client_leases_revoked_total"),
            overtaken: counter!("strongroom_client_leases_overtaken_total"),
            streams_lost: counter!("strongroom_client_revocation_streams_lost_total"),
            watching: gauge!("strongroom_client_revocation_stream_live"),
        }
    }
}
