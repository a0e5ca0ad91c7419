use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Telemetry, set up. Dropping it sends what traces are still held back.
#[derive(Clone)]
#[must_use = "traces still held back are sent when this is dropped, so keep it to the end of main"]
pub struct Guard {
    pub(crate) metrics: PrometheusHandle,
    pub(crate) tracer: SdkTracerProvider,
}

impl Guard {
    /// What the operations listener renders.
    pub fn metrics(&self) -> PrometheusHandle {
        self.metrics.clone()
    }

    /// Sends the traces still held back, without keeping the runtime's thread from other work.
    pub async fn flush(&self) {
        let tracer = self.tracer.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || tracer.force_flush()).await {
            tracing::warn!(%error, "traces were not all sent");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The exporter needs a thread of the runtime, so blocking the only one would wait for itself.
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::CurrentThread) => {}
            Ok(_) => tokio::task::block_in_place(|| drop(self.tracer.force_flush())),
            Err(_) => drop(self.tracer.force_flush()),
        }
    }
}

/// How long sending a batch may take.
pub(crate) const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
