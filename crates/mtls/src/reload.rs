use std::{sync::Arc, time::Duration};

use crate::{
    LoadError,
    material::{Ends, Span},
};

/// What is loaded from files and can be loaded again while in use.
pub(crate) trait Reload: Send + Sync + 'static {
    fn reload(&self) -> Result<bool, LoadError>;

    /// When what is in use is over.
    fn ends(&self) -> Ends;
}

/// Looks at the files every so often, for as long as it is polled, and loads them when they changed.
/// A failure is logged once, not at every look; for as long as it lasts,
/// `strongroom_tls_reload_failing` is 1. When what is in use will be over is told at every look.
pub(crate) async fn watch<T: Reload>(tls: Arc<T>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut logged = String::new();
    loop {
        ticks.tick().await;
        let again = Arc::clone(&tls);
        // Reading blocks, and parsing a long revocation list takes a while.
        let Ok(outcome) = tokio::task::spawn_blocking(move || again.reload()).await else { return };
        metrics::gauge!("strongroom_tls_reload_failing").set(f64::from(u8::from(outcome.is_err())));
        tell(&tls.ends());
        match outcome {
            Ok(changed) => {
                if changed {
                    tracing::info!(
                        "certificates, authorities or revocation lists changed and are in use"
                    );
                }
                logged.clear();
            }
            Err(error) => {
                let text = describe(&error);
                if text != logged {
                    tracing::error!(error = text, "what changed cannot be used, keeping the last");
                    logged = text;
                }
            }
        }
    }
}

/// Both as a time and as how much that was from the beginning on: what is soon depends on it.
#[expect(clippy::cast_precision_loss, reason = "seconds of our time are exact in it")]
fn tell(ends: &Ends) {
    let seconds = |at: domain::Timestamp| at.as_millis() as f64 / 1000.0;
    let lifetime = |span: Span| seconds(span.ends) - seconds(span.begins);
    if let Some(span) = ends.certificate {
        metrics::gauge!("strongroom_tls_certificate_expires_seconds").set(seconds(span.ends));
        metrics::gauge!("strongroom_tls_certificate_lifetime_seconds").set(lifetime(span));
    }
    if let Some(span) = ends.revocation_list {
        metrics::gauge!("strongroom_tls_revocation_list_expires_seconds").set(seconds(span.ends));
        metrics::gauge!("strongroom_tls_revocation_list_lifetime_seconds").set(lifetime(span));
    }
}

fn describe(error: &LoadError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
