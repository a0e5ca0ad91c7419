use std::{sync::Arc, time::Duration};

use domain::{Clock, Secret, Timestamp};

/// What a provider takes on calls, until it ends.
#[derive(Debug)]
pub struct Token {
    secret: Secret,
    expires_at: Timestamp,
    lifetime: Duration,
    /// When it ends and when the next one is to be had, on the clock that never goes back.
    ends: Duration,
    refresh: Duration,
    key_id: Option<String>,
}

/// When a token was asked for: its life is counted from before the request left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Timestamp,
    pub(crate) elapsed: Duration,
}

impl Asked {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { at: clock.now(), elapsed: clock.elapsed() }
    }
}

impl Token {
    pub(crate) fn new(secret: Secret, asked: Asked, lifetime: Duration) -> Self {
        let ends = asked.elapsed + lifetime;
        let refresh = ends.saturating_sub(lifetime.mul_f64(share_left_at_refresh()));
        let expires_at = asked.at + lifetime;
        Self { secret, expires_at, lifetime, ends, refresh, key_id: None }
    }

    /// The same with the name by which the provider deletes it.
    pub(crate) fn with_key_id(self, key_id: String) -> Self {
        Self { key_id: Some(key_id), ..self }
    }

    /// What goes on calls.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// When the provider stops taking it.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// How long the provider takes it, counted from when it was asked for.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// How long a lease of it may be: what is left of it, less a margin for clocks that differ and for
    /// calls on their way. Zero when it must not be lent any more.
    pub fn lendable_for(&self, clock: &dyn Clock) -> Duration {
        self.lendable_at(clock.elapsed())
    }

    pub(crate) fn lendable_at(&self, elapsed: Duration) -> Duration {
        let margin = MARGIN.min(self.lifetime / 4);
        self.ends.saturating_sub(margin).saturating_sub(elapsed)
    }

    pub(crate) fn is_aging(&self, elapsed: Duration) -> bool {
        elapsed >= self.refresh
    }

    pub(crate) fn ends(&self) -> Duration {
        self.ends
    }

    pub(crate) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }
}

/// A quarter to a third of a token's life is left when the next one is asked for. Brokers that got
/// theirs at the same moment do not ask at the same moment again.
fn share_left_at_refresh() -> f64 {
    let mut byte = [0];
    // Without randomness the tokens still serve; they are merely renewed together.
    let _ = getrandom::fill(&mut byte);
    let [byte] = byte;
    0.25 + f64::from(byte) / 256.0 / 12.0
}

const MARGIN: Duration = Duration::from_secs(30);

/// A token that several leases stand on; the last one to let go of it wipes it.
pub(crate) type Shared = Arc<Token>;
